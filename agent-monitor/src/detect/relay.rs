//! Relays: data from outside goes to an inside connection, and its answers go
//! back outside.
//!
//! The sign is a pair of flows of one agent: one to outside that the agent
//! began, and an inside one that it began later, while or just after data came
//! in from outside. Their bursts are compared exchange by exchange: what came
//! in outside with what went out inside, and what came in inside with what went
//! out outside. A relay adds its framing (SSH 36 to 44 bytes a record, TLS 22 to
//! 29, multiplexers less), so the sizes match within a few dozen bytes; a program that
//! acts on what it is told does not repeat it. Figures: docs/notes/relay-separation.md.

use std::collections::{HashMap, VecDeque};

use agent_monitor_common::event::FlowId;

use crate::decode::{Burst, ProcessKey, Way};
use crate::flow::Flow;

/// An inside connection counts as caused by data that came at most this long
/// before it: the process has to be woken and call connect(). Measured on real
/// tunnels: below 5 ms on an idle machine.
pub const CAUSE_NS: u64 = 250_000_000;
/// Relayed bytes leave at most this long after they came.
const LAG_NS: u64 = 250_000_000;
/// Bursts that are kept of a flow.
const BURSTS: usize = 64;
/// Exchanges in which both directions match before a relay is believed on a flow
/// whose protocol is not known: one can be chance.
pub const MATCHED: u32 = 2;
/// Exchanges in which both directions match before a relay is called sustained.
pub const SUSTAINED: u32 = 4;
/// Pairs that are watched at once.
const MAX_PAIRS: usize = 4_096;
/// Flows whose bursts are kept.
const MAX_TRACKS: usize = 16_384;

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

/// An outside flow and an inside one, and what became of their comparison.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The flow to outside.
    pub outside: FlowId,
    /// The flow inside.
    pub inside: FlowId,
    /// From the last data from outside to the inside connect(), nanoseconds.
    pub delay: u64,
    /// The comparison so far.
    pub score: Score,
    /// Exchanges to tell of: bytes outside and inside, with the direction.
    pub shown: Vec<Exchange>,
    /// Inside bursts compared so far.
    compared: u64,
    /// Up to when outside bursts were used, by direction.
    used: [u64; 2],
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

struct Track {
    agent: u64,
    owner: ProcessKey,
    inside: bool,
    begun: u64,
    bursts: VecDeque<Burst>,
    /// Bursts taken out of `bursts` because it was full, or seen before.
    forgotten: u64,
}

/// Watches the flows of all agents.
#[derive(Default)]
pub struct Relays {
    tracks: HashMap<FlowId, Track>,
    pairs: Vec<Pair>,
    /// Pairs and flows that were not watched because there were too many.
    pub evicted: u64,
}

impl Relays {
    /// An outbound flow is established.
    pub fn opened(&mut self, flow: &Flow, mut related: impl FnMut(ProcessKey, ProcessKey) -> bool) {
        if !flow.is_outbound() {
            return;
        }
        if self.tracks.len() >= MAX_TRACKS {
            self.evicted += 1;
            return;
        }
        let connector = flow.connector.unwrap_or(flow.owner);
        let track = Track {
            agent: flow.agent,
            owner: connector,
            inside: flow.is_inside(),
            begun: flow.begun,
            bursts: VecDeque::new(),
            forgotten: 0,
        };
        if track.inside {
            let causes: Vec<(FlowId, u64)> = self
                .tracks
                .iter()
                .filter(|(_, outside)| !outside.inside && outside.agent == flow.agent)
                .filter(|(_, outside)| related(outside.owner, connector))
                .filter_map(|(id, outside)| {
                    let named = flow
                        .cause
                        .filter(|(cause, _)| cause == id)
                        .map(|(_, time)| time);
                    let seen = outside
                        .bursts
                        .iter()
                        .rev()
                        .find(|burst| burst.way == Way::In);
                    let last = named.or(seen.map(|burst| burst.last))?;
                    let delay = flow.begun.saturating_sub(last);
                    (delay <= CAUSE_NS).then_some((*id, delay))
                })
                .collect();
            for (outside, delay) in causes {
                self.pair(outside, flow.id, delay, flow.begun);
            }
        }
        self.tracks.insert(flow.id, track);
    }

