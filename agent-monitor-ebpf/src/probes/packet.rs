//! cgroup `skb` both ways (`__cgroup_bpf_run_filter_skb`, kernel/bpf/cgroup.c,
//! since 4.10): heads, bursts and segment sizes of an agent's flows.
//!
//! A packet here may be a super-segment of up to 64 KiB (GSO, GRO). At ingress
//! `current` is whoever was interrupted: the owner comes from the socket. Softirq
//! re-enters while an egress program runs, so nothing is shared but the ring.

use core::arch::asm;

use agent_monitor_common::event::{
    Burst as BurstRecord, HEAD_OF_LISTENER, HEAD_TAKEN_OVER, Head, Segment, WithData, direction,
    kind,
};
use agent_monitor_common::limits::{
    BURST_BYTES, BURST_QUIET_NS, CHUNK_LARGE, CHUNK_SMALL, CHUNKS_PER_SEGMENT,
};
use agent_monitor_common::policy::{Class, FLOW_SEGMENTS};
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_sk_fullsock, bpf_skb_cgroup_id,
    bpf_skb_load_bytes, bpf_spin_lock, bpf_spin_unlock, bpf_tcp_sock,
};
use aya_ebpf::programs::SkBuffContext;

use crate::address::{IPPROTO_TCP, IPPROTO_UDP, endpoint, mapped};
use crate::maps::{FLOW_CONTROL, PAYLOAD};
use crate::sock::{self, Burst, ESTABLISHED, Half, Sock, TAKEN_OVER};
use crate::{emit, task};

const ETH_P_IP: u32 = 0x0800;
const ETH_P_IPV6: u32 = 0x86dd;
const TCP_SYN: u8 = 2;
const TCP_LISTEN: u32 = 10;
/// Largest receive window, with the largest scale (RFC 7323, 2.3).
const MAX_WINDOW: i32 = 1 << 30;

/// What the headers say.
struct Packet {
    source: [u32; 4],
    destination: [u32; 4],
    source_port: u16,
    destination_port: u16,
    protocol: u32,
    sequence: u32,
    syn: bool,
    /// Where the payload begins.
    payload: u32,
    /// Payload bytes.
    len: u32,
}

/// Looks at a packet of a socket.
#[inline(always)]
pub fn packet(ctx: &SkBuffContext, way: u32) {
    // SAFETY: the hook's context.
    let sk = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return;
    }
    // SAFETY: checked for null.
    let socket = match unsafe { sock::get(sk) } {
        Some(socket) => socket,
        None => match take_over(ctx, sk) {
            Some(socket) => socket,
            None => return,
        },
    };
    let Some(packet) = parse(ctx) else {
        return;
    };
    if packet.protocol == IPPROTO_TCP && socket.flags & ESTABLISHED == 0 {
        // SAFETY: a socket from the context, checked for null.
        let full = unsafe { bpf_sk_fullsock(sk) };
        // SAFETY: checked for null.
        if !full.is_null() && unsafe { (*full).state } == TCP_LISTEN {
            if packet.len > 0 && way == direction::IN {
                handshake_data(ctx, socket, &packet);
            }
            return;
        }
    }
    if packet.len == 0 && !packet.syn {
        return;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let expected = if way == direction::IN && packet.protocol == IPPROTO_TCP {
        expected(sk)
    } else {
        None
    };
    segment(ctx, socket, &packet, way, expected, now);
}

/// The sequence number that TCP waits for on this socket.
#[inline(always)]
fn expected(sk: *mut bpf_sock) -> Option<u32> {
    // SAFETY: a socket from the context, checked for null by the caller.
    let tcp = unsafe { bpf_tcp_sock(sk) };
    // SAFETY: checked for null.
    (!tcp.is_null()).then(|| unsafe { (*tcp).rcv_nxt })
}

/// A socket of an agent that was not seen being made: it is older than the
/// watch. Its owner is not known, its agent is.
#[inline(always)]
fn take_over<'a>(ctx: &SkBuffContext, sk: *mut bpf_sock) -> Option<&'a mut Sock> {
    // SAFETY: the hook's context.
    let cgroup = unsafe { bpf_skb_cgroup_id(ctx.skb.skb) };
    let agent = task::agent_of_cgroup(cgroup)?;
    // SAFETY: the caller has checked it for null.
    let socket = unsafe { sock::get_or_create(sk) }?;
    // SAFETY: as above.
    let full = unsafe { bpf_sk_fullsock(sk) };
    if full.is_null() {
        return None;
    }
    socket.agent = agent;
    socket.cgroup = cgroup;
    // SAFETY: checked for null.
    let (state, protocol) = unsafe { ((*full).state, (*full).protocol) };
    socket.protocol = protocol;
    socket.flags = match state {
        TCP_LISTEN => TAKEN_OVER,
        _ => TAKEN_OVER | ESTABLISHED,
    };
    // SAFETY: the hook's context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) };
    socket.begin(agent_monitor_common::event::FlowId {
        cookie,
        generation: 0,
    });
    Some(socket)
}

