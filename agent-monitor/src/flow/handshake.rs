//! Data that came with a handshake's last segment, until its accept is told of.
//!
//! The kernel sends it under the listener's flow: the accepted socket does not
//! exist yet. A handshake that is never accepted leaves its data here; it goes
//! when it is too old, or when the agent that has most of it brings more.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::decode::Head;
use crate::event::Address;

/// Handshakes whose data may wait.
const MAX_WAITING: usize = 256;
/// Chunks that are kept of one: what the kernel cuts a segment into
/// (`CHUNKS_PER_SEGMENT`), and as much again for a second segment.
const MAX_CHUNKS: usize = 8;
/// How long a handshake may take: a SYN-ACK is repeated for at most 63 s
/// (net.ipv4.tcp_synack_retries 5).
const LIFE_NS: u64 = 63_000_000_000;

/// A chunk and the bytes of its segment from the chunk's start on, by place.
pub type Chunks = BTreeMap<u32, (Bytes, u32)>;

/// Agent, local address, remote address.
type Key = (u64, Address, Address);

/// Handshakes that wait for their accept.
#[derive(Default)]
pub struct Handshakes {
    waiting: HashMap<Key, Waiting>,
}

struct Waiting {
    since: u64,
    chunks: Chunks,
}

impl Handshakes {
    /// Keeps a chunk. Gives the agent whose oldest handshake made room for it,
    /// if that could still have been accepted.
    pub fn keep(&mut self, agent: u64, head: &Head, now: u64) -> Option<u64> {
        let key = (agent, head.local, head.remote);
        let mut dropped = None;
        if !self.waiting.contains_key(&key) && self.waiting.len() >= MAX_WAITING {
            let before = self.waiting.len();
            self.waiting.retain(|_, waiting| waiting.is_alive(now));
            if self.waiting.len() == before {
                dropped = self.drop_oldest();
            }
        }
        let fresh = || Waiting {
            since: now,
            chunks: Chunks::new(),
        };
        let waiting = self.waiting.entry(key).or_insert_with(fresh);
        if !waiting.is_alive(now) {
            *waiting = fresh();
        }
        if waiting.chunks.len() < MAX_CHUNKS {
            let chunk = (head.data.clone(), head.segment_left);
            waiting.chunks.insert(head.offset, chunk);
        }
        dropped
    }

    /// Takes out what came with the handshake of a connection, in order.
    pub fn take(&mut self, agent: u64, local: Address, remote: Address, now: u64) -> Chunks {
        self.waiting
            .remove(&(agent, local, remote))
            .filter(|waiting| waiting.is_alive(now))
            .map(|waiting| waiting.chunks)
            .unwrap_or_default()
    }

    fn drop_oldest(&mut self) -> Option<u64> {
        let mut held: BTreeMap<u64, usize> = BTreeMap::new();
        for (agent, ..) in self.waiting.keys() {
            *held.entry(*agent).or_default() += 1;
        }
        let (agent, _) = held.into_iter().max_by_key(|(_, held)| *held)?;
        let (key, _) = self
            .waiting
            .iter()
            .filter(|(key, _)| key.0 == agent)
            .min_by_key(|(key, waiting)| (waiting.since, **key))?;
        let key = *key;
        self.waiting.remove(&key);
        Some(agent)
    }
}

impl Waiting {
    fn is_alive(&self, now: u64) -> bool {
        now <= self.since.saturating_add(LIFE_NS)
    }
}

#[cfg(test)]
mod tests {
    use agent_monitor_common::event::{FlowId, HEAD_OF_LISTENER};

    use super::*;
    use crate::decode::Way;

    fn address(port: u16) -> Address {
        Address {
            ip: [127, 0, 0, 1].into(),
            port,
        }
    }

    fn head(port: u16, offset: u32, data: &'static [u8]) -> Head {
        Head {
            flow: FlowId::default(),
            local: address(80),
            remote: address(port),
            way: Way::In,
            protocol: 6,
            offset,
            segment_left: 100,
            flags: HEAD_OF_LISTENER,
            data: Bytes::from_static(data),
        }
    }

    fn taken(table: &mut Handshakes, agent: u64, port: u16, now: u64) -> Vec<(u32, Vec<u8>, u32)> {
        let chunks = table.take(agent, address(80), address(port), now);
        let tell = |(offset, (data, left)): (u32, (Bytes, u32))| (offset, data.to_vec(), left);
        chunks.into_iter().map(tell).collect()
    }

    #[test]
    fn chunks_are_given_in_order_with_what_is_left_of_their_segment() {
        let mut table = Handshakes::default();
        assert_eq!(table.keep(1, &head(9, 2, b"cd"), 0), None);
        assert_eq!(table.keep(1, &head(9, 0, b"ab"), 0), None);
        let both = [(0, b"ab".to_vec(), 100), (2, b"cd".to_vec(), 100)];
        assert_eq!(taken(&mut table, 2, 9, 0), [], "another agent's");
        assert_eq!(taken(&mut table, 1, 9, 0), both);
        assert_eq!(taken(&mut table, 1, 9, 0), [], "taken once");
    }

    #[test]
    fn the_data_of_a_handshake_that_was_given_up_is_nobody_s() {
        let mut table = Handshakes::default();
        table.keep(1, &head(9, 0, b"ab"), 0);
        assert_eq!(taken(&mut table, 1, 9, LIFE_NS + 1), []);
    }

    #[test]
    fn a_full_table_drops_the_oldest_of_the_agent_that_has_most() {
        let mut table = Handshakes::default();
        table.keep(1, &head(1, 0, b"quiet"), 0);
        for port in 1..=255 {
            table.keep(2, &head(port, 0, b"loud"), u64::from(port));
        }
        assert_eq!(table.keep(2, &head(300, 0, b"new"), 300), Some(2));
        assert_eq!(taken(&mut table, 2, 1, 300), []);
        assert_eq!(taken(&mut table, 1, 1, 300).len(), 1);
        assert_eq!(taken(&mut table, 2, 300, 300).len(), 1);
    }
}
