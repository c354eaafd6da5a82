//! What an agent has at the moment, for who asks.

use super::*;
use crate::api::agents::{About, Answer};

impl Live {
    /// What the agent with this id has; nothing if there is no such agent.
    pub fn answer(&mut self, agent: &str, about: About) -> Option<Answer> {
        let mut watched = self.watched.iter();
        let (id, _) = watched.find(|(_, it)| it.agent.id == agent && it.gone.is_none())?;
        let id = *id;
        Some(match about {
            About::Flows => Answer::Flows(self.pipeline.flows_of(id, boot_time())),
            About::Processes => {
                let pids = self.kernel.processes_of(id);
                let of = |pid| self.pipeline.take_over(pid, boot_time());
                let mut processes: Vec<_> = pids.into_iter().filter_map(of).collect();
                processes.sort_by_key(|process| process.pid);
                Answer::Processes(processes)
            }
        })
    }
}
