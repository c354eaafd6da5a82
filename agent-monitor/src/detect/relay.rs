//! Relays: data from outside goes to an inside connection, and its answers go
//! back outside.
//!
//! The sign is a pair of flows of one agent: one to outside that the agent
//! began, and an inside one that it began later, while or just after data came
//! in from outside, or just after the one to outside was made: some tools make
//! both for each visitor, or some in store. Their bursts are compared exchange by exchange: what came
//! in outside with what went out inside, and what came in inside with what went
//! out outside. A relay adds its framing (SSH 36 to 44 bytes a record, TLS 22 to
//! 29, multiplexers less), so the sizes match within a few dozen bytes; a program that
//! acts on what it is told does not repeat it. Figures: docs/notes/relay-separation.md.
//! Where SSH compresses, the turns in which it opens a channel tell what sizes do not
//! ([`Channel`]).

mod channel;
mod pair;
mod route;
mod spans;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent_monitor_common::event::FlowId;
use foldhash::HashMap;

use crate::decode::{Burst, ProcessKey, Way};
use crate::event::{Address, Transport};
use crate::flow::Flow;

pub use channel::Channel;
use pair::LAG_NS;
pub use pair::{Cause, Exchange, Pair, Score};
use route::Route;
use spans::Spans;

/// An inside connection counts as caused by data that came at most this long
/// before it: the process has to be woken and call connect(). Measured on real
/// tunnels: below 5 ms on an idle machine.
pub const CAUSE_NS: u64 = 250_000_000;
/// Connections to outside that an inside one may have been made for, where no data
/// came before it. Several: a program may make some at once, and then as many inside.
const MAX_CONNECTIONS: usize = 4;
/// Pairs that are compared at once, of one agent.
const MAX_PAIRS: usize = 256;
/// One in so many of the inside connections after an SSH flow's data has to be seen to
/// be a channel of its.
const ONE_IN: u32 = 4;
/// Routes whose exchanges are added up, of one agent.
const MAX_ROUTES: usize = 256;
/// Flows whose bursts are kept, of one agent.
const MAX_TRACKS: usize = 1_024;
/// How long the answer of an inside connection that ended may stay untold: the
/// burst that carries it outside ends with the next data, or with its flow.
const ANSWER_NS: u64 = 60_000_000_000;
/// How long a route is remembered after its last exchange.
const ROUTE_NS: u64 = 3_600_000_000_000;
/// How often what ended is looked for.
const SWEEP_NS: u64 = 1_000_000_000;

/// What a finding says of a flow, which may be over by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The flow.
    pub flow: FlowId,
    /// The agent it belongs to.
    pub agent: u64,
    /// Who made the socket.
    pub owner: ProcessKey,
    /// Who connected it.
    pub connector: ProcessKey,
    /// The other end.
    pub remote: Option<Address>,
    /// Its protocol, once found.
    pub protocol: Option<&'static str>,
    /// Id of the first event that told of it.
    pub event: Option<Arc<str>>,
}

impl End {
    fn new(flow: &Flow) -> Self {
        Self {
            flow: flow.id,
            agent: flow.agent,
            owner: flow.owner,
            connector: flow.connector.unwrap_or(flow.owner),
            remote: flow.remote,
            protocol: flow.protocol,
            event: flow.event.clone(),
        }
    }
}

/// A relay that was seen to work once more.
#[derive(Clone, Debug)]
pub struct Risen {
    /// The comparison so far.
    pub pair: Pair,
    /// Exchanges of all connections between the same ends that were relayed like this
    /// one; those that were copied count twice.
    pub on_route: u32,
    /// Channels for visitors that the flow to outside has opened so far, if it is SSH.
    pub channels: u32,
    /// The flow to outside.
    pub outside: End,
    /// The flow inside.
    pub inside: End,
}

struct Track {
    end: End,
    inside: bool,
    begun: u64,
    established: Option<u64>,
    /// An inside connection was made after it, in its turn.
    is_taken: bool,
    closed: Option<u64>,
    spans: Spans,
    /// The other flows of its pairs.
    partners: Vec<FlowId>,
    /// Of a flow to outside: inside connections that came after its data, and those of
    /// them for which it was seen to open a channel.
    caused: u32,
    channels: u32,
    /// Of an inside flow: whether its route knows that it was relayed.
    relayed: bool,
}

impl Track {
    fn quiet_since(&self) -> u64 {
        let last = self.spans.newest().map_or(0, |span| span.last);
        last.max(self.begun)
    }

    /// Channels that count: none unless a good part of the inside connections have one,
    /// as over days chance has some. Of visitors who come at once not each shows.
    fn channels(&self) -> u32 {
        let counts = self.channels.saturating_mul(ONE_IN) >= self.caused;
        if counts { self.channels } else { 0 }
    }

