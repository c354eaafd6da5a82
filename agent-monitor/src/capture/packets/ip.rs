//! IPv4 and IPv6 headers, extension headers included.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IANA, "Assigned Internet Protocol Numbers".
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
/// Extension headers of one packet that are skipped.
const MAX_EXTENSIONS: usize = 16;

/// A packet, or a fragment of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
    /// What follows the IP headers.
    pub protocol: u8,
    /// What was captured of that.
    pub payload: &'a [u8],
    /// Bytes of it that were sent.
    pub length: usize,
    /// Which part of a packet this is.
    pub fragment: Option<Fragment>,
}

/// A fragment's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Which packet it belongs to.
    pub id: u32,
    /// Bytes before it.
    pub offset: usize,
    /// Others follow.
    pub more: bool,
}

/// Reads the IP headers; nothing if they are cut or contradict themselves.
pub fn parse(bytes: &[u8]) -> Option<Packet<'_>> {
    match bytes.first()? >> 4 {
        4 => parse_v4(bytes),
        6 => parse_v6(bytes),
        _ => None,
    }
}

fn parse_v4(bytes: &[u8]) -> Option<Packet<'_>> {
    let (header, _) = bytes.split_first_chunk::<20>()?;
    let header_length = usize::from(header[0] & 15) * 4;
    let total = match usize::from(u16::from_be_bytes([header[2], header[3]])) {
        // Captured before the card cut it into segments (TSO).
        0 => bytes.len(),
        total => total,
    };
    if header_length < 20 {
        return None;
    }
    let length = total.checked_sub(header_length)?;
    let payload = bytes.get(header_length..)?;
    let place = u16::from_be_bytes([header[6], header[7]]);
    let fragment = Fragment {
        id: u32::from(u16::from_be_bytes([header[4], header[5]])),
        offset: usize::from(place & 0x1fff) * 8,
        more: place & 0x2000 != 0,
    };
    Some(Packet {
        source: Ipv4Addr::from_octets([header[12], header[13], header[14], header[15]]).into(),
        destination: Ipv4Addr::from_octets([header[16], header[17], header[18], header[19]]).into(),
        protocol: header[9],
        payload: &payload[..length.min(payload.len())],
        length,
        fragment: (fragment.more || fragment.offset > 0).then_some(fragment),
    })
}

fn parse_v6(bytes: &[u8]) -> Option<Packet<'_>> {
    let (header, rest) = bytes.split_first_chunk::<40>()?;
    let address = |from: usize| -> Option<IpAddr> {
        let octets = header.get(from..)?.first_chunk::<16>()?;
        Some(Ipv6Addr::from_octets(*octets).to_canonical())
    };
    let length = match usize::from(u16::from_be_bytes([header[4], header[5]])) {
        // As in IPv4; also a jumbogram (RFC 2675).
        0 => rest.len(),
        length => length,
    };
    let mut packet = Packet {
        source: address(8)?,
        destination: address(24)?,
        protocol: header[6],
        payload: &rest[..length.min(rest.len())],
        length,
        fragment: None,
    };
    packet.skip_extensions()?;
    Some(packet)
}

impl Packet<'_> {
    /// Goes on to what follows the extension headers, or the fragment's.
    pub fn skip_extensions(&mut self) -> Option<()> {
        for _ in 0..MAX_EXTENSIONS {
            let size = match self.protocol {
                // RFC 8200, 4.
                HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY => {
                    8 * (usize::from(*self.payload.get(1)?) + 1)
                }
                // RFC 4302, 2.2.
                AUTHENTICATION => 4 * (usize::from(*self.payload.get(1)?) + 2),
                FRAGMENT => 8,
                _ => return Some(()),
            };
            let header = self.payload.get(..size)?;
            let next = header[0];
            if self.protocol == FRAGMENT {
                let place = u16::from_be_bytes([header[2], header[3]]);
                let fragment = Fragment {
                    id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
                    offset: usize::from(place & 0xfff8),
                    more: place & 1 != 0,
                };
                // One that is all there is whole (RFC 6946).
                self.fragment = (fragment.more || fragment.offset > 0).then_some(fragment);
            }
            self.payload = &self.payload[size..];
            self.length = self.length.checked_sub(size)?;
            self.protocol = next;
            if self.fragment.is_some() {
                return Some(());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(place: u16, total: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x45, 0];
        bytes.extend(total.to_be_bytes());
        bytes.extend([0, 9]);
        bytes.extend(place.to_be_bytes());
        bytes.extend([64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2]);
        bytes.extend(rest);
        bytes
    }

    fn v6(next: u8, length: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(length.to_be_bytes());
        bytes.extend([next, 64]);
        for end in [1u8, 2] {
            bytes.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, end.into()).octets());
        }
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn padding_behind_a_packet_is_not_its_payload_and_a_cut_one_keeps_its_length() {
        let padded = v4(0, 22, b"abPAD");
        let packet = parse(&padded).expect("it is whole");
        assert_eq!((packet.payload, packet.length), (&b"ab"[..], 2));
        assert_eq!(packet.fragment, None);
        assert_eq!(packet.source, IpAddr::from([192, 0, 2, 1]));
        let cut = v4(0, 120, b"ab");
        let packet = parse(&cut).expect("the header is whole");
        assert_eq!((packet.payload, packet.length), (&b"ab"[..], 100));
    }

    #[test]
    fn skips_extension_headers_up_to_a_fragment() {
        let mut rest = vec![DESTINATION, 0, 0, 0, 0, 0, 0, 0];
        rest.extend([FRAGMENT, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend([17, 0, 0, 9, 0, 0, 0, 5]);
        rest.extend(b"xy");
        let bytes = v6(HOP_BY_HOP, 26, &rest);
        let packet = parse(&bytes).expect("it is whole");
        let fragment = Fragment {
            id: 5,
            offset: 8,
            more: true,
        };
        assert_eq!((packet.protocol, packet.payload), (17, &b"xy"[..]));
        assert_eq!((packet.length, packet.fragment), (2, Some(fragment)));
    }

    #[test]
    fn no_bytes_panic() {
        for first in 0..=255 {
            for length in 0..70 {
                let mut bytes = vec![first; length];
                for next in [0, 44, 51, 255] {
                    if let Some(place) = bytes.get_mut(6) {
                        *place = next;
                    }
                    let _ = parse(&bytes);
                }
            }
        }
    }

    #[test]
    fn headers_that_contradict_themselves_are_none() {
        assert_eq!(parse(&v4(0, 19, b"")), None);
        assert_eq!(parse(&v6(ROUTING, 8, &[6, 9, 0, 0, 0, 0, 0, 0])), None);
        assert_eq!(parse(b""), None);
    }
}
