//! How far a TCP stream has come.

use agent_monitor_common::event::direction;
use agent_monitor_common::policy::FLOW_SEGMENTS;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_tcp_sock;
use aya_ebpf::programs::SkBuffContext;

use super::parse::{Packet, Plain};
use super::{Counted, burst};
use crate::sock::{ESTABLISHED, Half, Sock};

/// Largest receive window, with the largest scale (RFC 7323, 2.3).
const MAX_WINDOW: i32 = 1 << 30;

/// Counts a segment in the middle of a burst, of which nothing goes up: most
/// segments, in a few instructions. `false` if it is another.
#[inline(always)]
pub fn pass(sk: *mut bpf_sock, socket: &mut Sock, segment: &Plain, way: u32) -> bool {
    if socket.flags & ESTABLISHED == 0 {
        return false;
    }
    if segment.len == 0 {
        return true;
    }
    let half = &mut socket.half[(way & 1) as usize];
    if half.known == 0
        || segment.sequence.wrapping_sub(half.base) < socket.control.head_cap
        || socket.control.flags & FLOW_SEGMENTS != 0
        || !burst::goes_on(&socket.burst, way)
    {
        return false;
    }
    let new = fresh(sk, half, segment.sequence, segment.len, way, true);
    if new > 0 {
        half.add(new);
    }
    true
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
    let new = fresh(sk, half, start, packet.len, way, established);
    if new > 0 {
        burst::count(ctx, socket, packet, way, new, now);
    }
    Counted { offset, new }
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
