//! One flow of the table: its streams, its parsers, and what they need.

use agent_monitor_common::event::FlowId;
use agent_monitor_common::limits::HEAD_CAP;
use agent_monitor_common::policy::{FLOW_SEGMENTS, FlowControl};
use bytes::Bytes;

use super::stream::Stream;
use super::{Change, Flow};
use crate::decode::{Record, Way};
use crate::event::Transport;
use crate::protocol::{Answer, Fact, Input, PROTOCOLS, Parser, Side};

/// Quiet after which a UDP flow is forgotten: it has no end of its own.
const IDLE_NS: u64 = 60_000_000_000;
/// Quiet after which an attempt is forgotten: a SYN is repeated for at most
/// 127 s (net.ipv4.tcp_syn_retries 6), and some attempts fail before the first.
const ATTEMPT_NS: u64 = 150_000_000_000;

/// A wish for the kernel: how much of a flow to send up, or that it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    /// The flow.
    pub flow: FlowId,
    /// What to send; nothing: the flow is over.
    pub control: Option<FlowControl>,
}

/// A flow and what is needed to follow it.
pub(super) struct Followed {
    pub flow: Flow,
    pub streams: [Stream; 2],
    pub parsers: Vec<(&'static str, Box<dyn Parser>)>,
    pub last: u64,
    /// The kernel was told something about it.
    pub steered: bool,
    /// The kernel sends its segments' sizes.
    segments: bool,
}

impl Followed {
    pub fn new(record: &Record, id: FlowId) -> Self {
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
                event: None,
                closed: None,
            },
            streams: [Stream::default(), Stream::default()],
            parsers: PROTOCOLS
                .iter()
                .map(|protocol| (protocol.name, (protocol.parser)()))
                .collect(),
            last: record.time,
            steered: false,
            segments: false,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.flow.closed.is_some()
    }

    /// Whether nothing will tell of its end and it was quiet for long: UDP, and
    /// an attempt that failed before its first segment.
    pub fn is_forgotten(&self, now: u64) -> bool {
        let flow = &self.flow;
        let attempt =
            flow.connector.is_some() && flow.established.is_none() && flow.bytes == [0; 2];
        let idle = match flow.transport {
            _ if self.is_closed() => return false,
            Transport::Udp => IDLE_NS,
            Transport::Tcp if attempt => ATTEMPT_NS,
            Transport::Tcp => return false,
        };
        now.saturating_sub(self.last) > idle
    }

    /// Asks the kernel for segment sizes while a parser needs them.
    pub fn wish(&mut self) -> Option<Steering> {
        let wanted = match self.parsers.as_slice() {
            [(_, parser)] => parser.wants_segments(),
            _ => false,
        };
        if wanted == self.segments {
            return None;
        }
        self.segments = wanted;
        self.steered = true;
        Some(Steering {
            flow: self.flow.id,
            control: Some(FlowControl {
                head_cap: HEAD_CAP,
                flags: if wanted { FLOW_SEGMENTS } else { 0 },
            }),
        })
    }

    /// Puts a piece in its place and feeds the parsers what is in order.
    pub fn take(
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

    pub fn feed(&mut self, way: Way, input: Input<'_>, changed: &mut impl FnMut(&Flow, Change)) {
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

pub(super) fn index(way: Way) -> usize {
    match way {
        Way::Out => 0,
        Way::In => 1,
    }
}
