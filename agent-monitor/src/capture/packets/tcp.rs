//! TCP connections, told of as the kernel side does.
//!
//! What the ends' kernels know is read off the segments: a connection begins with
//! a SYN, is established with its answer, and is over when both ends have said so
//! or one has reset it.

mod connection;

use std::collections::VecDeque;

use agent_monitor_common::event::FlowId;
use agent_monitor_common::policy::FlowControl;
use foldhash::HashMap;

use super::{Context, MAX_FLOWS, oldest};
use crate::event::{Address, Outcome};
use connection::{Connection, State};

/// Control bits (RFC 9293, 3.1).
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// How long an answer to a SYN may take: the longest pause between two SYNs is 64 s
/// (net.ipv4.tcp_syn_retries 6), and some.
const ANSWER_NS: u64 = 75_000_000_000;

/// The lower and the higher end.
type Key = (Address, Address);

fn key(one: Address, other: Address) -> Key {
    (one.min(other), one.max(other))
}

/// One segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    source: Address,
    destination: Address,
    sequence: u32,
    acknowledged: Option<u32>,
    flags: u8,
    /// What was captured of the payload.
    payload: &'a [u8],
    /// Bytes of payload that were sent.
    length: u32,
}

impl<'a> Segment<'a> {
    /// Reads the header before `bytes`' payload, of `length` bytes in all.
    pub fn parse(
        source: std::net::IpAddr,
        destination: std::net::IpAddr,
        bytes: &'a [u8],
        length: usize,
    ) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<20>()?;
        let [
            s0,
            s1,
            d0,
            d1,
            q0,
            q1,
            q2,
            q3,
            a0,
            a1,
            a2,
            a3,
            offset,
            flags,
            ..,
        ] = *header;
        let header_length = usize::from(offset >> 4) * 4;
        let sent = length.checked_sub(header_length)?;
        if header_length < 20 {
            return None;
        }
        Some(Self {
            source: Address {
                ip: source,
                port: u16::from_be_bytes([s0, s1]),
            },
            destination: Address {
                ip: destination,
                port: u16::from_be_bytes([d0, d1]),
            },
            sequence: u32::from_be_bytes([q0, q1, q2, q3]),
            acknowledged: (flags & ACK != 0).then_some(u32::from_be_bytes([a0, a1, a2, a3])),
            flags,
            // The options may have been cut off.
            payload: bytes.get(header_length..).unwrap_or_default(),
            length: u32::try_from(sent).ok()?,
        })
    }

    fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Connections.
#[derive(Default)]
pub struct Connections {
    table: HashMap<Key, Connection>,
    /// SYNs that wait for an answer, oldest first.
    attempts: VecDeque<(u64, Key)>,
    /// The connection that was last told of.
    latest: Option<Key>,
    /// Live connections that were forgotten for want of room.
    pub evicted: u64,
}

impl Connections {
    /// Takes a segment.
    pub fn take(&mut self, context: &mut Context<'_>, segment: &Segment<'_>) {
        let key = key(segment.source, segment.destination);
        self.latest = Some(key);
        match (segment.is(SYN), segment.acknowledged) {
            (true, None) => self.attempt(context, key, segment),
            (true, Some(acknowledged)) => self.answer(context, key, segment, acknowledged),
            (false, _) => self.other(context, key, segment),
        }
    }

    /// Sends as much of the connection that was last told of as is asked for.
    pub fn steer(&mut self, id: FlowId, control: FlowControl) {
        let latest = self.latest.and_then(|key| self.table.get_mut(&key));
        if let Some(connection) = latest.filter(|connection| connection.id == id) {
            connection.control = control;
        }
    }

    /// A packet told `from` that its attempt to reach `to` failed.
    pub fn failed(
        &mut self,
        context: &mut Context<'_>,
        from: Address,
        to: Address,
        result: Outcome,
    ) {
        if let Some(connection) = self.table.get_mut(&key(from, to))
            && connection.state == State::Attempt
            && connection.initiator == from
        {
            connection.close(context, result);
        }
    }

