//! Flows of datagrams: a connected socket is one, any other has one for each peer.

#[cfg(test)]
mod tests;

use agent_monitor_common::event::{FlowId, PEER_FLOW};
use agent_monitor_common::policy::FlowControl;

use super::{Table, end};
use crate::decode::{Burst, Datagram, Record, Way};
use crate::event::{Address, Direction, Outcome, Transport};
use crate::flow::datagrams::Datagrams;
use crate::flow::followed::{Followed, Steering, index};
use crate::flow::{Change, Flow};
use crate::protocol::Side;

/// A head without end, for what is read datagram by datagram.
const WHOLE: FlowControl = FlowControl {
    head_cap: u32::MAX,
    flags: 0,
};

impl Table {
    /// A flow of datagrams to or from `remote`, which may be new.
    pub(super) fn datagrams(
        &mut self,
        record: &Record,
        id: FlowId,
        (remote, protocol): (Address, u32),
        changed: &mut impl FnMut(&Flow, Change),
    ) -> Option<&mut Followed> {
        let name = self.names.get(record.agent, remote.ip, record.time);
        let followed = self.entry(record, id, changed)?;
        let flow = &mut followed.flow;
        flow.remote.get_or_insert(remote);
        if !flow.is_datagrams {
            flow.is_datagrams = true;
            flow.transport = Transport::of(protocol);
            flow.resolved_name = name;
            self.sockets.insert(id);
        }
        self.flows.get_mut(&id).map(Box::as_mut)
    }

    /// A part of a datagram.
    pub(super) fn datagram(
        &mut self,
        record: &Record,
        part: &Datagram,
        changed: &mut impl FnMut(&Flow, Change),
    ) {
        let (id, remote) = (part.flow, part.remote);
        let Some(followed) = self.datagrams(record, id, (remote, part.protocol), changed) else {
            return;
        };
        followed.flow.local.get_or_insert(part.local);
        begin(followed, part.way, record.time, changed);
        self.find_peer(id);
        let Some(followed) = self.flows.get_mut(&id) else {
            return;
        };
        // Most are connected and never used: parsers come with the first datagram.
        let datagrams = &mut followed.datagrams;
        let datagrams = datagrams.get_or_insert_with(|| Datagrams::new(part.protocol).into());
        let flow = &mut followed.flow;
        // On a loopback pair both ends see the same: one is enough.
        if flow.peer.is_none() || flow.is_outbound() {
            let side = match (part.way, flow.agent_side()) {
                (Way::Out, side) => side,
                (Way::In, Side::Initiator) => Side::Responder,
                (Way::In, Side::Responder) => Side::Initiator,
            };
            let told = datagrams.take(record.time, side, part);
            told.facts.iter().for_each(|fact| flow.learn(fact));
            if let Some(name) = told.found
                && flow.protocol.is_none()
            {
                flow.protocol = Some(name);
                changed(flow, Change::Identified);
            }
            for fact in told.facts {
                changed(flow, Change::Fact(fact));
            }
        }
        let way = index(part.way);
        let (seen, bytes) = datagrams.seen[way];
        let before = flow.bytes;
        flow.packets[way] = flow.packets[way].max(seen);
        flow.bytes[way] = flow.bytes[way].max(bytes);
        self.traffic.add(flow, before);
        if datagrams.wants_all() && !followed.steered {
            followed.steered = true;
            self.steering.push(Steering {
                flow: id,
                control: Some(WHOLE),
            });
        }
        self.account(id, changed);
    }

    /// Datagrams that were counted.
    pub(super) fn datagram_burst(
        &mut self,
        record: &Record,
        burst: &Burst,
        other: (Address, u32),
        changed: &mut impl FnMut(&Flow, Change),
    ) {
        let Some(followed) = self.datagrams(record, burst.flow, other, changed) else {
            return;
        };
        begin(followed, burst.way, burst.first, changed);
        let way = index(burst.way);
        followed.told[way].0 += u64::from(burst.packets);
        followed.told[way].1 += burst.bytes;
        let (packets, bytes) = followed.told[way];
        let flow = &mut followed.flow;
        let before = flow.bytes;
        flow.packets[way] = flow.packets[way].max(packets);
        flow.bytes[way] = flow.bytes[way].max(bytes);
        changed(flow, Change::Burst(burst.clone()));
        if let Some(followed) = self.flows.get(&burst.flow) {
            self.traffic.add(&followed.flow, before);
        }
    }

    /// A socket is connected anew: what it was connected to before is over.
    pub(super) fn reconnected(
        &mut self,
        record: &Record,
        id: FlowId,
        changed: &mut impl FnMut(&Flow, Change),
    ) {
        let first = FlowId {
            cookie: id.cookie,
            generation: 0,
        };
        let before: Vec<FlowId> = self.sockets.range(first..id).copied().collect();
        for id in before {
            self.end_datagrams(id, record.time, changed);
        }
    }

    /// A socket is gone, with all its flows.
    pub(super) fn released(
        &mut self,
        record: &Record,
        cookie: u64,
        changed: &mut impl FnMut(&Flow, Change),
    ) {
        let place = |generation| FlowId { cookie, generation };
        let all = self.sockets.range(place(0)..=place(u64::MAX));
        let all: Vec<FlowId> = all.copied().collect();
        for id in all {
            self.end_datagrams(id, record.time, changed);
        }
    }

    /// Ends a flow of datagrams. Nothing comes of it later, so it is not kept.
    pub(super) fn end_datagrams(
        &mut self,
        id: FlowId,
        now: u64,
        changed: &mut impl FnMut(&Flow, Change),
    ) {
        self.release(id);
        if let Some(mut followed) = self.flows.remove(&id) {
            let flow = &mut followed.flow;
            flow.closed = Some(now);
            flow.result = Some(match flow.established {
                Some(_) => Outcome::Established,
                // connect() of a datagram socket sends nothing.
                None if flow.packets == [0; 2] => Outcome::Abandoned,
                None => Outcome::Attempted,
            });
            changed(flow, Change::Closed);
        }
    }

    /// Notes this flow's ends, and finds the flow that has them the other way round.
    fn find_peer(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get(&id).map(|followed| &followed.flow) else {
            return;
        };
        let (None, Some(local), Some(remote)) = (flow.peer, flow.local, flow.remote) else {
            return;
        };
        let agent = flow.agent;
        self.datagram_ends.insert(end(agent, local, remote), id);
        let Some(other) = self.datagram_ends.get(&end(agent, remote, local)).copied() else {
            return;
        };
        for (one, peer) in [(id, other), (other, id)] {
            if let Some(followed) = self.flows.get_mut(&one) {
                followed.flow.peer = Some(peer);
            }
        }
    }
}

/// The first datagram tells who began, the first the other way that it was
/// answered. No record told before of what the other end begins, nor of what is
/// sent through a raw socket.
fn begin(followed: &mut Followed, way: Way, time: u64, changed: &mut impl FnMut(&Flow, Change)) {
    let flow = &mut followed.flow;
    let direction = match way {
        Way::Out => Direction::Outbound,
        Way::In => Direction::Inbound,
    };
    match flow.direction {
        None => {
            flow.direction = Some(direction);
            changed(flow, Change::Opened);
        }
        Some(begun) if begun != direction && flow.established.is_none() => {
            flow.established = Some(time);
        }
        Some(_) => {}
    }
}

/// Whether it is one of many peers, told for the first time by each datagram.
pub(super) fn is_peer(id: FlowId) -> bool {
    id.generation & PEER_FLOW != 0
}