/// Counts the segment, closes and opens bursts, and sends up what is wanted.
#[inline(always)]
fn segment(
    ctx: &SkBuffContext,
    socket: &mut Sock,
    packet: &Packet,
    way: u32,
    expected: Option<u32>,
    now: u64,
) {
    let index = (way & 1) as usize;
    // Only a packet that may begin a burst needs its first bytes.
    let begins = socket.burst.packets == 0
        || socket.burst.direction != way
        || now.saturating_sub(socket.burst.last) > BURST_QUIET_NS;
    let mut first = [0u64; BURST_BYTES / 8];
    let mut first_len = 0;
    if begins && packet.len > 0 {
        first_len = load_first(ctx, packet, &mut first);
        // A burst's begin is where user space's wishes are looked up.
        // SAFETY: read of plain integers; an update at the same time gives the
        // old or the new value.
        if let Some(control) = unsafe { FLOW_CONTROL.get(socket.flow.cookie) } {
            socket.control = *control;
        }
    }
    let start = if packet.syn {
        packet.sequence.wrapping_add(1)
    } else {
        packet.sequence
    };
    let tcp = packet.protocol == IPPROTO_TCP;
    let mut ended = EMPTY;

    // SAFETY: the lock of this socket's storage; nothing is called while it is held.
    unsafe { bpf_spin_lock(&raw mut socket.lock) };
    let half = &mut socket.half[index];
    if half.known == 0 {
        half.base = start;
        half.next = start;
        half.known = 1;
    }
    let offset;
    let mut new = packet.len;
    if tcp {
        offset = start.wrapping_sub(half.base);
        let end = start.wrapping_add(packet.len);
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
    } else {
        // Datagrams are counted as a stream of their payloads.
        offset = half.bytes as u32;
    }
    if new > 0 {
        let at = half.bytes;
        half.bytes += u64::from(new);
        half.packets += 1;
        let burst = &mut socket.burst;
        if burst.packets > 0
            && (burst.direction != way || now.saturating_sub(burst.last) > BURST_QUIET_NS)
        {
            ended = *burst;
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
                data_len: first_len,
                pad: 0,
                data: first,
            };
        } else {
            burst.last = now;
            burst.bytes += u64::from(new);
            burst.packets += 1;
        }
    }
    // SAFETY: as above.
    unsafe { bpf_spin_unlock(&raw mut socket.lock) };

    if packet.len == 0 {
        return;
    }
    if ended.packets > 0 {
        send_burst(socket, &ended, now);
    }
    if way == direction::IN
        && let Some(owner) = task::remembered(socket.tgid)
    {
        // SAFETY: a value of TASKS; packets on two CPUs may mix their writes,
        // which evidence for people can bear.
        unsafe {
            (*owner).last_rx_flow = socket.flow;
            (*owner).last_rx_time = now;
        }
    }
    if offset < socket.control.head_cap {
        let want = socket.control.head_cap - offset;
        let taken = if socket.flags & TAKEN_OVER != 0 {
            HEAD_TAKEN_OVER
        } else {
            0
        };
        head(
            ctx,
            socket,
            packet,
            Part {
                way,
                offset,
                want,
                flags: taken,
            },
            now,
        );
    } else if new > 0 && socket.control.flags & FLOW_SEGMENTS != 0 {
        emit::record::<Segment>(&PAYLOAD, Class::Segment, socket.agent, now, |record| {
            let value = Segment {
                header: socket.header(kind::SEGMENT, size_of::<Segment>(), now),
                flow: socket.flow,
                offset,
                bytes: packet.len,
                direction: way,
                pad: 0,
            };
            // SAFETY: the place is a reservation of this type.
            unsafe { record.write(value) };
            true
        });
    }
}

