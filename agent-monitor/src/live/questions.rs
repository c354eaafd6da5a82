//! What agents have and do at the moment, for who asks.

use std::cmp::Reverse;

use agent_monitor_common::policy::Task;

use super::*;
use crate::api::activity::{Activity, AgentActivity};
use crate::api::agents::{About, Answer, Of};

impl Live {
    /// Answers a question; nothing if it is about an agent that is not there.
    pub fn answer(&mut self, about: &About) -> Option<Answer> {
        Some(match about {
            About::Activity => Answer::Activity(self.activity()),
            About::Flows(of) => {
                let id = self.id_of(of)?;
                Answer::Flows(self.pipeline.flows_of(id, of.most, boot_time()))
            }
            About::Processes(of) => {
                let id = self.id_of(of)?;
                let all = self.kernel.processes();
                let own = all.filter(|(_, task)| task.agent == id);
                let key = |(pid, task): (u32, Task)| ProcessKey::from_ns(pid, task.start);
                let mut keys: Vec<_> = own.map(key).collect();
                keys.sort_by_key(|process| Reverse(process.start));
                keys.truncate(of.most);
                let now = boot_time();
                let known = |key| self.pipeline.process_now(key, now);
                let mut processes: Vec<_> = keys.into_iter().filter_map(known).collect();
                processes.sort_by_key(|process| process.pid);
                Answer::Processes(processes)
            }
        })
    }

    /// The kernel's id of an agent that is there.
    fn id_of(&self, of: &Of) -> Option<u64> {
        let mut watched = self.watched.iter();
        let (id, _) = watched.find(|(_, it)| it.agent.id == of.agent && it.gone.is_none())?;
        Some(*id)
    }

    fn activity(&self) -> Activity {
        const CONNECT: usize = kind::CONNECT as usize;
        let mut processes: HashMap<u64, u64> = HashMap::new();
        for (_, task) in self.kernel.processes() {
            *processes.entry(task.agent).or_default() += 1;
        }
        let states: HashMap<_, _> = self.kernel.agent_states().into_iter().collect();
        let flows = self.pipeline.flows();
        let open = flows.open();
        let mut incidents = self.pipeline.incidents();
        let there = self.watched.iter().filter(|(_, it)| it.gone.is_none());
        let agents = there.map(|(id, watched)| {
            let connects = states.get(id).map_or(0, |state| {
                let lost = state.lost.iter().map(|kinds| kinds[CONNECT]);
                state.emitted[CONNECT] + lost.sum::<u64>()
            });
            let [bytes_out, bytes_in] = flows.traffic.of(*id);
            AgentActivity {
                id: watched.agent.id.clone(),
                processes: processes.get(id).copied().unwrap_or_default(),
                flows: open.get(id).copied().unwrap_or_default(),
                connects,
                bytes_out,
                bytes_in,
                holes: self.pipeline.holes_of(*id),
                alerts: incidents.remove(id).unwrap_or_default(),
            }
        });
        let agents = agents.collect();
        let stats = self.pipeline.stats();
        Activity {
            boot_ns: boot_time(),
            records: stats.records,
            events: stats.events,
            agents,
        }
    }
}
