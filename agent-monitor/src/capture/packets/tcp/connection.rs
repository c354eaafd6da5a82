//! One connection, as far as its segments tell.

use agent_monitor_common::event::FlowId;
use agent_monitor_common::limits::HEAD_CAP;
use agent_monitor_common::policy::{FLOW_SEGMENTS, FlowControl};
use bytes::Bytes;

use super::{FIN, RST, Segment};
use crate::capture::packets::bursts::{Bursts, index};
use crate::capture::packets::{Context, TCP, whose};
use crate::decode::{Body, Closed, Connect, Head, Way};
use crate::event::{Address, Outcome};

/// Largest receive window, with the largest scale (RFC 7323, 2.3): what is
/// further ahead belongs to no connection.
const MAX_WINDOW: i64 = 1 << 30;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A SYN was sent.
    Attempt,
    /// It was answered; only the initiator knows.
    Answered,
    /// Established.
    Open,
    /// Over: what comes late is not its begin.
    Ended,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default)]
struct Half {
    /// Sequence number of its first byte, once known.
    base: Option<u32>,
    /// Place after the last byte that was seen.
    next: u64,
    /// Place after the last byte that the other end has said it got.
    acknowledged: u64,
    /// Place of its end, once said.
    fin: Option<u64>,
}

impl Half {
    /// Place of a sequence number; negative before the begin.
    fn place(&self, sequence: u32) -> Option<i64> {
        let base = self.base?;
        // The lower half of `next` is what sequence numbers count.
        let expected = base.wrapping_add(self.next as u32);
        let ahead = sequence.wrapping_sub(expected).cast_signed();
        Some(i64::try_from(self.next).ok()? + i64::from(ahead))
    }

    fn is_over(&self) -> bool {
        self.fin.is_some_and(|fin| self.next >= fin)
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// Which.
    pub id: FlowId,
    /// Who began it.
    pub initiator: Address,
    /// How far it has come.
    pub state: State,
    /// When its last segment came.
    pub last: u64,
    /// What is told of it.
    pub control: FlowControl,
    local: Address,
    remote: Address,
    halves: [Half; 2],
    bursts: Bursts,
    /// A SYN that came although it is established.
    again: Option<u32>,
    retransmits: u32,
    /// Something was told of it.
    is_told: bool,
}

impl Connection {
    /// A connection that begins; nothing if neither end is an agent's.
    pub fn begin(
        context: &mut Context<'_>,
        initiator: Address,
        responder: Address,
    ) -> Option<Self> {
        let (local, remote) = context.whose.ends(initiator, responder)?;
        let mut connection = Self {
            id: context.new_flow(),
            initiator,
            state: State::Attempt,
            last: context.now,
            control: FlowControl {
                head_cap: HEAD_CAP,
                flags: 0,
            },
            local,
            remote,
            halves: [Half::default(); 2],
            bursts: Bursts::default(),
            again: None,
            retransmits: 0,
            is_told: false,
        };
        if connection.is_outbound() {
            connection.is_told = true;
            let last_rx = context.last_in();
            context.tell(Body::Connect(Connect {
                flow: connection.id,
                remote,
                protocol: TCP.into(),
                last_rx,
            }));
        }
        Some(connection)
    }

    /// A connection from before the capture, by a segment of it.
    pub fn found(context: &mut Context<'_>, segment: &Segment<'_>) -> Option<Self> {
        let (initiator, responder) = whose::guess(segment.source, segment.destination);
        let (local, remote) = context.whose.ends(initiator, responder)?;
        let mut connection = Self {
            id: context.new_flow(),
            initiator,
            state: State::Open,
            last: context.now,
            control: FlowControl {
                head_cap: HEAD_CAP,
                flags: 0,
            },
            local,
            remote,
            halves: [Half::default(); 2],
            bursts: Bursts::default(),
            again: None,
            retransmits: 0,
            is_told: true,
        };
        let way = connection.way(segment);
        connection.halves[index(way)].base = Some(segment.sequence);
        connection.halves[1 - index(way)].base = segment.acknowledged;
        context.tell(Body::Found {
            flow: connection.id,
            local,
            remote,
            protocol: TCP.into(),
            outbound: connection.is_outbound(),
        });
        Some(connection)
    }

