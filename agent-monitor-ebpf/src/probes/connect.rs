//! cgroup `connect4/6` (net/ipv4/af_inet.c, tcp_v4_pre_connect and its like) and
//! `sendmsg4/6` (udp_sendmsg on an unconnected socket), since 4.17 and 4.18.

use agent_monitor_common::event::{Connect, FlowId, Unstarted, kind};
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns};
use aya_ebpf::programs::SockAddrContext;

use crate::address::{
    IPPROTO_MPTCP, IPPROTO_TCP, TCP_CLOSE, TCP_ESTABLISHED, endpoint, is_mapped, mapped, words,
};
use crate::emit;
use crate::maps::EVENTS;
use crate::peers::{self, NOBODY, Who};
use crate::probes::datagram_burst;
use crate::sock::{self, CONNECTED, RAW, STARTING, Sock};
use crate::task::Caller;

/// connect() to IPv4.
#[inline(always)]
pub fn connect4(ctx: &SockAddrContext) {
    let remote = remote4(ctx);
    connect(ctx, remote);
}

/// connect() to IPv6.
#[inline(always)]
pub fn connect6(ctx: &SockAddrContext) {
    let remote = remote6(ctx);
    connect(ctx, remote);
}

/// A datagram to IPv4 from an unconnected socket.
#[inline(always)]
pub fn sendmsg4(ctx: &SockAddrContext) {
    let remote = remote4(ctx);
    send(ctx, remote);
}

/// A datagram to IPv6 from an unconnected socket.
#[inline(always)]
pub fn sendmsg6(ctx: &SockAddrContext) {
    let remote = remote6(ctx);
    send(ctx, remote);
}

/// Address as four words in network order, port in network order.
struct Remote {
    ip: [u32; 4],
    port: u32,
}

#[inline(always)]
fn remote4(ctx: &SockAddrContext) -> Remote {
    // SAFETY: the hook's context.
    unsafe {
        Remote {
            ip: mapped((*ctx.sock_addr).user_ip4),
            port: (*ctx.sock_addr).user_port,
        }
    }
}

#[inline(always)]
fn remote6(ctx: &SockAddrContext) -> Remote {
    // SAFETY: the hook's context; one word at a time, as the kernel rewrites
    // each access.
    unsafe {
        Remote {
            ip: words((&raw const (*ctx.sock_addr).user_ip6).cast()),
            port: (*ctx.sock_addr).user_port,
        }
    }
}

#[inline(always)]
fn socket(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: the hook's context.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, remote: Remote) {
    let sk = socket(ctx);
    if sk.is_null() {
        return;
    }
    let caller = Caller::current();
    // SAFETY: checked for null.
    let found = match unsafe { sock::get(sk) } {
        Some(socket) => Some(socket),
        // Made before the watch began, or by the kernel (MPTCP's subflows): the
        // caller is the nearest to an owner.
        None => caller.as_ref().and_then(|caller| {
            // SAFETY: the hook's context.
            let (cookie, protocol) = unsafe {
                (
                    bpf_get_socket_cookie(ctx.sock_addr.cast()),
                    (*ctx.sock_addr).protocol,
                )
            };
            // SAFETY: checked for null.
            unsafe { sock::own(sk, caller, cookie, protocol) }
        }),
    };
    let Some(socket) = found else {
        return;
    };
    if socket.flags & RAW != 0 {
        // Its packets bear their own addresses, and connect() only chooses some.
        return;
    }
    if socket.protocol == IPPROTO_TCP {
        if socket.flags & CONNECTED != 0 {
            if socket.flags & STARTING != 0 {
                unstarted(socket, TCP_CLOSE);
            }
            let generation = socket.flow.generation + 1;
            socket.begin(FlowId {
                cookie: socket.flow.cookie,
                generation,
            });
        }
        socket.flags = CONNECTED | STARTING;
    } else if socket.protocol != IPPROTO_MPTCP {
        associate(sk, socket, &remote);
    }
    if let Some(caller) = caller {
        report(ctx, kind::CONNECT, socket.flow, &remote, &caller);
    }
}

