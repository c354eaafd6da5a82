//! The processes of agents, each with its ancestors.
//!
//! A process is keyed by its id and its start in clock ticks: the kernel side
//! knows nanoseconds, /proc only ticks. Ancestors are worked out once, at fork,
//! so that naming a process in an event costs one reference.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use agent_monitor_common::limits::MAX_TASKS;

use super::procfs::{ProcInfo, Procfs};
use crate::decode::ProcessKey;
use crate::event::{Ancestor, Process};

/// Ancestors kept of a process.
pub const MAX_ANCESTORS: usize = 16;
/// Nanoseconds for which a process that has ended is still known.
pub const TOMBSTONE_NS: u64 = 30_000_000_000;
/// A process has forked.
#[derive(Clone, Debug)]
pub struct Fork {
    /// Who called.
    pub parent: ProcessKey,
    /// Who was made.
    pub child: ProcessKey,
    /// Real user id of the parent, and so of the child.
    pub uid: u32,
    /// Name of the child.
    pub comm: String,
}

/// A program was started.
#[derive(Clone, Debug)]
pub struct Exec {
    /// The process.
    pub process: ProcessKey,
    /// Its parent now, which need not be who forked it.
    pub parent: ProcessKey,
    /// Real user id.
    pub uid: u32,
    /// Name after the exec.
    pub comm: String,
    /// Path of the executable, when it could be read.
    pub exe: Option<String>,
    /// Arguments.
    pub argv: Vec<String>,
}

/// The table. Times are nanoseconds since boot, those of the records.
#[derive(Debug)]
pub struct Processes {
    procfs: Procfs,
    capacity: usize,
    entries: HashMap<ProcessKey, Entry>,
    /// Running processes by age in the table.
    running: BTreeMap<u64, ProcessKey>,
    /// Ended processes, and when each is forgotten, soonest first.
    ended: VecDeque<(u64, ProcessKey)>,
    next_age: u64,
    evicted: u64,
}

#[derive(Debug)]
struct Entry {
    process: Arc<Process>,
    /// Key in `running`; `None` once it has ended.
    age: Option<u64>,
}

impl Default for Processes {
    fn default() -> Self {
        Self::new(Procfs::default(), MAX_TASKS as usize)
    }
}

impl Processes {
    /// Holds at most `capacity` processes, the ended ones included.
    pub fn new(procfs: Procfs, capacity: usize) -> Self {
        Self {
            procfs,
            capacity: capacity.max(1),
            entries: HashMap::new(),
            running: BTreeMap::new(),
            ended: VecDeque::new(),
            next_age: 0,
            evicted: 0,
        }
    }

    /// Takes in a fork and returns the child.
    pub fn fork(&mut self, fork: Fork, now: u64) -> Arc<Process> {
        let parent = self.look(fork.parent);
        let child = Process {
            pid: fork.child.pid,
            start: fork.child.start,
            ppid: Some(fork.parent.pid),
            uid: Some(fork.uid),
            comm: fork.comm,
            exe: parent.as_ref().and_then(|parent| parent.exe.clone()),
            argv: parent
                .as_ref()
                .map(|parent| parent.argv.clone())
                .unwrap_or_default(),
            ancestors: parent.as_deref().map(lineage_below).unwrap_or_default(),
        };
        self.insert(child, now)
    }

    /// Takes in an exec and returns the process as it is now.
    pub fn exec(&mut self, exec: Exec, now: u64) -> Arc<Process> {
        // The lineage is who made it: a parent that ended is no reason to lose it
        // to init, so a process that has another parent now keeps its ancestors.
        let before = self.entries.get(&exec.process).map(|entry| &entry.process);
        let ancestors = match before {
            Some(process)
                if process.ppid != Some(exec.parent.pid) && !process.ancestors.is_empty() =>
            {
                process.ancestors.clone()
            }
            _ => {
                let kept = before
                    .map(|process| process.ancestors.clone())
                    .unwrap_or_default();
                self.look(exec.parent)
                    .as_deref()
                    .map_or(kept, lineage_below)
            }
        };
        let process = Process {
            pid: exec.process.pid,
            start: exec.process.start,
            ppid: (exec.parent.pid != 0).then_some(exec.parent.pid),
            uid: Some(exec.uid),
            comm: exec.comm,
            exe: exec.exe,
            argv: exec.argv,
            ancestors,
        };
        self.insert(process, now)
    }