    fn ended_before(&self, time: u64) -> bool {
        self.closed.is_some_and(|closed| closed < time)
    }
}

/// Watches the flows of all agents.
#[derive(Default)]
pub struct Relays {
    agents: HashMap<u64, AgentRelays>,
    /// Pairs and flows that were dropped because there were too many.
    pub evicted: u64,
    /// When to look for what ended next.
    sweep: u64,
}

/// Watches the flows of one agent.
#[derive(Default)]
struct AgentRelays {
    tracks: BTreeMap<FlowId, Track>,
    /// Inside flows by the time they began.
    begun: BTreeSet<(u64, FlowId)>,
    /// By outside and inside flow.
    pairs: BTreeMap<(FlowId, FlowId), Pair>,
    /// By the addresses outside and inside, with when something was last added.
    routes: HashMap<(Address, Address), (u64, Route)>,
    evicted: u64,
}

impl Relays {
    /// An outbound flow is established.
    pub fn opened(&mut self, flow: &Flow, related: impl FnMut(ProcessKey, ProcessKey) -> bool) {
        if flow.is_outbound() {
            self.of(flow.agent, |agent| agent.opened(flow, related));
        }
    }

    /// A burst on a flow ended. Gives the pairs whose score rose.
    pub fn burst(
        &mut self,
        flow: &Flow,
        burst: &Burst,
        mut related: impl FnMut(ProcessKey, ProcessKey) -> bool,
    ) -> Vec<Risen> {
        let known = self
            .agents
            .get(&flow.agent)
            .is_some_and(|agent| agent.tracks.contains_key(&flow.id));
        if !known && !is_late(flow) {
            return Vec::new();
        }
        let risen = self.of(flow.agent, |agent| {
            if !known {
                agent.opened(flow, &mut related);
            }
            agent.burst(flow, burst, related)
        });
        self.forget_ended(burst.last);
        risen
    }

    /// A flow is over. What it carried is still compared with what the other
    /// flow of a pair is told to have carried.
    pub fn closed(&mut self, flow: &Flow, time: u64) {
        let agent = self.agents.get_mut(&flow.agent);
        if let Some(track) = agent.and_then(|agent| agent.tracks.get_mut(&flow.id)) {
            track.closed = Some(time);
        }
    }

    /// A flow is no longer followed.
    pub fn forget(&mut self, flow: &Flow) {
        if let Some(agent) = self.agents.get_mut(&flow.agent) {
            agent.drop_track(flow.id);
            if agent.is_empty() {
                self.agents.remove(&flow.agent);
            }
        }
    }

    /// Forgets an agent.
    pub fn forget_agent(&mut self, agent: u64) {
        self.agents.remove(&agent);
    }

    /// The pairs that are watched, to look at.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.agents.values().flat_map(|agent| agent.pairs.values())
    }

    fn of<T>(&mut self, id: u64, act: impl FnOnce(&mut AgentRelays) -> T) -> T {
        let agent = self.agents.entry(id).or_default();
        let result = act(agent);
        self.evicted += std::mem::take(&mut agent.evicted);
        result
    }

    fn forget_ended(&mut self, now: u64) {
        if now < self.sweep {
            return;
        }
        self.sweep = now.saturating_add(SWEEP_NS);
        self.agents.retain(|_, agent| {
            agent.forget_ended(now);
            !agent.is_empty()
        });
    }
}

/// Whether a flow should be watched although its beginning was not told of: one
/// that was open before, or whose records were lost. An inside flow counts by
/// the time it began, so that has to be known.
fn is_late(flow: &Flow) -> bool {
    flow.transport == Transport::Tcp
        && flow.closed.is_none()
        && flow.remote.is_some()
        && flow.is_outbound()
        && (!flow.is_inside() || flow.connector.is_some())
}

