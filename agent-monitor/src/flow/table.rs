//! The table of live flows. Bounded: when it is full, the agents that have most
//! flows lose those that were quiet longest, and that is counted.

mod datagrams;
mod eviction;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use agent_monitor_common::event::{FlowId, HEAD_OF_LISTENER};
use foldhash::{HashMap, HashMapExt as _};

use super::followed::{Followed, Steering, index};
use super::handshake::Handshakes;
use super::names::Names;
use super::{Change, Flow, Traffic};
use crate::decode::{Body, Burst, Connect, Datagram, Head, Record, Way};
use crate::event::{Address, Direction, Outcome, Transport};

/// Flows that are followed at once.
pub const MAX_FLOWS: usize = 16_384;
/// Flows that are dropped at once when the table is full, so that a flood of new
/// ones does not search the table for each.
const EVICT: usize = MAX_FLOWS / 16;
/// Closed flows that are kept: the kernel tells of the last burst at the time of
/// the end, and in another ring. What is told late must not make a new flow.
const MAX_CLOSED: usize = 1_024;
/// Agents whose evictions are told apart; further ones count as agent 0's.
const MAX_COUNTED: usize = 4_096;
/// Bytes that wait for what is missing before them, are kept to compare with, or
/// are of messages that are not finished, of all flows together.
const MAX_HELD: usize = 8 << 20;
/// How often quiet flows are looked for.
const SWEEP_NS: u64 = 10_000_000_000;
/// include/uapi/linux/in.h.
const IPPROTO_TCP: u32 = 6;

/// Live flows, and the last closed ones.
#[derive(Default)]
pub struct Table {
    /// Boxed: a table that has grown is half empty, and what is in it is large. Hashed for
    /// speed, with a key of each run's own: the kernel makes the ids, no agent chooses them.
    flows: HashMap<FlowId, Box<Followed>>,
    /// Closed flows that are still in `flows`, oldest first.
    closed: VecDeque<FlowId>,
    /// Established flows, to find the other end of a loopback pair.
    ends: HashMap<End, FlowId>,
    /// The same for datagrams.
    datagram_ends: HashMap<End, FlowId>,
    /// Flows of datagrams, to find those of one socket.
    sockets: BTreeSet<FlowId>,
    handshakes: Handshakes,
    /// Bytes that streams hold, and whose they are, oldest first.
    held: usize,
    holding: VecDeque<FlowId>,
    /// What agents' resolvers answered.
    pub names: Names,
    /// Bytes that agents have moved.
    pub traffic: Traffic,
    /// Wishes for the kernel since they were last taken.
    pub steering: Vec<Steering>,
    /// Flows, and first bytes of flows, dropped because a table was full.
    pub evicted: u64,
    evicted_of: BTreeMap<u64, u64>,
    /// When to look for quiet flows next.
    sweep: u64,
}

/// Network namespace as far as it matters, local and remote address.
type End = (u64, Address, Address);

/// Every container has a loopback of its own; other addresses are one node's.
fn end(agent: u64, local: Address, remote: Address) -> End {
    let own = local.ip.is_loopback() || remote.ip.is_loopback();
    (if own { agent } else { 0 }, local, remote)
}

