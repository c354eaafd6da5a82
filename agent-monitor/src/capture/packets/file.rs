//! Packet captures: pcap and pcapng, packet by packet, in bounded memory.

use std::io::{self, Read};

use pcap_parser::{Block, PcapBlockOwned, PcapError, PcapHeader, create_reader};

/// Bytes of a file that are in memory at once, so the longest block: four times
/// the longest packet of tcpdump (`MAXIMUM_SNAPLEN` of libpcap is 262,144).
pub const BUFFER: usize = 1 << 20;
/// Interfaces of a pcapng section.
const MAX_INTERFACES: usize = 4_096;
const NANOSECONDS: u64 = 1_000_000_000;

/// One captured packet.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Nanoseconds since the Unix epoch; nothing in a block without a time.
    pub time: Option<u64>,
    /// `LINKTYPE_*`.
    pub link: u32,
    /// What was kept of it.
    pub data: &'a [u8],
}

/// Why a capture cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading failed.
    #[error("the capture cannot be read at packet {0}")]
    Unreadable(u64, #[source] io::Error),
    /// Neither.
    #[error("this is neither a packet capture (pcap, pcapng) nor a recording of agent-monitor")]
    NotACapture,
    /// The file ends before the packet does, or a length before it is wrong.
    #[error("the capture ends in the middle of packet {0}, or is damaged there")]
    Cut(u64),
    /// Damage.
    #[error("the capture is damaged at packet {0}")]
    Damaged(u64),
    /// Something longer than any packet.
    #[error("packet {0}, or what is before it, is longer than any packet: is the file damaged?")]
    TooLong(u64),
    /// A packet's interface was not described.
    #[error("packet {0} is of an interface that the capture does not describe")]
    NoInterface(u64),
    /// Interfaces that a packet may be of are more than anybody has.
    #[error(
        "before packet {0}, more than {MAX_INTERFACES} interfaces are described: is the file damaged?"
    )]
    TooManyInterfaces(u64),
}

struct Interface {
    link: u32,
    /// Units of time in a second.
    resolution: u128,
    /// Nanoseconds to add.
    offset: i128,
}

/// Fills the whole buffer at each read, as a short one would be taken for the end.
/// A read that fails is the end, so that what came before it is handed on.
struct Filling<'a, R> {
    from: R,
    failed: &'a mut Option<io::Error>,
}

impl<R: Read> Read for Filling<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < to.len() && self.failed.is_none() {
            match self.from.read(&mut to[filled..]) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => *self.failed = Some(error),
            }
        }
        Ok(filled)
    }
}

