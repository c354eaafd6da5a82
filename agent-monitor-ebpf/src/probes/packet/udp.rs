//! Datagrams, counted as a stream of their payloads.

use aya_ebpf::programs::SkBuffContext;

use super::parse::Packet;
use super::{Counted, burst};
use crate::sock::Sock;

/// Counts the datagram into its direction and into a burst.
#[inline(always)]
pub fn count(
    ctx: &SkBuffContext,
    socket: &mut Sock,
    packet: &Packet,
    way: u32,
    now: u64,
) -> Counted {
    let new = packet.len;
    let offset = if new > 0 {
        burst::count(ctx, socket, packet, way, new, now) as u32
    } else {
        0
    };
    Counted { offset, new }
}
