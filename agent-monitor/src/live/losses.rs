//! What was lost, by agent and stage: see [`crate::loss`] for the list of them.

use super::*;
use crate::loss::{Counts, SIMULATE, Stage, simulated};

/// Losses counted here, and those that others count, as last read from them.
#[derive(Default)]
pub(super) struct Losses {
    /// Not told yet, by agent.
    pending: BTreeMap<u64, Counts>,
    /// Told, by stage.
    told: BTreeMap<Stage, u64>,
    /// Told, by agent and stage.
    told_of: HashMap<u64, BTreeMap<Stage, u64>>,
    /// What this side's tables had lost of no one agent when last read.
    tables: BTreeMap<Stage, u64>,
    /// Evicted flows when last read, by agent.
    flows: BTreeMap<u64, u64>,
    /// Programs that were skipped when last read, by program.
    recursion: BTreeMap<&'static str, u64>,
}

impl Losses {
    /// Nothing lost, but for what tests ask for in the environment.
    ///
    /// # Errors
    /// They ask for something that does not exist.
    pub(super) fn new() -> Result<Self> {
        let mut losses = Self::default();
        if let Ok(text) = std::env::var(SIMULATE) {
            let counts = simulated(&text).map_err(anyhow::Error::msg)?;
            tracing::warn!("{SIMULATE} is set: losses that did not happen will be reported");
            losses.pending.insert(NODE, counts);
        }
        Ok(losses)
    }

    /// Counts lost records of an agent.
    pub(super) fn count(&mut self, agent: u64, stage: Stage, kind: &str, records: u64) {
        if records > 0 {
            let counts = self.pending.entry(agent).or_default();
            *counts.entry((stage, kind.into())).or_default() += records;
        }
    }

    /// What an agent has lost, by stage, as far as it was told.
    pub(super) fn of(&self, agent: u64) -> Option<&BTreeMap<Stage, u64>> {
        self.told_of.get(&agent)
    }

    /// Records lost since the start, by stage.
    pub(super) fn told(&self) -> &BTreeMap<Stage, u64> {
        &self.told
    }

    /// The agent is none, or no more.
    pub(super) fn forget(&mut self, agent: u64) {
        self.pending.remove(&agent);
        self.told_of.remove(&agent);
    }

    /// Takes what is to be told of those agents for whom `ready`.
    fn take(&mut self, ready: impl Fn(u64) -> bool) -> Vec<(u64, Loss)> {
        let mut losses = Vec::new();
        let agents: Vec<u64> = self.pending.keys().copied().collect();
        for agent in agents.into_iter().filter(|agent| ready(*agent)) {
            let counts = self.pending.remove(&agent).unwrap_or_default();
            let mut by_stage: BTreeMap<Stage, BTreeMap<Arc<str>, u64>> = BTreeMap::new();
            for ((stage, kind), records) in counts {
                by_stage.entry(stage).or_default().insert(kind, records);
            }
            for (stage, kinds) in by_stage {
                let records = kinds.values().sum();
                *self.told.entry(stage).or_default() += records;
                let of = self.told_of.entry(agent).or_default();
                *of.entry(stage).or_default() += records;
                let loss = Loss {
                    stage,
                    records,
                    kinds,
                };
                losses.push((agent, loss));
            }
        }
        losses
    }
}

impl Live {
    /// Collects what was lost since the last time and turns it into `loss` events.
    pub(super) fn read_losses(&mut self, out: &mut Vec<Event>) {
        self.read_kernel_losses();
        let losses = &mut self.losses;
        let tables = [
            (Stage::Decode, "entry", self.rings.refused),
            (Stage::Relay, "flow", self.pipeline.relays().evicted),
            (Stage::Shell, "flow", self.pipeline.shells_forgotten()),
            (
                Stage::Correlation,
                "match",
                self.pipeline.correlations_forgotten(),
            ),
            (Stage::Enrich, "process", self.pipeline.processes_evicted()),
        ];
        for (stage, kind, records) in tables {
            let before = losses.tables.insert(stage, records).unwrap_or_default();
            losses.count(NODE, stage, kind, records.saturating_sub(before));
        }
        for ((agent, rule), incidents) in self.pipeline.take_withheld() {
            losses.count(agent, Stage::Incident, &rule, incidents);
        }
        for (agent, flows) in self.pipeline.flows().evictions() {
            let before = losses.flows.insert(agent, flows).unwrap_or_default();
            losses.count(agent, Stage::Flow, "flow", flows.saturating_sub(before));
        }
        // An agent that is undecided may turn out to be none.
        let watched = &self.watched;
        let told = losses.take(|agent| {
            let watched = watched.get(&agent);
            watched.is_none_or(|watched| watched.decision == Decision::Yes)
        });
        for (agent, loss) in told {
            self.pipeline.loss(agent, loss, boot_time(), out);
        }
    }

    /// What the kernel side has counted since the last time.
    fn read_kernel_losses(&mut self) {
        for (id, state) in self.kernel.agent_states() {
            let counted = match self.watched.get_mut(&id) {
                Some(watched) if watched.decision == Decision::Yes => &mut watched.counted,
                None if id == NODE => &mut self.node,
                _ => continue,
            };
            let before = std::mem::replace(counted, state);
            for (reason, stage) in Stage::KERNEL {
                let now = state.lost[reason as usize].iter();
                for (kind, (now, before)) in now.zip(before.lost[reason as usize]).enumerate() {
                    let kind = u32::try_from(kind).map_or("other", kind::name);
                    self.losses
                        .count(id, stage, kind, now.saturating_sub(before));
                }
            }
        }
        for (program, stats) in self.kernel.run_stats() {
            let before = self.losses.recursion.insert(program, stats.skipped);
            let skipped = stats.skipped.saturating_sub(before.unwrap_or_default());
            self.losses.count(NODE, Stage::Recursion, program, skipped);
        }
    }

    /// Counts events that could not be stored, of the agent with that cgroup id.
    pub fn not_stored(&mut self, agent: u64, kind: &str, events: u64) {
        self.losses.count(agent, Stage::Store, kind, events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_once_by_stage_with_their_kinds_and_only_of_agents_that_are_decided() {
        let mut losses = Losses::default();
        losses.count(7, Stage::Ring, "exec", 2);
        losses.count(7, Stage::Ring, "fork", 1);
        losses.count(7, Stage::Ring, "exec", 1);
        losses.count(7, Stage::Quota, "exec", 0);
        losses.count(8, Stage::Held, "exec", 5);
        let ring = Loss {
            stage: Stage::Ring,
            records: 4,
            kinds: [("exec".into(), 3), ("fork".into(), 1)].into(),
        };
        assert_eq!(losses.take(|agent| agent == 7), [(7, ring)]);
        assert_eq!(losses.take(|agent| agent == 7), []);
        losses.count(7, Stage::Quota, "exec", 1);
        assert_eq!(losses.take(|_| true).len(), 2);
        assert_eq!(losses.told()[&Stage::Ring], 4);
        assert_eq!(losses.told()[&Stage::Held], 5);
        assert_eq!(losses.of(7).map(BTreeMap::len), Some(2));
        losses.forget(7);
        assert_eq!(losses.of(7), None);
    }
}
