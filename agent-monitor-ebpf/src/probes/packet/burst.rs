//! Segments in one direction with no long quiet between them.

use agent_monitor_common::event::{Burst as Record, Spell, direction, kind};
use agent_monitor_common::limits::{BURST_BYTES, BURST_QUIET_NS};
use agent_monitor_common::policy::LossReason;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_skb_load_bytes};
use aya_ebpf::programs::SkBuffContext;

use super::head::bounded;
use super::{batch, came_in};
use crate::maps::{FLOW_CONTROL, PAYLOAD};
use crate::sock::{Burst, Sock};
use crate::{atomic, emit};

/// How often the end of a flow looks whether a packet still holds the burst.
const TRIES: u32 = 16;

/// A segment's payload.
pub struct Payload {
    /// Where it begins in the packet.
    pub at: u32,
    /// Its bytes.
    pub len: u32,
    /// How many of them were not seen before.
    pub new: u32,
}

/// The kernel's tick, at most 10 ms long (`CONFIG_HZ`): shorter than the quiet
/// that ends a burst. An instruction, where the clock takes some dozen nanoseconds.
#[inline(always)]
fn tick() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_jiffies64() }
}

/// Counts a segment, ends the burst before it if it begins another. The clock is
/// only asked when no burst goes on.
///
/// When another packet holds the burst, this one is only counted: it is told of
/// with its direction's next burst.
#[inline(always)]
pub fn count(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    socket: &mut Sock,
    payload: &Payload,
    way: u32,
    clock: impl FnOnce() -> u64,
) {
    let index = (way & 1) as usize;
    if !socket.hold() {
        socket.half[index].miss(payload.new);
        return;
    }
    let tick = tick();
    let burst = &socket.burst;
    if burst.open == 0 || burst.spell.direction != way || burst.tick != tick {
        let now = clock();
        let quiet = now.saturating_sub(burst.spell.last) > BURST_QUIET_NS;
        if burst.open != 0 && (quiet || burst.spell.direction != way) {
            tell(sk, socket, burst.spell.direction, now);
            socket.burst.open = 0;
        }
        if socket.burst.open == 0 {
            begin(ctx, &mut socket.burst, payload, way, now);
        }
        socket.burst.spell.last = now;
        socket.burst.tick = tick;
        look(socket, index, tick as u32, now);
    }
    socket.burst.spell.bytes += u64::from(payload.new);
    socket.burst.spell.packets += 1;
    socket.release();
}

#[inline(always)]
fn begin(ctx: &SkBuffContext, burst: &mut Burst, payload: &Payload, way: u32, now: u64) {
    burst.open = 1;
    burst.spell.first = now;
    burst.spell.bytes = 0;
    burst.spell.packets = 0;
    burst.spell.direction = way;
    burst.spell.data_len = load(ctx, payload, &mut burst.spell.data);
}

/// Looks user space's wishes up, and notes with the owner that data came in: once
/// a tick, as bursts may be many.
#[inline(always)]
fn look(socket: &mut Sock, index: usize, tick: u32, now: u64) {
    if socket.half[index].looked == tick {
        return;
    }
    socket.half[index].looked = tick;
    // SAFETY: read of plain integers; an update at the same time gives the
    // old or the new value.
    if let Some(control) = unsafe { FLOW_CONTROL.get(socket.flow.cookie) } {
        socket.control = *control;
    }
    if index == direction::IN as usize {
        came_in(socket, now);
    }
}

/// Sends what nobody was told of yet, at the end of a flow.
///
/// # Safety
/// `sk` is a socket pointer from a program's context, checked for null.
#[inline(always)]
pub unsafe fn end(sk: *mut bpf_sock, socket: &mut Sock, now: u64) {
    for _ in 0..TRIES {
        if socket.hold() {
            if socket.burst.open != 0 {
                let last = socket.burst.spell.direction;
                tell(sk, socket, last ^ 1, now);
                tell(sk, socket, last, now);
                socket.burst.open = 0;
            }
            batch::flush(sk, socket, now);
            socket.release();
            return;
        }
    }
    emit::lose(socket.agent, kind::BURST, LossReason::Kernel);
}

/// Tells of what one direction has counted since it was last told of, or keeps it
/// to be told of soon. For who holds the socket.
#[inline(always)]
fn tell(sk: *mut bpf_sock, socket: &mut Sock, way: u32, now: u64) {
    let index = (way & 1) as usize;
    let is_burst = way == socket.burst.spell.direction;
    let half = &mut socket.half[index];
    let (mut bytes, mut packets) = (0, 0);
    if is_burst {
        bytes = socket.burst.spell.bytes;
        packets = socket.burst.spell.packets;
    }
    // SAFETY: members of a map value, which others add to.
    unsafe {
        if (&raw const half.missed_packets).read_volatile() != 0 {
            bytes += atomic::swap(&raw mut half.missed_bytes, 0);
            packets += atomic::swap(&raw mut half.missed_packets, 0) as u32;
        }
    }
    if packets == 0 {
        return;
    }
    let ended = Ended {
        bytes,
        offset: half.bytes,
        packets,
        direction: way,
        data_len: if is_burst {
            socket.burst.spell.data_len
        } else {
            0
        },
    };
    half.bytes += bytes;
    half.packets += u64::from(packets);
    if !batch::keep(sk, socket, &ended, now) {
        send(socket, &ended, now);
    }
}

/// What of a burst is known at its end.
pub struct Ended {
    bytes: u64,
    offset: u64,
    packets: u32,
    direction: u32,
    data_len: u32,
}

impl Ended {
    /// Together with what is known since its begin.
    #[inline(always)]
    pub fn spell(&self, burst: &Burst) -> Spell {
        Spell {
            first: burst.spell.first,
            last: burst.spell.last,
            bytes: self.bytes,
            offset: self.offset,
            packets: self.packets,
            direction: self.direction,
            data_len: self.data_len,
            pad: 0,
            data: burst.spell.data,
        }
    }
}

#[inline(always)]
fn send(socket: &Sock, ended: &Ended, now: u64) {
    emit::record::<Record>(&PAYLOAD, kind::BURST, socket.agent, now, |record| {
        // SAFETY: the place is a reservation of this type.
        unsafe {
            (&raw mut (*record).header).write(socket.header(kind::BURST, size_of::<Record>(), now));
            (&raw mut (*record).flow).write(socket.flow);
            (&raw mut (*record).spell).write(ended.spell(&socket.burst));
        }
        true
    });
}

/// Loads the first bytes of the payload; gives how many.
#[inline(always)]
fn load(ctx: &SkBuffContext, payload: &Payload, to: &mut [u8; BURST_BYTES]) -> u32 {
    let Some(len) = bounded(payload.len.min(BURST_BYTES as u32), BURST_BYTES as u32) else {
        return 0;
    };
    // SAFETY: at most as many bytes as there is room for.
    let failed =
        unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), payload.at, to.as_mut_ptr().cast(), len) };
    if failed == 0 { len } else { 0 }
}
