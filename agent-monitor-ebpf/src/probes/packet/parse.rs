//! What a packet's headers say.

use aya_ebpf::programs::SkBuffContext;

use crate::address::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, mapped};

const ETH_P_IP: u32 = 0x0800;
const ETH_P_IPV6: u32 = 0x86dd;
const TCP_SYN: u8 = 2;

/// What the headers say.
pub struct Packet {
    /// Address, network order; an IPv4 one is v4-mapped.
    pub source: [u32; 4],
    /// As `source`.
    pub destination: [u32; 4],
    /// Network order.
    pub source_port: u16,
    /// Network order.
    pub destination_port: u16,
    /// `IPPROTO_*`.
    pub protocol: u32,
    /// TCP's sequence number, host order.
    pub sequence: u32,
    /// TCP's flag.
    pub syn: bool,
    /// Where the payload begins.
    pub payload: u32,
    /// Payload bytes.
    pub len: u32,
}

/// A segment with the headers that nearly all have: of TCP, behind IP's without
/// options or extensions.
pub struct Plain {
    /// Sequence number, host order.
    pub sequence: u32,
    /// Where the payload begins.
    pub payload: u32,
    /// Payload bytes.
    pub len: u32,
}

/// Reads the headers of a [`Plain`] segment without a call: TCP has made sure that
/// they lie in one piece (tcp_v4_rcv, net/ipv4/tcp_ipv4.c). Nothing for others,
/// and for data that comes with SYN.
#[inline(always)]
pub fn plain(ctx: &SkBuffContext) -> Option<Plain> {
    // SAFETY: the hook's context, a member at a time.
    let (ether, total, data, end) = unsafe {
        let skb = ctx.skb.skb;
        (
            (&raw const (*skb).protocol).read_volatile(),
            (&raw const (*skb).len).read_volatile(),
            (&raw const (*skb).data).read_volatile() as usize,
            (&raw const (*skb).data_end).read_volatile() as usize,
        )
    };
    let header = if ether == ETH_P_IP.swap_bytes() >> 16 {
        const LEN: usize = size_of::<Ipv4>();
        if data + LEN + size_of::<Tcp>() > end {
            return None;
        }
        // SAFETY: the comparison above.
        let (version_and_len, protocol) =
            unsafe { (*(data as *const u8), *((data + 9) as *const u8)) };
        if version_and_len != 0x45 || u32::from(protocol) != IPPROTO_TCP {
            return None;
        }
        LEN
    } else if ether == ETH_P_IPV6.swap_bytes() >> 16 {
        const LEN: usize = size_of::<Ipv6>();
        if data + LEN + size_of::<Tcp>() > end {
            return None;
        }
        // SAFETY: the comparison above.
        if u32::from(unsafe { *((data + 6) as *const u8) }) != IPPROTO_TCP {
            return None;
        }
        LEN
    } else {
        return None;
    };
    // SAFETY: the comparison of each branch; packets need not be aligned.
    let tcp = unsafe { ((data + header) as *const Tcp).read_unaligned() };
    let payload = header as u32 + ((tcp[3] >> 4) & 0xf) * 4;
    let len = total.saturating_sub(payload);
    if len > 0 && (tcp[3] >> 8) as u8 & TCP_SYN != 0 {
        return None;
    }
    Some(Plain {
        sequence: u32::from_be(tcp[1]),
        payload,
        len,
    })
}

impl Packet {
    /// The same, mixed with a zero that the verifier does not know.
    #[inline(always)]
    pub fn veiled(&self, veil: u32) -> Self {
        let address = |[a, b, c, d]: [u32; 4]| [a ^ veil, b ^ veil, c ^ veil, d ^ veil];
        Self {
            source: address(self.source),
            destination: address(self.destination),
            source_port: self.source_port ^ veil as u16,
            destination_port: self.destination_port ^ veil as u16,
            protocol: self.protocol ^ veil,
            sequence: self.sequence,
            syn: self.syn,
            payload: self.payload ^ veil,
            len: self.len ^ veil,
        }
    }
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

/// Reads the headers. Where neither TCP nor UDP has been at work, as at a raw
/// socket's TCP, all after the IP header is payload; an ICMP echo's own is what
/// comes after its header.
#[inline(always)]
pub fn parse(ctx: &SkBuffContext, is_raw: bool) -> Option<Packet> {
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
        let payload = if is_raw {
            transport
        } else {
            transport + ((tcp[3] >> 4) & 0xf) * 4
        };
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
        let first: u8 = ctx.skb.load(transport as usize).ok()?;
        let payload = if is_echo(protocol, first) {
            transport + ECHO
        } else {
            transport
        };
        Some(Packet {
            source,
            destination,
            source_port: 0,
            destination_port: 0,
            protocol,
            sequence: 0,
            syn: false,
            payload,
            len: total.saturating_sub(payload),
        })
    }
}

/// Bytes of an ICMP echo's header (RFC 792; RFC 4443, 4.1).
const ECHO: u32 = 8;

/// Whether this is the type of an echo or of its reply.
#[inline(always)]
fn is_echo(protocol: u32, kind: u8) -> bool {
    (protocol == IPPROTO_ICMP && (kind == 0 || kind == 8))
        || (protocol == IPPROTO_ICMPV6 && (kind == 128 || kind == 129))
}