    /// Takes in the end of a process, which stays known for [`TOMBSTONE_NS`].
    pub fn exit(&mut self, process: ProcessKey, now: u64) {
        self.forget_ended(now);
        if let Some(entry) = self.entries.get_mut(&process)
            && let Some(age) = entry.age.take()
        {
            self.running.remove(&age);
            self.ended
                .push_back((now.saturating_add(TOMBSTONE_NS), process));
        }
    }

    /// A process that is known.
    pub fn get(&self, process: ProcessKey) -> Option<Arc<Process>> {
        self.entries
            .get(&process)
            .map(|entry| entry.process.clone())
    }

    /// A process, taken over from /proc when it is not known: it started before
    /// it was watched, or its records were lost.
    pub fn get_or_take_over(&mut self, process: ProcessKey, now: u64) -> Option<Arc<Process>> {
        match self.get(process) {
            Some(process) => Some(process),
            None => self.read(process).map(|process| self.insert(process, now)),
        }
    }

    /// The process that has this id at the moment, taken over from /proc.
    pub fn take_over(&mut self, pid: u32, now: u64) -> Option<Arc<Process>> {
        let start = self.procfs.read(pid)?.start;
        self.get_or_take_over(ProcessKey { pid, start }, now)
    }

    /// Processes pushed out of a full table before their time.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// How many processes are known, the ended ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A process, from the table or from /proc. What /proc says is not kept: a
    /// parent outside of every agent is not seen to end.
    fn look(&self, process: ProcessKey) -> Option<Arc<Process>> {
        self.get(process)
            .or_else(|| self.read(process).map(Arc::new))
    }

    fn read(&self, key: ProcessKey) -> Option<Process> {
        let info = self
            .procfs
            .read(key.pid)
            .filter(|info| info.start == key.start)?;
        Some(Process {
            pid: key.pid,
            start: key.start,
            ppid: (info.ppid != 0).then_some(info.ppid),
            uid: info.uid,
            ancestors: self.ancestors(&info),
            comm: info.comm,
            exe: info.exe,
            argv: info.argv,
        })
    }

    /// The ancestors of a process in /proc, up to one that is known.
    fn ancestors(&self, info: &ProcInfo) -> Vec<Ancestor> {
        let mut ancestors = Vec::new();
        let (mut pid, mut child_start) = (info.ppid, info.start);
        while pid != 0 && ancestors.len() < MAX_ANCESTORS {
            // A parent is never younger: else its id was taken by another.
            let Some(parent) = self
                .procfs
                .read(pid)
                .filter(|parent| parent.start <= child_start)
            else {
                break;
            };
            if let Some(known) = self.get(ProcessKey {
                pid,
                start: parent.start,
            }) {
                ancestors.extend(lineage_below(&known));
                break;
            }
            ancestors.push(Ancestor {
                pid,
                comm: parent.comm,
                exe: parent.exe,
            });
            (pid, child_start) = (parent.ppid, parent.start);
        }
        ancestors.truncate(MAX_ANCESTORS);
        ancestors
    }

    fn insert(&mut self, process: Process, now: u64) -> Arc<Process> {
        self.forget_ended(now);
        let key = ProcessKey {
            pid: process.pid,
            start: process.start,
        };
        let process = Arc::new(process);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.process = process.clone();
            return process;
        }
        if self.entries.len() >= self.capacity {
            self.evict();
        }
        let age = self.next_age;
        self.next_age += 1;
        self.running.insert(age, key);
        self.entries.insert(
            key,
            Entry {
                process: process.clone(),
                age: Some(age),
            },
        );
        process
    }

    fn forget_ended(&mut self, now: u64) {
        while let Some((_, key)) = self.ended.pop_front_if(|(at, _)| *at <= now) {
            self.entries.remove(&key);
        }
    }

    /// Drops the process that ended first, or else the one known longest.
    fn evict(&mut self) {
        let ended = self.ended.pop_front().map(|(_, key)| key);
        if let Some(key) = ended.or_else(|| self.running.pop_first().map(|(_, key)| key)) {
            self.entries.remove(&key);
            self.evicted += 1;
        }
    }
}