    fn is_outbound(&self) -> bool {
        self.initiator == self.local
    }

    fn way(&self, segment: &Segment<'_>) -> Way {
        match segment.source == self.local {
            true => Way::Out,
            false => Way::In,
        }
    }

    fn is_of_initiator(&self, segment: &Segment<'_>) -> bool {
        segment.source == self.initiator
    }

    /// Another SYN of this connection, or of the next one between the same ends.
    pub fn tried_again(&mut self, now: u64, segment: &Segment<'_>) {
        match self.state {
            State::Attempt if self.is_of_initiator(segment) => {
                self.last = now;
                self.retransmits += 1;
            }
            _ => self.again = Some(segment.sequence),
        }
    }

    /// The SYN itself; it may bring data (RFC 7413).
    pub fn syn(&mut self, context: &mut Context<'_>, segment: &Segment<'_>) {
        if self.state != State::Attempt || !self.is_of_initiator(segment) {
            return;
        }
        let way = self.way(segment);
        let first = segment.sequence.wrapping_add(1);
        self.halves[index(way)].base = Some(first);
        if segment.length > 0 {
            self.data(context, way, first, segment);
        }
    }

    /// Whether this answers the SYN of another connection between the same ends.
    pub fn is_other_s_answer(&self, segment: &Segment<'_>, acknowledged: u32) -> bool {
        let way = self.way(segment);
        let first = segment.sequence.wrapping_add(1);
        let is_known = self.halves[index(way)]
            .base
            .is_none_or(|base| base == first);
        !is_known && self.again == Some(acknowledged.wrapping_sub(1))
    }

    /// The SYN was answered.
    pub fn answered(
        &mut self,
        context: &mut Context<'_>,
        segment: &Segment<'_>,
        acknowledged: u32,
    ) {
        if self.state != State::Attempt || self.is_of_initiator(segment) {
            return;
        }
        self.last = context.now;
        let way = self.way(segment);
        let first = segment.sequence.wrapping_add(1);
        self.halves[index(way)].base = Some(first);
        let other = &mut self.halves[1 - index(way)];
        if other.base.is_none() {
            other.base = Some(acknowledged);
        }
        self.state = State::Answered;
        // Whoever began it knows now.
        if self.is_outbound() {
            self.establish(context);
        }
        if segment.length > 0 {
            self.data(context, way, first, segment);
        }
    }

    fn establish(&mut self, context: &mut Context<'_>) {
        self.state = State::Open;
        self.is_told = true;
        context.tell(Body::Established {
            flow: self.id,
            local: self.local,
            remote: self.remote,
            outbound: self.is_outbound(),
        });
    }

    /// Any segment but a SYN.
    pub fn take(&mut self, context: &mut Context<'_>, segment: &Segment<'_>) {
        if self.state == State::Ended {
            return;
        }
        let way = self.way(segment);
        if segment.is(RST) {
            self.reset(context, way, segment);
            return;
        }
        self.last = context.now;
        if self.state != State::Open {
            let Some(acknowledged) = segment.acknowledged else {
                return;
            };
            // The answer to the SYN may be missing; what answers it otherwise is none.
            if !self.is_of_initiator(segment) {
                return;
            }
            self.halves[1 - index(way)].base.get_or_insert(acknowledged);
            self.establish(context);
        }
        if segment.length > 0 {
            self.data(context, way, segment.sequence, segment);
        }
        if segment.is(FIN) {
            let half = &mut self.halves[index(way)];
            half.base.get_or_insert(segment.sequence);
            let end = half.place(segment.sequence).unwrap_or_default();
            let end = u64::try_from(end.saturating_add(segment.length.into())).unwrap_or_default();
            half.fin.get_or_insert(end);
        }
        // What is acknowledged was sent, even if the capture lacks it.
        if let Some(acknowledged) = segment.acknowledged {
            let other = &mut self.halves[1 - index(way)];
            let place = other.place(acknowledged).unwrap_or_default();
            let seen = u64::try_from(place).unwrap_or_default();
            other.acknowledged = other.acknowledged.max(seen);
            other.next = other
                .next
                .max(other.fin.filter(|fin| *fin < seen).unwrap_or(0));
        }
        if self.halves.iter().all(Half::is_over) {
            self.close(context, Outcome::Established);
        }
    }

