//! `sched_process_fork(struct task_struct *parent, struct task_struct *child)`,
//! kernel/fork.c, since 2.6; fires for threads too.

use agent_monitor_common::event::{Fork, kind};
use aya_ebpf::helpers::bpf_get_current_uid_gid;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::programs::BtfTracePointContext;

use crate::emit;
use crate::maps::{EVENTS, global};
use crate::object::Object;
use crate::outside;
use crate::probes::cgroup;
use crate::task;

/// Remembers a new process of an agent and reports it.
#[inline(always)]
pub fn fork(ctx: &BtfTracePointContext) -> i32 {
    // SAFETY: the hook's arguments.
    let (parent, child) = unsafe { (Object::new(ctx.arg(0)), Object::new(ctx.arg(1))) };
    let (Some(parent), Some(child)) = (parent, child) else {
        return 0;
    };
    // The child's own cgroup: clone3 with CLONE_INTO_CGROUP puts it elsewhere
    // than its parent.
    let (Some(group), Some(from)) = (task::group(child), task::group(parent)) else {
        return 0;
    };
    let is_same = group.address() == from.address();
    if is_same && outside::knows(group) {
        return 0;
    }
    let caller = task::current_tgid();
    let (own, from) = (task::id(group), task::id(from));
    let agent = match task::current_agent(own, caller) {
        Some(agent) => agent,
        None if is_same => {
            outside::note(group);
            return 0;
        }
        None => match task::agent_of(from, caller) {
            Some(agent) => {
                outside::note_stray();
                agent
            }
            None => return 0,
        },
    };
    let tgid: u32 = child.get(global!(OFFSETS.task_tgid));
    let pid: u32 = child.get(global!(OFFSETS.task_pid));
    if pid != tgid {
        return 0; // a thread
    }
    let start: u64 = child.get(global!(OFFSETS.task_start));
    task::remember(tgid, agent, own, start);
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    emit::record::<Fork>(&EVENTS, kind::FORK, agent, now, |record| {
        let mut header = emit::header::<Fork>(kind::FORK, now, agent);
        header.cgroup = own;
        header.tgid = caller;
        header.tid = parent.get(global!(OFFSETS.task_pid));
        header.start = task::start(parent);
        let record_value = Fork {
            header,
            child_start: start,
            child: tgid,
            uid: bpf_get_current_uid_gid() as u32,
            comm: task::comm(child),
        };
        // SAFETY: the place is a reservation of this type.
        unsafe { record.write(record_value) };
        true
    });
    if !is_same {
        // After the fork, which tells who this is.
        cgroup::born_into(own, from, agent, tgid, start, now + 1);
    }
    0
}
