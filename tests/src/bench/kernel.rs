//! What the kernel counts of the programs that a process holds open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};
use aya::programs::loaded_programs;

/// `BPF_PROG_TYPE_TRACING`, include/uapi/linux/bpf.h: programs for the whole node.
const TRACING: u64 = 26;
/// The iterator that the daemon runs by itself, whatever happens: its time is the
/// daemon's own, and part of that.
const ITERATOR: &str = "uncovered";

/// Time and runs, summed over programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Nanoseconds.
    pub ns: u64,
    /// Runs.
    pub runs: u64,
}

impl Spent {
    fn since(self, before: Self) -> Self {
        Self {
            ns: self.ns.saturating_sub(before.ns),
            runs: self.runs.saturating_sub(before.runs),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            ns: self.ns + other.ns,
            runs: self.runs + other.runs,
        }
    }
}

/// A process's programs.
#[derive(Clone, Debug, Default)]
pub struct Programs(BTreeMap<u64, (u64, Spent)>);

impl Programs {
    /// Reads them from its `fdinfo` (bpf_prog_show_fdinfo, kernel/bpf/syscall.c), but
    /// for those that it runs itself.
    ///
    /// # Errors
    /// When the process has gone.
    pub fn of(pid: u32) -> Result<Self> {
        let dir = format!("/proc/{pid}/fdinfo");
        let iterators: BTreeSet<u64> = loaded_programs()
            // A program may be unloaded meanwhile.
            .filter_map(Result::ok)
            .filter(|program| program.name_as_str() == Some(ITERATOR))
            .map(|program| program.id().into())
            .collect();
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&dir).with_context(|| format!("read {dir}"))? {
            // A descriptor may be closed meanwhile.
            let Ok(text) = fs::read_to_string(entry?.path()) else {
                continue;
            };
            if let Some((id, kind, spent)) = program(&text)
                && !iterators.contains(&id)
            {
                found.insert(id, (kind, spent));
            }
        }
        Ok(Self(found))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What was spent since `before`: by all, and by those that are attached to
    /// cgroups only.
    pub fn since(&self, before: &Self) -> (Spent, Spent) {
        let (mut all, mut at_cgroups) = (Spent::default(), Spent::default());
        for (id, (kind, spent)) in &self.0 {
            let before = before
                .0
                .get(id)
                .map_or(Spent::default(), |(_, spent)| *spent);
            let spent = spent.since(before);
            all = all.and(spent);
            if *kind != TRACING {
                at_cgroups = at_cgroups.and(spent);
            }
        }
        (all, at_cgroups)
    }
}

/// Id, type and counts, if this is a program's.
fn program(fdinfo: &str) -> Option<(u64, u64, Spent)> {
    let value = |name: &str| {
        fdinfo.lines().find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(':')?
                .trim()
                .parse()
                .ok()
        })
    };
    let spent = Spent {
        ns: value("run_time_ns")?,
        runs: value("run_cnt")?,
    };
    Some((value("prog_id")?, value("prog_type")?, spent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_program_s_counts_and_nothing_else_s() {
        let text = "pos:\t0\nprog_type:\t8\nprog_id:\t42\nrun_time_ns:\t700\nrun_cnt:\t7\n";
        assert_eq!(program(text), Some((42, 8, Spent { ns: 700, runs: 7 })));
        assert_eq!(program("pos:\t0\nlink_type:\tcgroup\nprog_id:\t42\n"), None);
    }

    #[test]
    fn a_program_that_was_not_there_before_counts_from_nothing() {
        let programs = |ns, kind| Programs(BTreeMap::from([(1, (kind, Spent { ns, runs: 1 }))]));
        let (all, at_cgroups) = programs(5, 8).since(&Programs::default());
        assert_eq!((all.ns, at_cgroups.ns), (5, 5));
        let (all, at_cgroups) = programs(7, TRACING).since(&programs(5, TRACING));
        assert_eq!((all.ns, at_cgroups.ns), (2, 0));
    }
}