    /// Tells of all bursts that are going on, and that nothing answered the last attempts.
    pub fn end(&mut self, context: &mut Context<'_>) {
        let mut all: Vec<Connection> = self.table.drain().map(|(_, it)| it).collect();
        all.sort_by_key(|connection| connection.id);
        for connection in &mut all {
            match connection.state {
                State::Attempt => connection.close(context, Outcome::Abandoned),
                _ => connection.tell_burst(context),
            }
        }
    }

    fn attempt(&mut self, context: &mut Context<'_>, key: Key, segment: &Segment<'_>) {
        let known = self.table.get_mut(&key);
        match known.filter(|known| known.state != State::Ended) {
            Some(connection) => connection.tried_again(context.now, segment),
            None => {
                let ends = (segment.source, segment.destination);
                if self.begin(context, key, ends).is_none() {
                    return;
                }
                self.attempts.push_back((context.now, key));
            }
        }
        if let Some(connection) = self.table.get_mut(&key) {
            connection.syn(context, segment);
        }
    }

    fn answer(
        &mut self,
        context: &mut Context<'_>,
        key: Key,
        segment: &Segment<'_>,
        acknowledged: u32,
    ) {
        let known = self.table.get_mut(&key);
        let known = known.filter(|known| known.state != State::Ended);
        let is_other = known.is_some_and(|known| {
            let other = known.is_other_s_answer(segment, acknowledged);
            if other {
                known.close(context, Outcome::Established);
            }
            other
        });
        if is_other || !self.is_live(key) {
            // Its SYN is missing.
            let ends = (segment.destination, segment.source);
            if self.begin(context, key, ends).is_none() {
                return;
            }
        }
        if let Some(connection) = self.table.get_mut(&key) {
            connection.answered(context, segment, acknowledged);
        }
    }

    fn other(&mut self, context: &mut Context<'_>, key: Key, segment: &Segment<'_>) {
        if let Some(connection) = self.table.get_mut(&key) {
            connection.take(context, segment);
            return;
        }
        // Of a connection that is over, or was before the capture: only data tells
        // that it goes on.
        if segment.payload.is_empty() || segment.is(RST) {
            return;
        }
        if let Some(connection) = Connection::found(context, segment) {
            self.insert(context, key, connection);
        }
        if let Some(connection) = self.table.get_mut(&key) {
            connection.take(context, segment);
        }
    }

    fn is_live(&self, key: Key) -> bool {
        let known = self.table.get(&key);
        known.is_some_and(|known| known.state != State::Ended)
    }

    /// Begins a connection, if it is an agent's.
    fn begin(
        &mut self,
        context: &mut Context<'_>,
        key: Key,
        (initiator, responder): (Address, Address),
    ) -> Option<()> {
        let connection = Connection::begin(context, initiator, responder)?;
        self.insert(context, key, connection);
        Some(())
    }

    fn insert(&mut self, context: &mut Context<'_>, key: Key, connection: Connection) {
        if self.table.len() >= MAX_FLOWS && !self.table.contains_key(&key) {
            let all = self.table.iter();
            let all = all.map(|(key, it)| (it.state != State::Ended, it.last, *key));
            for key in oldest(all) {
                if let Some(mut dropped) = self.table.remove(&key) {
                    dropped.tell_burst(context);
                    self.evicted += u64::from(dropped.state != State::Ended);
                }
            }
        }
        self.table.insert(key, connection);
    }

    /// Ends attempts that nothing has answered for long.
    pub fn give_up(&mut self, context: &mut Context<'_>) {
        while let Some((since, key)) = self.attempts.front().copied() {
            let is_due = context.now.saturating_sub(since) > ANSWER_NS;
            if !is_due && self.attempts.len() <= 2 * MAX_FLOWS {
                return;
            }
            self.attempts.pop_front();
            let Some(connection) = self.table.get_mut(&key) else {
                continue;
            };
            if connection.state != State::Attempt {
                continue;
            }
            // It was tried again, or is another one.
            if context.now.saturating_sub(connection.last) <= ANSWER_NS {
                self.attempts.push_back((connection.last, key));
                if !is_due {
                    return;
                }
                continue;
            }
            connection.close(context, Outcome::TimedOut);
        }
    }
}
