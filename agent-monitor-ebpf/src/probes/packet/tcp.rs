//! How far a TCP stream has come.

use agent_monitor_common::event::direction;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_spin_lock, bpf_spin_unlock, bpf_tcp_sock};

use super::Counted;
use super::burst::{self, First, NONE};
use super::parse::Packet;
use crate::sock::{ESTABLISHED, Sock};

/// Largest receive window, with the largest scale (RFC 7323, 2.3).
const MAX_WINDOW: i32 = 1 << 30;

/// Counts the segment into its direction and into a burst.
#[inline(always)]
pub fn count(
    sk: *mut bpf_sock,
    socket: &mut Sock,
    packet: &Packet,
    way: u32,
    first: &First,
    now: u64,
) -> Counted {
    let expected = if way == direction::IN {
        expected(sk)
    } else {
        None
    };
    let start = if packet.syn {
        packet.sequence.wrapping_add(1)
    } else {
        packet.sequence
    };
    let end = start.wrapping_add(packet.len);
    let mut new = packet.len;
    let mut ended = NONE;

    // SAFETY: the lock of this socket's storage; nothing is called while it is held.
    unsafe { bpf_spin_lock(&raw mut socket.lock) };
    let half = &mut socket.half[(way & 1) as usize];
    if half.known == 0 {
        half.base = start;
        half.next = start;
        half.known = 1;
    }
    let offset = start.wrapping_sub(half.base);
    // Ingress is seen before TCP checks it: a forged segment far ahead must
    // not make what follows look old, so TCP's own progress is what counts.
    // A segment that arrives again before its turn is counted twice.
    let seen = match expected {
        Some(expected) if socket.flags & ESTABLISHED != 0 => expected,
        _ => half.next,
    };
    let ahead = end.wrapping_sub(seen) as i32;
    if ahead <= 0 || ahead > MAX_WINDOW {
        new = 0; // sent before, or outside any window
    } else {
        if (ahead as u32) < new {
            new = ahead as u32;
        }
        half.next = end;
    }
    if new > 0 {
        burst::add(socket, way, new, first, now, &mut ended);
    }
    // SAFETY: as above.
    unsafe { bpf_spin_unlock(&raw mut socket.lock) };
    Counted { offset, new, ended }
}

/// The sequence number that TCP waits for on this socket.
#[inline(always)]
fn expected(sk: *mut bpf_sock) -> Option<u32> {
    // SAFETY: a socket from the context, checked for null by the caller.
    let tcp = unsafe { bpf_tcp_sock(sk) };
    // SAFETY: checked for null.
    (!tcp.is_null()).then(|| unsafe { (*tcp).rcv_nxt })
}
