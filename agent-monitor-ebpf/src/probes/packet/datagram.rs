//! Datagrams: UDP's, and the packets of raw and ICMP sockets. Each is a message,
//! of a flow that is a connected socket or one of its peers.

use agent_monitor_common::event::{Datagram as Record, FlowId, WithData, direction, kind};
use agent_monitor_common::limits::{CHUNK_LARGE, CHUNK_SMALL, CHUNKS_PER_SEGMENT};
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_skb_load_bytes};
use aya_ebpf::programs::SkBuffContext;

use super::head::bounded;
use super::parse::Packet;
use crate::address::{self, TCP_ESTABLISHED, endpoint};
use crate::maps::{FLOW_CONTROL, PAYLOAD};
use crate::peers::{self, Datagram, NOBODY, Peers, Who};
use crate::probes::datagram_burst;
use crate::sock::{CONNECTED, RAW, Sock};
use crate::{emit, task};

/// DNS (RFC 1035) and multicast DNS (RFC 6762): a resolver asks many questions
/// through one socket, and each is wanted whole.
const DNS_PORTS: [u32; 2] = [53, 5353];

/// Counts a datagram and sends up what is wanted of it.
#[inline(always)]
pub fn take(ctx: &SkBuffContext, sk: *mut bpf_sock, socket: &mut Sock, packet: &Packet, way: u32) {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: checked for null by the caller.
    let Some(peers) = (unsafe { peers::get_or_create(sk) }) else {
        emit::no_room(socket.agent);
        return;
    };
    let who = who(sk, socket, peers, packet, way);
    let local_port = if way == direction::OUT {
        packet.source_port
    } else {
        packet.destination_port
    };
    let cap = if is_dns(who.port) || is_dns(u32::from(u16::from_be(local_port))) {
        u32::MAX
    } else {
        socket.control.head_cap
    };
    let veil = peers.veil();
    let packet = &packet.veiled(veil);
    let who = who.veiled(veil);
    // SAFETY: the hook's context.
    let (segments, segment) = unsafe { ((*ctx.skb.skb).gso_segs, (*ctx.skb.skb).gso_size) };
    let datagram = Datagram {
        way,
        packets: segments.max(1) ^ veil,
        bytes: packet.len,
        cap: cap ^ veil,
        now,
    };
    let mut ended = NOBODY;
    let up = peers.count(&who, &datagram, &mut ended);
    datagram_burst::send(socket, &ended, now);
    let flow = FlowId {
        cookie: socket.flow.cookie,
        generation: who.generation,
    };
    if way == direction::IN
        && let Some(owner) = task::remembered(socket.tgid)
    {
        // SAFETY: a value of TASKS; packets on two CPUs may mix their writes,
        // which evidence for people can bear.
        unsafe {
            (*owner).last_rx_flow = flow;
            (*owner).last_rx_time = now;
        }
    }
    if ended.packets > 0 {
        // A burst's begin is where user space's wishes are looked up.
        // SAFETY: read of plain integers; an update at the same time gives the
        // old or the new value.
        if let Some(control) = unsafe { FLOW_CONTROL.get(socket.flow.cookie) } {
            socket.control = *control;
        }
    }
    if up > 0 {
        let part = Part {
            flow,
            way,
            segment,
            captured: up.min(CHUNKS_PER_SEGMENT * CHUNK_LARGE as u32),
        };
        send(ctx, socket, packet, &who, &part, now);
    }
}

#[inline(always)]
fn is_dns(port: u32) -> bool {
    port == DNS_PORTS[0] || port == DNS_PORTS[1]
}

/// Whose datagram it is. The kernel's own word counts where there is one: what the
/// socket is connected to; then what the program named in sendmsg(), because the
/// packet may bear a translated address; then the packet.
#[inline(always)]
fn who(sk: *mut bpf_sock, socket: &Sock, peers: &Peers, packet: &Packet, way: u32) -> Who {
    let (ip, port) = if way == direction::OUT {
        (packet.destination, packet.destination_port)
    } else {
        (packet.source, packet.source_port)
    };
    let other = Who::peer(ip, u16::from_be(port), packet.protocol);
    if socket.flags & RAW != 0 || (way == direction::OUT && peers.knows(other.generation)) {
        return other;
    }
    // SAFETY: checked for null by the caller; a member that any socket has.
    if unsafe { (*sk).state } == TCP_ESTABLISHED {
        // SAFETY: as above.
        let (ip, port) = unsafe { address::connected(sk) };
        // One that was connected before the watch has had one connection, as far as is known.
        let is_it = ip == socket.peer && port == socket.peer_port;
        if is_it || socket.flags & CONNECTED == 0 {
            return Who {
                generation: socket.flow.generation,
                ip,
                port,
                protocol: packet.protocol,
            };
        }
        return Who::peer(ip, port as u16, packet.protocol);
    }
    match peers.named() {
        Some(named) if way == direction::OUT => named,
        _ => other,
    }
}

/// What all records of one datagram share.
struct Part {
    flow: FlowId,
    way: u32,
    segment: u32,
    captured: u32,
}

/// Sends up `part.captured` bytes, in as many records as needed.
#[inline(always)]
fn send(ctx: &SkBuffContext, socket: &Sock, packet: &Packet, who: &Who, part: &Part, now: u64) {
    if part.captured <= CHUNK_SMALL as u32 {
        chunk::<CHUNK_SMALL>(ctx, socket, packet, who, part, (0, part.captured), now);
        return;
    }
    let mut done = 0;
    for _ in 0..CHUNKS_PER_SEGMENT {
        if done >= part.captured {
            break;
        }
        let len = (part.captured - done).min(CHUNK_LARGE as u32);
        chunk::<CHUNK_LARGE>(ctx, socket, packet, who, part, (done, len), now);
        done += len;
    }
}

#[inline(always)]
fn chunk<const N: usize>(
    ctx: &SkBuffContext,
    socket: &Sock,
    packet: &Packet,
    who: &Who,
    part: &Part,
    (offset, len): (u32, u32),
    now: u64,
) {
    emit::record::<WithData<Record, N>>(&PAYLOAD, kind::DATAGRAM, socket.agent, now, |record| {
        let Some(len) = bounded(len, N as u32) else {
            return false;
        };
        let local = if part.way == direction::OUT {
            endpoint(packet.source, u16::from_be(packet.source_port))
        } else {
            endpoint(packet.destination, u16::from_be(packet.destination_port))
        };
        // SAFETY: the place is a reservation of this type, with room for N ≥ `len` bytes.
        unsafe {
            let to = &raw mut (*record).data;
            if bpf_skb_load_bytes(ctx.skb.skb.cast(), packet.payload + offset, to.cast(), len) != 0
            {
                return false;
            }
            let value = Record {
                header: socket.header(kind::DATAGRAM, size_of::<Record>() + len as usize, now),
                flow: part.flow,
                local,
                remote: endpoint(who.ip, who.port as u16),
                direction: part.way,
                protocol: packet.protocol,
                offset,
                len: packet.len,
                captured: part.captured,
                segment: part.segment,
                data_len: len,
                pad: 0,
            };
            (&raw mut (*record).record).write(value);
        }
        true
    });
}