/// Connects a socket of datagrams: nothing is sent. What it was connected to
/// before, and whom it had sent to, are other flows.
#[inline(always)]
fn associate(sk: *mut bpf_sock, socket: &mut Sock, remote: &Remote) {
    if socket.flags & CONNECTED != 0 {
        // SAFETY: no arguments; and a socket that was checked for null.
        unsafe { datagram_burst::end(sk, socket, bpf_ktime_get_boot_ns()) };
        socket.flow.generation += 1;
    }
    socket.flags |= CONNECTED;
    socket.peer = named(remote);
    socket.peer_port = u32::from(u16::from_be(remote.port as u16));
}

/// The address that the kernel takes for one that was named: nothing means this
/// machine (ip_route_output_key_hash_rcu, net/ipv4/route.c; ip6_datagram_connect).
#[inline(always)]
fn named(remote: &Remote) -> [u32; 4] {
    const LOOPBACK4: u32 = u32::from_ne_bytes([127, 0, 0, 1]);
    const LOOPBACK6: u32 = u32::from_ne_bytes([0, 0, 0, 1]);
    match remote.ip {
        ip if is_mapped(&ip) && ip[3] == 0 => mapped(LOOPBACK4),
        [0, 0, 0, 0] => [0, 0, 0, LOOPBACK6],
        ip => ip,
    }
}

/// Tells of a connect() for which TCP sent nothing.
#[inline(always)]
pub fn unstarted(socket: &Sock, state: u32) {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    emit::record::<Unstarted>(&EVENTS, kind::UNSTARTED, socket.agent, now, |record| {
        let value = Unstarted {
            header: socket.header(kind::UNSTARTED, size_of::<Unstarted>(), now),
            flow: socket.flow,
            state,
            pad: 0,
        };
        // SAFETY: the place is a reservation of this type.
        unsafe { record.write(value) };
        true
    });
}

#[inline(always)]
fn send(ctx: &SockAddrContext, remote: Remote) {
    let sk = socket(ctx);
    if sk.is_null() {
        return;
    }
    // SAFETY: checked for null.
    let Some(socket) = (unsafe { sock::get(sk) }) else {
        return;
    };
    let (ip, port) = (named(&remote), u16::from_be(remote.port as u16));
    if socket.flags & CONNECTED != 0
        && ip == socket.peer
        && u32::from(port) == socket.peer_port
        // SAFETY: checked for null.
        && unsafe { (*sk).state } == TCP_ESTABLISHED
    {
        return;
    }
    // SAFETY: checked for null.
    let Some(peers) = (unsafe { peers::get_or_create(sk) }) else {
        emit::no_room(socket.agent);
        return;
    };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let who = Who::peer(ip, port, socket.protocol);
    let mut ended = NOBODY;
    if !peers.name(&who, now, &mut ended) {
        return;
    }
    datagram_burst::send(socket, &ended, now);
    if let Some(caller) = Caller::current() {
        let flow = FlowId {
            cookie: socket.flow.cookie,
            generation: who.generation,
        };
        report(ctx, kind::SEND, flow, &remote, &caller);
    }
}

#[inline(always)]
fn report(ctx: &SockAddrContext, kind: u32, flow: FlowId, remote: &Remote, caller: &Caller) {
    // SAFETY: no arguments; and the hook's context.
    let (now, protocol) = unsafe { (bpf_ktime_get_boot_ns(), (*ctx.sock_addr).protocol) };
    emit::record::<Connect>(&EVENTS, kind, caller.agent, now, |record| {
        let (last_rx_flow, last_rx_time) = caller.last_rx();
        let value = Connect {
            header: caller.header::<Connect>(kind, now),
            flow,
            remote: endpoint(remote.ip, u16::from_be(remote.port as u16)),
            protocol,
            pad: 0,
            last_rx_flow,
            last_rx_time,
        };
        // SAFETY: the place is a reservation of this type.
        unsafe { record.write(value) };
        true
    });
}
