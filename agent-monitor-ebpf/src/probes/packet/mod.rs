//! cgroup `skb` both ways (`__cgroup_bpf_run_filter_skb`, kernel/bpf/cgroup.c,
//! since 4.10): heads, bursts and segment sizes of an agent's flows.
//!
//! A packet here may be a super-segment of up to 64 KiB (GSO, GRO). At ingress
//! `current` is whoever was interrupted: the owner comes from the socket. Softirq
//! re-enters while an egress program runs, so nothing is shared but the ring.

pub mod batch;
pub mod burst;
mod datagram;
mod head;
mod parse;
mod tcp;

use agent_monitor_common::event::{FlowId, HEAD_TAKEN_OVER, Segment, direction, kind};
use agent_monitor_common::policy::FLOW_SEGMENTS;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_sk_fullsock, bpf_skb_cgroup_id,
};
use aya_ebpf::programs::SkBuffContext;

use crate::address::{IPPROTO_TCP, SOCK_RAW, TCP_LISTEN};
use crate::maps::{OWNERS, PAYLOAD};
use crate::sock::{self, ESTABLISHED, RAW, Sock, TAKEN_OVER};
use crate::{emit, task};
use head::Part;
use parse::Packet;

/// What a packet added to its flow.
struct Counted {
    /// Place of the packet's first payload byte in its direction's stream.
    offset: u32,
    /// Payload bytes that were not seen before.
    new: u32,
}

/// Looks at a packet of a socket.
#[inline(always)]
pub fn packet(ctx: &SkBuffContext, way: u32) {
    // SAFETY: the hook's context.
    let sk = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return;
    }
    // SAFETY: checked for null.
    let socket = match unsafe { sock::get(sk) } {
        Some(socket) => socket,
        None => match take_over(ctx, sk) {
            Some(socket) => socket,
            None => return,
        },
    };
    if socket.flags & TAKEN_OVER != 0 && socket.tgid == 0 {
        own(socket);
    }
    let is_raw = socket.flags & RAW != 0;
    if !is_raw && let Some(segment) = parse::plain(ctx) {
        if segment.len == 0 {
            return;
        }
        if tcp::is_past_head(socket, &segment, way) {
            tcp::pass(ctx, sk, socket, &segment, way);
            return;
        }
    }
    let Some(packet) = parse::parse(ctx, is_raw) else {
        return;
    };
    if is_raw || packet.protocol != IPPROTO_TCP {
        datagram::take(ctx, sk, socket, &packet, way);
        return;
    }
    if socket.flags & ESTABLISHED == 0 {
        // SAFETY: a socket from the context, checked for null.
        let full = unsafe { bpf_sk_fullsock(sk) };
        // SAFETY: checked for null.
        if !full.is_null() && unsafe { (*full).state } == TCP_LISTEN {
            if packet.len > 0 && way == direction::IN {
                head::of_listener(ctx, socket, &packet);
            }
            return;
        }
    }
    if packet.len == 0 && !packet.syn {
        return;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let counted = tcp::count(ctx, sk, socket, &packet, way, now);
    deliver(ctx, socket, &packet, way, &counted, now);
}

/// A socket of an agent that was not seen being made: it is older than the
/// watch. Its agent is known; its owner, once user space has found it.
#[inline(always)]
fn take_over<'a>(ctx: &SkBuffContext, sk: *mut bpf_sock) -> Option<&'a mut Sock> {
    // SAFETY: the hook's context.
    let cgroup = unsafe { bpf_skb_cgroup_id(ctx.skb.skb) };
    let agent = task::agent_of_cgroup(cgroup)?;
    // SAFETY: the caller has checked it for null.
    let Some(socket) = (unsafe { sock::get_or_create(sk) }) else {
        emit::no_room(agent);
        return None;
    };
    // SAFETY: as above.
    let full = unsafe { bpf_sk_fullsock(sk) };
    if full.is_null() {
        return None;
    }
    socket.agent = agent;
    socket.cgroup = cgroup;
    // SAFETY: checked for null.
    let (state, protocol, kind) = unsafe { ((*full).state, (*full).protocol, (*full).type_) };
    socket.protocol = protocol;
    socket.flags = match (kind, state) {
        (SOCK_RAW, _) => TAKEN_OVER | RAW,
        (_, TCP_LISTEN) => TAKEN_OVER,
        _ => TAKEN_OVER | ESTABLISHED,
    };
    // SAFETY: the hook's context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) };
    socket.begin(FlowId {
        cookie,
        generation: 0,
    });
    Some(socket)
}

/// Notes whose socket this is, if user space has found that out.
#[inline(always)]
fn own(socket: &mut Sock) {
    // SAFETY: read of plain integers, which nobody changes.
    if let Some(owner) = unsafe { OWNERS.get(socket.flow.cookie) } {
        socket.start = owner.start;
        socket.tgid = owner.tgid;
        let _ = OWNERS.remove(socket.flow.cookie);
    }
}

/// Notes with the socket's owner that data came in.
#[inline(always)]
fn came_in(socket: &Sock, now: u64) {
    if let Some(owner) = task::remembered(socket.tgid) {
        // SAFETY: a value of TASKS; packets on two CPUs may mix their writes,
        // which evidence for people can bear.
        unsafe {
            (*owner).last_rx_flow = socket.flow;
            (*owner).last_rx_time = now;
        }
    }
}

/// Sends up what is wanted of a packet with payload.
#[inline(always)]
fn deliver(
    ctx: &SkBuffContext,
    socket: &mut Sock,
    packet: &Packet,
    way: u32,
    counted: &Counted,
    now: u64,
) {
    if packet.len == 0 {
        return;
    }
    if way == direction::IN {
        came_in(socket, now);
    }
    let offset = counted.offset;
    if offset < socket.control.head_cap {
        let part = Part {
            way,
            offset,
            want: socket.control.head_cap - offset,
            flags: if socket.flags & TAKEN_OVER != 0 {
                HEAD_TAKEN_OVER
            } else {
                0
            },
        };
        head::send(ctx, socket, packet, part, now);
    } else if counted.new > 0 && socket.control.flags & FLOW_SEGMENTS != 0 {
        emit::record::<Segment>(&PAYLOAD, kind::SEGMENT, socket.agent, now, |record| {
            let value = Segment {
                header: socket.header(kind::SEGMENT, size_of::<Segment>(), now),
                flow: socket.flow,
                offset,
                bytes: packet.len,
                direction: way,
                pad: 0,
            };
            // SAFETY: the place is a reservation of this type.
            unsafe { record.write(value) };
            true
        });
    }
}
