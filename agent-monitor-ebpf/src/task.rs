//! Reading task_struct, by the offsets that user space found in BTF.

use agent_monitor_common::event::{FlowId, Header};
use agent_monitor_common::limits::COMM_LEN;
use agent_monitor_common::policy::{Task, Watch};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_task_btf, bpf_probe_read_kernel,
};

use crate::emit;
use crate::maps::{AGENTS, TASKS, WATCHED, global};
use crate::object::Object;
use crate::outside;

/// A kernel address.
pub type Address = u64;

/// Reads a `T` at `base + offset` of kernel memory; zero when that faults.
#[inline(always)]
pub fn read<T: Copy + Default>(base: Address, offset: u32) -> T {
    let mut value = T::default();
    // SAFETY: the destination is a local of the size given; the helper checks
    // the source and never faults. On failure it zeroes the destination.
    unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            (base + u64::from(offset)) as *const _,
        );
    }
    value
}

/// The running task.
#[inline(always)]
pub fn current() -> Option<Object> {
    // SAFETY: no arguments; there in tracing and cgroup programs since 5.11.
    unsafe { Object::new(bpf_get_current_task_btf().cast_const().cast()) }
}

/// Thread-group id of the running task.
#[inline(always)]
pub fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Cgroup id of the running task in the default hierarchy.
#[inline(always)]
pub fn current_cgroup() -> u64 {
    // SAFETY: no arguments; there in tracing and cgroup programs since 4.18.
    unsafe { bpf_get_current_cgroup_id() }
}

/// When the process of `task` started, nanoseconds since boot; 0: not known.
#[inline(always)]
pub fn start(task: Object) -> u64 {
    match task.follow(global!(OFFSETS.task_group_leader)) {
        Some(leader) => leader.get(global!(OFFSETS.task_start)),
        None => 0,
    }
}

/// Name of `task`.
#[inline(always)]
pub fn comm(task: Object) -> [u8; COMM_LEN] {
    let at = global!(OFFSETS.task_comm);
    let words: [u64; 2] = [task.get(at), task.get(at + 8)];
    // SAFETY: sixteen bytes either way.
    unsafe { core::mem::transmute(words) }
}

/// The cgroup of `task` in the default hierarchy.
#[inline(always)]
pub fn group(task: Object) -> Option<Object> {
    let set = task.follow(global!(OFFSETS.task_cgroups))?;
    set.follow(global!(OFFSETS.css_set_dfl_cgrp))
}

/// Id of a cgroup; 0: not known.
#[inline(always)]
pub fn id(cgroup: Object) -> u64 {
    match cgroup.follow(global!(OFFSETS.cgroup_kn)) {
        Some(node) => node.get(global!(OFFSETS.kernfs_id)),
        None => 0,
    }
}

/// Cgroup id of `task` in the default hierarchy; 0: not known.
#[inline(always)]
pub fn cgroup(task: Object) -> u64 {
    group(task).map_or(0, id)
}

/// Id of a `struct cgroup` that the verifier does not know for one.
#[inline(always)]
pub fn cgroup_id(cgroup: Address) -> u64 {
    let node: Address = read(cgroup, global!(OFFSETS.cgroup_kn));
    read(node, global!(OFFSETS.kernfs_id))
}

/// The agent that a cgroup belongs to.
#[inline(always)]
pub fn agent_of_cgroup(cgroup: u64) -> Option<u64> {
    // SAFETY: read of a plain integer; a concurrent update gives the old or new.
    unsafe { WATCHED.get(cgroup) }.map(|watch: &Watch| watch.agent)
}

/// What is remembered of a process.
#[inline(always)]
pub fn remembered(tgid: u32) -> Option<*mut Task> {
    TASKS.get_ptr_mut(tgid)
}