/// Reads a capture and hands on each packet with its number, from 1. No block may be
/// longer than `buffer`, [`BUFFER`] where nothing speaks against it.
///
/// # Errors
/// The capture cannot be read on, or `hand_on` failed; packets from before that
/// have been handed on.
pub fn read<E: From<Error>>(
    from: impl Read + Send,
    buffer: usize,
    mut hand_on: impl FnMut(u64, Frame<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let (mut failed, mut number, mut stopped) = (None, 1, false);
    let filling = Filling {
        from,
        failed: &mut failed,
    };
    let outcome = read_blocks(filling, buffer, &mut number, |number, frame| {
        hand_on(number, frame).inspect_err(|_| stopped = true)
    });
    match failed {
        Some(error) if !stopped => Err(Error::Unreadable(number, error).into()),
        _ => outcome,
    }
}

fn read_blocks<E: From<Error>>(
    from: impl Read + Send,
    buffer: usize,
    number: &mut u64,
    mut hand_on: impl FnMut(u64, Frame<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = create_reader(buffer, from).map_err(|_| Error::NotACapture)?;
    let mut interfaces: Vec<Interface> = Vec::new();
    let mut legacy = None;
    loop {
        let used = match reader.next() {
            Ok((used, block)) => {
                let frame = match &block {
                    PcapBlockOwned::LegacyHeader(header) => {
                        legacy = Some(Legacy::new(header));
                        None
                    }
                    PcapBlockOwned::Legacy(packet) => {
                        let legacy = legacy.as_ref().ok_or(Error::NotACapture)?;
                        let seconds = u64::from(packet.ts_sec) * NANOSECONDS;
                        let part = u64::from(packet.ts_usec) * legacy.unit;
                        Some(Frame {
                            time: Some(seconds + part),
                            link: legacy.link,
                            data: packet.data,
                        })
                    }
                    PcapBlockOwned::NG(block) => frame(block, &mut interfaces, *number)?,
                };
                if let Some(frame) = frame {
                    hand_on(*number, frame)?;
                    *number += 1;
                }
                used
            }
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::Incomplete(_)) => {
                reader.refill().map_err(|_| Error::Damaged(*number))?;
                continue;
            }
            Err(PcapError::UnexpectedEof) => return Err(Error::Cut(*number).into()),
            Err(PcapError::BufferTooSmall) => return Err(Error::TooLong(*number).into()),
            Err(_) => return Err(Error::Damaged(*number).into()),
        };
        reader.consume(used);
    }
}

struct Legacy {
    link: u32,
    /// Nanoseconds of a unit of a packet's time below the second.
    unit: u64,
}

impl Legacy {
    fn new(header: &PcapHeader) -> Self {
        let link = u32::from_ne_bytes(header.network.0.to_ne_bytes());
        Self {
            // The upper bits tell of a checksum that follows each packet.
            link: link & 0x0fff_ffff,
            unit: match header.is_nanosecond_precision() {
                true => 1,
                false => 1_000,
            },
        }
    }
}

fn frame<'a>(
    block: &'a Block<'_>,
    interfaces: &mut Vec<Interface>,
    number: u64,
) -> Result<Option<Frame<'a>>, Error> {
    let at = |index: u32| interfaces.get(index as usize);
    match block {
        Block::SectionHeader(_) => {
            interfaces.clear();
            Ok(None)
        }
        Block::InterfaceDescription(described) => {
            if interfaces.len() == MAX_INTERFACES {
                return Err(Error::TooManyInterfaces(number));
            }
            // pcapng, 4.2: 10 or, with the highest bit, 2 to the power of the rest.
            let (base, power) = match described.if_tsresol {
                power @ 0x80.. => (2u128, power & 0x7f),
                power => (10, power),
            };
            interfaces.push(Interface {
                link: u32::from_ne_bytes(described.linktype.0.to_ne_bytes()),
                resolution: base.checked_pow(power.into()).unwrap_or(u128::MAX),
                offset: i128::from(described.if_tsoffset) * i128::from(NANOSECONDS),
            });
            Ok(None)
        }
        Block::EnhancedPacket(packet) => {
            let interface = at(packet.if_id).ok_or(Error::NoInterface(number))?;
            let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            let (whole, part) = (
                u128::from(units) / interface.resolution,
                u128::from(units) % interface.resolution,
            );
            let second = u128::from(NANOSECONDS);
            // A part of a unit of less than 10^-29 seconds is none.
            let part = part.checked_mul(second).unwrap_or(0) / interface.resolution;
            let time = i128::try_from(whole * second + part).unwrap_or(i128::MAX);
            let time = time.saturating_add(interface.offset).max(0);
            Ok(Some(Frame {
                time: Some(u64::try_from(time).unwrap_or(u64::MAX)),
                link: interface.link,
                data: kept(packet.data, packet.caplen),
            }))
        }
        Block::SimplePacket(packet) => {
            let interface = at(0).ok_or(Error::NoInterface(number))?;
            Ok(Some(Frame {
                time: None,
                link: interface.link,
                data: kept(packet.data, packet.origlen),
            }))
        }
        _ => Ok(None),
    }
}