const EMPTY: Burst = Burst {
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

/// Sends what is left of the burst that is going on.
#[inline(always)]
pub fn end_burst(socket: &mut Sock, now: u64) {
    // SAFETY: the lock of this socket's storage; nothing is called while it is held.
    unsafe { bpf_spin_lock(&raw mut socket.lock) };
    let ended = socket.burst;
    socket.burst.packets = 0;
    // SAFETY: as above.
    unsafe { bpf_spin_unlock(&raw mut socket.lock) };
    if ended.packets > 0 {
        send_burst(socket, &ended, now);
    }
}

#[inline(always)]
fn send_burst(socket: &Sock, burst: &Burst, now: u64) {
    emit::record::<BurstRecord>(&PAYLOAD, Class::Burst, socket.agent, now, |record| {
        // SAFETY: sixty-four bytes either way.
        let data = unsafe {
            core::mem::transmute::<[u64; BURST_BYTES / 8], [u8; BURST_BYTES]>(burst.data)
        };
        let value = BurstRecord {
            header: socket.header(kind::BURST, size_of::<BurstRecord>(), now),
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

/// Data on the handshake's last segment still belongs to the listener's socket.
/// It is counted there: right after this the accepted socket is cloned from the
/// listener (tcp_v4_rcv, net/ipv4/tcp_ipv4.c), with a copy of its storage.
#[inline(always)]
fn handshake_data(ctx: &SkBuffContext, listener: &mut Sock, packet: &Packet) {
    let base = if packet.syn {
        packet.sequence.wrapping_add(1)
    } else {
        packet.sequence
    };
    let early = Half {
        base,
        next: base.wrapping_add(packet.len),
        bytes: u64::from(packet.len),
        packets: 1,
        known: 1,
        pad: 0,
    };
    // SAFETY: the lock of this socket's storage; nothing is called while it is held.
    unsafe { bpf_spin_lock(&raw mut listener.lock) };
    listener.half[direction::IN as usize] = early;
    // SAFETY: as above.
    unsafe { bpf_spin_unlock(&raw mut listener.lock) };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let part = Part {
        way: direction::IN,
        offset: 0,
        want: listener.control.head_cap,
        flags: HEAD_OF_LISTENER,
    };
    head(ctx, listener, packet, part, now);
}

/// Which part of a segment goes up.
struct Part {
    way: u32,
    offset: u32,
    want: u32,
    flags: u32,
}

/// Sends up to `part.want` bytes of the payload, in as many records as needed.
#[inline(always)]
fn head(ctx: &SkBuffContext, socket: &Sock, packet: &Packet, part: Part, now: u64) {
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
    emit::record::<WithData<Head, N>>(&PAYLOAD, Class::Head, socket.agent, now, |record| {
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
fn bounded(len: u32, most: u32) -> Option<u32> {
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

/// Loads the first bytes of the payload; gives how many.
#[inline(always)]
fn load_first(ctx: &SkBuffContext, packet: &Packet, to: &mut [u64; BURST_BYTES / 8]) -> u32 {
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

/// The first bytes of an IPv4 header (RFC 791, 3.1), as words in network order.
type Ipv4 = [u32; 5];
/// An IPv6 header (RFC 8200, 3).
type Ipv6 = [u32; 10];
/// The first bytes of a TCP header (RFC 9293, 3.1), enough for its flags.
type Tcp = [u32; 4];

/// Extension headers that are passed over; more is nothing that TCP or UDP
/// stacks send.
const MAX_EXTENSIONS: u32 = 4;

/// The protocol behind IPv6's extension headers, and where it begins. At this
/// hook packets are whole: fragments are made after it and joined before it.
#[inline(always)]
fn after_extensions(ctx: &SkBuffContext, first: u32) -> Option<(u32, u32)> {
    /// Hop-by-hop options, routing, destination options (RFC 8200, 4).
    const EXTENSIONS: [u32; 3] = [0, 43, 60];
    let mut protocol = first;
    let mut at = size_of::<Ipv6>() as u32;
    for _ in 0..MAX_EXTENSIONS {
        if protocol != EXTENSIONS[0] && protocol != EXTENSIONS[1] && protocol != EXTENSIONS[2] {
            break;
        }
        let header: [u8; 2] = ctx.skb.load(at as usize).ok()?;
        protocol = u32::from(header[0]);
        at += (u32::from(header[1]) + 1) * 8;
    }
    Some((protocol, at))
}

#[inline(always)]
fn parse(ctx: &SkBuffContext) -> Option<Packet> {
    // SAFETY: the hook's context.
    let (ether, total) = unsafe {
        (
            u32::from(((*ctx.skb.skb).protocol as u16).swap_bytes()),
            (*ctx.skb.skb).len,
        )
    };
    let (source, destination, protocol, transport) = if ether == ETH_P_IP {
        let ip: Ipv4 = ctx.skb.load(0).ok()?;
        let header = (ip[0] & 0xf) * 4;
        let protocol = (ip[2] >> 8) & 0xff;
        (mapped(ip[3]), mapped(ip[4]), protocol, header)
    } else if ether == ETH_P_IPV6 {
        let ip: Ipv6 = ctx.skb.load(0).ok()?;
        let (protocol, transport) = after_extensions(ctx, (ip[1] >> 16) & 0xff)?;
        (
            [ip[2], ip[3], ip[4], ip[5]],
            [ip[6], ip[7], ip[8], ip[9]],
            protocol,
            transport,
        )
    } else {
        return None;
    };
    if protocol == IPPROTO_TCP {
        let tcp: Tcp = ctx.skb.load(transport as usize).ok()?;
        let payload = transport + ((tcp[3] >> 4) & 0xf) * 4;
        Some(Packet {
            source,
            destination,
            source_port: tcp[0] as u16,
            destination_port: (tcp[0] >> 16) as u16,
            protocol,
            sequence: u32::from_be(tcp[1]),
            syn: (tcp[3] >> 8) as u8 & TCP_SYN != 0,
            payload,
            len: total.saturating_sub(payload),
        })
    } else if protocol == IPPROTO_UDP {
        let udp: [u32; 2] = ctx.skb.load(transport as usize).ok()?;
        let payload = transport + 8;
        Some(Packet {
            source,
            destination,
            source_port: udp[0] as u16,
            destination_port: (udp[0] >> 16) as u16,
            protocol,
            sequence: 0,
            syn: false,
            payload,
            len: total.saturating_sub(payload),
        })
    } else {
        None
    }
}
