//! How far a TCP stream has come.

use agent_monitor_common::event::direction;
use agent_monitor_common::policy::FLOW_SEGMENTS;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_tcp_sock};
use aya_ebpf::programs::SkBuffContext;

use super::Counted;
use super::burst::{self, Payload};
use super::parse::{Packet, Plain};
use crate::sock::{ESTABLISHED, Half, Sock};

/// Largest receive window, with the largest scale (RFC 7323, 2.3).
const MAX_WINDOW: i32 = 1 << 30;

/// Whether nothing of a segment goes up but what is counted.
#[inline(always)]
pub fn is_past_head(socket: &Sock, segment: &Plain, way: u32) -> bool {
    let half = &socket.half[(way & 1) as usize];
    socket.flags & ESTABLISHED != 0
        && half.known != 0
        && segment.sequence.wrapping_sub(half.base) >= socket.control.head_cap
        && socket.control.flags & FLOW_SEGMENTS == 0
}

/// Counts a segment for which [`is_past_head`] holds: most segments.
#[inline(always)]
pub fn pass(ctx: &SkBuffContext, sk: *mut bpf_sock, socket: &mut Sock, segment: &Plain, way: u32) {
    let half = &mut socket.half[(way & 1) as usize];
    let payload = Payload {
        at: segment.payload,
        len: segment.len,
        new: fresh(sk, half, segment.sequence, segment.len, way, true),
    };
    if payload.new > 0 {
        // SAFETY: no arguments.
        let clock = || unsafe { bpf_ktime_get_boot_ns() };
        burst::count(ctx, sk, socket, &payload, way, clock);
    }
}

/// Counts the segment into its direction and into a burst.
#[inline(always)]
pub fn count(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    socket: &mut Sock,
    packet: &Packet,
    way: u32,
    now: u64,
) -> Counted {
    let start = if packet.syn {
        packet.sequence.wrapping_add(1)
    } else {
        packet.sequence
    };
    let established = socket.flags & ESTABLISHED != 0;
    let half = &mut socket.half[(way & 1) as usize];
    half.begin_at(start);
    let offset = start.wrapping_sub(half.base);
    let payload = Payload {
        at: packet.payload,
        len: packet.len,
        new: fresh(sk, half, start, packet.len, way, established),
    };
    if payload.new > 0 {
        burst::count(ctx, sk, socket, &payload, way, || now);
    }
    Counted {
        offset,
        new: payload.new,
    }
}

/// How many of the `len` bytes from `start` on were not seen before.
///
/// Ingress is seen before TCP checks it: a forged segment far ahead must not make
/// what follows look old, so TCP's own progress is what counts. A segment that
/// arrives again before its turn is counted twice.
#[inline(always)]
fn fresh(
    sk: *mut bpf_sock,
    half: &mut Half,
    start: u32,
    len: u32,
    way: u32,
    established: bool,
) -> u32 {
    let mut seen = half.next;
    if established
        && way == direction::IN
        && let Some(expected) = expected(sk)
    {
        seen = expected;
    }
    let end = start.wrapping_add(len);
    let ahead = end.wrapping_sub(seen) as i32;
    if ahead <= 0 || ahead > MAX_WINDOW {
        return 0; // sent before, or outside any window
    }
    half.next = end;
    len.min(ahead as u32)
}

/// The sequence number that TCP waits for on this socket.
#[inline(always)]
fn expected(sk: *mut bpf_sock) -> Option<u32> {
    // SAFETY: a socket from the context, checked for null by the caller.
    let tcp = unsafe { bpf_tcp_sock(sk) };
    // SAFETY: checked for null.
    (!tcp.is_null()).then(|| unsafe { (*tcp).rcv_nxt })
}
