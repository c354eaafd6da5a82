//! Who has to go when the table is full, and what is forgotten because nothing will tell
//! of its end.

use std::collections::BTreeMap;

use agent_monitor_common::event::FlowId;

use super::{EVICT, MAX_COUNTED, MAX_FLOWS, Table};
use crate::flow::{Change, Flow};

impl Table {
    /// Forgets flows that will never be told to be over.
    pub(super) fn forget_quiet(&mut self, now: u64, changed: &mut impl FnMut(&Flow, Change)) {
        let quiet: Vec<(FlowId, bool)> = self
            .flows
            .iter()
            .filter(|(_, followed)| followed.is_forgotten(now))
            .map(|(id, followed)| (*id, followed.flow.is_datagrams))
            .collect();
        for (id, is_datagrams) in quiet {
            if is_datagrams {
                self.end_datagrams(id, now, changed);
            } else {
                self.drop_live(id, changed);
            }
        }
    }

    /// Drops what was quiet longest of the agents that have most flows.
    pub(super) fn evict(&mut self, now: u64, changed: &mut impl FnMut(&Flow, Change)) {
        let mut by_agent: BTreeMap<u64, Vec<(bool, u64, FlowId)>> = BTreeMap::new();
        for (id, followed) in self.flows.iter().filter(|(_, flow)| !flow.is_closed()) {
            let held = by_agent.entry(followed.flow.agent).or_default();
            // Datagrams go first: to send them to many costs nothing, and must not
            // make a quiet tunnel be forgotten.
            held.push((!followed.flow.is_datagrams, followed.last, *id));
        }
        // The most flows an agent may keep so that enough go.
        let over = |keep: usize| -> usize {
            let held = by_agent.values();
            held.map(|held| held.len().saturating_sub(keep)).sum()
        };
        let (mut low, mut high) = (0, MAX_FLOWS);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if over(middle) >= EVICT {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        for (agent, mut held) in by_agent {
            held.sort_unstable();
            let dropped = held.len().saturating_sub(low);
            let mut lost = 0;
            for (_, _, id) in held.into_iter().take(dropped) {
                // What was due to be forgotten is no loss.
                let flow = self.flows.get(&id);
                lost += u64::from(flow.is_some_and(|flow| !flow.is_forgotten(now)));
                self.drop_live(id, changed);
            }
            self.count(agent, lost);
        }
    }

    pub(super) fn count(&mut self, agent: u64, evicted: u64) {
        if evicted == 0 {
            return;
        }
        self.evicted += evicted;
        let known = self.evicted_of.contains_key(&agent);
        let room = known || self.evicted_of.len() < MAX_COUNTED;
        *self
            .evicted_of
            .entry(if room { agent } else { 0 })
            .or_default() += evicted;
    }

    pub(super) fn drop_live(&mut self, id: FlowId, changed: &mut impl FnMut(&Flow, Change)) {
        self.release(id);
        if let Some(mut followed) = self.flows.remove(&id) {
            followed.flush(changed);
            changed(&followed.flow, Change::Evicted);
        }
    }
}
