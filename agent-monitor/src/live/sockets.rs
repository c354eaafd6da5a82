//! Sockets from before the watch: whose they are, and which connections are open.

use agent_monitor_common::event::{Endpoint, FlowId, Found, Header, direction};
use agent_monitor_common::policy::Owner;
use std::net::{IpAddr, SocketAddr};

use super::*;
use crate::enrich::sockets::{self, Role, Socket};

/// Sockets of an agent that are looked at; each takes some microseconds.
const MAX_SOCKETS: usize = 16_384;
/// include/uapi/linux/in.h.
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;

/// A process of an agent from before the watch.
pub(super) struct Holder {
    /// The process.
    pub process: ProcessKey,
    /// The cgroup it is in.
    pub cgroup: u64,
}

impl Live {
    /// Tells the kernel whose an agent's sockets are, and of its open connections.
    ///
    /// Network programs are attached by now, so a socket is either seen being made
    /// or found here, and perhaps both: then the kernel's own knowledge stays.
    ///
    /// # Errors
    /// A recording cannot be written.
    pub(super) fn take_over_sockets(
        &mut self,
        agent: u64,
        mut holders: Vec<Holder>,
        out: &mut Vec<Event>,
    ) -> Result<()> {
        // Several processes can hold one socket: the oldest is likeliest to have made it.
        holders.sort_by_key(|holder| holder.process.start);
        let mut found: BTreeMap<u64, (Socket, usize)> = BTreeMap::new();
        let mut left = MAX_SOCKETS;
        for (index, holder) in holders.iter().enumerate() {
            let (sockets, all) = sockets::of_process(holder.process.pid, left);
            left -= sockets.len().min(left);
            for socket in sockets {
                found.entry(socket.cookie).or_insert((socket, index));
            }
            if !all {
                tracing::warn!(
                    pid = holder.process.pid,
                    "too many sockets: the owners of some are not known"
                );
                self.no_room(agent);
                break;
            }
        }
        let listened: HashSet<u16> = found
            .values()
            .filter(|(socket, _)| socket.role == Role::Listener)
            .map(|(socket, _)| socket.local.port())
            .collect();
        for (cookie, (socket, holder)) in found {
            let holder = &holders[holder];
            let owner = Owner {
                start: holder.process.start_ns(),
                tgid: holder.process.pid,
                pad: 0,
            };
            if let Err(error) = self.kernel.own(cookie, owner) {
                tracing::error!(pid = owner.tgid, "{error:#}");
                self.no_room(agent);
            }
            if let Role::Connected(remote) = socket.role {
                let inbound = listened.contains(&socket.local.port());
                let record = record(agent, holder, &socket, remote, inbound);
                let bytes = Bytes::copy_from_slice(bytemuck::bytes_of(&record));
                self.pass(agent, bytes, out)?;
            }
        }
        Ok(())
    }
}

fn record(
    agent: u64,
    holder: &Holder,
    socket: &Socket,
    remote: SocketAddr,
    inbound: bool,
) -> Found {
    Found {
        header: Header {
            kind: kind::FOUND,
            len: size_of::<Found>() as u32,
            time: boot_time(),
            agent,
            cgroup: holder.cgroup,
            start: holder.process.start_ns(),
            tgid: holder.process.pid,
            tid: 0,
        },
        flow: FlowId {
            cookie: socket.cookie,
            generation: 0,
        },
        local: endpoint(socket.local),
        remote: endpoint(remote),
        protocol: if socket.is_tcp {
            IPPROTO_TCP
        } else {
            IPPROTO_UDP
        },
        direction: if inbound {
            direction::IN
        } else {
            direction::OUT
        },
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    Endpoint {
        ip: ip.octets(),
        port: address.port().into(),
        pad: 0,
    }
}
