//! Segments in one direction with no long quiet between them.

use agent_monitor_common::event::{Burst as Record, kind};
use agent_monitor_common::limits::{BURST_BYTES, BURST_QUIET_NS};
use agent_monitor_common::policy::LossReason;
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_skb_load_bytes};
use aya_ebpf::programs::SkBuffContext;

use super::head::bounded;
use super::parse::Packet;
use crate::emit;
use crate::maps::{FLOW_CONTROL, PAYLOAD};
use crate::sock::{Burst, Sock, Told};

/// How often the end of a flow looks whether a packet still holds the burst.
const TRIES: u32 = 16;

/// The kernel's tick, at most 10 ms long (`CONFIG_HZ`): shorter than the quiet
/// that ends a burst. An instruction, where the clock takes some dozen nanoseconds.
#[inline(always)]
fn tick() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_jiffies64() }
}

/// Whether a packet that comes now surely belongs to this burst.
#[inline(always)]
pub fn goes_on(burst: &Burst, way: u32) -> bool {
    burst.open != 0 && burst.direction == way && burst.tick == tick()
}

/// Counts `new` bytes of a packet, ends the burst before it if it begins another;
/// gives what its direction had counted before.
///
/// When another packet holds the burst, this one is only counted: it is told of
/// with its direction's next burst.
#[inline(always)]
pub fn count(
    ctx: &SkBuffContext,
    socket: &mut Sock,
    packet: &Packet,
    way: u32,
    new: u32,
    now: u64,
) -> u64 {
    let index = (way & 1) as usize;
    if !socket.hold() {
        return socket.half[index].add(new);
    }
    let quiet = now.saturating_sub(socket.burst.last) > BURST_QUIET_NS;
    if socket.burst.open != 0 && (quiet || socket.burst.direction != way) {
        send(socket, socket.burst.direction, now);
        socket.burst.open = 0;
    }
    if socket.burst.open == 0 {
        socket.burst.open = 1;
        socket.burst.direction = way;
        socket.burst.first = now;
        socket.burst.data_len = load(ctx, packet, &mut socket.burst.data);
        // A burst's begin is where user space's wishes are looked up.
        // SAFETY: read of plain integers; an update at the same time gives the
        // old or the new value.
        if let Some(control) = unsafe { FLOW_CONTROL.get(socket.flow.cookie) } {
            socket.control = *control;
        }
    }
    socket.burst.last = now;
    socket.burst.tick = tick();
    let before = socket.half[index].add(new);
    socket.release();
    before
}

/// Sends what nobody was told of yet, at the end of a flow.
#[inline(always)]
pub fn end(socket: &mut Sock, now: u64) {
    for _ in 0..TRIES {
        if socket.hold() {
            if socket.burst.open != 0 {
                let last = socket.burst.direction;
                send(socket, last ^ 1, now);
                send(socket, last, now);
                socket.burst.open = 0;
            }
            socket.release();
            return;
        }
    }
    emit::lose(socket.agent, kind::BURST, LossReason::Kernel);
}

/// Tells of what one direction has counted since it was last told of.
#[inline(always)]
fn send(socket: &mut Sock, way: u32, now: u64) {
    let index = (way & 1) as usize;
    let (half, told) = (socket.half[index], socket.burst.told[index]);
    let packets = half.packets.wrapping_sub(told.packets) as u32;
    if packets == 0 {
        return;
    }
    socket.burst.told[index] = Told {
        bytes: half.bytes,
        packets: half.packets,
    };
    let socket = &*socket;
    emit::record::<Record>(&PAYLOAD, kind::BURST, socket.agent, now, |record| {
        let burst = &socket.burst;
        // SAFETY: sixty-four bytes either way.
        let data = unsafe {
            core::mem::transmute::<[u64; BURST_BYTES / 8], [u8; BURST_BYTES]>(burst.data)
        };
        let value = Record {
            header: socket.header(kind::BURST, size_of::<Record>(), now),
            flow: socket.flow,
            first: burst.first,
            last: burst.last,
            bytes: half.bytes.wrapping_sub(told.bytes),
            offset: told.bytes,
            packets,
            direction: way,
            data_len: if way == burst.direction {
                burst.data_len
            } else {
                0
            },
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
