//! The table of live flows. Bounded: when it is full, the flow that was quiet
//! longest is dropped and counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use agent_monitor_common::event::{FlowId, HEAD_OF_LISTENER};
use agent_monitor_common::limits::HEAD_CAP;
use agent_monitor_common::policy::{FLOW_SEGMENTS, FlowControl};
use bytes::Bytes;

use super::stream::Stream;
use super::{Change, Flow};
use crate::decode::{Body, Burst, Connect, Head, Record, Way};
use crate::event::{Address, Direction, Transport};
use crate::protocol::{Answer, Fact, Input, PROTOCOLS, Parser, Side};

/// Flows that are followed at once.
pub const MAX_FLOWS: usize = 16_384;
/// Handshakes whose data may wait for their accept.
const MAX_HANDSHAKES: usize = 256;
/// include/uapi/linux/in.h.
const IPPROTO_UDP: u32 = 17;

/// A wish for the kernel: how much of a flow to send up, or that it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    /// The flow.
    pub flow: FlowId,
    /// What to send; nothing: the flow is over.
    pub control: Option<FlowControl>,
}

/// A flow and what is needed to follow it.
struct Followed {
    flow: Flow,
    streams: [Stream; 2],
    parsers: Vec<(&'static str, Box<dyn Parser>)>,
    last: u64,
    steered: bool,
}

/// Live flows.
#[derive(Default)]
pub struct Table {
    flows: HashMap<FlowId, Followed>,
    /// (local, remote) of established flows, to find the other end of a loopback pair.
    ends: HashMap<(Address, Address), FlowId>,
    /// Data that came with a handshake's last segment, by (local, remote).
    handshakes: HashMap<(Address, Address), Bytes>,
    /// Wishes for the kernel since they were last taken.
    pub steering: Vec<Steering>,
    /// Flows dropped because the table was full.
    pub evicted: u64,
}

impl Table {
    /// Flows in the table.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// A flow.
    pub fn get(&self, id: FlowId) -> Option<&Flow> {
        self.flows.get(&id).map(|followed| &followed.flow)
    }

    /// Takes a record about a flow and tells what it changed.
    pub fn apply(&mut self, record: &Record, mut changed: impl FnMut(&Flow, Change)) {
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
            Body::Head(head) => self.head(record, head, &mut changed),
            Body::Segment {
                flow,
                way,
                offset,
                bytes,
            } => {
                let followed = self.entry(record, *flow);
                let mut inputs = Vec::new();
                followed.streams[index(*way)].size(record.time, *offset, *bytes, |input| {
                    if let Input::Skipped(bytes) = input {
                        inputs.push(bytes);
                    }
                });
                for bytes in inputs {
                    followed.feed(*way, Input::Skipped(bytes), &mut changed);
                }
            }
            Body::Burst(burst) => self.burst(record, burst, &mut changed),
            Body::Closed {
                flow,
                local,
                remote,
                bytes,
                packets,
                failed,
            } => {
                let followed = self.entry(record, *flow);
                followed.flow.local.get_or_insert(*local);
                followed.flow.remote.get_or_insert(*remote);
                followed.flow.bytes = *bytes;
                followed.flow.packets = *packets;
                let change = if *failed {
                    Change::Failed
                } else {
                    Change::Closed
                };
                changed(&followed.flow, change);
                self.remove(*flow);
            }
            Body::Fork { .. } | Body::Exec(_) | Body::Exit { .. } | Body::Cgroup { .. } => {}
        }
    }

