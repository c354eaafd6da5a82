//! What was lost, by agent and stage.

use super::*;

impl Live {
    /// Turns what the kernel has counted since the last time into `loss` events.
    pub(super) fn read_losses(&mut self, out: &mut Vec<Event>) {
        let mut lost = Vec::new();
        for (id, state) in self.kernel.agent_states() {
            let counted = match self.watched.get_mut(&id) {
                Some(watched) if watched.decision == Decision::Yes => &mut watched.counted,
                None if id == NODE => &mut self.node,
                _ => continue,
            };
            let before = std::mem::replace(counted, state);
            for (reason, stage) in LOSS_REASON_NAMES.iter().enumerate() {
                let mut kinds = BTreeMap::new();
                for (class, name) in CLASS_NAMES.iter().enumerate() {
                    let lost = state.lost[reason][class].saturating_sub(before.lost[reason][class]);
                    if lost > 0 {
                        kinds.insert(*name, lost);
                    }
                }
                if !kinds.is_empty() {
                    lost.push((
                        id,
                        Loss {
                            stage,
                            records: kinds.values().sum(),
                            kinds,
                        },
                    ));
                }
            }
        }
        // What this side lost belongs to no one agent.
        let here = [
            (
                "decode",
                "record",
                self.pipeline.stats().refused + self.rings.refused,
            ),
            ("relay", "flow", self.pipeline.relays().evicted),
            ("incident", "finding", self.pipeline.withheld()),
            ("enrich", "process", self.pipeline.processes_evicted()),
        ];
        for (stage, kind, records) in here {
            let before = self.losses.get(stage).copied().unwrap_or_default();
            if records > before {
                let records = records - before;
                lost.push((
                    0,
                    Loss {
                        stage,
                        records,
                        kinds: [(kind, records)].into(),
                    },
                ));
            }
        }
        for (agent, flows) in self.pipeline.flows().evictions() {
            let told = self.evictions_told.entry(agent).or_default();
            let records = flows - std::mem::replace(told, flows);
            if records > 0 {
                let loss = Loss {
                    stage: "flow",
                    records,
                    kinds: [("flow", records)].into(),
                };
                lost.push((agent, loss));
            }
        }
        for (id, loss) in lost {
            self.lost(id, loss, out);
        }
    }

    pub(super) fn lost(&mut self, agent: u64, loss: Loss, out: &mut Vec<Event>) {
        *self.losses.entry(loss.stage).or_default() += loss.records;
        self.pipeline.loss(agent, loss, boot_time(), out);
    }
}
