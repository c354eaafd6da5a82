//! What the comparison of an outside flow with an inside one shows.

use std::collections::VecDeque;

use agent_monitor_common::event::FlowId;

use super::CAUSE_NS;
use crate::decode::{Burst, Way};

/// Relayed bytes leave at most this long after they came.
pub(super) const LAG_NS: u64 = 250_000_000;
/// Bursts that are kept of a flow.
const BURSTS: usize = 64;

/// Framing of one record: SSH with chacha20 takes 36 to 44 bytes, TLS 1.3 22 and
/// a multiplexer's header a few more.
const RECORD: u64 = 48;
/// The header of a new channel (SSH: 92 bytes) and what is said around it.
const OPENING: u64 = 128;
/// Records in a super-segment cannot be counted; they are of 1 KiB or more.
const BULK: u64 = 64;

/// How much longer than the inside burst the outside part of a relay may be:
/// framing for each of its segments and for the records inside them.
fn slack(bytes: u64, segments: u64, opening: bool) -> u64 {
    RECORD * segments.max(1) + bytes / BULK + 16 + if opening { OPENING } else { 0 }
}

/// What the comparison of two flows has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Inside bursts that went out and match what had come in outside.
    pub requests: u32,
    /// Inside bursts that came in and match what then went out outside.
    pub answers: u32,
    /// Inside bursts in either direction that match nothing.
    pub unmatched: u32,
    /// Bytes of the matched bursts, both directions.
    pub bytes: u64,
}

impl Score {
    /// Exchanges in which both directions match.
    pub fn exchanges(self) -> u32 {
        self.requests.min(self.answers)
    }

    /// Whether the flows are a relay: something matches both ways, and more
    /// matches than does not.
    pub fn is_relay(self) -> bool {
        self.exchanges() > 0 && self.requests + self.answers > self.unmatched
    }
}

/// What an inside connection was made after, and how many nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Data from outside.
    Data(u64),
    /// The connection to outside, made for the same visitor or for one to come.
    Connection(u64),
}

/// An outside flow and an inside one, and what became of their comparison.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The flow to outside.
    pub outside: FlowId,
    /// The flow inside.
    pub inside: FlowId,
    /// What the inside connect() came after.
    pub cause: Cause,
    /// The comparison so far.
    pub score: Score,
    /// Exchanges to tell of: bytes outside and inside, with the direction.
    pub shown: Vec<Exchange>,
    /// Inside bursts compared so far.
    compared: u64,
    /// Up to when outside bursts were used, by direction.
    used: [u64; 2],
}

/// What is kept of a burst.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub way: Way,
    pub first: u64,
    pub last: u64,
    pub bytes: u64,
    pub packets: u32,
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
        self.kept.push_back(Span {
            way: burst.way,
            first: burst.first,
            last: burst.last,
            bytes: burst.bytes,
            packets: burst.packets,
        });
        if self.kept.len() > BURSTS {
            self.kept.pop_front();
            self.forgotten += 1;
        }
    }

    /// When the last burst ended.
    pub fn last(&self) -> Option<u64> {
        self.kept.back().map(|span| span.last)
    }

    /// When data last came in.
    pub fn last_in(&self) -> Option<u64> {
        let mut newest = self.kept.iter().rev();
        newest
            .find(|span| span.way == Way::In)
            .map(|span| span.last)
    }

    fn seen(&self) -> u64 {
        self.forgotten + self.kept.len() as u64
    }
}

impl Pair {
    /// An inside connection begun at `begun`.
    pub(in crate::detect) fn new(
        outside: FlowId,
        inside: FlowId,
        cause: Cause,
        begun: u64,
    ) -> Self {
        Self {
            outside,
            inside,
            cause,
            score: Score::default(),
            shown: Vec::new(),
            compared: 0,
            used: [begun, begun.saturating_sub(CAUSE_NS)],
        }
    }

    /// Whether every inside burst that was told of is compared.
    pub(super) fn is_compared(&self, inside: &Spans) -> bool {
        self.compared >= inside.seen()
    }

    /// Compares the inside bursts not yet compared with what the outside flow
    /// carried around them. A burst inside is only looked at once the outside
    /// flow has moved on, or its answer could still be on the way.
    pub(super) fn compare(&mut self, outside: &Spans, inside: &Spans) {
        self.compared = self.compared.max(inside.forgotten);
        let skip = self.compared - inside.forgotten;
        for burst in inside
            .kept
            .iter()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
        {
            let (way, from, until) = match burst.way {
                // Data that came before this went out.
                Way::Out => (Way::In, self.used[1], burst.last),
                // Data that leaves after this came in.
                Way::In => (Way::Out, self.used[0].max(burst.first), burst.last + LAG_NS),
            };
            let over: Vec<&Span> = outside
                .kept
                .iter()
                .filter(|other| other.way == way && from <= other.first && other.first <= until)
                .collect();
            let newest = outside.kept.back().map_or(0, |other| other.first);
            if over.is_empty() && newest < until {
                return; // not yet
            }
            self.compared += 1;
            let opening = self.compared == 1;
            match closest(&over, burst.bytes, opening, way) {
                Some((bytes, last)) => {
                    match burst.way {
                        Way::Out => self.score.requests += 1,
                        Way::In => self.score.answers += 1,
                    }
                    self.score.bytes += burst.bytes;
                    self.used[index(way)] = last + 1;
                    if self.shown.len() < SHOWN {
                        self.shown.push(Exchange {
                            way: way_of_data(burst.way),
                            outside: bytes,
                            inside: burst.bytes,
                        });
                    }
                }
                None => self.score.unmatched += 1,
            }
        }
    }
}

/// One matched burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Data from outside that went inside, or an answer that went back.
    pub way: Way,
    /// Bytes on the outside flow.
    pub outside: u64,
    /// Bytes on the inside flow.
    pub inside: u64,
}

/// Matched exchanges that are kept to be shown.
const SHOWN: usize = 6;

/// A run of neighbouring outside bursts whose bytes sum up to those of an inside
/// burst, within [`slack`]; what came in is matched from the newest backwards,
/// what goes out from the oldest on. Gives the sum and the last one's begin.
fn closest(over: &[&Span], bytes: u64, opening: bool, way: Way) -> Option<(u64, u64)> {
    let (mut sum, mut segments) = (0, 0);
    let mut fits = |burst: &Span| {
        sum += burst.bytes;
        segments += u64::from(burst.packets);
        (sum >= bytes && sum <= bytes + slack(bytes, segments, opening)).then_some(sum)
    };
    match way {
        Way::In => {
            let last = over.last()?.first;
            over.iter()
                .rev()
                .find_map(|burst| fits(burst))
                .map(|sum| (sum, last))
        }
        Way::Out => over
            .iter()
            .find_map(|burst| fits(burst).map(|sum| (sum, burst.first))),
    }
}

/// On the inside flow, data from outside goes out.
fn way_of_data(inside: Way) -> Way {
    match inside {
        Way::Out => Way::In,
        Way::In => Way::Out,
    }
}

fn index(way: Way) -> usize {
    match way {
        Way::Out => 0,
        Way::In => 1,
    }
}
