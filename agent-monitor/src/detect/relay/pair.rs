//! What the comparison of an outside flow with an inside one shows.

use agent_monitor_common::event::FlowId;

use super::CAUSE_NS;
use super::channel::Channel;
use super::route::Relayed;
use super::spans::{Span, Spans};
use crate::decode::Way;

/// Relayed bytes leave at most this long after they came.
pub(super) const LAG_NS: u64 = 250_000_000;

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
    /// Of these, those that went out.
    pub unmatched_requests: u32,
    /// Bytes of the matched bursts, both directions.
    pub bytes: u64,
    /// Of the matched bursts that went out, those that begin with the same bytes.
    pub copied_requests: u32,
    /// The same of those that came in.
    pub copied_answers: u32,
}

impl Score {
    /// Exchanges in which both directions match.
    pub fn exchanges(self) -> u32 {
        self.requests.min(self.answers)
    }

    /// Exchanges whose bytes are the same on both flows, as far as they are known.
    pub fn copies(self) -> u32 {
        self.copied_requests.min(self.copied_answers)
    }

    /// Whether the flows are a relay: something matches both ways, and more
    /// matches than does not, with no direction for the worse.
    pub fn is_relay(self) -> bool {
        self.exchanges() > 0
            && self.requests + self.answers > self.unmatched
            && self.requests >= self.unmatched_requests
            && self.answers >= self.unmatched - self.unmatched_requests
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
    /// The channel of SSH's for which the inside connection was made.
    pub channel: Option<Channel>,
    /// Inside bursts compared so far.
    compared: u64,
    /// Up to when outside bursts were used, by direction.
    used: [u64; 2],
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
            channel: None,
            compared: 0,
            used: [begun, begun.saturating_sub(CAUSE_NS)],
        }
    }

    /// The first request and the first answer that matched, if it is a relay.
    pub(super) fn relayed(&self) -> Option<Relayed> {
        let first = |way| self.shown.iter().copied().find(|shown| shown.way == way);
        Some(Relayed {
            request: first(Way::In).filter(|_| self.score.is_relay())?,
            answer: first(Way::Out)?,
        })
    }

    /// Whether every inside burst that was told of is compared.
    pub(super) fn is_compared(&self, inside: &Spans) -> bool {
        self.compared >= inside.seen()
    }

    /// Compares the inside bursts not yet compared with what the outside flow
    /// carried around them. A burst inside is only looked at once the outside
    /// flow has moved on, or its answer could still be on the way.
    pub(super) fn compare(&mut self, outside: &Spans, inside: &Spans) {
        self.compared = self.compared.max(inside.forgotten());
        let skip = self.compared - inside.forgotten();
        for burst in inside
            .kept()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
        {
            let (way, from, until) = match burst.way {
                // Data that came before this went out.
                Way::Out => (Way::In, self.used[1], burst.last),
                // Data that leaves after this came in.
                Way::In => (Way::Out, self.used[0].max(burst.first), burst.last + LAG_NS),
            };
            let over: Vec<&Span> = outside
                .kept()
                .filter(|other| other.way == way && from <= other.first && other.first <= until)
                .collect();
            let newest = outside.newest().map_or(0, |other| other.first);
            let opening = self.compared == 0;
            let run = closest(&over, burst.bytes, opening, way)
                .filter(|run| way == Way::Out || !is_picked_out(run, outside, from));
            // A tunnel asks for a channel first, so that there is something before the
            // request, whose own burst is told of when it is over.
            let untold = over.is_empty() || (burst.way == Way::Out && run.is_none());
            if untold && newest < until {
                return; // not yet
            }
            self.compared += 1;
            match run {
                Some(run) => {
                    let copied = u32::from(run.begin.begins_like(burst));
                    match burst.way {
                        Way::Out => {
                            self.score.requests += 1;
                            self.score.copied_requests += copied;
                        }
                        Way::In => {
                            self.score.answers += 1;
                            self.score.copied_answers += copied;
                        }
                    }
                    self.score.bytes += burst.bytes;
                    self.used[index(way)] = run.last + 1;
                    if self.shown.len() < SHOWN {
                        self.shown.push(Exchange {
                            way,
                            outside: run.bytes,
                            inside: burst.bytes,
                            copied: copied != 0,
                        });
                    }
                }
                None => {
                    self.score.unmatched += 1;
                    self.score.unmatched_requests += u32::from(burst.way == Way::Out);
                }
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
    /// Whether both begin with the same bytes.
    pub copied: bool,
}

impl Exchange {
    /// Bytes that the outside flow has more.
    pub(super) fn framing(self) -> u64 {
        self.outside.saturating_sub(self.inside)
    }
}

/// Matched exchanges that are kept to be shown.
const SHOWN: usize = 6;

/// Neighbouring outside bursts that match an inside one.
struct Run<'a> {
    bytes: u64,
    /// The oldest.
    begin: &'a Span,
    /// When the newest began.
    last: u64,
}

/// A run of neighbouring outside bursts whose bytes sum up to those of an inside
/// burst, within [`slack`]; what came in is matched from the newest backwards,
/// what goes out from the oldest on.
fn closest<'a>(over: &[&'a Span], bytes: u64, opening: bool, way: Way) -> Option<Run<'a>> {
    let (mut sum, mut segments) = (0, 0);
    let mut fits = |burst: &Span| {
        sum += burst.bytes;
        segments += u64::from(burst.packets);
        (sum >= bytes && sum <= bytes + slack(bytes, segments, opening)).then_some(sum)
    };
    let run = |bytes, begin, last: &Span| Run {
        bytes,
        begin,
        last: last.first,
    };
    match way {
        Way::In => {
            let last = *over.last()?;
            let mut backwards = over.iter().rev();
            backwards.find_map(|burst| fits(burst).map(|sum| run(sum, burst, last)))
        }
        Way::Out => {
            let begin = *over.first()?;
            let mut onwards = over.iter();
            onwards.find_map(|burst| fits(burst).map(|sum| run(sum, begin, burst)))
        }
    }
}

/// Whether more came in just before the run than the run itself, with nothing going out
/// in between: then it is the end of something longer. A model's reply comes in pieces of
/// any size, whose last ones add up to about any request; a relay passes all of them on.
fn is_picked_out(run: &Run<'_>, outside: &Spans, from: u64) -> bool {
    let before = outside.kept().rev();
    let before = before.skip_while(|span| span.first >= run.begin.first);
    let before = before.take_while(|span| span.way == Way::In && span.first >= from);
    before.map(|span| span.bytes).sum::<u64>() > run.bytes
}

fn index(way: Way) -> usize {
    match way {
        Way::Out => 0,
        Way::In => 1,
    }
}