impl AgentRelays {
    fn opened(&mut self, flow: &Flow, mut related: impl FnMut(ProcessKey, ProcessKey) -> bool) {
        let end = End::new(flow);
        if let Some(track) = self.tracks.get_mut(&flow.id) {
            track.end = end;
            return;
        }
        if self.tracks.len() >= MAX_TRACKS {
            self.drop_quietest();
        }
        let connector = end.connector;
        let inside = flow.is_inside();
        if inside {
            self.begun.insert((flow.begun, flow.id));
        }
        let track = Track {
            end,
            inside,
            begun: flow.begun,
            established: flow.established,
            is_taken: false,
            closed: None,
            spans: Spans::default(),
            partners: Vec::new(),
            caused: 0,
            channels: 0,
            relayed: false,
        };
        self.tracks.insert(flow.id, track);
        if !inside {
            return;
        }
        let mut related = |outside: &&Track| related(outside.end.connector, connector);
        let mut causes: Vec<(FlowId, Cause)> = self
            .outside()
            .filter_map(|outside| {
                let named = flow.cause.filter(|(cause, _)| *cause == outside.end.flow);
                let last = named.map(|(_, time)| time).or(outside.spans.last_in())?;
                let delay = flow.begun.saturating_sub(last);
                (delay <= CAUSE_NS && related(&outside))
                    .then_some((outside.end.flow, Cause::Data(delay)))
            })
            .collect();
        let mut made: Vec<(u64, FlowId)> = self
            .outside()
            .filter(|outside| !outside.is_taken && outside.spans.last_in().is_none())
            .filter_map(|outside| Some((flow.begun.checked_sub(outside.established?)?, outside)))
            .filter(|(delay, outside)| *delay <= CAUSE_NS && related(outside))
            .map(|(delay, outside)| (delay, outside.end.flow))
            .collect();
        // In turn: the first inside is likely for the first outside.
        made.sort_unstable_by_key(|(delay, _)| Reverse(*delay));
        made.truncate(MAX_CONNECTIONS);
        let first = made.first().and_then(|(_, id)| self.tracks.get_mut(id));
        if let Some(first) = first {
            first.is_taken = true;
        }
        causes.extend((made.iter()).map(|(delay, id)| (*id, Cause::Connection(*delay))));
        for (outside, cause) in causes {
            self.pair(outside, flow.id, cause, flow.begun);
        }
    }

    fn outside(&self) -> impl Iterator<Item = &Track> {
        self.tracks.values().filter(|track| !track.inside)
    }

    fn burst(
        &mut self,
        flow: &Flow,
        burst: &Burst,
        mut related: impl FnMut(ProcessKey, ProcessKey) -> bool,
    ) -> Vec<Risen> {
        let Some(track) = self.tracks.get_mut(&flow.id) else {
            return Vec::new();
        };
        track.end = End::new(flow);
        track.spans.push(burst);
        if !track.inside && burst.way == Way::In {
            // The burst that caused a connect is often only told of afterwards.
            let owner = track.end.connector;
            let least = FlowId::default();
            let until = burst.last.saturating_add(CAUSE_NS).saturating_add(1);
            let caused: Vec<(FlowId, u64)> = self
                .begun
                .range((burst.first, least)..(until, least))
                .filter_map(|(begun, id)| self.tracks.get(id).map(|inside| (inside, begun)))
                .filter(|(inside, _)| related(owner, inside.end.connector))
                .map(|(inside, begun)| (inside.end.flow, *begun))
                .collect();
            for (inside, begun) in caused {
                let cause = Cause::Data(begun.saturating_sub(burst.last));
                self.pair(flow.id, inside, cause, begun);
            }
        }
        let mut risen = self.compare(flow.id);
        for risen in &mut risen {
            risen.on_route = self.on_route(risen, burst.last);
            if let Some(outside) = self.tracks.get_mut(&risen.outside.flow) {
                outside.channels += risen.channels;
                risen.channels = outside.channels();
            }
        }
        risen
    }

    /// Compares the pairs of a flow; gives those whose score rose.
    fn compare(&mut self, flow: FlowId) -> Vec<Risen> {
        let Some(track) = self.tracks.get(&flow) else {
            return Vec::new();
        };
        let mut risen = Vec::new();
        for partner in &track.partners {
            let Some(other) = self.tracks.get(partner) else {
                continue;
            };
            let (outside, inside) = if track.inside {
                (other, track)
            } else {
                (track, other)
            };
            let Some(pair) = self.pairs.get_mut(&(outside.end.flow, inside.end.flow)) else {
                continue;
            };
            let before = (pair.score.exchanges(), pair.channel);
            pair.compare(&outside.spans, &inside.spans);
            if outside.end.protocol == Some("ssh") && pair.channel.is_none() {
                pair.channel = channel::opened(inside.begun, &outside.spans, &inside.spans);
            }
            let new = u32::from(pair.channel != before.1);
            if pair.score.exchanges() > before.0 || new > 0 {
                risen.push(Risen {
                    pair: pair.clone(),
                    on_route: 0,
                    channels: new,
                    outside: outside.end.clone(),
                    inside: inside.end.clone(),
                });
            }
        }
        risen
    }

    /// Adds an inside connection to its route when it is first seen to be relayed;
    /// gives the exchanges of the route.
    fn on_route(&mut self, risen: &Risen, now: u64) -> u32 {
        let ends = risen.outside.remote.zip(risen.inside.remote);
        let (Some(ends), Some(relayed)) = (ends, risen.pair.relayed()) else {
            return 0;
        };
        let inside = self.tracks.get_mut(&risen.inside.flow);
        let new = inside.is_some_and(|inside| !std::mem::replace(&mut inside.relayed, true));
        let route = self.route(ends, now);
        if new {
            route.push(Some(relayed));
        }
        route.exchanges()
    }

