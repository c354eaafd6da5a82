//! Records about a socket before any peer, and the ends of connections.

use std::borrow::Cow;

use agent_monitor_common::event as wire;
use agent_monitor_common::event::FlowId;

use super::{Body, Error, address, fixed};
use crate::event::{Address, Outcome, Transport};

/// include/uapi/linux/in.h.
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
/// include/linux/net.h.
const SOCK_RAW: u32 = 3;

/// See [`wire::Socket`].
#[derive(Clone, Debug, PartialEq)]
pub struct Socket {
    /// Its first flow.
    pub flow: FlowId,
    /// `AF_*`.
    pub family: u32,
    /// `SOCK_*`.
    pub kind: u32,
    /// `IPPROTO_*`.
    pub protocol: u32,
}

impl Socket {
    /// Name of the family.
    pub fn family(&self) -> Cow<'static, str> {
        // include/linux/socket.h
        named(self.family, &[(2, "inet"), (10, "inet6")])
    }

    /// Name of the type.
    pub fn kind(&self) -> Cow<'static, str> {
        // include/linux/net.h
        let names = [
            (1, "stream"),
            (2, "dgram"),
            (SOCK_RAW, "raw"),
            (5, "seqpacket"),
        ];
        named(self.kind, &names)
    }

    /// Name of the protocol.
    pub fn protocol(&self) -> Cow<'static, str> {
        // include/uapi/linux/in.h
        let names = [
            (1, "icmp"),
            (2, "igmp"),
            (IPPROTO_TCP, "tcp"),
            (IPPROTO_UDP, "udp"),
            (47, "gre"),
            (58, "icmpv6"),
            (132, "sctp"),
            (136, "udplite"),
            (255, "raw"),
            (262, "mptcp"),
        ];
        named(self.protocol, &names)
    }

    /// TCP or UDP, if either.
    pub fn transport(&self) -> Option<Transport> {
        match self.protocol {
            _ if self.is_raw() => None,
            IPPROTO_TCP => Some(Transport::Tcp),
            IPPROTO_UDP => Some(Transport::Udp),
            _ => None,
        }
    }

    /// Whether it sees and makes packets below TCP and UDP.
    pub fn is_raw(&self) -> bool {
        self.kind == SOCK_RAW
    }
}

fn named(number: u32, names: &[(u32, &'static str)]) -> Cow<'static, str> {
    let found = names.iter().find(|(known, _)| *known == number);
    found.map_or_else(|| number.to_string().into(), |(_, name)| (*name).into())
}

/// See [`wire::Bound`].
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// The socket's flow.
    pub flow: FlowId,
    /// TCP or UDP.
    pub transport: Transport,
    /// The address.
    pub local: Address,
}

/// See [`wire::Closed`].
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    /// The flow.
    pub flow: FlowId,
    /// This end.
    pub local: Address,
    /// The other end.
    pub remote: Address,
    /// Payload bytes out and in.
    pub bytes: [u64; 2],
    /// Segments with payload out and in.
    pub packets: [u64; 2],
    /// The handshake was not over.
    pub unfinished: bool,
    /// What became of the connection.
    pub result: Outcome,
    /// Segments sent again, where it was recorded.
    pub retransmits: Option<u32>,
    /// Smoothed round-trip time, microseconds, where it was measured.
    pub rtt_us: Option<u32>,
}

pub(super) fn socket(bytes: &[u8]) -> Result<Body, Error> {
    let (socket, _) = fixed::<wire::Socket>(bytes)?;
    Ok(Body::Socket(Socket {
        flow: socket.flow,
        family: socket.family,
        kind: socket.kind,
        protocol: socket.protocol,
    }))
}

pub(super) fn bound(bytes: &[u8]) -> Result<Bound, Error> {
    let (bound, _) = fixed::<wire::Bound>(bytes)?;
    Ok(Bound {
        flow: bound.flow,
        transport: match bound.protocol {
            IPPROTO_TCP => Transport::Tcp,
            IPPROTO_UDP => Transport::Udp,
            _ => return Err(Error::Unknown),
        },
        local: address(bound.local)?,
    })
}

/// include/net/tcp_states.h: handshakes under way.
const TCP_SYN_SENT: u32 = 2;
const TCP_SYN_RECV: u32 = 3;

pub(super) fn closed(bytes: &[u8]) -> Result<Body, Error> {
    let first = wire::Closed::FIRST_LEN;
    let is_first = bytes.len() == first;
    let mut whole = [0; size_of::<wire::Closed>()];
    let known = if is_first { first } else { whole.len() };
    whole[..known].copy_from_slice(bytes.get(..known).ok_or(Error::Short)?);
    let (closed, _) = fixed::<wire::Closed>(&whole)?;
    let unfinished = matches!(closed.old_state, TCP_SYN_SENT | TCP_SYN_RECV);
    // A SYN that was never sent, for want of a route or of memory.
    let unsent = !is_first && closed.old_state == TCP_SYN_SENT && closed.segments_out == 0;
    Ok(Body::Closed(Closed {
        flow: closed.flow,
        local: address(closed.local)?,
        remote: address(closed.remote)?,
        bytes: closed.bytes,
        packets: closed.packets,
        unfinished,
        result: match of_error(closed.error) {
            Some(result) => result,
            None if unsent => Outcome::FailedLocally,
            None if unfinished => Outcome::Abandoned,
            None => Outcome::Established,
        },
        retransmits: (!is_first).then_some(closed.retransmits),
        rtt_us: (closed.rtt_us != 0).then_some(closed.rtt_us),
    }))
}

/// What the error of a connection says of its end, if anything: see tcp_reset
/// (net/ipv4/tcp_input.c), tcp_write_err (tcp_timer.c), icmp_err_convert (icmp.c)
/// and icmpv6_err_convert (net/ipv6/icmp.c). Numbers: asm-generic/errno*.h.
fn of_error(error: u32) -> Option<Outcome> {
    let error = i32::try_from(error).ok()?;
    Some(match error {
        libc::ECONNREFUSED => Outcome::Refused,
        libc::ETIMEDOUT => Outcome::TimedOut,
        // EPIPE: reset after the other end had said that it was done.
        libc::ECONNRESET | libc::EPIPE => Outcome::Reset,
        libc::EHOSTUNREACH
        | libc::ENETUNREACH
        | libc::EHOSTDOWN
        | libc::ENETDOWN
        | libc::ENONET
        | libc::ENOPROTOOPT
        | libc::EPROTO
        | libc::EOPNOTSUPP
        | libc::EACCES => Outcome::Unreachable,
        _ => return None,
    })
}

pub(super) fn unstarted(bytes: &[u8]) -> Result<Body, Error> {
    let (unstarted, _) = fixed::<wire::Unstarted>(bytes)?;
    Ok(Body::Unstarted {
        flow: unstarted.flow,
        // With TCP Fast Open the SYN waits for the first data.
        result: if unstarted.state == TCP_SYN_SENT {
            Outcome::Abandoned
        } else {
            Outcome::FailedLocally
        },
    })
}
