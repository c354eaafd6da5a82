//! What is kept of a flow's bursts, to be compared with another flow's.

use std::collections::VecDeque;

use crate::decode::{Burst, Way};

/// Bursts that are kept of a flow.
const BURSTS: usize = 64;
/// Bytes that are kept of a burst's begin.
const BEGIN: usize = 32;
/// Bytes that have to be the same before two bursts count as copies: fewer are a
/// protocol's fixed header (a WebSocket's frame, a TLS record's).
const COPIED: usize = 16;

/// What is kept of a burst.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub way: Way,
    pub first: u64,
    pub last: u64,
    pub bytes: u64,
    pub packets: u32,
    begin: [u8; BEGIN],
    /// How many of `begin` are known.
    known: usize,
}

impl Span {
    /// Whether two bursts begin with the same bytes, enough of them to be no chance.
    pub fn begins_like(&self, other: &Self) -> bool {
        let both = self.known.min(other.known);
        both >= COPIED && self.begin[..both] == other.begin[..both]
    }
}

impl From<&Burst> for Span {
    fn from(burst: &Burst) -> Self {
        let known = burst.data.len().min(BEGIN);
        let mut begin = [0; BEGIN];
        begin[..known].copy_from_slice(&burst.data[..known]);
        Self {
            way: burst.way,
            first: burst.first,
            last: burst.last,
            bytes: burst.bytes,
            packets: burst.packets,
            begin,
            known,
        }
    }
}

/// The last bursts of a flow.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans {
    kept: VecDeque<Span>,
    /// Bursts that were dropped because there were too many.
    forgotten: u64,
}

impl Spans {
    pub fn push(&mut self, burst: &Burst) {
        self.kept.push_back(burst.into());
        if self.kept.len() > BURSTS {
            self.kept.pop_front();
            self.forgotten += 1;
        }
    }

    /// The kept ones, from the oldest.
    pub fn kept(&self) -> impl DoubleEndedIterator<Item = &Span> {
        self.kept.iter()
    }

    /// The newest.
    pub fn newest(&self) -> Option<&Span> {
        self.kept.back()
    }

    /// When data last came in.
    pub fn last_in(&self) -> Option<u64> {
        let mut newest = self.kept.iter().rev();
        newest
            .find(|span| span.way == Way::In)
            .map(|span| span.last)
    }

    /// Bursts that are no longer kept.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Bursts so far.
    pub fn seen(&self) -> u64 {
        self.forgotten + self.kept.len() as u64
    }
}