    /// An inside connection ended. If it was not relayed, that counts against the
    /// routes on which others were.
    fn not_relayed(&mut self, track: &Track) {
        if !track.inside || track.relayed || track.spans.seen() == 0 {
            return;
        }
        let outside = track.partners.iter();
        let outside = outside.filter_map(|flow| self.tracks.get(flow)?.end.remote);
        let ends: BTreeSet<_> = outside.zip(std::iter::repeat(track.end.remote)).collect();
        for (outside, inside) in ends {
            let route = inside.and_then(|inside| self.routes.get_mut(&(outside, inside)));
            if let Some((_, route)) = route {
                route.push(None);
            }
        }
    }

    /// What is known of a route, which begins now if nothing is.
    fn route(&mut self, ends: (Address, Address), now: u64) -> &mut Route {
        if self.routes.len() >= MAX_ROUTES && !self.routes.contains_key(&ends) {
            let oldest = self.routes.iter().min_by_key(|(_, (last, _))| *last);
            if let Some(oldest) = oldest.map(|(ends, _)| *ends) {
                self.routes.remove(&oldest);
                self.evicted += 1;
            }
        }
        let (last, route) = self.routes.entry(ends).or_default();
        *last = now;
        route
    }

    fn pair(&mut self, outside: FlowId, inside: FlowId, cause: Cause, begun: u64) {
        if self.pairs.contains_key(&(outside, inside)) {
            return;
        }
        if self.pairs.len() >= MAX_PAIRS {
            self.drop_least();
        }
        for (flow, other) in [(outside, inside), (inside, outside)] {
            if let Some(track) = self.tracks.get_mut(&flow) {
                track.partners.push(other);
            }
        }
        if let (Cause::Data(_), Some(track)) = (cause, self.tracks.get_mut(&outside)) {
            track.caused += 1;
        }
        let pair = Pair::new(outside, inside, cause, begun);
        self.pairs.insert((outside, inside), pair);
    }

    /// Drops the pair that has shown least.
    fn drop_least(&mut self) {
        let shown = |pair: &Pair| {
            let score = pair.score;
            (score.exchanges(), score.requests + score.answers)
        };
        let least = self.pairs.iter().min_by_key(|(_, pair)| shown(pair));
        if let Some(key) = least.map(|(key, _)| *key) {
            self.drop_pair(key);
            self.evicted += 1;
        }
    }

    /// Drops the flow that was quiet longest, one that ended before any other.
    fn drop_quietest(&mut self) {
        let quietest = self
            .tracks
            .values()
            .min_by_key(|track| (track.closed.is_none(), track.quiet_since()));
        if let Some((flow, counts)) = quietest.map(|track| {
            let counts = track.closed.is_none() || !track.partners.is_empty();
            (track.end.flow, counts)
        }) {
            self.drop_track(flow);
            self.evicted += u64::from(counts);
        }
    }

    fn drop_pair(&mut self, key: (FlowId, FlowId)) {
        self.pairs.remove(&key);
        for (flow, other) in [key, (key.1, key.0)] {
            if let Some(track) = self.tracks.get_mut(&flow) {
                track.partners.retain(|partner| *partner != other);
            }
        }
    }

    fn drop_track(&mut self, flow: FlowId) {
        let Some(track) = self.tracks.remove(&flow) else {
            return;
        };
        self.begun.remove(&(track.begun, flow));
        self.not_relayed(&track);
        for partner in track.partners {
            self.drop_pair(if track.inside {
                (partner, flow)
            } else {
                (flow, partner)
            });
        }
    }

    /// Drops what ended and has nothing left to be compared.
    fn forget_ended(&mut self, now: u64) {
        let (lag, answer) = (now.saturating_sub(LAG_NS), now.saturating_sub(ANSWER_NS));
        let is_over = |track: &Track| {
            let waits = track.inside
                && track.partners.iter().any(|outside| {
                    let pair = self.pairs.get(&(*outside, track.end.flow));
                    pair.is_some_and(|pair| !pair.is_compared(&track.spans))
                });
            track.ended_before(if waits { answer } else { lag })
        };
        let mut over: Vec<(bool, FlowId)> = self
            .tracks
            .values()
            .filter(|track| is_over(track))
            .map(|track| (!track.inside, track.end.flow))
            .collect();
        // Inside flows first: what became of them counts for the routes of their pairs.
        over.sort_unstable();
        for (_, flow) in over {
            self.drop_track(flow);
        }
        let since = now.saturating_sub(ROUTE_NS);
        self.routes.retain(|_, (last, _)| *last >= since);
    }

    fn is_empty(&self) -> bool {
        self.tracks.is_empty() && self.routes.is_empty()
    }
}
