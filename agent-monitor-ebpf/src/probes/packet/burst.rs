//! Segments in one direction with no long quiet between them.

use agent_monitor_common::event::{Burst as Record, kind};
use agent_monitor_common::limits::{BURST_BYTES, BURST_QUIET_NS};
use aya_ebpf::helpers::generated::{bpf_skb_load_bytes, bpf_spin_lock, bpf_spin_unlock};
use aya_ebpf::programs::SkBuffContext;

use super::head::bounded;
use super::parse::Packet;
use crate::emit;
use crate::maps::{FLOW_CONTROL, PAYLOAD};
use crate::sock::{Burst, Sock};

/// No burst.
pub const NONE: Burst = Burst {
    first: 0,
    last: 0,
    bytes: 0,
    offset: 0,
    packets: 0,
    direction: 0,
    data_len: 0,
    pad: 0,
    data: [0; BURST_BYTES / 8],
};

/// First bytes of a packet that may begin a burst.
pub struct First {
    data: [u64; BURST_BYTES / 8],
    len: u32,
}

/// Whether a packet that comes now begins a burst.
#[inline(always)]
fn begins(burst: &Burst, way: u32, now: u64) -> bool {
    burst.packets == 0 || burst.direction != way || now.saturating_sub(burst.last) > BURST_QUIET_NS
}

/// Gets ready for a packet that may begin a burst: its first bytes are needed,
/// and this is when user space's wishes are looked up.
#[inline(always)]
pub fn first(ctx: &SkBuffContext, socket: &mut Sock, packet: &Packet, way: u32, now: u64) -> First {
    let mut first = First {
        data: [0; BURST_BYTES / 8],
        len: 0,
    };
    if packet.len > 0 && begins(&socket.burst, way, now) {
        first.len = load(ctx, packet, &mut first.data);
        // SAFETY: read of plain integers; an update at the same time gives the
        // old or the new value.
        if let Some(control) = unsafe { FLOW_CONTROL.get(socket.flow.cookie) } {
            socket.control = *control;
        }
    }
    first
}

/// Counts `new` bytes of a packet; a burst that it closes goes to `ended`.
///
/// Runs under the socket's lock, where nothing may be called: not even the
/// memset that a [`NONE`] made in here would become.
#[inline(always)]
pub fn add(socket: &mut Sock, way: u32, new: u32, first: &First, now: u64, ended: &mut Burst) {
    let half = &mut socket.half[(way & 1) as usize];
    let at = half.bytes;
    half.bytes += u64::from(new);
    half.packets += 1;
    let burst = &mut socket.burst;
    if burst.packets > 0 && begins(burst, way, now) {
        *ended = *burst;
        burst.packets = 0;
    }
    if burst.packets == 0 {
        *burst = Burst {
            first: now,
            last: now,
            bytes: u64::from(new),
            offset: at,
            packets: 1,
            direction: way,
            data_len: first.len,
            pad: 0,
            data: first.data,
        };
    } else {
        burst.last = now;
        burst.bytes += u64::from(new);
        burst.packets += 1;
    }
}

/// Sends what is left of the burst that is going on.
#[inline(always)]
pub fn end(socket: &mut Sock, now: u64) {
    // SAFETY: the lock of this socket's storage; nothing is called while it is held.
    unsafe { bpf_spin_lock(&raw mut socket.lock) };
    let ended = socket.burst;
    socket.burst.packets = 0;
    // SAFETY: as above.
    unsafe { bpf_spin_unlock(&raw mut socket.lock) };
    if ended.packets > 0 {
        send(socket, &ended, now);
    }
}

#[inline(always)]
pub fn send(socket: &Sock, burst: &Burst, now: u64) {
    emit::record::<Record>(&PAYLOAD, kind::BURST, socket.agent, now, |record| {
        // SAFETY: sixty-four bytes either way.
        let data = unsafe {
            core::mem::transmute::<[u64; BURST_BYTES / 8], [u8; BURST_BYTES]>(burst.data)
        };
        let value = Record {
            header: socket.header(kind::BURST, size_of::<Record>(), now),
            flow: socket.flow,
            first: burst.first,
            last: burst.last,
            bytes: burst.bytes,
            offset: burst.offset,
            packets: burst.packets,
            direction: burst.direction,
            data_len: burst.data_len,
            pad: 0,
            data,
        };
        // SAFETY: the place is a reservation of this type.
        unsafe { record.write(value) };
        true
    });
}

/// Loads the first bytes of the payload; gives how many.
#[inline(always)]
fn load(ctx: &SkBuffContext, packet: &Packet, to: &mut [u64; BURST_BYTES / 8]) -> u32 {
    let Some(len) = bounded(packet.len.min(BURST_BYTES as u32), BURST_BYTES as u32) else {
        return 0;
    };
    // SAFETY: at most as many bytes as there is room for.
    let failed = unsafe {
        bpf_skb_load_bytes(
            ctx.skb.skb.cast(),
            packet.payload,
            to.as_mut_ptr().cast(),
            len,
        )
    };
    if failed == 0 { len } else { 0 }
}
