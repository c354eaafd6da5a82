//! What is known of agents at the moment, for who asks.

use super::*;
use crate::event::Severity;

impl Pipeline {
    /// What an agent's flows are at `now`, nanoseconds since boot; of more than `most`
    /// those of which something was told last.
    pub fn flows_of(&self, agent: u64, most: usize, now: u64) -> Vec<event::Flow> {
        let open = self.flows.open_of(agent, most);
        let body = open.filter_map(|flow| consequence::flow_now(flow, now));
        body.collect()
    }

    /// Agents' incidents that can still grow, by severity.
    pub fn incidents(&self) -> HashMap<u64, BTreeMap<Severity, u64>> {
        self.incidents.by_severity()
    }

    /// Things that an agent could do unseen since it appeared.
    pub fn holes_of(&self, agent: u64) -> u64 {
        self.holes.get(&agent).copied().unwrap_or_default()
    }

    /// A process of an agent, brought in if it was there before.
    pub fn process_now(&mut self, process: ProcessKey, time: u64) -> Option<Arc<Process>> {
        self.processes.get_or_take_over(process, time)
    }
}
