//! Datagrams, counted as a stream of their payloads.

use aya_ebpf::helpers::generated::{bpf_spin_lock, bpf_spin_unlock};

use super::Counted;
use super::burst::{self, First, NONE};
use super::parse::Packet;
use crate::sock::Sock;

/// Counts the datagram into its direction and into a burst.
#[inline(always)]
pub fn count(socket: &mut Sock, packet: &Packet, way: u32, first: &First, now: u64) -> Counted {
    let new = packet.len;
    let mut ended = NONE;
    // SAFETY: the lock of this socket's storage; nothing is called while it is held.
    unsafe { bpf_spin_lock(&raw mut socket.lock) };
    let offset = socket.half[(way & 1) as usize].bytes as u32;
    if new > 0 {
        burst::add(socket, way, new, first, now, &mut ended);
    }
    // SAFETY: as above.
    unsafe { bpf_spin_unlock(&raw mut socket.lock) };
    Counted { offset, new, ended }
}
