//! `sock_ops`, net/ipv4/tcp.c and around it, since 4.13: what becomes of a TCP
//! connection.

use agent_monitor_common::event::{Bound, Closed, Endpoint, Established, FlowId, direction, kind};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_sock,
};
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_skc_to_tcp_sock,
};
use aya_ebpf::programs::SockOpsContext;

use crate::address::{IPPROTO_TCP, TCP_CLOSE, TCP_LISTEN, endpoint, mapped, words};
use crate::emit;
use crate::maps::{EVENTS, global};
use crate::probes::packet::burst;
use crate::sock::{self, ESTABLISHED, Half, STARTING, Sock};

const AF_INET: u32 = 2;

/// Follows the states of an agent's TCP sockets.
#[inline(always)]
pub fn state(ctx: &SockOpsContext) {
    let op = ctx.op();
    // TCP calls nine times in a connection's life, mostly to ask or tell what
    // nobody here wants to know: that is found out first.
    let wanted = match op {
        BPF_SOCK_OPS_TCP_CONNECT_CB
        | BPF_SOCK_OPS_TCP_LISTEN_CB
        | BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB
        | BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => true,
        BPF_SOCK_OPS_STATE_CB => ctx.arg(1) == TCP_CLOSE && ctx.arg(0) != TCP_LISTEN,
        _ => false,
    };
    if !wanted {
        return;
    }
    // SAFETY: the hook's context.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() {
        return;
    }
    // SAFETY: checked for null.
    let Some(socket) = (unsafe { sock::get(sk) }) else {
        return;
    };
    match op {
        // Before the SYN: from here on, changes of state are told.
        BPF_SOCK_OPS_TCP_CONNECT_CB => {
            socket.flags &= !STARTING;
            tell_states(ctx);
        }
        BPF_SOCK_OPS_TCP_LISTEN_CB => listen(ctx, socket),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => established(ctx, socket, direction::OUT),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => {
            // SAFETY: the hook's context.
            let (cookie, received) =
                unsafe { (bpf_get_socket_cookie(ctx.as_ptr()), (*ctx.ops).rcv_nxt) };
            // The storage is a copy of the listener's, which holds what came
            // with the last handshake that brought data: this one, if it fits.
            let early = socket.early();
            socket.flags = 0;
            socket.begin(FlowId {
                cookie,
                generation: 0,
            });
            if early.bytes != 0 && early.base == received {
                socket.half[direction::IN as usize] = Half {
                    base: received,
                    known: 1,
                    next: received.wrapping_add(early.bytes),
                    missed_bytes: u64::from(early.bytes),
                    missed_packets: 1,
                    ..Half::NEW
                };
            }
            established(ctx, socket, direction::IN);
        }
        _ => closed(ctx, sk, socket, ctx.arg(0)),
    }
}

