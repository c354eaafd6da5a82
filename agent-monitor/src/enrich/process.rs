//! The processes of agents, each with its ancestors.
//!
//! A process is keyed by its id and its start in clock ticks: the kernel side
//! knows nanoseconds, /proc only ticks. Ancestors are worked out once, at fork,
//! so that naming a process in an event costs one reference. What a child has
//! from its parent is shared with it; what the table takes in all is bounded.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use agent_monitor_common::limits::MAX_TASKS;

use super::footprint::{self, Footprint};
use super::procfs::{ProcInfo, Procfs};
use crate::decode::ProcessKey;
use crate::event::{Ancestor, Process};

/// Ancestors kept of a process.
pub const MAX_ANCESTORS: usize = 16;
/// Nanoseconds for which a process that has ended is still known.
pub const TOMBSTONE_NS: u64 = 30_000_000_000;
/// Bytes that a table may take, estimated: agents choose the arguments and the
/// paths of what they run, so a bound on processes alone is none on memory. It
/// is enough for 40,000 processes of common length.
pub const MAX_BYTES: usize = 16 << 20;

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
    pub exe: Option<Arc<str>>,
    /// Arguments.
    pub argv: Arc<[String]>,
    /// Effective user id from here on, if it is known.
    pub euid: Option<u32>,
}

/// The table. Times are nanoseconds since boot, those of the records.
#[derive(Debug)]
pub struct Processes {
    procfs: Procfs,
    capacity: usize,
    entries: HashMap<ProcessKey, Entry>,
    /// Running processes by the age of their program in the table.
    running: BTreeMap<u64, ProcessKey>,
    /// Ended processes, and when each is forgotten, soonest first.
    ended: VecDeque<(u64, ProcessKey)>,
    footprint: Footprint,
    next_age: u64,
    evicted: u64,
}

#[derive(Debug)]
struct Entry {
    process: Arc<Process>,
    /// Effective user id after its last exec, or its parent's.
    euid: Option<u32>,
    /// Key in `running`; `None` once it has ended.
    age: Option<u64>,
    /// The ancestors of its children, once there was one.
    below: Option<Arc<[Ancestor]>>,
}

impl Default for Processes {
    fn default() -> Self {
        Self::new(Procfs::default(), MAX_TASKS as usize)
    }
}

impl Processes {
    /// Holds at most `capacity` processes, the ended ones included, in at most
    /// [`MAX_BYTES`].
    pub fn new(procfs: Procfs, capacity: usize) -> Self {
        Self {
            procfs,
            capacity: capacity.max(1),
            entries: HashMap::new(),
            running: BTreeMap::new(),
            ended: VecDeque::new(),
            footprint: Footprint::default(),
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
            ancestors: parent.map(|parent| self.below(&parent)).unwrap_or_default(),
        };
        let euid = self.effective_uid(fork.parent);
        self.insert_with(child, euid, now)
    }

    /// Takes in an exec and returns the process as it is now.
    pub fn exec(&mut self, exec: Exec, now: u64) -> Arc<Process> {
        // The lineage is who made it: a parent that ended is no reason to lose it
        // to init, so a process that has another parent now keeps its ancestors.
        let before = self.get(exec.process);
        let ancestors = match before {
            Some(process)
                if process.ppid != Some(exec.parent.pid) && !process.ancestors.is_empty() =>
            {
                process.ancestors.clone()
            }
            _ => match self.look(exec.parent) {
                Some(parent) => self.below(&parent),
                None => before.map_or_else(Arc::default, |process| process.ancestors.clone()),
            },
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
        self.insert_with(process, exec.euid, now)
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

    /// The effective user id of a process after its last exec, or else its parent's
    /// when it was made. What it did to itself since is not known.
    pub fn effective_uid(&self, process: ProcessKey) -> Option<u32> {
        self.entries.get(&process)?.euid
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

    /// The ancestors of a child of `parent`: the same for all of them while it
    /// runs one program.
    fn below(&mut self, parent: &Process) -> Arc<[Ancestor]> {
        let below = || lineage_below(parent).collect::<Arc<[_]>>();
        let Some(entry) = self.entries.get_mut(&key_of(parent)) else {
            return below();
        };
        let footprint = &mut self.footprint;
        let below = entry.below.get_or_insert_with(|| {
            let below = below();
            footprint.hold(footprint::lineage(&below));
            below
        });
        below.clone()
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
    fn ancestors(&self, info: &ProcInfo) -> Arc<[Ancestor]> {
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
        ancestors.into()
    }

    fn insert(&mut self, process: Process, now: u64) -> Arc<Process> {
        self.insert_with(process, None, now)
    }

    fn insert_with(&mut self, process: Process, euid: Option<u32>, now: u64) -> Arc<Process> {
        self.forget_ended(now);
        let key = key_of(&process);
        let process = Arc::new(process);
        // A process that was known has another program now: what it held goes.
        let before = self.remove(key);
        if self.entries.len() >= self.capacity {
            self.evict();
        }
        let age = match before {
            // Its place among those that ended stays.
            Some(Entry { age: None, .. }) => None,
            _ => {
                let age = self.next_age;
                self.next_age += 1;
                self.running.insert(age, key);
                Some(age)
            }
        };
        self.footprint.add(&process);
        self.entries.insert(
            key,
            Entry {
                process: process.clone(),
                euid,
                age,
                below: None,
            },
        );
        while self.footprint.bytes() > MAX_BYTES && self.entries.len() > 1 {
            self.evict();
        }
        process
    }

    fn forget_ended(&mut self, now: u64) {
        while let Some((_, key)) = self.ended.pop_front_if(|(at, _)| *at <= now) {
            self.remove(key);
        }
    }

    /// Drops the process that ended first, or else the one whose program has been
    /// known longest.
    fn evict(&mut self) {
        let ended = self.ended.pop_front().map(|(_, key)| key);
        let key = ended.or_else(|| self.running.first_key_value().map(|(_, key)| *key));
        if key.and_then(|key| self.remove(key)).is_some() {
            self.evicted += 1;
        }
    }

    /// Takes a process out; its place in `ended` is the caller's.
    fn remove(&mut self, key: ProcessKey) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.footprint.remove(&entry.process);
        if let Some(below) = &entry.below {
            self.footprint.release(footprint::lineage(below));
        }
        if let Some(age) = entry.age {
            self.running.remove(&age);
        }
        Some(entry)
    }
}

fn key_of(process: &Process) -> ProcessKey {
    ProcessKey {
        pid: process.pid,
        start: process.start,
    }
}

/// The ancestors of a child of `parent`.
fn lineage_below(parent: &Process) -> impl Iterator<Item = Ancestor> {
    let nearest = Ancestor {
        pid: parent.pid,
        comm: parent.comm.clone(),
        exe: parent.exe.clone(),
    };
    std::iter::once(nearest)
        .chain(parent.ancestors.iter().cloned())
        .take(MAX_ANCESTORS)
}

#[cfg(test)]
mod tests;
