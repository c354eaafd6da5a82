//! cgroup `sock_create` (inet_create, net/ipv4/af_inet.c, since 4.10), `post_bind4/6`
//! (__inet_bind, since 4.17) and `sock_release` (inet_release, since 5.9): an inet
//! socket's birth, its address, and its end. All run in the process that calls.

use agent_monitor_common::event::{Bound, FlowId, Header, Released, Socket, kind};
use agent_monitor_common::policy::Owner;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns};
use aya_ebpf::programs::SockContext;

use crate::address::{IPPROTO_TCP, IPPROTO_UDP, SOCK_RAW, endpoint, mapped, words};
use crate::emit;
use crate::maps::{EVENTS, OWNERS};
use crate::probes::packet::burst;
use crate::probes::{connect, datagram_burst};
use crate::sock::{self, RAW, STARTING, Sock, TAKEN_OVER};
use crate::task::{self, Caller};

/// Writes down whose socket this is, and tells of it.
#[inline(always)]
pub fn create(ctx: &SockContext) {
    let Some(caller) = Caller::current() else {
        return;
    };
    let Some(socket) = own(ctx, &caller) else {
        return;
    };
    // SAFETY: the hook's context.
    if unsafe { (*ctx.sock).type_ } == SOCK_RAW {
        socket.flags |= RAW;
    }
    // SAFETY: no arguments; and the hook's context.
    let (now, family, kind) = unsafe {
        (
            bpf_ktime_get_boot_ns(),
            (*ctx.sock).family,
            (*ctx.sock).type_,
        )
    };
    emit::record::<Socket>(&EVENTS, kind::SOCKET, caller.agent, now, |record| {
        let value = Socket {
            header: caller.header::<Socket>(kind::SOCKET, now),
            flow: socket.flow,
            family,
            kind,
            protocol: socket.protocol,
            pad: 0,
        };
        // SAFETY: the place is a reservation of this type.
        unsafe { record.write(value) };
        true
    });
}

/// A socket has an IPv4 address.
#[inline(always)]
pub fn bind4(ctx: &SockContext) {
    // SAFETY: the hook's context.
    bind(ctx, mapped(unsafe { (*ctx.sock).src_ip4 }));
}

/// A socket has an IPv6 address.
#[inline(always)]
pub fn bind6(ctx: &SockContext) {
    // SAFETY: the hook's context, a word at a time.
    bind(ctx, unsafe {
        words((&raw const (*ctx.sock).src_ip6).cast())
    });
}

#[inline(always)]
fn bind(ctx: &SockContext, ip: [u32; 4]) {
    // SAFETY: the hook's context; here `src_port` is in host order
    // (struct bpf_sock, include/uapi/linux/bpf.h).
    let (protocol, port) = unsafe { ((*ctx.sock).protocol, (*ctx.sock).src_port) };
    // ICMP sockets are bound too, and have no ports.
    if protocol != IPPROTO_TCP && protocol != IPPROTO_UDP {
        return;
    }
    let Some(caller) = Caller::current() else {
        return;
    };
    // SAFETY: the hook's own socket, never null.
    let found = match unsafe { sock::get(ctx.sock) } {
        Some(socket) => Some(socket),
        None => own(ctx, &caller),
    };
    let Some(socket) = found else {
        return;
    };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    emit::record::<Bound>(&EVENTS, kind::BIND, caller.agent, now, |record| {
        let value = Bound {
            header: caller.header::<Bound>(kind::BIND, now),
            flow: socket.flow,
            local: endpoint(ip, port as u16),
            protocol,
            pad: 0,
        };
        // SAFETY: the place is a reservation of this type.
        unsafe { record.write(value) };
        true
    });
}

/// The last that is seen of a socket. TCP tells of its ends itself, but not of a
/// connect() that failed before it began (no route, no port), nor of a connection
/// from before the watch.
#[inline(always)]
pub fn release(ctx: &SockContext) {
    // SAFETY: the hook's own socket, never null.
    let Some(socket) = (unsafe { sock::get(ctx.sock) }) else {
        release_unused(ctx);
        return;
    };
    if socket.flags & STARTING != 0 {
        // SAFETY: the hook's context.
        connect::unstarted(socket, unsafe { (*ctx.sock).state });
    }
    if socket.flags & (TAKEN_OVER | RAW) == TAKEN_OVER && socket.protocol == IPPROTO_TCP {
        // SAFETY: no arguments; and the hook's own socket, never null.
        let now = unsafe {
            let now = bpf_ktime_get_boot_ns();
            burst::end(ctx.sock, socket, now);
            now
        };
        // The other ring's records of the same time come after this ring's.
        let header = socket.header(kind::RELEASED, size_of::<Released>(), now + 1);
        tell_released(header, socket.flow);
    }
    // SAFETY: the hook's own socket, never null.
    unsafe { datagram_burst::released(ctx.sock, socket) };
}

/// The end of a socket from before the watch on which no packet came or went since.
#[inline(always)]
fn release_unused(ctx: &SockContext) {
    // SAFETY: the hook's context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.sock.cast()) };
    // SAFETY: read of plain integers, which nobody changes.
    let Some(&Owner { start, tgid, .. }) = (unsafe { OWNERS.get(cookie) }) else {
        return;
    };
    let _ = OWNERS.remove(cookie);
    // Who is running, which closes it: a process that ends is forgotten before its
    // descriptors are closed.
    let cgroup = task::current_cgroup();
    let Some(agent) = task::current_agent(cgroup, tgid) else {
        return;
    };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let header = Header {
        cgroup,
        start,
        tgid,
        ..emit::header::<Released>(kind::RELEASED, now, agent)
    };
    let flow = FlowId {
        cookie,
        generation: 0,
    };
    tell_released(header, flow);
}

#[inline(always)]
fn tell_released(header: Header, flow: FlowId) {
    let Header { agent, time, .. } = header;
    emit::record::<Released>(&EVENTS, kind::RELEASED, agent, time, |record| {
        // SAFETY: the place is a reservation of this type.
        unsafe { record.write(Released { header, flow }) };
        true
    });
}

#[inline(always)]
fn own<'a>(ctx: &SockContext, caller: &Caller) -> Option<&'a mut Sock> {
    // SAFETY: the hook's context.
    let (cookie, protocol) =
        unsafe { (bpf_get_socket_cookie(ctx.sock.cast()), (*ctx.sock).protocol) };
    // SAFETY: the hook's own socket, never null.
    unsafe { sock::own(ctx.sock, caller, cookie, protocol) }
}
