//! Fragments of IP packets, until they are all there.
//!
//! As in Linux, fragments that overlap are no packet (`inet_frag_queue_insert`,
//! net/ipv4/inet_fragment.c; RFC 5722): which bytes count would depend on who reads.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::ip::{Fragment, Packet};

/// Packets whose fragments may wait.
const MAX_WAITING: usize = 256;
/// Fragments of one packet: a whole 64 KiB in the smallest ones that IPv4 has to
/// carry (RFC 791: 576 bytes), and some.
const MAX_PARTS: usize = 128;
/// Longest payload of an IP packet.
const MAX_LENGTH: usize = 65_535;
/// How long fragments wait (`IP_FRAG_TIME`, include/net/ip.h).
const LIFE_NS: u64 = 30_000_000_000;

/// Which packet a fragment is of.
type Key = (IpAddr, IpAddr, u8, u32);

struct Waiting {
    since: u64,
    parts: BTreeMap<usize, Vec<u8>>,
    bytes: usize,
    /// Bytes in all, once the last one is there.
    total: Option<usize>,
    /// The protocol that the first one names.
    protocol: u8,
}

/// Fragments that wait for others.
#[derive(Default)]
pub struct Fragments {
    waiting: HashMap<Key, Waiting>,
    /// Packets that were given up.
    pub dropped: u64,
}

impl Fragments {
    /// Takes a fragment; gives the protocol and payload of the packet that it completes.
    pub fn take(
        &mut self,
        packet: &Packet<'_>,
        fragment: Fragment,
        now: u64,
    ) -> Option<(u8, Vec<u8>)> {
        // IPv6 fragments may name different protocols: the first one's counts (RFC 8200, 4.5).
        let named = match packet.source {
            IpAddr::V4(_) => packet.protocol,
            IpAddr::V6(_) => 0,
        };
        let key = (packet.source, packet.destination, named, fragment.id);
        if !self.waiting.contains_key(&key) && self.waiting.len() >= MAX_WAITING {
            self.make_room(now);
        }
        let waiting = self.waiting.entry(key).or_insert_with(|| Waiting::new(now));
        if now.saturating_sub(waiting.since) > LIFE_NS {
            self.dropped += 1;
            *waiting = Waiting::new(now);
        }
        match waiting.add(packet, fragment) {
            Some(false) => None,
            Some(true) => {
                let whole = self.waiting.remove(&key)?;
                let bytes = whole.parts.into_values().flatten().collect();
                Some((whole.protocol, bytes))
            }
            None => {
                self.waiting.remove(&key);
                self.dropped += 1;
                None
            }
        }
    }

    /// Gives up what still waits.
    pub fn end(&mut self) {
        self.dropped += self.waiting.drain().count() as u64;
    }

    fn make_room(&mut self, now: u64) {
        let before = self.waiting.len();
        (self.waiting).retain(|_, waiting| now.saturating_sub(waiting.since) <= LIFE_NS);
        if self.waiting.len() == before {
            let oldest = self
                .waiting
                .iter()
                .min_by_key(|(key, it)| (it.since, **key));
            if let Some(key) = oldest.map(|(key, _)| *key) {
                self.waiting.remove(&key);
            }
        }
        self.dropped += (before - self.waiting.len()) as u64;
    }
}

impl Waiting {
    fn new(now: u64) -> Self {
        Self {
            since: now,
            parts: BTreeMap::new(),
            bytes: 0,
            total: None,
            protocol: 0,
        }
    }

    /// Whether the packet is whole now; nothing if it cannot become so.
    fn add(&mut self, packet: &Packet<'_>, fragment: Fragment) -> Option<bool> {
        let (begin, end) = (fragment.offset, fragment.offset + packet.length);
        let is_cut = packet.payload.len() != packet.length;
        if is_cut || packet.length == 0 || end > MAX_LENGTH || self.parts.len() == MAX_PARTS {
            return None;
        }
        if self.parts.get(&begin).map(Vec::as_slice) == Some(packet.payload) {
            return Some(false); // sent twice
        }
        let before = self.parts.range(..=begin).next_back();
        let after = self.parts.range(begin..).next();
        if before.is_some_and(|(at, part)| at + part.len() > begin)
            || after.is_some_and(|(at, _)| *at < end)
            || self
                .total
                .is_some_and(|total| end > total || !fragment.more)
        {
            return None;
        }
        if begin == 0 {
            self.protocol = packet.protocol;
        }
        if !fragment.more {
            let is_last = self.parts.last_key_value();
            if is_last.is_some_and(|(at, part)| at + part.len() > end) {
                return None;
            }
            self.total = Some(end);
        }
        self.bytes += packet.length;
        self.parts.insert(begin, packet.payload.to_vec());
        Some(self.total == Some(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: u32, offset: usize, more: bool, payload: &[u8]) -> (Packet<'_>, Fragment) {
        let fragment = Fragment { id, offset, more };
        let packet = Packet {
            source: [192, 0, 2, 1].into(),
            destination: [192, 0, 2, 2].into(),
            protocol: 17,
            payload,
            length: payload.len(),
            fragment: Some(fragment),
        };
        (packet, fragment)
    }

    fn run(parts: &[(usize, bool, &[u8])]) -> (Vec<Vec<u8>>, u64) {
        let mut fragments = Fragments::default();
        let whole = parts.iter().filter_map(|(offset, more, payload)| {
            let (packet, fragment) = part(1, *offset, *more, payload);
            fragments.take(&packet, fragment, 0)
        });
        let whole = whole.map(|(_, bytes)| bytes).collect();
        (whole, fragments.dropped)
    }

    #[test]
    fn fragments_in_any_order_even_twice_give_the_packet() {
        let parts = [
            (8, true, &b"89abcdef"[..]),
            (16, false, b"xyz"),
            (8, true, b"89abcdef"),
            (0, true, b"01234567"),
        ];
        assert_eq!(run(&parts), (vec![b"0123456789abcdefxyz".to_vec()], 0));
    }

    #[test]
    fn fragments_that_overlap_are_no_packet() {
        for parts in [
            [(0, true, &b"0123456789abcdef"[..]), (8, false, b"evil")],
            [(8, false, b"evil"), (0, true, b"0123456789abcdef")],
            [(0, true, b"01234567"), (0, true, b"0123456X")],
            [(8, false, b"evil"), (16, true, b"01234567")],
        ] {
            assert_eq!(run(&parts), (vec![], 1), "{parts:?}");
        }
    }

    #[test]
    fn a_flood_of_first_fragments_is_bounded_and_counted() {
        let mut fragments = Fragments::default();
        for id in 0..1_000 {
            let (packet, fragment) = part(id, 0, true, b"01234567");
            fragments.take(&packet, fragment, u64::from(id));
        }
        assert_eq!(fragments.waiting.len(), MAX_WAITING);
        assert_eq!(fragments.dropped, 1_000 - MAX_WAITING as u64);
        fragments.end();
        assert_eq!(fragments.dropped, 1_000);
    }
}
