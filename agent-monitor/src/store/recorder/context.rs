//! Recent events, for alerts that refer to them.
//!
//! Each agent has a share of its own, so a noisy one does not displace what an alert
//! about a quiet one is going to refer to.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::event::Event;

/// Events that are remembered of all agents together, unless there are very many agents.
const TOTAL: usize = 8_192;
/// Fewest that are remembered of an agent.
const LEAST: usize = 64;
/// Agents of which anything is remembered; the one that was quiet longest makes room.
const AGENTS: usize = 256;

/// Recent events by agent; 0 is the node.
#[derive(Default)]
pub(super) struct Context {
    agents: HashMap<u64, Recent>,
    clock: u64,
}

#[derive(Default)]
struct Recent {
    events: VecDeque<Arc<Event>>,
    used: u64,
}

impl Context {
    /// Remembers an event.
    pub(super) fn push(&mut self, event: &Arc<Event>) {
        let agent = agent(event);
        self.clock += 1;
        if !self.agents.contains_key(&agent) && self.agents.len() >= AGENTS {
            let quiet = self.agents.iter().min_by_key(|(_, recent)| recent.used);
            if let Some(quiet) = quiet.map(|(agent, _)| *agent) {
                self.agents.remove(&quiet);
            }
        }
        let share = (TOTAL / (self.agents.len().max(1))).max(LEAST);
        let recent = self.agents.entry(agent).or_default();
        recent.used = self.clock;
        while recent.events.len() >= share {
            recent.events.pop_front();
        }
        recent.events.push_back(event.clone());
    }

    /// An event by its id, of the agent of `alert` or of the node.
    pub(super) fn find(&self, id: &str, alert: &Event) -> Option<&Arc<Event>> {
        let of = |agent| {
            let recent: &Recent = self.agents.get(&agent)?;
            recent.events.iter().rev().find(|event| *event.id == *id)
        };
        of(agent(alert)).or_else(|| of(0))
    }
}

fn agent(event: &Event) -> u64 {
    event.agent.as_ref().map_or(0, |agent| agent.cgroup_id)
}