    /// A burst on a flow ended. Gives the pairs whose score rose.
    pub fn burst(
        &mut self,
        flow: &Flow,
        burst: &Burst,
        mut related: impl FnMut(ProcessKey, ProcessKey) -> bool,
    ) -> Vec<Pair> {
        let Some(track) = self.tracks.get_mut(&flow.id) else {
            return Vec::new();
        };
        track.bursts.push_back(burst.clone());
        if track.bursts.len() > BURSTS {
            track.bursts.pop_front();
            track.forgotten += 1;
        }
        let (is_inside, agent, owner) = (track.inside, track.agent, track.owner);
        if !is_inside && burst.way == Way::In {
            // The burst that caused a connect is often only told of afterwards.
            let caused: Vec<(FlowId, u64)> = self
                .tracks
                .iter()
                .filter(|(_, inside)| inside.inside && inside.agent == agent)
                .filter(|(_, inside)| {
                    burst.first <= inside.begun && inside.begun <= burst.last + CAUSE_NS
                })
                .filter(|(_, inside)| related(owner, inside.owner))
                .map(|(id, inside)| (*id, inside.begun))
                .collect();
            for (inside, begun) in caused {
                self.pair(flow.id, inside, begun.saturating_sub(burst.last), begun);
            }
        }
        let mut risen = Vec::new();
        let mut pairs = std::mem::take(&mut self.pairs);
        for pair in &mut pairs {
            if pair.outside == flow.id || pair.inside == flow.id {
                let before = pair.score;
                self.compare(pair);
                if pair.score.exchanges() > before.exchanges() {
                    risen.push(pair.clone());
                }
            }
        }
        self.pairs = pairs;
        risen
    }

    /// A flow is over.
    pub fn closed(&mut self, flow: FlowId) {
        self.tracks.remove(&flow);
        self.pairs
            .retain(|pair| pair.outside != flow && pair.inside != flow);
    }

    /// The pairs that are watched, to look at.
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    fn pair(&mut self, outside: FlowId, inside: FlowId, delay: u64, begun: u64) {
        if self
            .pairs
            .iter()
            .any(|pair| pair.outside == outside && pair.inside == inside)
        {
            return;
        }
        if self.pairs.len() >= MAX_PAIRS {
            self.pairs.remove(0);
            self.evicted += 1;
        }
        let since = begun.saturating_sub(CAUSE_NS);
        self.pairs.push(Pair {
            outside,
            inside,
            delay,
            score: Score::default(),
            shown: Vec::new(),
            compared: 0,
            used: [begun, since],
        });
    }

    /// Compares the inside bursts not yet compared with what the outside flow
    /// carried around them. A burst inside is only looked at once the outside
    /// flow has moved on, or its answer could still be on the way.
    fn compare(&self, pair: &mut Pair) {
        let (Some(outside), Some(inside)) = (
            self.tracks.get(&pair.outside),
            self.tracks.get(&pair.inside),
        ) else {
            return;
        };
        let skip = pair.compared.saturating_sub(inside.forgotten);
        for burst in inside
            .bursts
            .iter()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
        {
            let (way, from, until) = match burst.way {
                // Data that came before this went out.
                Way::Out => (Way::In, pair.used[1], burst.last),
                // Data that leaves after this came in.
                Way::In => (Way::Out, pair.used[0].max(burst.first), burst.last + LAG_NS),
            };
            let over: Vec<&Burst> = outside
                .bursts
                .iter()
                .filter(|other| other.way == way && from <= other.first && other.first <= until)
                .collect();
            let newest = outside.bursts.back().map_or(0, |other| other.first);
            if over.is_empty() && newest < until {
                return; // not yet
            }
            pair.compared += 1;
            let opening = pair.compared == 1;
            match closest(&over, burst.bytes, opening, way) {
                Some((bytes, last)) => {
                    match burst.way {
                        Way::Out => pair.score.requests += 1,
                        Way::In => pair.score.answers += 1,
                    }
                    pair.score.bytes += burst.bytes;
                    pair.used[index(way)] = last + 1;
                    if pair.shown.len() < SHOWN {
                        pair.shown.push(Exchange {
                            way: way_of_data(burst.way),
                            outside: bytes,
                            inside: burst.bytes,
                        });
                    }
                }
                None => pair.score.unmatched += 1,
            }
        }
    }
}

/// A run of neighbouring outside bursts whose bytes sum up to those of an inside
/// burst, within [`slack`]; what came in is matched from the newest backwards,
/// what goes out from the oldest on. Gives the sum and the last one's begin.
fn closest(over: &[&Burst], bytes: u64, opening: bool, way: Way) -> Option<(u64, u64)> {
    let (mut sum, mut segments) = (0, 0);
    let mut fits = |burst: &Burst| {
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
