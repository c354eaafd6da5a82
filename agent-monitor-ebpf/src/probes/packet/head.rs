//! The first bytes of each direction go up.

use core::arch::asm;

use agent_monitor_common::event::{HEAD_OF_LISTENER, Head, WithData, direction, kind};
use agent_monitor_common::limits::{CHUNK_LARGE, CHUNK_SMALL, CHUNKS_PER_SEGMENT};
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_skb_load_bytes};
use aya_ebpf::programs::SkBuffContext;

use super::parse::Packet;
use crate::address::endpoint;
use crate::emit;
use crate::maps::PAYLOAD;
use crate::sock::{Early, Sock};

/// Data on the handshake's last segment still belongs to the listener's socket.
/// It is noted there: right after this the accepted socket is cloned from the
/// listener (tcp_v4_rcv, net/ipv4/tcp_ipv4.c), with a copy of its storage.
#[inline(always)]
pub fn of_listener(ctx: &SkBuffContext, listener: &mut Sock, packet: &Packet) {
    let base = if packet.syn {
        packet.sequence.wrapping_add(1)
    } else {
        packet.sequence
    };
    listener.set_early(&Early {
        base,
        bytes: packet.len,
    });
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let part = Part {
        way: direction::IN,
        offset: 0,
        want: listener.control.head_cap,
        flags: HEAD_OF_LISTENER,
    };
    send(ctx, listener, packet, part, now);
}

/// Which part of a segment goes up.
pub struct Part {
    pub way: u32,
    pub offset: u32,
    pub want: u32,
    pub flags: u32,
}

/// Sends up to `part.want` bytes of the payload, in as many records as needed.
#[inline(always)]
pub fn send(ctx: &SkBuffContext, socket: &Sock, packet: &Packet, part: Part, now: u64) {
    let take = part.want.min(packet.len);
    if take <= CHUNK_SMALL as u32 {
        chunk::<CHUNK_SMALL>(ctx, socket, packet, &part, 0, take, now);
        return;
    }
    let mut done = 0;
    for _ in 0..CHUNKS_PER_SEGMENT {
        if done >= take {
            break;
        }
        let len = (take - done).min(CHUNK_LARGE as u32);
        chunk::<CHUNK_LARGE>(ctx, socket, packet, &part, done, len, now);
        done += len;
    }
}

#[inline(always)]
fn chunk<const N: usize>(
    ctx: &SkBuffContext,
    socket: &Sock,
    packet: &Packet,
    part: &Part,
    skip: u32,
    len: u32,
    now: u64,
) {
    emit::record::<WithData<Head, N>>(&PAYLOAD, kind::HEAD, socket.agent, now, |record| {
        let Some(len) = bounded(len, N as u32) else {
            return false;
        };
        let (local, remote) = if part.way == direction::OUT {
            (
                endpoint(packet.source, u16::from_be(packet.source_port)),
                endpoint(packet.destination, u16::from_be(packet.destination_port)),
            )
        } else {
            (
                endpoint(packet.destination, u16::from_be(packet.destination_port)),
                endpoint(packet.source, u16::from_be(packet.source_port)),
            )
        };
        // SAFETY: the place is a reservation of this type, with room for N ≥ `len` bytes.
        unsafe {
            let to = &raw mut (*record).data;
            if bpf_skb_load_bytes(ctx.skb.skb.cast(), packet.payload + skip, to.cast(), len) != 0 {
                return false;
            }
            let value = Head {
                header: socket.header(kind::HEAD, size_of::<Head>() + len as usize, now),
                flow: socket.flow,
                local,
                remote,
                direction: part.way,
                protocol: packet.protocol,
                offset: part.offset.wrapping_add(skip),
                segment_left: packet.len - skip,
                data_len: len,
                flags: part.flags,
            };
            (&raw mut (*record).record).write(value);
        }
        true
    });
}

/// `len` if it lies in 1..=`most`, checked where the verifier sees it.
///
/// Before 6.8 the verifier does not learn from `len != 0` that `len` is at least
/// 1 (reg_set_min_max, kernel/bpf/verifier.c): one is taken off, which makes an
/// unsigned bound of both limits, and put back.
#[inline(always)]
pub fn bounded(len: u32, most: u32) -> Option<u32> {
    let mut less_one = u64::from(len).wrapping_sub(1);
    // SAFETY: a move of a register to itself. The compiler, which may know the bounds, can
    // neither drop the comparison that the verifier needs to see nor use `len` after it.
    unsafe { asm!("{0} = {0}", inout(reg) less_one, options(nomem, nostack)) };
    if less_one < u64::from(most) {
        Some(less_one as u32 + 1)
    } else {
        None
    }
}
