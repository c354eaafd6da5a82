//! cgroup `connect4/6` (net/ipv4/af_inet.c, tcp_v4_pre_connect and its like) and
//! `sendmsg4/6` (udp_sendmsg on an unconnected socket), since 4.17 and 4.18.

use agent_monitor_common::event::{Connect, FlowId, kind};
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns};
use aya_ebpf::programs::SockAddrContext;

use crate::address::{IPPROTO_TCP, endpoint, mapped, words};
use crate::maps::EVENTS;
use crate::sock::{self, CONNECTED};
use crate::{emit, task};

/// In `peer_port`: a peer is known.
const PEER_KNOWN: u32 = 1 << 31;

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
    // SAFETY: checked for null.
    let flow = match unsafe { sock::get(sk) } {
        Some(socket) => {
            if socket.protocol == IPPROTO_TCP {
                if socket.flags & CONNECTED != 0 {
                    let generation = socket.flow.generation + 1;
                    socket.begin(FlowId {
                        cookie: socket.flow.cookie,
                        generation,
                    });
                }
                socket.flags = CONNECTED;
            }
            socket.flow
        }
        // A socket that was made before the watch began, or elsewhere.
        None => FlowId {
            // SAFETY: the hook's context.
            cookie: unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) },
            generation: 0,
        },
    };
    report(ctx, kind::CONNECT, flow, &remote);
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
    let port = remote.port | PEER_KNOWN;
    if socket.peer_port == port && socket.peer == remote.ip {
        return;
    }
    socket.peer = remote.ip;
    socket.peer_port = port;
    report(ctx, kind::SEND, socket.flow, &remote);
}

#[inline(always)]
fn report(ctx: &SockAddrContext, kind: u32, flow: FlowId, remote: &Remote) {
    let cgroup = task::current_cgroup();
    let tgid = task::current_tgid();
    let Some(agent) = task::current_agent(cgroup, tgid) else {
        return;
    };
    // SAFETY: no arguments; and the hook's context.
    let (now, protocol) = unsafe { (bpf_ktime_get_boot_ns(), (*ctx.sock_addr).protocol) };
    emit::record::<Connect>(&EVENTS, kind, agent, now, |record| {
        let mut header = emit::header::<Connect>(kind, now, agent);
        header.cgroup = cgroup;
        header.tgid = tgid;
        header.tid = bpf_get_current_pid_tgid() as u32;
        let mut last_rx_flow = FlowId {
            cookie: 0,
            generation: 0,
        };
        let mut last_rx_time = 0;
        if let Some(known) = task::remembered(tgid) {
            // SAFETY: a value of TASKS; a packet that arrives meanwhile may
            // change it half-way, which evidence for people can bear.
            let known = unsafe { &*known };
            header.start = known.start;
            last_rx_flow = known.last_rx_flow;
            last_rx_time = known.last_rx_time;
        } else {
            header.start = task::start(task::current());
        }
        let value = Connect {
            header,
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