impl Table {
    /// Flows in the table.
    pub fn len(&self) -> usize {
        self.flows.len() - self.closed.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The flows of an agent that have not ended; of more than `most` those of which
    /// something was told last.
    pub fn open_of(&self, agent: u64, most: usize) -> impl Iterator<Item = &Flow> {
        let open = self.flows.values().filter(|it| !it.is_closed());
        let mut open: Vec<_> = open.filter(|it| it.flow.agent == agent).collect();
        if open.len() > most {
            open.select_nth_unstable_by_key(most, |it| Reverse(it.last));
            open.truncate(most);
        }
        open.into_iter().map(|followed| &followed.flow)
    }

    /// How many flows of each agent have not ended.
    pub fn open(&self) -> HashMap<u64, u64> {
        let mut open = HashMap::new();
        for followed in self.flows.values().filter(|it| !it.is_closed()) {
            *open.entry(followed.flow.agent).or_default() += 1;
        }
        open
    }

    /// Flows dropped because a table was full, by agent: (agent, flows). An
    /// agent stays listed with its sum.
    pub fn evictions(&self) -> impl Iterator<Item = (u64, u64)> {
        self.evicted_of
            .iter()
            .map(|(agent, count)| (*agent, *count))
    }

    /// Says which event told of a flow; the first one stays.
    pub fn told(&mut self, id: FlowId, event: &Arc<str>) {
        if let Some(followed) = self.flows.get_mut(&id) {
            followed.flow.event.get_or_insert_with(|| event.clone());
        }
    }

    /// A flow; a closed one for a short while.
    pub fn get(&self, id: FlowId) -> Option<&Flow> {
        self.flows.get(&id).map(|followed| &followed.flow)
    }

    /// Takes a record about a flow and tells what it changed.
    pub fn apply(&mut self, record: &Record, mut changed: impl FnMut(&Flow, Change)) {
        if record.time >= self.sweep {
            self.sweep = record.time.saturating_add(SWEEP_NS);
            self.forget_quiet(record.time, &mut changed);
        }
        match &record.body {
            Body::Connect(connect) => {
                self.connect(record, connect, Change::Attempted, &mut changed)
            }
            Body::Send(send) => self.connect(record, send, Change::Sent, &mut changed),
            Body::Established {
                flow,
                local,
                remote,
                outbound,
            } => {
                self.established(record, *flow, (*local, *remote), *outbound, &mut changed);
            }
            Body::Found {
                flow,
                local,
                remote,
                protocol,
                outbound,
            } => {
                self.found(
                    record,
                    *flow,
                    (*local, *remote),
                    *protocol,
                    *outbound,
                    &mut changed,
                );
            }
            Body::Head(head) => self.head(record, head, &mut changed),
            Body::Segment {
                flow,
                way,
                offset,
                bytes,
            } => {
                let Some(followed) = self.entry(record, *flow, &mut changed) else {
                    return;
                };
                followed.size(*way, *offset, *bytes, &mut changed);
                self.settle(*flow, &mut changed);
            }
            Body::Burst(burst) => self.burst(record, burst, &mut changed),
            Body::Bursts(bursts) => {
                for burst in bursts {
                    self.burst(record, burst, &mut changed);
                }
            }
            Body::Datagram(part) => self.datagram(record, part, &mut changed),
            Body::DatagramBurst {
                burst,
                remote,
                protocol,
            } => self.datagram_burst(record, burst, (*remote, *protocol), &mut changed),
            Body::Released { flow } => {
                self.released(record, flow.cookie, &mut changed);
                // Of TCP's only those from before the watch are told of in this way.
                let is_live =
                    |it: &Followed| it.flow.transport == Transport::Tcp && !it.is_closed();
                if self.flows.get(flow).is_some_and(|it| is_live(it)) {
                    self.end(record, *flow, Outcome::Established, false, &mut changed);
                }
            }
            Body::Closed(end) => {
                let Some(followed) = self.entry(record, end.flow, &mut changed) else {
                    return;
                };
                let flow = &mut followed.flow;
                flow.local.get_or_insert(end.local);
                flow.remote.get_or_insert(end.remote);
                let before = std::mem::replace(&mut flow.bytes, end.bytes);
                flow.packets = end.packets;
                flow.retransmits = end.retransmits;
                flow.rtt_us = end.rtt_us;
                // With TCP Fast Open a connection is of use before its handshake is over.
                let failed = end.unfinished && flow.established.is_none();
                let result = match end.result {
                    Outcome::Abandoned if !failed => Outcome::Established,
                    result => result,
                };
                if let Some(followed) = self.flows.get(&end.flow) {
                    self.traffic.add(&followed.flow, before);
                }
                self.end(record, end.flow, result, failed, &mut changed);
            }
            Body::Unstarted { flow, result } => {
                self.end(record, *flow, *result, true, &mut changed);
            }
            Body::Fork { .. }
            | Body::Exec(_)
            | Body::Exit { .. }
            | Body::Cgroup { .. }
            | Body::Device(_)
            | Body::Sysctl(_)
            | Body::Socket(_)
            | Body::Bind(_)
            | Body::Listen(_) => {}
        }
    }

    fn end(
        &mut self,
        record: &Record,
        id: FlowId,
        result: Outcome,
        failed: bool,
        changed: &mut impl FnMut(&Flow, Change),
    ) {
        let Some(followed) = self.entry(record, id, changed) else {
            return;
        };
        followed.flush(changed);
        followed.flow.closed = Some(record.time);
        followed.flow.result = Some(result);
        let change = if failed {
            Change::Failed
        } else {
            Change::Closed
        };
        changed(&followed.flow, change);
        self.close(id);
    }

    fn connect(
        &mut self,
        record: &Record,
        connect: &Connect,
        change: Change,
        changed: &mut impl FnMut(&Flow, Change),
    ) {
        let (id, remote) = (connect.flow, connect.remote);
        let name = self.names.get(record.agent, remote.ip, record.time);
        let followed = if connect.protocol == IPPROTO_TCP {
            self.entry(record, id, changed)
        } else {
            if !datagrams::is_peer(id) {
                self.reconnected(record, id, changed);
            }
            self.datagrams(record, id, (remote, connect.protocol), changed)
        };
        let Some(followed) = followed else {
            return;
        };
        let flow = &mut followed.flow;
        // The kernel may tell again of one peer of many.
        let is_known = datagrams::is_peer(id) && flow.direction.is_some();
        flow.remote = Some(remote);
        flow.resolved_name = name;
        flow.connector = Some(record.process);
        flow.direction.get_or_insert(Direction::Outbound);
        flow.cause = connect.last_rx;
        if is_known {
            return;
        }
        changed(flow, change);
    }

    fn established(
        &mut self,
        record: &Record,
        id: FlowId,
        (local, remote): (Address, Address),
        outbound: bool,
        changed: &mut impl FnMut(&Flow, Change),
    ) {
        let Some(followed) = self.entry(record, id, changed) else {
            return;
        };
        let agent = followed.flow.agent;
        let peer = self.ends.get(&end(agent, remote, local)).copied();
        self.ends.insert(end(agent, local, remote), id);
        let chunks = self.handshakes.take(agent, local, remote, record.time);
        let Some(followed) = self.flows.get_mut(&id) else {
            return;
        };
        let flow = &mut followed.flow;
        flow.local = Some(local);
        flow.remote = Some(remote);
        flow.direction = Some(if outbound {
            Direction::Outbound
        } else {
            Direction::Inbound
        });
        flow.established = Some(record.time);
        flow.peer = peer;
        changed(flow, Change::Opened);
        for (offset, (data, segment_left)) in chunks {
            followed.take(Way::In, offset, data, segment_left, changed);
        }
        self.settle(id, changed);
        if let Some(peer) = peer
            && let Some(other) = self.flows.get_mut(&peer)
        {
            other.flow.peer = Some(id);
        }
    }

    fn found(
        &mut self,
        record: &Record,
        id: FlowId,
        (local, remote): (Address, Address),
        protocol: u32,
        outbound: bool,
        changed: &mut impl FnMut(&Flow, Change),
    ) {
        let followed = match protocol {
            IPPROTO_TCP => self.entry(record, id, changed),
            _ => self.datagrams(record, id, (remote, protocol), changed),
        };
        let Some(followed) = followed else {
            return;
        };
        let flow = &mut followed.flow;
        // Seen from its beginning after all: it was made while the watch began.
        if flow.established.is_some() {
            return;
        }
        // A packet may have been before, from an owner that was not known.
        if flow.owner.pid == 0 {
            flow.owner = record.process;
        }
        flow.local = Some(local);
        flow.remote = Some(remote);
        flow.direction.get_or_insert(if outbound {
            Direction::Outbound
        } else {
            Direction::Inbound
        });
        flow.established = Some(record.time);
        flow.is_found = true;
        let agent = flow.agent;
        let peer = self.ends.get(&end(agent, remote, local)).copied();
        self.ends.insert(end(agent, local, remote), id);
        if let Some(other) = peer.and_then(|peer| self.flows.get_mut(&peer)) {
            other.flow.peer = Some(id);
        }
        if let Some(followed) = self.flows.get_mut(&id) {
            followed.flow.peer = peer;
            changed(&followed.flow, Change::Found);
        }
    }

    fn head(&mut self, record: &Record, head: &Head, changed: &mut impl FnMut(&Flow, Change)) {
        if head.flags & HEAD_OF_LISTENER != 0 {
            if let Some(agent) = self.handshakes.keep(record.agent, head, record.time) {
                self.count(agent, 1);
            }
            return;
        }
        if head.protocol != IPPROTO_TCP {
            // A recording from before datagrams had records of their own.
            self.datagram(record, &Datagram::from(head), changed);
            return;
        }
        let Some(followed) = self.entry(record, head.flow, changed) else {
            return;
        };
        followed.flow.local.get_or_insert(head.local);
        followed.flow.remote.get_or_insert(head.remote);
        followed.take(
            head.way,
            head.offset,
            head.data.clone(),
            head.segment_left,
            changed,
        );
        self.settle(head.flow, changed);
    }

    /// After bytes of a flow were taken: what the kernel is to send of it.
    fn settle(&mut self, id: FlowId, changed: &mut impl FnMut(&Flow, Change)) {
        let Some(followed) = self.flows.get_mut(&id) else {
            return;
        };
        self.steering.extend(followed.wish());
        self.account(id, changed);
    }

    /// Sees to it that streams and unfinished messages hold no more than they may in all.
    fn account(&mut self, id: FlowId, changed: &mut impl FnMut(&Flow, Change)) {
        let Some(followed) = self.flows.get_mut(&id) else {
            return;
        };
        let held = followed.held();
        if followed.counted == 0 && held > 0 {
            self.holding.push_back(id);
        }
        self.held = self.held + held - followed.counted;
        followed.counted = held;
        if self.holding.len() > 2 * MAX_FLOWS {
            let flows = &self.flows;
            self.holding
                .retain(|id| flows.get(id).is_some_and(|followed| followed.counted > 0));
        }
        while self.held > MAX_HELD {
            let Some(oldest) = self.holding.pop_front() else {
                return;
            };
            let Some(followed) = self.flows.get_mut(&oldest) else {
                continue;
            };
            self.held -= followed.counted;
            followed.counted = 0;
            let agent = followed.flow.agent;
            let waited = followed.let_go(changed);
            if !followed.flow.is_datagrams {
                self.steering.extend(followed.wish());
            }
            self.count(agent, u64::from(waited));
        }
    }

    fn burst(&mut self, record: &Record, burst: &Burst, changed: &mut impl FnMut(&Flow, Change)) {
        // A flow's last burst may be told of after its end.
        let is_closed = self.flows.get(&burst.flow).is_some_and(|it| it.is_closed());
        if !is_closed && self.entry(record, burst.flow, changed).is_none() {
            return;
        }
        let Some(followed) = self.flows.get_mut(&burst.flow) else {
            return;
        };
        let flow = &mut followed.flow;
        if !is_closed {
            let way = index(burst.way);
            let before = flow.bytes;
            flow.bytes[way] = flow.bytes[way].max(burst.offset.saturating_add(burst.bytes));
            flow.packets[way] += u64::from(burst.packets);
            self.traffic.add(flow, before);
        }
        changed(flow, Change::Burst(burst.clone()));
        if !is_closed {
            followed.burst(burst, changed);
            self.settle(burst.flow, changed);
        }
    }

    /// A live flow, which may be new; nothing for one that is closed.
    fn entry(
        &mut self,
        record: &Record,
        id: FlowId,
        changed: &mut impl FnMut(&Flow, Change),
    ) -> Option<&mut Followed> {
        if self.len() >= MAX_FLOWS && !self.flows.contains_key(&id) {
            self.evict(record.time, changed);
        }
        let followed = match self.flows.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Box::new(Followed::new(record, id))),
        };
        followed.last = record.time;
        (!followed.is_closed()).then_some(followed)
    }

    /// Keeps a closed flow for its last burst.
    fn close(&mut self, id: FlowId) {
        self.release(id);
        if let Some(followed) = self.flows.get_mut(&id) {
            followed.end();
        }
        self.closed.push_back(id);
        if self.closed.len() > MAX_CLOSED
            && let Some(id) = self.closed.pop_front()
        {
            self.flows.remove(&id);
        }
    }

    /// Lets go of what is held for a live flow elsewhere.
    fn release(&mut self, id: FlowId) {
        let Some(followed) = self.flows.get_mut(&id) else {
            return;
        };
        self.held -= std::mem::take(&mut followed.counted);
        let flow = &followed.flow;
        self.sockets.remove(&id);
        if let (Some(local), Some(remote)) = (flow.local, flow.remote) {
            let end = end(flow.agent, local, remote);
            for ends in [&mut self.ends, &mut self.datagram_ends] {
                if ends.get(&end) == Some(&id) {
                    ends.remove(&end);
                }
            }
        }
        if followed.steered {
            self.steering.push(Steering {
                flow: id,
                control: None,
            });
        }
    }
}
