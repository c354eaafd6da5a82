//! What is not covered although it is watched, and should be.

use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::coverage::downtime::Before;

/// Holes kept of an agent while its selector is undecided.
const MAX_HOLES: usize = 64;

impl Live {
    /// Looks for what is not covered; mends what can be mended.
    pub(super) fn look(&mut self, now: u64, out: &mut Vec<Event>) {
        let before = std::mem::replace(&mut self.looked, now);
        let began = processor_time();
        self.attach_again(before, now, out);
        self.watch_again(before, now, out);
        match self.kernel.uncovered() {
            Ok(found) => {
                for hole in self.coverage.looked(&found, now) {
                    self.hole(hole, out);
                }
                let overlooked = std::mem::take(&mut self.coverage.overlooked);
                self.losses.count(NODE, Stage::Incident, "hole", overlooked);
            }
            Err(error) => tracing::error!("what agents do unseen is not looked for: {error:#}"),
        }
        let took = processor_time().saturating_sub(began);
        self.look_next = now + LOOK_EVERY.max(took.saturating_mul(LOOK_SHARE));
    }

    /// Tells that nobody watched from the end of the daemon before until now.
    pub fn was_down(&mut self, before: Before, out: &mut Vec<Event>) {
        if self.kernel.is_reused() {
            // The kernel's programs went on, and what they lost is counted.
            return;
        }
        let reason = match before.stopped {
            true => "agent-monitor was stopped: nobody watched the agent",
            false => "agent-monitor was killed: nobody watched the agent",
        };
        let agents: Vec<u64> = self.watched.keys().copied().collect();
        for agent in agents {
            self.gap(agent, reason, before.until, out);
        }
        if !before.stopped {
            let reason = "agent-monitor was killed: nobody watched the node's agents";
            let hole = broken(NODE, reason, before.until, boot_time());
            self.pipeline.hole(&hole, out);
        }
    }

    /// The node's store was begun anew, for that reason: what was in it is no more there.
    pub fn store_begun_anew(&mut self, reason: String, out: &mut Vec<Event>) {
        let now = boot_time();
        self.pipeline.gap(NODE, reason, now, now, out);
    }

    /// Tells of a hole if its agent is one, keeps it while that is undecided.
    pub(super) fn hole(&mut self, hole: Hole, out: &mut Vec<Event>) {
        let Some(watched) = self.watched.get_mut(&hole.agent) else {
            return;
        };
        match watched.decision {
            Decision::Yes => self.pipeline.hole(&hole, out),
            _ if watched.holes.len() < MAX_HOLES => watched.holes.push(hole),
            _ => self.losses.count(hole.agent, Stage::Held, "hole", 1),
        }
    }

    /// Attaches what somebody has detached since `before`.
    fn attach_again(&mut self, before: u64, now: u64, out: &mut Vec<Event>) {
        for point in self.kernel.tampered(self.cgroups.mount()) {
            tracing::error!(cgroup = point, "network programs were detached by someone");
            self.kernel.detach_cgroup(&point);
            let id = self.cgroups.id(&point).unwrap_or_default();
            let attached = self.kernel.attach_cgroup(&point, id, self.cgroups.mount());
            if let Err(error) = &attached {
                tracing::error!(cgroup = point, "cannot attach them again: {error:#}");
            }
            let agents: Vec<u64> = self
                .watched
                .iter_mut()
                .filter(|(_, watched)| self.selectors.attach_point(&watched.agent.cgroup) == point)
                .map(|(id, watched)| {
                    // It is tried again every half a second.
                    watched.unseen |= attached.is_err();
                    *id
                })
                .collect();
            let reason = match &attached {
                Ok(_) => "network programs were detached from the agent, and attached again",
                Err(_) => "network programs were detached from the agent",
            };
            for agent in agents {
                self.hole(broken(agent, reason, before, now), out);
            }
        }
    }

    /// Watches agents that somebody has taken out of the kernel's map.
    fn watch_again(&mut self, before: u64, now: u64, out: &mut Vec<Event>) {
        if let Err(error) = self.kernel.look_outside_again() {
            tracing::error!("cgroups that were no agent's may be taken for such: {error:#}");
        }
        let missing: Vec<u64> = self
            .watched
            .iter()
            .filter(|(id, watched)| {
                watched.gone.is_none()
                    && self.kernel.watched(**id).is_none()
                    // A cgroup that was removed is forgotten there first.
                    && self.cgroups.id(&watched.agent.cgroup).ok() == Some(**id)
            })
            .map(|(id, _)| *id)
            .collect();
        for agent in missing {
            if let Err(error) = self.kernel.watch(agent, agent, now) {
                tracing::error!(agent, "an agent is not watched: {error:#}");
            }
            let reason = "the agent was taken out of the kernel's map, and put back";
            self.hole(broken(agent, reason, before, now), out);
        }
    }
}

/// Nanoseconds for which this thread has run.
pub(super) fn processor_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Neither part is negative.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn broken(agent: u64, reason: &str, from: u64, to: u64) -> Hole {
    Hole {
        agent,
        process: ProcessKey::default(),
        reason: reason.to_owned(),
        from,
        to,
        again: false,
    }
}
