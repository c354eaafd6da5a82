//! How many bytes agents have moved in all their flows, those that have ended included.

use std::collections::hash_map::Entry;

use foldhash::HashMap;

use super::Flow;

/// Agents that are counted apart; what further ones move is not counted.
const MAX_COUNTED: usize = 4_096;

/// Payload bytes out and in, by agent.
#[derive(Debug, Default)]
pub struct Traffic(HashMap<u64, [u64; 2]>);

impl Traffic {
    /// What an agent has moved, out and in.
    pub fn of(&self, agent: u64) -> [u64; 2] {
        self.0.get(&agent).copied().unwrap_or_default()
    }

    /// Forgets an agent that is gone.
    pub fn forget(&mut self, agent: u64) {
        self.0.remove(&agent);
    }

    /// Adds what a flow has moved since `before`. Of one whose begin was not seen, what was
    /// moved up to the first number that is told of it is no news.
    pub(super) fn add(&mut self, flow: &Flow, before: [u64; 2]) {
        if flow.bytes == before {
            return;
        }
        let has_room = self.0.len() < MAX_COUNTED;
        let sum = match self.0.entry(flow.agent) {
            Entry::Occupied(sum) => sum.into_mut(),
            Entry::Vacant(place) if has_room => place.insert([0; 2]),
            Entry::Vacant(_) => return,
        };
        let seen = flow.is_datagrams || (flow.established.is_some() && !flow.is_found);
        for way in 0..2 {
            if seen || before[way] > 0 {
                let more = flow.bytes[way].saturating_sub(before[way]);
                sum[way] = sum[way].saturating_add(more);
            }
        }
    }
}
