//! One flow of datagrams: each is a message, whole or cut, never part of a stream.

use bytes::Bytes;

use super::followed::index;
use crate::decode::{Datagram, Way};
use crate::protocol::datagram::{DATAGRAM_PROTOCOLS, DatagramParser};
use crate::protocol::{Answer, Fact, Side};

/// A datagram's parts, until they are all there.
#[derive(Default)]
struct Parts {
    /// All parts have the time of their datagram.
    time: u64,
    bytes: Vec<u8>,
    len: u32,
    segment: u32,
}

/// What is needed to follow a flow of datagrams.
pub(super) struct Datagrams {
    parsers: Vec<(&'static str, Box<dyn DatagramParser>)>,
    parts: [Parts; 2],
    /// Datagrams and their bytes that came whole or in part, by direction: what
    /// is known before a burst tells.
    pub seen: [(u64, u64); 2],
}

/// What datagrams told.
#[derive(Default)]
pub(super) struct Told {
    /// A parser that has just found its protocol.
    pub found: Option<&'static str>,
    pub facts: Vec<Fact>,
}

impl Datagrams {
    /// Follows datagrams of an IP protocol.
    pub fn new(protocol: u32) -> Self {
        /// ICMP and ICMPv6 (IANA, "Protocol Numbers").
        const ECHOES: [u32; 2] = [1, 58];
        let is_in_echoes = ECHOES.contains(&protocol);
        let parsers = DATAGRAM_PROTOCOLS.iter();
        Self {
            parsers: parsers
                .filter(|protocol| protocol.is_in_echoes == is_in_echoes)
                .map(|protocol| (protocol.name, (protocol.parser)()))
                .collect(),
            parts: Default::default(),
            seen: Default::default(),
        }
    }

    /// Bytes of memory that unfinished messages take.
    pub fn held(&self) -> usize {
        self.parsers.iter().map(|(_, parser)| parser.held()).sum()
    }

    /// Gives up what is tried, but for a parser that reads every datagram.
    pub fn let_go(&mut self) {
        self.parsers.retain(|(_, parser)| parser.wants_all());
    }

    /// Whether a parser reads every datagram.
    pub fn wants_all(&self) -> bool {
        self.parsers.iter().any(|(_, parser)| parser.wants_all())
    }

    /// Takes a part of a datagram that `side` sent, and reads each datagram that
    /// it completes.
    pub fn take(&mut self, time: u64, side: Side, part: &Datagram) -> Told {
        let mut told = Told::default();
        let way = index(part.way);
        if part.offset == 0 {
            // Of the one before a part was lost.
            self.read_parts(side, part.way, &mut told);
            let (datagrams, bytes) = &mut self.seen[way];
            *datagrams += count(part.len, part.segment);
            *bytes += u64::from(part.len);
            if part.data.len() == part.captured as usize {
                self.read(side, &part.data, (part.len, part.segment), &mut told);
                return told;
            }
            self.parts[way] = Parts {
                time,
                bytes: part.data.to_vec(),
                len: part.len,
                segment: part.segment,
            };
            return told;
        }
        let parts = &mut self.parts[way];
        if parts.time != time || parts.bytes.len() != part.offset as usize {
            return told;
        }
        parts.bytes.extend_from_slice(&part.data);
        if parts.bytes.len() >= part.captured as usize {
            self.read_parts(side, part.way, &mut told);
        }
        told
    }

    fn read_parts(&mut self, side: Side, way: Way, told: &mut Told) {
        let parts = std::mem::take(&mut self.parts[index(way)]);
        if !parts.bytes.is_empty() {
            let bytes = Bytes::from(parts.bytes);
            self.read(side, &bytes, (parts.len, parts.segment), told);
        }
    }

    /// Reads one datagram, or several that were sent or received at once.
    fn read(&mut self, side: Side, bytes: &[u8], (len, segment): (u32, u32), told: &mut Told) {
        let size = match segment {
            0 => bytes.len().max(1),
            segment => segment as usize,
        };
        for (number, piece) in bytes.chunks(size).enumerate() {
            let len = match segment {
                0 => len,
                _ => (len as usize - number * size).min(size) as u32,
            };
            self.parsers.retain_mut(|(name, parser)| {
                let answer = parser.datagram(side, piece, len, &mut told.facts);
                if answer == Answer::Found && told.found.is_none() {
                    told.found = Some(*name);
                }
                answer != Answer::NotThis
            });
            if let Some(found) = told.found {
                self.parsers.retain(|(name, _)| *name == found);
            }
        }
    }
}

/// Datagrams of `segment` bytes in one of `len`.
fn count(len: u32, segment: u32) -> u64 {
    match segment {
        0 => 1,
        segment => u64::from(len.div_ceil(segment)),
    }
}