/// Asks for this socket's changes of state, beside what others have asked for.
#[inline(always)]
fn tell_states(ctx: &SockOpsContext) {
    let flags = ctx.cb_flags();
    if flags & BPF_SOCK_OPS_STATE_CB_FLAG == 0 {
        let _ = ctx.set_cb_flags((flags | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
    }
}

#[inline(always)]
fn established(ctx: &SockOpsContext, socket: &mut Sock, way: u32) {
    // A socket that was made before the watch had nothing to ask with before.
    tell_states(ctx);
    // SAFETY: the hook's context. At this point no data has been taken in:
    // `rcv_nxt` and `snd_una` are the streams' first bytes
    // (tcp_finish_connect, tcp_rcv_state_process; net/ipv4/tcp_input.c).
    let (received, sent) = unsafe { ((*ctx.ops).rcv_nxt, (*ctx.ops).snd_una) };
    // Data can come with the handshake itself; then the packets were first, or for
    // an accepted connection the listener's, which counts none.
    let early = if way == direction::IN {
        payload(ctx)
    } else {
        0
    };
    if socket.half[direction::IN as usize].known == 0 {
        socket.half[direction::IN as usize] = Half {
            base: received,
            next: received.wrapping_add(early),
            missed_bytes: u64::from(early),
            missed_packets: u64::from(early > 0),
            known: 1,
            ..Half::NEW
        };
    }
    if socket.half[direction::OUT as usize].known == 0 {
        socket.half[direction::OUT as usize] = Half {
            base: sent,
            next: sent,
            known: 1,
            ..Half::NEW
        };
    }
    socket.flags |= ESTABLISHED;
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    emit::record::<Established>(&EVENTS, kind::ESTABLISHED, socket.agent, now, |record| {
        let value = Established {
            header: socket.header(kind::ESTABLISHED, size_of::<Established>(), now),
            flow: socket.flow,
            local: local(ctx),
            remote: remote(ctx),
            direction: way,
            pad: 0,
        };
        // SAFETY: the place is a reservation of this type.
        unsafe { record.write(value) };
        true
    });
}

/// Payload bytes of the segment that completed the handshake: the context's data
/// is its TCP header only (bpf_skops_init_skb, since 5.10).
#[inline(always)]
fn payload(ctx: &SockOpsContext) -> u32 {
    // SAFETY: the hook's context, a member at a time.
    unsafe {
        let begin = (&raw const (*ctx.ops).__bindgen_anon_3.skb_data).read_volatile();
        let end = (&raw const (*ctx.ops).__bindgen_anon_4.skb_data_end).read_volatile();
        let header = (end as usize).wrapping_sub(begin as usize) as u32;
        (&raw const (*ctx.ops).skb_len)
            .read_volatile()
            .saturating_sub(header)
    }
}

#[inline(always)]
fn closed(ctx: &SockOpsContext, sk: *mut bpf_sock, socket: &mut Sock, old_state: u32) {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: a socket from the context, checked for null by the caller.
    unsafe { burst::end(sk, socket, now) };
    // The other ring's records of the same time come after this ring's: the last
    // burst is to be told of first.
    let now = now + 1;
    let (out, incoming) = (socket.half[0].total(), socket.half[1].total());
    emit::record::<Closed>(&EVENTS, kind::CLOSED, socket.agent, now, |record| {
        let value = Closed {
            header: socket.header(kind::CLOSED, size_of::<Closed>(), now),
            flow: socket.flow,
            local: local(ctx),
            remote: remote(ctx),
            bytes: [out.0, incoming.0],
            packets: [out.1, incoming.1],
            old_state,
            error: error(sk),
            // SAFETY: the hook's context.
            retransmits: unsafe { (*ctx.ops).total_retrans },
            // Kept in eighths (tcp_rtt_estimator, net/ipv4/tcp_input.c).
            // SAFETY: the hook's context.
            rtt_us: unsafe { (*ctx.ops).srtt_us } >> 3,
            // SAFETY: the hook's context.
            segments_out: unsafe { (*ctx.ops).segs_out },
            pad: 0,
        };
        // SAFETY: the place is a reservation of this type.
        unsafe { record.write(value) };
        true
    });
    socket.flags &= !ESTABLISHED;
}

/// `sk_err`: why the connection ends. TCP sets it before it changes the state
/// (tcp_reset, tcp_write_err, tcp_v4_err); when the agent ends it, there is none.
#[inline(always)]
fn error(sk: *mut bpf_sock) -> u32 {
    // SAFETY: a socket from the context, checked for null by the caller.
    let tcp: *const u8 = unsafe { bpf_skc_to_tcp_sock(sk.cast()) }.cast();
    if tcp.is_null() {
        return 0;
    }
    let offset = global!(OFFSETS.sock_err) as usize;
    // SAFETY: a tcp_sock begins with its sock; the verifier checks the offset
    // against the kernel's types.
    unsafe { tcp.add(offset).cast::<u32>().read_volatile() }
}

#[inline(always)]
fn listen(ctx: &SockOpsContext, socket: &Sock) {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    emit::record::<Bound>(&EVENTS, kind::LISTEN, socket.agent, now, |record| {
        let value = Bound {
            header: socket.header(kind::LISTEN, size_of::<Bound>(), now),
            flow: socket.flow,
            local: local(ctx),
            protocol: IPPROTO_TCP,
            pad: 0,
        };
        // SAFETY: the place is a reservation of this type.
        unsafe { record.write(value) };
        true
    });
}

#[inline(always)]
fn local(ctx: &SockOpsContext) -> Endpoint {
    // SAFETY: the hook's context, a word at a time.
    let ip = unsafe {
        if (*ctx.ops).family == AF_INET {
            mapped((*ctx.ops).local_ip4)
        } else {
            words((&raw const (*ctx.ops).local_ip6).cast())
        }
    };
    endpoint(ip, ctx.local_port() as u16)
}

#[inline(always)]
fn remote(ctx: &SockOpsContext) -> Endpoint {
    // SAFETY: the hook's context, a word at a time.
    let ip = unsafe {
        if (*ctx.ops).family == AF_INET {
            mapped((*ctx.ops).remote_ip4)
        } else {
            words((&raw const (*ctx.ops).remote_ip6).cast())
        }
    };
    // `remote_port` is in network order, `local_port` in host order
    // (struct bpf_sock_ops, include/uapi/linux/bpf.h).
    endpoint(ip, u32::from_be(ctx.remote_port()) as u16)
}
