//! Why something is not seen, for people.

use std::net::{IpAddr, Ipv6Addr};

use agent_monitor_common::event::{Uncovered, uncovered};

use crate::decode::text;
use crate::event::Address;

/// `AF_*` of include/linux/socket.h.
const AF_PACKET: u32 = 17;
const AF_VSOCK: u32 = 40;
const AF_XDP: u32 = 44;

pub fn reason(found: &Uncovered) -> String {
    let who = format!("{}[{}]", text::until_nul(&found.comm), found.header.tgid);
    match found.reason {
        uncovered::OUTSIDE => {
            format!("{who} has left the agent's cgroup: what it does on the network is not seen")
        }
        uncovered::SOCKET => format!(
            "{who} holds a {} socket{} that was not made in the agent: what it carries is not seen",
            transport(found.protocol),
            remote(found)
        ),
        uncovered::FAMILY => format!(
            "{who} holds a {}: what it carries is not seen",
            family(found.family)
        ),
        uncovered::TUN => format!(
            "{who} holds a TUN device: the connections of a network stack of its own are not seen"
        ),
        _ => format!(
            "{who} holds more descriptors than are looked at: sockets among them may not be seen"
        ),
    }
}

fn transport(protocol: u32) -> String {
    match protocol {
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        262 => "MPTCP".to_owned(),
        other => format!("protocol {other}"),
    }
}

fn family(family: u32) -> String {
    match family {
        AF_PACKET => "packet socket".to_owned(),
        AF_VSOCK => "vsock socket".to_owned(),
        AF_XDP => "XDP socket".to_owned(),
        other => format!("socket of address family {other}"),
    }
}

/// ` to ADDRESS`, for a socket that is connected.
fn remote(found: &Uncovered) -> String {
    let ip = IpAddr::V6(Ipv6Addr::from(found.remote.ip)).to_canonical();
    match u16::try_from(found.remote.port) {
        Ok(port) if port != 0 => format!(" to {}", Address { ip, port }),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_names_who_and_what() {
        let mut found = Uncovered::default();
        found.header.tgid = 5;
        found.comm[..4].copy_from_slice(b"curl");
        found.remote.ip = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 5];
        found.remote.port = 3333;
        found.protocol = 6;
        found.reason = uncovered::SOCKET;
        assert_eq!(
            reason(&found),
            "curl[5] holds a TCP socket to 203.0.113.5:3333 that was not made in the agent: \
             what it carries is not seen"
        );
        found.reason = uncovered::FAMILY;
        found.family = AF_PACKET;
        assert_eq!(
            reason(&found),
            "curl[5] holds a packet socket: what it carries is not seen"
        );
    }
}