/// Remembers a process as an agent's.
#[inline(always)]
pub fn remember(tgid: u32, agent: u64, cgroup: u64, start: u64) {
    let task = Task {
        agent,
        cgroup,
        start,
        last_rx_flow: FlowId {
            cookie: 0,
            generation: 0,
        },
        last_rx_time: 0,
    };
    if TASKS.insert(tgid, task, 0).is_err() {
        emit::no_room(agent);
    }
}

/// The agent of the running task: that of its cgroup, or the one it belonged
/// to before it was moved out.
#[inline(always)]
pub fn current_agent(cgroup: u64, tgid: u32) -> Option<u64> {
    if let Some(agent) = agent_of_cgroup(cgroup) {
        return Some(agent);
    }
    // Almost every process that is in no agent's cgroup never was: it is not looked
    // for while no process has left one.
    if !outside::are_strays() {
        return None;
    }
    match agent_of_stray(tgid) {
        0 => None,
        agent => Some(agent),
    }
}

/// The agent that a process is remembered to belong to; 0: none, or one that is no
/// more. A function of its own, which programs seldom call: inlined in all of them,
/// the compiler leaves a register in one unset that the verifier of 6.1 misses.
#[inline(never)]
fn agent_of_stray(tgid: u32) -> u64 {
    let Some(known) = remembered(tgid) else {
        return 0;
    };
    // SAFETY: a value of TASKS, valid while the program runs.
    let agent = unsafe { (*known).agent };
    if AGENTS.get_ptr_mut(agent).is_none() {
        // A container that was not chosen, or is long gone.
        let _ = TASKS.remove(tgid);
        return 0;
    }
    agent
}

/// As [`current_agent`] for another task; changes nothing.
#[inline(always)]
pub fn agent_of(cgroup: u64, tgid: u32) -> Option<u64> {
    if let Some(agent) = agent_of_cgroup(cgroup) {
        return Some(agent);
    }
    // SAFETY: a value of TASKS, valid while the program runs.
    let agent = unsafe { (*remembered(tgid)?).agent };
    AGENTS.get_ptr_mut(agent).map(|_| agent)
}

/// The running process, if it is an agent's.
pub struct Caller {
    /// Its agent.
    pub agent: u64,
    /// The cgroup it is in.
    pub cgroup: u64,
    /// Its thread-group id.
    pub tgid: u32,
    /// What is remembered of it.
    known: Option<*mut Task>,
}

impl Caller {
    /// Who is running; nothing unless it belongs to an agent.
    #[inline(always)]
    pub fn current() -> Option<Self> {
        let (cgroup, tgid) = (current_cgroup(), current_tgid());
        let agent = current_agent(cgroup, tgid)?;
        Some(Self {
            agent,
            cgroup,
            tgid,
            known: remembered(tgid),
        })
    }

    /// When it started, nanoseconds since boot.
    #[inline(always)]
    pub fn start(&self) -> u64 {
        match self.known {
            // SAFETY: a value of TASKS, valid while the program runs.
            Some(known) => unsafe { (*known).start },
            None => current().map_or(0, start),
        }
    }

    /// The flow on which data last arrived for it, and when; 0: never.
    #[inline(always)]
    pub fn last_rx(&self) -> (FlowId, u64) {
        match self.known {
            // SAFETY: a value of TASKS; a packet that arrives meanwhile may
            // change it half-way, which evidence for people can bear.
            Some(known) => unsafe { ((*known).last_rx_flow, (*known).last_rx_time) },
            None => (
                FlowId {
                    cookie: 0,
                    generation: 0,
                },
                0,
            ),
        }
    }

    /// Header of a record of `T` about what it does.
    #[inline(always)]
    pub fn header<T>(&self, kind: u32, now: u64) -> Header {
        Header {
            cgroup: self.cgroup,
            start: self.start(),
            tgid: self.tgid,
            tid: bpf_get_current_pid_tgid() as u32,
            ..emit::header::<T>(kind, now, self.agent)
        }
    }
}