/// The ancestors of a child of `parent`.
fn lineage_below(parent: &Process) -> Vec<Ancestor> {
    let nearest = Ancestor {
        pid: parent.pid,
        comm: parent.comm.clone(),
        exe: parent.exe.clone(),
    };
    std::iter::once(nearest)
        .chain(parent.ancestors.iter().cloned())
        .take(MAX_ANCESTORS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn key(pid: u32) -> ProcessKey {
        ProcessKey {
            pid,
            start: u64::from(pid),
        }
    }

    fn fork(parent: u32, child: u32) -> Fork {
        Fork {
            parent: key(parent),
            child: key(child),
            uid: 1000,
            comm: format!("p{child}"),
        }
    }

    fn exec(pid: u32, parent: u32, name: &str) -> Exec {
        Exec {
            process: key(pid),
            parent: key(parent),
            uid: 1000,
            comm: name.to_owned(),
            exe: Some(format!("/bin/{name}")),
            argv: vec![name.to_owned()],
        }
    }

    /// A table over a /proc with these processes: (pid, parent).
    fn table(capacity: usize, present: &[(u32, u32)]) -> (Processes, tempfile::TempDir) {
        let root = tempfile::tempdir().expect("a directory");
        for (pid, ppid) in present {
            let dir = root.path().join(pid.to_string());
            fs::create_dir(&dir).expect("a directory");
            let stat = format!(
                "{pid} (proc{pid}) S {ppid} 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 {pid} 0 0\n"
            );
            fs::write(dir.join("stat"), stat).expect("a file");
            fs::write(dir.join("status"), "Name:\tx\nUid:\t7\t8\t8\t8\n").expect("a file");
            fs::write(dir.join("cmdline"), "x\0-y\0").expect("a file");
        }
        (Processes::new(Procfs::at(root.path()), capacity), root)
    }

    fn lineage(process: &Process) -> Vec<u32> {
        process
            .ancestors
            .iter()
            .map(|ancestor| ancestor.pid)
            .collect()
    }

    #[test]
    fn nanoseconds_become_the_ticks_of_proc() {
        assert_eq!(ProcessKey::from_ns(1, 42_420_000_000).start, 4242);
        assert_eq!(ProcessKey::from_ns(1, 42_429_999_999).start, 4242);
    }

    #[test]
    fn a_child_has_its_parent_s_program_and_lineage_until_it_execs() {
        let (mut table, _root) = table(100, &[]);
        table.exec(exec(10, 0, "bash"), 0);
        let child = table.fork(fork(10, 11), 0);
        assert_eq!(
            (child.exe.as_deref(), lineage(&child)),
            (Some("/bin/bash"), vec![10])
        );
        assert_eq!(
            (child.ppid, child.uid, child.comm.as_str()),
            (Some(10), Some(1000), "p11")
        );
        let child = table.exec(exec(11, 10, "curl"), 0);
        assert_eq!(child.argv, ["curl"]);
        let grandchild = table.fork(fork(11, 12), 0);
        let names: Vec<_> = grandchild
            .ancestors
            .iter()
            .map(|a| (a.pid, a.comm.as_str()))
            .collect();
        assert_eq!(names, [(11, "curl"), (10, "bash")]);
    }

    #[test]
    fn a_process_whose_parent_ended_keeps_the_lineage_it_was_made_in() {
        let (mut table, _root) = table(100, &[(1, 0)]);
        table.exec(exec(10, 1, "bash"), 0);
        table.fork(fork(10, 11), 0);
        table.exit(key(10), 0);
        let orphan = table.exec(exec(11, 1, "miner"), 2 * TOMBSTONE_NS);
        assert_eq!((orphan.ppid, lineage(&orphan)), (Some(1), vec![10, 1]));
    }

    #[test]
    fn a_reused_id_is_another_process() {
        let (mut table, _root) = table(100, &[]);
        table.exec(exec(10, 0, "old"), 0);
        let reused = ProcessKey {
            pid: 10,
            start: 999,
        };
        assert_eq!(table.get(reused), None);
        table.exec(
            Exec {
                process: reused,
                ..exec(10, 0, "new")
            },
            0,
        );
        assert_eq!(
            table.get(key(10)).map(|p| p.comm.clone()).as_deref(),
            Some("old")
        );
        assert_eq!(
            table.get(reused).map(|p| p.comm.clone()).as_deref(),
            Some("new")
        );
    }

    #[test]
    fn an_ended_process_is_known_for_30_seconds_more() {
        let (mut table, _root) = table(100, &[]);
        table.exec(exec(10, 0, "bash"), 0);
        table.exit(key(10), 5);
        table.exit(key(10), 6);
        table.exec(exec(11, 0, "x"), 4 + TOMBSTONE_NS);
        assert!(table.get(key(10)).is_some());
        table.exec(exec(12, 0, "x"), 5 + TOMBSTONE_NS);
        assert_eq!(
            (table.get(key(10)), table.len(), table.evicted()),
            (None, 2, 0)
        );
        assert!(table.ended.is_empty());
    }

    #[test]
    fn a_full_table_drops_ended_processes_first_then_the_oldest_and_counts_them() {
        let (mut table, _root) = table(3, &[]);
        for pid in [10, 11, 12] {
            table.exec(exec(pid, 0, "x"), 0);
        }
        table.exit(key(11), 0);
        table.exec(exec(13, 0, "x"), 0);
        assert_eq!((table.get(key(11)), table.evicted()), (None, 1));
        table.exec(exec(14, 0, "x"), 0);
        assert_eq!(
            (table.get(key(10)), table.evicted(), table.len()),
            (None, 2, 3)
        );
        // What was evicted while it ran may still end: nothing is left of it.
        table.exit(key(10), 0);
        assert_eq!((table.running.len(), table.ended.len()), (3, 0));
    }

    #[test]
    fn many_forks_keep_the_table_and_every_lineage_bounded() {
        let (mut table, _root) = table(50, &[]);
        for pid in 1..1000 {
            let child = table.fork(fork(pid, pid + 1), 0);
            assert!(child.ancestors.len() <= MAX_ANCESTORS);
        }
        assert_eq!((table.len(), table.running.len()), (50, 50));
        let last = table.get(key(1000)).expect("the last");
        assert_eq!(last.ancestors.len(), MAX_ANCESTORS);
    }

    #[test]
    fn an_unknown_process_is_taken_over_with_its_ancestors() {
        let (mut table, _root) = table(100, &[(1, 0), (5, 1), (9, 5)]);
        let process = table.get_or_take_over(key(9), 0).expect("a process");
        assert_eq!(
            (process.comm.as_str(), process.uid, lineage(&process)),
            ("proc9", Some(7), vec![5, 1])
        );
        assert_eq!(process.argv, ["x", "-y"]);
        assert_eq!(table.len(), 1, "ancestors outside of agents are not kept");
        assert_eq!(table.take_over(9, 0).map(|p| p.pid), Some(9));
    }

    #[test]
    fn another_process_with_the_id_is_not_taken_over() {
        let (mut table, _root) = table(100, &[(9, 1)]);
        assert_eq!(
            table.get_or_take_over(ProcessKey { pid: 9, start: 8 }, 0),
            None
        );
        assert_eq!(table.take_over(8, 0), None);
        assert!(table.is_empty());
    }

    #[test]
    fn lineage_ends_where_a_parent_is_younger_than_its_child_or_a_circle_shows() {
        let (mut young, _root) = table(100, &[(5, 50), (50, 1)]);
        assert_eq!(young.take_over(5, 0).map(|p| lineage(&p)), Some(vec![]));
        let (mut circle, _root) = table(100, &[(5, 5)]);
        let process = circle.take_over(5, 0).expect("a process");
        assert_eq!(process.ancestors.len(), MAX_ANCESTORS);
    }

    #[test]
    fn a_lineage_from_proc_joins_the_one_that_is_known() {
        let (mut table, _root) = table(100, &[(5, 1), (9, 5)]);
        table.exec(
            Exec {
                parent: ProcessKey { pid: 0, start: 0 },
                ..exec(5, 0, "bash")
            },
            0,
        );
        let process = table.take_over(9, 0).expect("a process");
        assert_eq!(
            process.ancestors,
            [Ancestor {
                pid: 5,
                comm: "bash".into(),
                exe: Some("/bin/bash".into())
            }]
        );
    }

    #[test]
    fn a_real_child_is_taken_over_with_this_process_as_its_parent() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep");
        let mut table = Processes::default();
        let process = table.take_over(child.id(), 0);
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        let process = process.expect("a process");
        assert_eq!(
            process.ancestors.first().map(|a| a.pid),
            Some(std::process::id())
        );
        assert_eq!(
            table.take_over(child.id(), 0),
            None,
            "it is gone from /proc"
        );
        let key = ProcessKey {
            pid: process.pid,
            start: process.start,
        };
        assert!(table.get_or_take_over(key, 0).is_some(), "and still known");
    }
}
