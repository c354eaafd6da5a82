//! From a link's frame to the IP packet in it.

/// <https://www.tcpdump.org/linktypes.html>.
const NULL: u32 = 0;
const ETHERNET: u32 = 1;
/// `LINKTYPE_RAW`, and what `DLT_RAW` is on some systems.
const RAW: [u32; 3] = [101, 12, 14];
const LOOP: u32 = 108;
const LINUX_SLL: u32 = 113;
const IPV4: u32 = 228;
const IPV6: u32 = 229;
const LINUX_SLL2: u32 = 276;

/// IEEE 802 numbers.
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad, and what was used for the outer tag before that.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// Tags of one frame that are skipped.
const MAX_TAGS: usize = 4;

/// `AF_INET`, and `AF_INET6` of Linux, NetBSD, FreeBSD and macOS.
const FAMILIES: [u32; 5] = [2, 10, 24, 28, 30];

/// What a frame holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// An IP packet, by what the link says.
    Ip(&'a [u8]),
    /// Something else.
    Other,
    /// The frame is too short for its headers.
    Short,
    /// This link is not known.
    UnknownLink,
}

/// Unpacks a frame.
pub fn payload(link: u32, frame: &[u8]) -> Payload<'_> {
    match link {
        ETHERNET => after(frame, 12, 14),
        LINUX_SLL => after(frame, 14, 16),
        LINUX_SLL2 => after(frame, 0, 20),
        NULL | LOOP => match frame.split_first_chunk() {
            // Host byte order, of whichever host; or network order.
            Some((family, rest))
                if FAMILIES.contains(&u32::from_le_bytes(*family))
                    || FAMILIES.contains(&u32::from_be_bytes(*family)) =>
            {
                Payload::Ip(rest)
            }
            Some(_) => Payload::Other,
            None => Payload::Short,
        },
        IPV4 | IPV6 => Payload::Ip(frame),
        raw if RAW.contains(&raw) => Payload::Ip(frame),
        _ => Payload::UnknownLink,
    }
}

/// The packet behind a header of `length` bytes with an Ethernet type at `place`.
fn after(frame: &[u8], place: usize, length: usize) -> Payload<'_> {
    let (Some(mut kind), Some(mut rest)) = (word(frame, place), frame.get(length..)) else {
        return Payload::Short;
    };
    for _ in 0..MAX_TAGS {
        if !TAGS.contains(&kind) {
            break;
        }
        let (Some(inner), Some(behind)) = (word(rest, 2), rest.get(4..)) else {
            return Payload::Short;
        };
        (kind, rest) = (inner, behind);
    }
    match kind {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => Payload::Ip(rest),
        _ => Payload::Other,
    }
}

fn word(bytes: &[u8], place: usize) -> Option<u16> {
    let word = bytes.get(place..)?.first_chunk()?;
    Some(u16::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_packet_behind_every_link() {
        let ethernet = |tags: &[u8]| [&[7; 12], tags, b"\x08\x00IP"].concat();
        let cases: [(u32, Vec<u8>); 9] = [
            (ETHERNET, ethernet(b"")),
            (ETHERNET, ethernet(b"\x81\x00\x00\x01")),
            (ETHERNET, ethernet(b"\x88\xa8\x00\x01\x81\x00\x00\x02")),
            (LINUX_SLL, [&[0; 14], &b"\x86\xddIP"[..]].concat()),
            (LINUX_SLL2, [&b"\x08\x00"[..], &[0; 18], b"IP"].concat()),
            (NULL, b"\x02\0\0\0IP".into()),
            (NULL, b"\0\0\0\x1eIP".into()),
            (LOOP, b"\0\0\0\x02IP".into()),
            (101, b"IP".into()),
        ];
        for (link, frame) in cases {
            assert_eq!(
                payload(link, &frame),
                Payload::Ip(b"IP"),
                "{link} {frame:?}"
            );
        }
    }

    #[test]
    fn tells_what_is_no_ip_what_is_short_and_what_is_unknown() {
        assert_eq!(payload(ETHERNET, &[6; 40]), Payload::Other);
        assert_eq!(payload(NULL, &[1; 40]), Payload::Other);
        for link in [ETHERNET, LINUX_SLL, LINUX_SLL2, NULL] {
            assert_eq!(payload(link, b"\0"), Payload::Short);
        }
        assert_eq!(payload(105, &[0; 40]), Payload::UnknownLink);
    }
}
