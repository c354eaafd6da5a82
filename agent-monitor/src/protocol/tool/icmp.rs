//! Tunnels in the payload of ICMP's echoes: IP packets (hans, icmptunnel), and
//! ptunnel's own header.
//!
//! Whoever measures a path fills echoes with a time and a pattern. An IP header is
//! told from these by its length, which is that of the rest, and by its checksum.

use super::super::datagram::DatagramParser;
use super::super::{Answer, Fact as AnyFact, Side};
use super::{BYTES_MAX, Fact};

/// Bytes of a program's own header before the packet: hans has 5.
const BEFORE: usize = 16;
/// ptunnel's magic number (ptunnel.h, `kPing_tunnel_magic`), and that of ptunnel-ng.
const PTUNNEL: [[u8; 4]; 2] = [[0xd5, 0x20, 0x08, 0x80], [0xde, 0xad, 0xc0, 0xde]];
/// Bytes of its header.
const PTUNNEL_HEADER: usize = 28;

/// Looks at the echoes between two ends.
#[derive(Default)]
pub struct Echoes {
    told: bool,
}

impl DatagramParser for Echoes {
    fn datagram(
        &mut self,
        _side: Side,
        bytes: &[u8],
        len: u32,
        facts: &mut Vec<AnyFact>,
    ) -> Answer {
        if self.told {
            return Answer::Found;
        }
        let Some((tool, shown_by)) = tunnel(bytes, len as usize) else {
            return Answer::NeedMore;
        };
        self.told = true;
        let bytes = &bytes[..bytes.len().min(BYTES_MAX)];
        facts.push(AnyFact::Tool(Fact::new(tool, shown_by, bytes)));
        Answer::Found
    }
}

/// The tunnel that an echo's payload of `len` bytes belongs to, and why.
fn tunnel(bytes: &[u8], len: usize) -> Option<(&'static str, String)> {
    if len >= PTUNNEL_HEADER && PTUNNEL.iter().any(|magic| bytes.starts_with(magic)) {
        return Some(("ptunnel", "its header in an ICMP echo".to_owned()));
    }
    (0..=BEFORE).find_map(|at| {
        let (packet, len) = (bytes.get(at..)?, len.checked_sub(at)?);
        let version = if is_ipv4(packet, len) {
            4
        } else if is_ipv6(packet, len) {
            6
        } else {
            return None;
        };
        Some((
            "IP over ICMP",
            format!("an IPv{version} packet in an ICMP echo"),
        ))
    })
}

/// RFC 791, 3.1: the total length is all there is, and the header's sum is right.
fn is_ipv4(packet: &[u8], len: usize) -> bool {
    let Some([first, _, high, low, ..]) = packet.first_chunk::<20>() else {
        return false;
    };
    let header = usize::from(first & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([*high, *low]));
    let Some(header) = packet.get(..header).filter(|it| it.len() >= 20) else {
        return false;
    };
    first >> 4 == 4 && total == len && sum(header) == 0xffff
}

/// RFC 8200, 3: the payload's length is that of the rest, and what follows is known.
fn is_ipv6(packet: &[u8], len: usize) -> bool {
    /// Hop-by-hop options, TCP, UDP, a fragment, ICMPv6 (IANA, "Protocol Numbers").
    const NEXT: [u8; 5] = [0, 6, 17, 44, 58];
    let Some([first, _, _, _, high, low, next, hops, ..]) = packet.first_chunk::<40>() else {
        return false;
    };
    let rest = usize::from(u16::from_be_bytes([*high, *low]));
    first >> 4 == 6 && rest + 40 == len && NEXT.contains(next) && *hops > 0
}

/// Sum in ones' complement (RFC 1071): all ones where the checksum is right.
fn sum(header: &[u8]) -> u16 {
    let words = header.as_chunks::<2>().0.iter();
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What iputils 20221126 sent over a kernel's loopback: `ping -s 4`, by IPv4 and IPv6.
    const V4: &str = "450000201da34000400109270a0900010a0900010800acfc48fe000100010203";
    const V6: &str = "600892bf000c3a40fd000009000000000000000000000001\
                      fd00000900000000000000000000000180003a9f48ff000100010203";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|it| it.is_ascii_hexdigit()).collect();
        let pairs = digits.as_chunks::<2>().0.iter();
        pairs
            .map(|pair| {
                let text = std::str::from_utf8(pair).expect("digits");
                u8::from_str_radix(text, 16).expect("digits")
            })
            .collect()
    }

    fn told(payload: &[u8]) -> Option<&'static str> {
        let mut facts = Vec::new();
        let len = u32::try_from(payload.len()).expect("it is short");
        Echoes::default().datagram(Side::Initiator, payload, len, &mut facts);
        facts.into_iter().find_map(|fact| match fact {
            AnyFact::Tool(fact) => Some(fact.tool),
            _ => None,
        })
    }

    #[test]
    fn packets_of_both_versions_are_told_behind_a_header_too() {
        for packet in [bytes(V4), bytes(V6)] {
            for before in [&b""[..], b"hanc\x01", &[0; BEFORE]] {
                assert_eq!(told(&[before, &packet].concat()), Some("IP over ICMP"));
            }
            for end in 0..packet.len() {
                assert_eq!(told(&packet[..end]), None, "{end}");
            }
        }
    }

    #[test]
    fn what_only_begins_like_a_packet_is_none() {
        let mut wrong_sum = bytes(V4);
        wrong_sum[10] ^= 1;
        assert_eq!(told(&wrong_sum), None);
        let mut longer = bytes(V4);
        longer.push(0);
        assert_eq!(told(&longer), None);
    }

    #[test]
    fn payloads_of_ping_programs_are_none() {
        // iputils: a time and a row of numbers; Windows: letters; busybox: zeros.
        let row: Vec<u8> = (0x10..0x38).collect();
        let iputils = [
            &[0x45, 0, 0, 0x38, 0, 0, 0, 0, 0x45, 0, 0, 0, 0, 0, 0, 0][..],
            &row,
        ]
        .concat();
        assert_eq!(told(&iputils), None);
        assert_eq!(told(b"abcdefghijklmnopqrstuvwabcdefghi"), None);
        assert_eq!(told(&[0; 56]), None);
        assert_eq!(told(&[]), None);
    }

    #[test]
    fn ptunnel_is_told_by_its_header() {
        for magic in PTUNNEL {
            let header = [&magic[..], &[0; 24]].concat();
            assert_eq!(told(&header), Some("ptunnel"));
            assert_eq!(told(&header[..27]), None);
        }
    }
}
