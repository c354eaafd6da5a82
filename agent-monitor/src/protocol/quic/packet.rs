//! Packets with a long header (RFC 9000, 17.2; RFC 9369, 3.2).

use rustls::quic::{DirectionalKeys, Version};

/// Longest connection id (RFC 9000, 17.2).
const ID_MAX: u8 = 20;
/// Form of the header and the bit that is always set.
const LONG: u8 = 0xc0;
/// Longest packet number, and where the sample for header protection begins.
const NUMBER_MAX: usize = 4;

/// A packet, as far as it is in clear.
pub(super) struct Packet<'a> {
    pub version: Version,
    /// Whom it is for.
    pub to: &'a [u8],
    pub kind: Kind,
    /// All of it.
    bytes: &'a [u8],
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Initial(Initial),
    /// Of those with a length.
    Other,
}

/// A packet that begins a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Initial {
    /// Where its number is.
    number: usize,
}

impl<'a> Packet<'a> {
    /// Reads the first packet of these bytes; gives what follows it too.
    pub fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut rest = Reader(bytes);
        let first = rest.u8()?;
        if first & LONG != LONG {
            return None;
        }
        let number = u32::from_be_bytes(*rest.take(4)?.first_chunk()?);
        let kinds = first >> 4 & 3;
        let (version, is_initial, is_retry) = match number {
            1 => (Version::V1, kinds == 0, kinds == 3),
            0x6b33_43cf => (Version::V2, kinds == 1, kinds == 0),
            0xff00_001d..=0xff00_0020 => (Version::V1Draft, kinds == 0, kinds == 3),
            _ => return None,
        };
        // It has no length, so nothing can follow it.
        if is_retry {
            return None;
        }
        let to = rest.id()?;
        rest.id()?;
        if is_initial {
            let token = rest.number()?;
            rest.take(token)?;
        }
        let length = rest.number()?;
        let header = bytes.len() - rest.0.len();
        let end = header.checked_add(length)?;
        let (bytes, after) = bytes.split_at_checked(end)?;
        let kind = match is_initial {
            true => Kind::Initial(Initial { number: header }),
            false => Kind::Other,
        };
        let packet = Self {
            version,
            to,
            kind,
            bytes,
        };
        Some((packet, after))
    }
}

impl Initial {
    /// Decrypts the packet; gives its frames, if these are its keys.
    pub fn open(self, packet: &Packet<'_>, keys: &DirectionalKeys) -> Option<Vec<u8>> {
        let mut bytes = packet.bytes.to_vec();
        let (head, rest) = bytes.split_at_mut(self.number);
        let (number, sampled) = rest.split_at_mut_checked(NUMBER_MAX)?;
        let sample = sampled.get(..keys.header.sample_len())?;
        let mut first = *head.first()?;
        let mut plain: [u8; NUMBER_MAX] = *number.first_chunk()?;
        let removed = (keys.header).decrypt_in_place(sample, &mut first, &mut plain);
        removed.ok()?;
        let length = usize::from(first & 3) + 1;
        *head.first_mut()? = first;
        number[..length].copy_from_slice(&plain[..length]);
        let number = (plain[..length].iter()).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (header, payload) = bytes.split_at_mut(self.number + length);
        let frames = keys.packet.decrypt_in_place(number, header, payload);
        frames.ok().map(<[u8]>::to_vec)
    }
}

/// What is left to read.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn u8(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A connection id with its length in front.
    fn id(&mut self) -> Option<&'a [u8]> {
        let length = self.u8().filter(|length| *length <= ID_MAX)?;
        self.take(length.into())
    }

    /// A number of 1, 2, 4 or 8 bytes, as the first two bits say (RFC 9000, 16).
    pub fn number(&mut self) -> Option<usize> {
        let first = self.u8()?;
        let more = self.take((1 << (first >> 6)) - 1)?;
        let number = (more.iter()).fold(u64::from(first & 0x3f), |sum, byte| {
            sum << 8 | u64::from(*byte)
        });
        usize::try_from(number).ok()
    }
}
