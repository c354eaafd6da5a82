//! One flow of the table: its streams, its parsers, and what they need.

#[cfg(test)]
mod tests;

use agent_monitor_common::event::FlowId;
use agent_monitor_common::limits::{BURST_QUIET_NS, HEAD_CAP};
use agent_monitor_common::policy::{FLOW_SEGMENTS, FlowControl};
use bytes::Bytes;

use super::datagrams::Datagrams;
use super::stream::{Next, Stream};
use super::{Change, Fingerprints, Flow};
use crate::decode::{Burst, Record, Way};
use crate::event::Transport;
use crate::protocol::layers::Layers;
use crate::protocol::{Fact, Input, Side, Wants};

/// Quiet after which a flow of datagrams is over, though its socket is not closed:
/// what RFC 4787 (REQ-5) recommends to translators of addresses.
const IDLE_NS: u64 = 300_000_000_000;
/// Quiet after which an attempt is forgotten: a SYN is repeated for at most
/// 127 s (net.ipv4.tcp_syn_retries 6).
const ATTEMPT_NS: u64 = 150_000_000_000;
/// Quiet after which a connection from before the watch is forgotten: the kernel
/// tells of the end only of those it saw beginning.
const FOUND_NS: u64 = 3_600_000_000_000;
/// Bytes of a flow that are parsed, counted anew when something new begins.
const PARSED_MAX: u32 = 64 * 1024;
/// New beginnings on a flow that are looked into at once, and how often after that.
const AGAIN_AT_ONCE: u32 = 4;
const AGAIN_EVERY_NS: u64 = 5_000_000_000;
/// Differences between two versions of a flow's stream of which each is parsed at once.
/// After that it is the one that doubles their number, and what there is at the end.
const READINGS_AT_ONCE: u32 = 8;

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
    /// Its protocols, from its first byte on.
    layers: Option<Box<Layers>>,
    /// The same for a stream that was sent in two versions, by the last one.
    other: Option<Box<Layers>>,
    /// Places at which the versions differ, and whether some were not parsed yet.
    differences: u32,
    is_unread: bool,
    /// What a flow of datagrams needs, once there is one; a stream has none.
    pub datagrams: Option<Box<Datagrams>>,
    /// Datagrams and their bytes that bursts told of, by direction.
    pub told: [(u64, u64); 2],
    pub last: u64,
    /// Bytes held, as counted by the table.
    pub counted: usize,
    /// The kernel was told something about it.
    pub steered: bool,
    /// What the kernel sends of it.
    control: FlowControl,
    /// Place in either stream from which on bytes count as parsed.
    base: u32,
    /// Bytes that were parsed since.
    parsed: u32,
    /// Who sent last, and when: a change or a pause may begin something new.
    turn: Option<(Side, u64)>,
    again: u32,
    again_at: u64,
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
                is_datagrams: false,
                direction: None,
                local: None,
                remote: None,
                begun: record.time,
                established: None,
                is_found: false,
                protocol: None,
                server_name: None,
                leads_to: None,
                resolved_name: None,
                fingerprints: Fingerprints::default(),
                is_ambiguous: false,
                bytes: [0; 2],
                packets: [0; 2],
                peer: None,
                event: None,
                closed: None,
                result: None,
                retransmits: None,
                rtt_us: None,
            },
            streams: [Stream::default(), Stream::default()],
            layers: None,
            other: None,
            differences: 0,
            is_unread: false,
            datagrams: None,
            told: [(0, 0); 2],
            last: record.time,
            counted: 0,
            steered: false,
            control: FlowControl {
                head_cap: HEAD_CAP,
                flags: 0,
            },
            base: 0,
            parsed: 0,
            turn: None,
            again: 0,
            again_at: 0,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.flow.closed.is_some()
    }

    /// Whether nothing may tell of its end and it was quiet for long: datagrams,
    /// and an attempt whose end was lost.
    pub fn is_forgotten(&self, now: u64) -> bool {
        let flow = &self.flow;
        let attempt =
            flow.connector.is_some() && flow.established.is_none() && flow.bytes == [0; 2];
        let idle = match flow.is_datagrams {
            _ if self.is_closed() => return false,
            true => IDLE_NS,
            false if attempt => ATTEMPT_NS,
            false if flow.is_found => FOUND_NS,
            false => return false,
        };
        now.saturating_sub(self.last) > idle
    }

    /// Bytes of memory that its streams and unfinished messages hold.
    pub fn held(&self) -> usize {
        let streams: usize = self.streams.iter().map(Stream::held).sum();
        streams + self.unfinished()
    }

    fn unfinished(&self) -> usize {
        let layers = [&self.layers, &self.other].into_iter().flatten();
        let datagrams = self.datagrams.as_ref().map_or(0, |it| it.held());
        layers.map(|layers| layers.held()).sum::<usize>() + datagrams
    }

    /// Asks the kernel for more while a parser needs more, and for bursts alone
    /// once it has its answer.
    pub fn wish(&mut self) -> Option<Steering> {
        let layers = [&self.layers, &self.other];
        let wants = (layers.into_iter().flatten())
            .map(|layers| layers.wants())
            .max()
            .unwrap_or(Wants::Head);
        let spent = self.parsed >= PARSED_MAX;
        // The kernel looks a wish up when a burst begins: raised in good time.
        let window = (2 * self.parsed).next_power_of_two();
        let window = window.clamp(HEAD_CAP, PARSED_MAX);
        let head_cap = match wants {
            Wants::Nothing => 0,
            Wants::All => u32::MAX,
            Wants::Bytes if !spent => self.base.saturating_add(window),
            // What is in clear before sizes are all there is to see.
            Wants::Segments => self.base.saturating_add(HEAD_CAP),
            _ if self.base > 0 => 0,
            _ => HEAD_CAP,
        };
        let control = FlowControl {
            head_cap,
            flags: if wants == Wants::Segments {
                FLOW_SEGMENTS
            } else {
                0
            },
        };
        if control == self.control {
            return None;
        }
        self.control = control;
        self.steered = true;
        Some(Steering {
            flow: self.flow.id,
            control: Some(control),
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
        let mut versions = Vec::new();
        stream.bytes(self.last, offset, data, segment_left, |next| match next {
            Next::Input(input) => self.feed(way, input, changed),
            Next::Differs(last) => {
                self.differences = self.differences.saturating_add(1);
                versions.push(match self.differences <= READINGS_AT_ONCE {
                    true => last.to_vec(),
                    false => Vec::new(),
                });
            }
        });
        self.streams[index(way)] = stream;
        if !versions.is_empty() {
            self.differs(way, &versions, changed);
        }
    }

    /// Takes a segment of which only the size is known.
    pub fn size(
        &mut self,
        way: Way,
        offset: u32,
        bytes: u32,
        changed: &mut impl FnMut(&Flow, Change),
    ) {
        self.take(way, offset, Bytes::new(), bytes, changed);
    }

    /// Feeds what still waits: nothing more will come.
    pub fn flush(&mut self, changed: &mut impl FnMut(&Flow, Change)) {
        for way in [Way::Out, Way::In] {
            let mut stream = std::mem::take(&mut self.streams[index(way)]);
            stream.flush(|next| {
                if let Next::Input(input) = next {
                    self.feed(way, input, changed);
                }
            });
            self.streams[index(way)] = stream;
        }
        if std::mem::take(&mut self.is_unread) {
            self.read_other(None, changed);
        }
    }

    /// Lets go of what its streams hold, and of unfinished messages; says whether
    /// there was something that waited.
    pub fn let_go(&mut self, changed: &mut impl FnMut(&Flow, Change)) -> bool {
        let waited = self.streams.iter().any(Stream::is_waiting);
        self.flush(changed);
        self.streams.iter_mut().for_each(Stream::forget_kept);
        let unfinished = self.unfinished() > 0;
        if unfinished {
            self.other = None;
            if let Some(layers) = &mut self.layers {
                layers.let_go();
            }
            if let Some(datagrams) = &mut self.datagrams {
                datagrams.let_go();
            }
        }
        waited || unfinished
    }

    /// Lets go of all that only a live flow needs.
    pub fn end(&mut self) {
        self.layers = None;
        self.other = None;
        self.streams = Default::default();
    }

    /// Looks at the first bytes of a burst that was not captured: they may begin
    /// something new, or go on with it before the kernel knows of the wish.
    pub fn burst(&mut self, burst: &Burst, changed: &mut impl FnMut(&Flow, Change)) {
        let (Ok(offset), Ok(bytes)) = (u32::try_from(burst.offset), u32::try_from(burst.bytes))
        else {
            return;
        };
        let unseen = self.flow.transport == Transport::Tcp
            && self.streams[index(burst.way)].next() <= offset;
        if !unseen || self.is_other_end() {
            return;
        }
        let again = self.may_begin_again(&burst.data, burst.first, Wants::Segments);
        let goes_on = self.base > 0
            && (self.layers.as_ref()).is_some_and(|layers| layers.wants() == Wants::Bytes);
        if !again && !goes_on {
            return;
        }
        // What was not captured of the streams will not come.
        for way in [Way::Out, Way::In] {
            let at = match way == burst.way {
                true => offset,
                false if again => u32::try_from(self.flow.bytes[index(way)]).unwrap_or(u32::MAX),
                false => continue,
            };
            if again || self.streams[index(way)].next() < at {
                self.streams[index(way)].jump(at);
                self.feed(way, Input::Gap, changed);
            }
            self.base = self.base.max(at);
        }
        if again {
            self.begin_again(&burst.data, burst.first);
        }
        self.take(burst.way, offset, burst.data.clone(), bytes, changed);
        self.streams[index(burst.way)].jump(offset.saturating_add(bytes));
        let left = bytes.saturating_sub(u32::try_from(burst.data.len()).unwrap_or(u32::MAX));
        if left > 0 {
            self.feed(burst.way, Input::Skipped(left), changed);
        }
    }

    /// Whether these bytes look like the beginning of something that no parser
    /// follows, and may be looked into. Who wants less than `wants` gets nothing.
    fn may_begin_again(&self, bytes: &[u8], now: u64, wants: Wants) -> bool {
        let due = self.again < AGAIN_AT_ONCE || now >= self.again_at.saturating_add(AGAIN_EVERY_NS);
        let layers = self.layers.as_ref().filter(|_| due);
        layers.is_some_and(|layers| !layers.is_followed(wants) && layers.may_begin(bytes))
    }

    fn begin_again(&mut self, bytes: &[u8], now: u64) {
        if let Some(layers) = &mut self.layers {
            layers.begin_again(bytes);
        }
        self.again += 1;
        self.again_at = now;
        self.parsed = 0;
    }

    /// On a loopback pair both ends see the same bytes: one is enough.
    fn is_other_end(&self) -> bool {
        self.flow.peer.is_some() && !self.flow.is_outbound()
    }

    fn side(&self, way: Way) -> Side {
        match (way, self.flow.agent_side()) {
            (Way::Out, side) => side,
            (Way::In, Side::Initiator) => Side::Responder,
            (Way::In, Side::Responder) => Side::Initiator,
        }
    }

    fn feed(&mut self, way: Way, input: Input<'_>, changed: &mut impl FnMut(&Flow, Change)) {
        if self.is_other_end() {
            return;
        }
        let side = self.side(way);
        if let Input::Bytes(bytes) = input {
            let turn = self.turn.is_some_and(|(before, at)| {
                side != before || self.last.saturating_sub(at) > BURST_QUIET_NS
            });
            self.turn = Some((side, self.last));
            if turn && self.may_begin_again(bytes, self.last, Wants::Head) {
                self.begin_again(bytes, self.last);
                self.base = self.streams[0].next().max(self.streams[1].next());
            }
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            self.parsed = self.parsed.saturating_add(length);
        }
        let mut facts: Vec<Fact> = Vec::new();
        let layers = self.layers.get_or_insert_default();
        layers.feed(side, input, &mut facts);
        let protocol = layers.protocol();
        if let Some(other) = &mut self.other {
            let mut others: Vec<Fact> = Vec::new();
            other.feed(side, input, &mut others);
            others.retain(|fact| !facts.contains(fact));
            facts.extend(others);
        }
        self.tell(protocol, facts, changed);
    }

    fn tell(
        &mut self,
        protocol: Option<&'static str>,
        facts: Vec<Fact>,
        changed: &mut impl FnMut(&Flow, Change),
    ) {
        facts.iter().for_each(|fact| self.flow.learn(fact));
        if protocol.is_some() && protocol != self.flow.protocol {
            self.flow.protocol = protocol;
            changed(&self.flow, Change::Identified);
        }
        for fact in facts {
            changed(&self.flow, Change::Fact(fact));
        }
    }

    /// Other bytes came than before, in one version after the other. Which of them the
    /// receiver took is not known, so all readings are parsed.
    fn differs(&mut self, way: Way, versions: &[Vec<u8>], changed: &mut impl FnMut(&Flow, Change)) {
        if self.is_other_end() {
            return;
        }
        if !self.flow.is_ambiguous {
            self.flow.is_ambiguous = true;
            changed(&self.flow, Change::Ambiguous);
        }
        self.is_unread = true;
        // More may have come after the last one.
        let earlier = versions.iter().rev().skip(1).rev();
        for version in earlier.filter(|version| !version.is_empty()) {
            self.read_other(Some((way, version)), changed);
        }
        let many = self.differences > READINGS_AT_ONCE;
        if !many || self.differences.is_power_of_two() {
            self.is_unread = false;
            self.read_other(None, changed);
        }
    }

    /// Parses the stream as a receiver has it that believes what came last, or, of one
    /// direction, this.
    fn read_other(
        &mut self,
        version: Option<(Way, &Vec<u8>)>,
        changed: &mut impl FnMut(&Flow, Change),
    ) {
        let mut ways = [Way::Out, Way::In];
        // Who began the flow speaks first.
        if self.side(Way::Out) == Side::Responder {
            ways.reverse();
        }
        let first = ways.map(|way| (way, self.streams[index(way)].kept().to_vec()));
        let last = ways.map(|way| match version {
            Some((of, version)) if of == way => (way, version.clone()),
            _ => (way, self.streams[index(way)].last().to_vec()),
        });
        let parse = |streams: &[(Way, Vec<u8>); 2]| {
            let mut layers = Box::<Layers>::default();
            let mut facts = Vec::new();
            for (way, stream) in streams {
                layers.feed(self.side(*way), Input::Bytes(stream), &mut facts);
            }
            (layers, facts)
        };
        let (_, before) = parse(&first);
        let (other, mut facts) = parse(&last);
        facts.retain(|fact| !before.contains(fact));
        let protocol = other.protocol().filter(|_| self.flow.protocol.is_none());
        self.other = Some(other);
        self.tell(protocol, facts, changed);
    }
}

pub(super) fn index(way: Way) -> usize {
    match way {
        Way::Out => 0,
        Way::In => 1,
    }
}
