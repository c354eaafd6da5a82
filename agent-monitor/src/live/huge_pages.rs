//! A look at who holds many huge pages: no hook of a cgroup sees them being taken.

use super::coverage::processor_time;
use super::*;
use crate::capture::recording::Holding;

/// How often it is looked, unless that takes long.
const EVERY: u64 = 2_000_000_000;
/// Looking takes at most one part in so many of a processor.
const SHARE: u64 = 400;
/// Nanoseconds for which it is looked before records are taken again. A process takes
/// some 13 µs, one that holds many 23 µs more for each hundred of its mappings.
const AT_ONCE: u64 = 3_000_000;

/// Where the look is.
#[derive(Debug, Default)]
pub(super) struct Look {
    pages: HugePages,
    /// Processes that are still to be looked at in this round, and whose they are.
    left: Vec<(u32, u64)>,
    /// When it goes on.
    pub next: u64,
}

impl Live {
    /// Looks at some of the agents' processes. At none while the whole node uses fewer huge
    /// pages than are of interest, as almost every node does.
    pub(super) fn read_huge_pages(&mut self, now: u64, out: &mut Vec<Event>) -> Result<()> {
        let began = processor_time();
        let many = self.pipeline.many_huge_pages();
        if self.holders.left.is_empty()
            && (self.pipeline.follows_holder(None) || self.holders.pages.in_use() >= many)
        {
            let all = self.kernel.processes();
            self.holders.left = all.map(|(pid, task)| (pid, task.agent)).collect();
        }
        while processor_time().saturating_sub(began) < AT_ONCE
            && let Some((pid, agent)) = self.holders.left.pop()
        {
            let watched = self.watched.get(&agent);
            if watched.is_some_and(|it| it.decision == Decision::Yes) {
                self.read_holding(pid, agent, many, now, out)?;
            }
        }
        let took = processor_time().saturating_sub(began);
        let pause = match self.holders.left.is_empty() {
            true => EVERY,
            false => 0,
        };
        self.holders.next = now + pause.max(took.saturating_mul(SHARE));
        Ok(())
    }

    /// Reads what one process holds, and hands it on if that is of interest.
    fn read_holding(
        &mut self,
        pid: u32,
        agent: u64,
        many: u64,
        time: u64,
        out: &mut Vec<Event>,
    ) -> Result<()> {
        let pages = &self.holders.pages;
        let Some(held) = pages.held(pid, many) else {
            return Ok(());
        };
        if held < many && !self.pipeline.follows_holder(None) {
            return Ok(());
        }
        let Some((process, used)) = pages.used(pid) else {
            return Ok(());
        };
        if held < many && !self.pipeline.follows_holder(Some(process)) {
            return Ok(());
        }
        let holding = Holding {
            agent,
            process,
            time,
            held,
            used,
        };
        if let Some(recording) = &mut self.recording {
            recording
                .holding(&holding)
                .context("cannot write the recording")?;
        }
        self.pipeline.holds(&holding, out);
        Ok(())
    }
}