/// The packet without the padding after it.
fn kept(data: &[u8], length: u32) -> &[u8] {
    data.get(..length as usize).unwrap_or(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pcap file with packets of a byte each, `time` units after second 3.
    fn pcap(magic: u32, big: bool, times: &[u32]) -> Vec<u8> {
        let word = |word: u32| {
            if big {
                word.to_be_bytes()
            } else {
                word.to_le_bytes()
            }
        };
        let version = if big { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
        let mut bytes = [
            word(magic),
            version,
            word(0),
            word(0),
            word(65_535),
            word(1),
        ]
        .concat();
        for time in times {
            bytes.extend([word(3), word(*time), word(1), word(60)].concat());
            bytes.push(b'x');
        }
        bytes
    }

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(12 + body.len())
            .expect("it is short")
            .to_le_bytes();
        [&kind.to_le_bytes(), &length[..], body, &length].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// A pcapng section whose packets count 2 to the power of -10 seconds from 100 s on.
    fn pcapng() -> Vec<u8> {
        let section = words(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]);
        let mut interface = words(&[101, 0]);
        interface.extend([9, 0, 1, 0, 0x8a, 0, 0, 0]);
        interface.extend([14, 0, 8, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let packet = [&words(&[0, 0, 2_560, 2, 90])[..], b"ab\0\0"].concat();
        let simple = [&words(&[3])[..], b"abc\0"].concat();
        [
            block(0x0a0d_0d0a, &section),
            block(1, &interface),
            block(6, &packet),
            block(0xbad, &[0; 40]),
            block(3, &simple),
        ]
        .concat()
    }

    type Seen = (u64, Option<u64>, u32, Vec<u8>);

    fn seen(from: impl Read + Send) -> (Vec<Seen>, Result<(), Error>) {
        let mut seen = Vec::new();
        let outcome = read(from, BUFFER, |number, frame| {
            seen.push((number, frame.time, frame.link, frame.data.to_vec()));
            Ok(())
        });
        (seen, outcome)
    }

    #[test]
    fn reads_pcap_in_either_byte_order_and_precision() {
        for (magic, big, unit) in [
            (0xa1b2_c3d4, false, 1_000),
            (0xa1b2_c3d4, true, 1_000),
            (0xa1b2_3c4d, false, 1),
            (0xa1b2_3c4d, true, 1),
        ] {
            let (packets, outcome) = seen(&pcap(magic, big, &[7, 8])[..]);
            outcome.expect("it is whole");
            let at = |number, time: u64| {
                (
                    number,
                    Some(3 * NANOSECONDS + time * unit),
                    1,
                    b"x".to_vec(),
                )
            };
            assert_eq!(packets, [at(1, 7), at(2, 8)], "{magic:x} {big}");
        }
    }

    #[test]
    fn reads_pcapng_with_its_interfaces_units_of_time() {
        let (packets, outcome) = seen(&pcapng()[..]);
        outcome.expect("it is whole");
        let first = (1, Some(102_500_000_000), 101, b"ab".to_vec());
        assert_eq!(packets, [first, (2, None, 101, b"abc".to_vec())]);
    }

    #[test]
    fn a_file_that_ends_in_a_packet_gives_those_before_it_and_names_it() {
        let whole = pcap(0xa1b2_c3d4, false, &[7, 8]);
        for length in 24..whole.len() {
            let (packets, outcome) = seen(&whole[..length]);
            let before = (length - 24) / 17;
            assert_eq!(packets.len(), before, "{length} bytes");
            match (length - 24) % 17 {
                0 => outcome.expect("it ends between packets"),
                _ => {
                    let error = outcome.expect_err("it is cut").to_string();
                    assert!(
                        error.contains(&format!("packet {},", before + 1)),
                        "{error}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_packet_longer_than_any_is_damage() {
        let mut bytes = pcap(0xa1b2_c3d4, false, &[7]);
        bytes.extend(words(&[0, 0, 0x7fff_ffff, 1]));
        let (packets, outcome) = seen(&bytes[..]);
        assert_eq!(packets.len(), 1);
        assert!(matches!(outcome, Err(Error::TooLong(2))), "{outcome:?}");
    }

    #[test]
    fn what_is_no_capture_is_said_to_be_none() {
        for bytes in [&b""[..], b"hello", b"AGMR", &[0; 4_096]] {
            assert!(matches!(seen(bytes).1, Err(Error::NotACapture)));
        }
    }

    #[test]
    fn a_read_that_fails_is_told_after_what_came_before_it() {
        struct Fails;
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("a bad disk"))
            }
        }
        let bytes = pcap(0xa1b2_c3d4, false, &[7, 8]);
        let (packets, outcome) = seen(bytes.as_slice().chain(Fails));
        assert_eq!(packets.len(), 2);
        assert!(
            matches!(outcome, Err(Error::Unreadable(3, _))),
            "{outcome:?}"
        );
    }

    #[test]
    fn no_byte_changed_in_a_capture_panics() {
        for whole in [pcapng(), pcap(0xa1b2_c3d4, false, &[7])] {
            for place in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[place] ^= 0xff;
                let _ = seen(&bytes[..]);
            }
        }
    }
}