    fn reset(&mut self, context: &mut Context<'_>, way: Way, segment: &Segment<'_>) {
        let result = match (self.state, way) {
            (State::Attempt, _) if self.is_of_initiator(segment) => Outcome::Abandoned,
            (State::Attempt, _) => Outcome::Refused,
            // It has to be just where the other end expects the next byte, else that
            // does not believe it either (RFC 5961, 3.2): after the last that was
            // seen, or that it has acknowledged.
            _ => match self.halves[index(way)].place(segment.sequence) {
                Some(place) => {
                    let half = &self.halves[index(way)];
                    let place = u64::try_from(place).ok();
                    if place != Some(half.next) && place != Some(half.acknowledged) {
                        return;
                    }
                    // Whoever resets a connection has just closed it.
                    match way {
                        Way::Out => Outcome::Established,
                        Way::In => Outcome::Reset,
                    }
                }
                None => return,
            },
        };
        self.close(context, result);
    }

    fn data(&mut self, context: &mut Context<'_>, way: Way, sequence: u32, segment: &Segment<'_>) {
        let half = &mut self.halves[index(way)];
        half.base.get_or_insert(sequence);
        let Some(place) = half.place(sequence) else {
            return;
        };
        let next = i64::try_from(half.next).unwrap_or(i64::MAX);
        let ahead = place + i64::from(segment.length) - next;
        if ahead > MAX_WINDOW {
            return;
        }
        match u64::try_from(ahead) {
            Ok(new @ 1..) => {
                half.next += new;
                if way == Way::In {
                    context.note_in(self.id);
                }
                let (id, now) = (self.id, context.now);
                let ended = self.bursts.count(id, way, now, new, segment.payload);
                if let Some(burst) = ended {
                    context.tell(Body::Burst(burst));
                }
            }
            _ => self.retransmits += u32::from(way == Way::Out),
        }
        // Before the begin there is nothing but probes that keep it alive.
        let Ok(offset) = u32::try_from(place) else {
            return;
        };
        if offset < self.control.head_cap {
            let wanted = (self.control.head_cap - offset) as usize;
            let data = &segment.payload[..segment.payload.len().min(wanted)];
            context.note_kept(data.len(), wanted.min(segment.length as usize));
            context.tell(Body::Head(Head {
                flow: self.id,
                local: self.local,
                remote: self.remote,
                way,
                protocol: TCP.into(),
                offset,
                segment_left: segment.length,
                flags: 0,
                data: Bytes::copy_from_slice(data),
            }));
        } else if self.control.flags & FLOW_SEGMENTS != 0 {
            context.tell(Body::Segment {
                flow: self.id,
                way,
                offset,
                bytes: segment.length,
            });
        }
    }

    /// Tells of the burst that is going on.
    pub fn tell_burst(&mut self, context: &mut Context<'_>) {
        if let Some(burst) = self.bursts.end(self.id) {
            context.tell(Body::Burst(burst));
        }
    }

    /// Ends it.
    pub fn close(&mut self, context: &mut Context<'_>, result: Outcome) {
        self.tell_burst(context);
        let unfinished = self.state != State::Open;
        self.state = State::Ended;
        // The other end's attempt, of which its kernel told no program.
        if !self.is_told {
            return;
        }
        context.tell(Body::Closed(Closed {
            flow: self.id,
            local: self.local,
            remote: self.remote,
            bytes: self.bursts.bytes,
            packets: self.bursts.packets,
            unfinished,
            result,
            retransmits: Some(self.retransmits),
            rtt_us: None,
        }));
    }
}
