//! Flows of datagrams, and of packets that are neither TCP's nor UDP's, told of
//! as the kernel side does.

use std::collections::HashMap;

use agent_monitor_common::event::FlowId;
use agent_monitor_common::limits::HEAD_CAP;
use agent_monitor_common::policy::FlowControl;
use bytes::Bytes;

use super::bursts::{Bursts, index};
use super::whose;
use super::{Context, MAX_FLOWS, oldest};
use crate::decode::{Body, Connect, Datagram, Way};
use crate::event::Address;

/// Quiet after which what comes is a new flow (RFC 4787, REQ-5).
const IDLE_NS: u64 = 300_000_000_000;
/// Well-known ports (RFC 6335, 6): below, a port tells who the server is.
const WELL_KNOWN: u16 = 1_024;
/// DNS (RFC 1035) and multicast DNS (RFC 6762): every message is wanted whole.
const DNS_PORTS: [u16; 2] = [53, 5353];

/// The lower and the higher end, and the protocol.
type Key = (Address, Address, u8);

struct Flow {
    id: FlowId,
    local: Address,
    remote: Address,
    bursts: Bursts,
    head_cap: u32,
    last: u64,
}

/// A datagram between two addresses; ports are 0 where there are none.
pub struct Message<'a> {
    pub source: Address,
    pub destination: Address,
    pub protocol: u8,
    /// What was captured of it.
    pub payload: &'a [u8],
    /// Bytes that were sent.
    pub length: usize,
}

/// Flows of datagrams.
#[derive(Default)]
pub struct Datagrams {
    flows: HashMap<Key, Flow>,
    /// The flow that was last told of.
    latest: Option<Key>,
    /// Flows that were forgotten for want of room.
    pub evicted: u64,
}

impl Datagrams {
    /// Takes a datagram.
    pub fn take(&mut self, context: &mut Context<'_>, message: &Message<'_>) {
        let (source, destination) = (message.source, message.destination);
        let key = (
            source.min(destination),
            source.max(destination),
            message.protocol,
        );
        let now = context.now;
        let known = self.flows.get(&key);
        if known.is_none_or(|flow| now.saturating_sub(flow.last) > IDLE_NS) {
            if let Some(mut over) = self.flows.remove(&key) {
                over.tell(key, context);
            }
            if self.flows.len() >= MAX_FLOWS {
                self.make_room(context);
            }
            let Some(flow) = Flow::new(context, message) else {
                return;
            };
            self.flows.insert(key, flow);
        }
        let Some(flow) = self.flows.get_mut(&key) else {
            return;
        };
        self.latest = Some(key);
        flow.last = now;
        flow.take(context, message);
    }

    /// Sends as much of the flow that was last told of as is asked for.
    pub fn steer(&mut self, id: FlowId, control: FlowControl) {
        let latest = self.latest.and_then(|key| self.flows.get_mut(&key));
        if let Some(flow) = latest.filter(|flow| flow.id == id) {
            flow.head_cap = control.head_cap;
        }
    }

    /// Tells of all bursts that are going on.
    pub fn end(&mut self, context: &mut Context<'_>) {
        let mut all: Vec<(Key, Flow)> = self.flows.drain().collect();
        all.sort_by_key(|(_, flow)| flow.id);
        for (key, flow) in &mut all {
            flow.tell(*key, context);
        }
    }

    fn make_room(&mut self, context: &mut Context<'_>) {
        let flows = self.flows.iter();
        for key in oldest(flows.map(|(key, flow)| (true, flow.last, *key))) {
            if let Some(mut flow) = self.flows.remove(&key) {
                flow.tell(key, context);
                let is_over = context.now.saturating_sub(flow.last) > IDLE_NS;
                self.evicted += u64::from(!is_over);
            }
        }
    }
}

impl Flow {
    fn new(context: &mut Context<'_>, message: &Message<'_>) -> Option<Self> {
        let (source, destination) = (message.source, message.destination);
        let is_answer = source.port < WELL_KNOWN && destination.port >= WELL_KNOWN;
        let (initiator, responder) = match is_answer && message.protocol == super::UDP {
            true => whose::guess(source, destination),
            false => (source, destination),
        };
        let (local, remote) = context.whose.ends(initiator, responder)?;
        let id = context.new_flow();
        if source == local {
            let last_rx = context.last_in();
            context.tell(Body::Send(Connect {
                flow: id,
                remote,
                protocol: message.protocol.into(),
                last_rx,
            }));
        }
        let is_dns = |end: Address| message.protocol == super::UDP && DNS_PORTS.contains(&end.port);
        Some(Self {
            id,
            local,
            remote,
            bursts: Bursts::default(),
            head_cap: match is_dns(local) || is_dns(remote) {
                true => u32::MAX,
                false => HEAD_CAP,
            },
            last: context.now,
        })
    }

    fn take(&mut self, context: &mut Context<'_>, message: &Message<'_>) {
        let way = match message.source == self.local {
            true => Way::Out,
            false => Way::In,
        };
        if way == Way::In {
            context.note_in(self.id);
        }
        let protocol = message.protocol.into();
        let before = self.bursts.bytes[index(way)];
        let length = message.length as u64;
        let ended = self
            .bursts
            .count(self.id, way, context.now, length, message.payload);
        if let Some(burst) = ended {
            context.tell(Body::DatagramBurst {
                burst,
                remote: self.remote,
                protocol,
            });
        }
        let cap = u64::from(self.head_cap).saturating_sub(before);
        let captured = message
            .payload
            .len()
            .min(usize::try_from(cap).unwrap_or(usize::MAX));
        let wanted = usize::try_from(cap.min(length)).unwrap_or(usize::MAX);
        context.note_kept(captured, wanted);
        if captured > 0 {
            context.tell(Body::Datagram(Datagram {
                flow: self.id,
                local: self.local,
                remote: self.remote,
                way,
                protocol,
                offset: 0,
                len: u32::try_from(message.length).unwrap_or(u32::MAX),
                captured: u32::try_from(captured).unwrap_or(u32::MAX),
                segment: 0,
                data: Bytes::copy_from_slice(&message.payload[..captured]),
            }));
        }
    }

    fn tell(&mut self, (_, _, protocol): Key, context: &mut Context<'_>) {
        if let Some(burst) = self.bursts.end(self.id) {
            context.tell(Body::DatagramBurst {
                burst,
                remote: self.remote,
                protocol: protocol.into(),
            });
        }
    }
}
