//! Taking over from an earlier daemon whose programs went on without it, and
//! leaving word for the next one: `run --pin`.
//!
//! The kernel counts what it sends up, the daemon what it has told. When the next
//! one begins, what was sent, not told and is no longer in the rings is lost with
//! the earlier one. Word is left of what was told half a second ago or earlier, so
//! that what may not have reached a reader counts as lost too: at most so much was.

use super::*;

type ByKind = [u64; kind::MOST];

/// What an earlier daemon left, by agent.
#[derive(Default)]
pub(super) struct Legacy {
    /// When it was certainly there.
    last: u64,
    agents: HashMap<u64, Left>,
}

struct Left {
    told: Told,
    /// Sent up, and not told nor in the rings.
    untold: ByKind,
    /// In the rings.
    waiting: u64,
    /// Lost in the kernel since.
    refused: u64,
}

/// What one daemon leaves for the next, of one agent.
#[derive(Default)]
pub(super) struct Word {
    /// Records told so far.
    pub told: ByKind,
    /// As of a moment ago.
    said: Told,
}

impl Word {
    /// Counts a record that was told.
    pub(super) fn count(&mut self, kind: u32) {
        if let Some(told) = self.told.get_mut(kind as usize) {
            *told += 1;
        }
    }

    /// What to leave, or with `all` what there is.
    fn next(&mut self, lost: &KernelState, all: bool, now: u64) -> Told {
        let current = Told {
            time: now,
            records: self.told,
            lost: lost.lost,
        };
        let before = std::mem::replace(&mut self.said, current);
        if all { current } else { before }
    }
}

impl Legacy {
    /// Compares what the kernel sent up with what was told and with what is in the rings.
    pub(super) fn read(kernel: &Kernel, rings: &mut Rings) -> Self {
        if !kernel.is_reused() {
            return Self::default();
        }
        // First the rings: what is sent meanwhile is counted, and read later. It
        // adds to what may be lost, never takes from it.
        let waiting = rings.fill();
        let told: HashMap<u64, Told> = kernel.told().into_iter().collect();
        let last = told.get(&NODE).map_or_else(boot_time, |told| told.time);
        let left = |(agent, state): (u64, KernelState)| {
            let told = told.get(&agent).copied().unwrap_or_default();
            let waiting = waiting.get(&agent).copied().unwrap_or_default();
            (agent, Left::new(&state, told, &waiting))
        };
        let agents = kernel.agent_states().into_iter().map(left).collect();
        Self { last, agents }
    }
}

impl Left {
    fn new(state: &KernelState, told: Told, waiting: &ByKind) -> Self {
        let accounted = |kind: usize| told.records[kind].saturating_add(waiting[kind]);
        let lost = state.lost.iter().flatten().sum::<u64>();
        Self {
            told,
            untold: std::array::from_fn(|kind| state.emitted[kind].saturating_sub(accounted(kind))),
            waiting: waiting.iter().sum(),
            refused: lost.saturating_sub(told.lost.iter().flatten().sum()),
        }
    }
}

impl Live {
    /// Goes on where the earlier daemon ended: tells what was missed meanwhile.
    pub(super) fn take_over(&mut self, legacy: Legacy, out: &mut Vec<Event>) {
        let Legacy { last, agents } = legacy;
        for (id, left) in agents {
            let untold: u64 = left.untold.iter().sum();
            let named = |kind: usize| u32::try_from(kind).map_or("other", kind::name);
            let untold_of = |agent, losses: &mut losses::Losses| {
                for (kind, records) in left.untold.iter().enumerate() {
                    losses.count(agent, Stage::Restart, named(kind), *records);
                }
            };
            if id == NODE {
                // Its records are about agents, and those that are there were found.
                self.node.lost = left.told.lost;
            } else if let Some(watched) = self.watched.get_mut(&id) {
                for (kind, records) in left.untold.iter().enumerate() {
                    watched.word.told[kind] = left.told.records[kind].saturating_add(*records);
                }
                watched.counted.lost = left.told.lost;
                untold_of(id, &mut self.losses);
                let reason = format!(
                    "agent-monitor was not running: {} records waited in the kernel, {} may be lost",
                    left.waiting,
                    untold + left.refused,
                );
                self.gap(id, reason, last, out);
            } else {
                // Nobody knows its name any more.
                untold_of(NODE, &mut self.losses);
                let waiting = left.waiting + left.refused;
                self.losses.count(NODE, Stage::Restart, "other", waiting);
                let reason = "an agent ended while agent-monitor was not running".to_owned();
                self.pipeline.gap(NODE, reason, last, boot_time(), out);
                self.kernel.forget_agent(id);
            }
        }
        self.kernel.detach_others();
    }

    /// Leaves word for the next daemon; with `all`, of everything.
    pub(super) fn leave_word(&mut self, all: bool) {
        if self.kernel.pins().is_none() {
            return;
        }
        let now = boot_time();
        let chosen = self.watched.iter_mut();
        let chosen = chosen.filter(|(_, watched)| watched.decision == Decision::Yes);
        let mut words: Vec<(u64, Told)> = chosen
            .map(|(id, watched)| (*id, watched.word.next(&watched.counted, all, now)))
            .collect();
        words.push((NODE, self.node_word.next(&self.node, all, now)));
        for (agent, word) in words {
            // Nothing was left yet in its first half second.
            if word.time != 0
                && let Err(error) = self.kernel.leave_word(agent, &word)
            {
                tracing::error!(agent, "cannot leave word for the next daemon: {error:#}");
            }
        }
    }

    /// Tells that nothing is told from here on.
    pub fn stop(&mut self, out: &mut Vec<Event>) {
        let now = boot_time();
        let reason = match self.kernel.pins() {
            Some(_) => {
                "agent-monitor was stopped: what agents do waits in the kernel until it runs"
            }
            None => "agent-monitor was stopped: nothing is seen until it runs again",
        };
        self.pipeline.gap(NODE, reason.to_owned(), now, now, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_and_neither_told_nor_waits_is_lost() {
        let mut state = KernelState::default();
        let mut told = Told::default();
        let mut waiting = [0; kind::MOST];
        state.emitted[2] = 100;
        told.records[2] = 70;
        waiting[2] = 20;
        // Sent after it was looked at.
        waiting[3] = 1;
        state.lost[1][2] = 9;
        told.lost[1][2] = 4;
        let left = Left::new(&state, told, &waiting);
        assert_eq!((left.untold[2], left.untold.iter().sum::<u64>()), (10, 10));
        assert_eq!((left.waiting, left.refused), (21, 5));
    }

    #[test]
    fn word_is_left_of_what_was_told_before_the_last_time_and_of_all_at_the_end() {
        let (mut word, lost) = (Word::default(), KernelState::default());
        word.count(2);
        assert_eq!(word.next(&lost, false, 1).time, 0);
        word.count(2);
        let left = word.next(&lost, false, 2);
        assert_eq!((left.time, left.records[2]), (1, 1));
        word.count(2);
        let left = word.next(&lost, true, 3);
        assert_eq!((left.time, left.records[2]), (3, 3));
        word.count(u32::MAX);
    }
}