    fn connect(
        &mut self,
        record: &Record,
        connect: &Connect,
        change: Change,
        changed: &mut impl FnMut(&Flow, Change),
    ) {
        let followed = self.entry(record, connect.flow);
        let flow = &mut followed.flow;
        flow.remote = Some(connect.remote);
        flow.connector = Some(record.process);
        flow.direction = Some(Direction::Outbound);
        flow.cause = connect.last_rx;
        if connect.protocol == IPPROTO_UDP {
            flow.transport = Transport::Udp;
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
        let peer = self.ends.get(&(remote, local)).copied();
        self.ends.insert((local, remote), id);
        let handshake = self.handshakes.remove(&(local, remote));
        let followed = self.entry(record, id);
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
        if let Some(data) = handshake {
            let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
            followed.take(Way::In, 0, data, len, changed);
        }
        if let Some(peer) = peer
            && let Some(other) = self.flows.get_mut(&peer)
        {
            other.flow.peer = Some(id);
        }
    }

    fn head(&mut self, record: &Record, head: &Head, changed: &mut impl FnMut(&Flow, Change)) {
        if head.flags & HEAD_OF_LISTENER != 0 {
            if self.handshakes.len() < MAX_HANDSHAKES {
                self.handshakes
                    .insert((head.local, head.remote), head.data.clone());
            }
            return;
        }
        let followed = self.entry(record, head.flow);
        followed.flow.local.get_or_insert(head.local);
        followed.flow.remote.get_or_insert(head.remote);
        if head.protocol == IPPROTO_UDP {
            followed.flow.transport = Transport::Udp;
        }
        followed.take(
            head.way,
            head.offset,
            head.data.clone(),
            head.segment_left,
            changed,
        );
        if !followed.steered
            && followed.parsers.len() == 1
            && followed.parsers[0].1.wants_segments()
        {
            followed.steered = true;
            let control = FlowControl {
                head_cap: HEAD_CAP,
                flags: FLOW_SEGMENTS,
            };
            self.steering.push(Steering {
                flow: head.flow,
                control: Some(control),
            });
        }
    }

    fn burst(&mut self, record: &Record, burst: &Burst, changed: &mut impl FnMut(&Flow, Change)) {
        let followed = self.entry(record, burst.flow);
        let way = index(burst.way);
        let flow = &mut followed.flow;
        flow.bytes[way] = flow.bytes[way].max(burst.offset.saturating_add(burst.bytes));
        flow.packets[way] += u64::from(burst.packets);
        changed(flow, Change::Burst(burst.clone()));
    }

    fn entry(&mut self, record: &Record, id: FlowId) -> &mut Followed {
        if self.flows.len() >= MAX_FLOWS && !self.flows.contains_key(&id) {
            self.evict();
        }
        let followed = match self.flows.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Followed::new(record, id)),
        };
        followed.last = record.time;
        followed
    }

    /// Drops the flows that were quiet longest: many at once, so that a flood of
    /// new ones does not search the table for each.
    fn evict(&mut self) {
        let mut ages: Vec<(u64, FlowId)> = self
            .flows
            .iter()
            .map(|(id, followed)| (followed.last, *id))
            .collect();
        let (oldest, ..) = ages.select_nth_unstable(MAX_FLOWS / 16);
        for (_, id) in &*oldest {
            self.evicted += 1;
            self.remove(*id);
        }
    }

    fn remove(&mut self, id: FlowId) {
        let Some(followed) = self.flows.remove(&id) else {
            return;
        };
        if let (Some(local), Some(remote)) = (followed.flow.local, followed.flow.remote)
            && self.ends.get(&(local, remote)) == Some(&id)
        {
            self.ends.remove(&(local, remote));
        }
        if followed.steered {
            self.steering.push(Steering {
                flow: id,
                control: None,
            });
        }
    }
}

impl Followed {
    fn new(record: &Record, id: FlowId) -> Self {
        Self {
            flow: Flow {
                id,
                agent: record.agent,
                owner: record.process,
                connector: None,
                cause: None,
                transport: Transport::Tcp,
                direction: None,
                local: None,
                remote: None,
                begun: record.time,
                established: None,
                protocol: None,
                bytes: [0; 2],
                packets: [0; 2],
                peer: None,
            },
            streams: [Stream::default(), Stream::default()],
            parsers: PROTOCOLS
                .iter()
                .map(|protocol| (protocol.name, (protocol.parser)()))
                .collect(),
            last: record.time,
            steered: false,
        }
    }

    /// Puts a piece in its place and feeds the parsers what is in order.
    fn take(
        &mut self,
        way: Way,
        offset: u32,
        data: Bytes,
        segment_left: u32,
        changed: &mut impl FnMut(&Flow, Change),
    ) {
        let mut stream = std::mem::take(&mut self.streams[index(way)]);
        stream.bytes(self.last, offset, data, segment_left, |input| {
            self.feed(way, input, changed)
        });
        self.streams[index(way)] = stream;
    }

    fn feed(&mut self, way: Way, input: Input<'_>, changed: &mut impl FnMut(&Flow, Change)) {
        // On a loopback pair both ends see the same bytes: one is enough.
        if self.flow.peer.is_some() && !self.flow.is_outbound() {
            return;
        }
        let side = match (way, self.flow.agent_side()) {
            (Way::Out, side) => side,
            (Way::In, Side::Initiator) => Side::Responder,
            (Way::In, Side::Responder) => Side::Initiator,
        };
        let mut facts: Vec<Fact> = Vec::new();
        let mut found = None;
        self.parsers.retain_mut(|(name, parser)| {
            let answer = parser.feed(side, input, &mut facts);
            if answer == Answer::Found && found.is_none() {
                found = Some(*name);
            }
            answer != Answer::NotThis
        });
        if let Some(name) = found
            && self.flow.protocol.is_none()
        {
            self.flow.protocol = Some(name);
            self.parsers.retain(|(other, _)| *other == name);
            changed(&self.flow, Change::Identified);
        }
        for fact in facts {
            changed(&self.flow, Change::Fact(fact));
        }
    }
}

fn index(way: Way) -> usize {
    match way {
        Way::Out => 0,
        Way::In => 1,
    }
}
