//! `sched_process_exit(struct task_struct *p)`, kernel/exit.c (since 6.16 with
//! a second argument); fires for each thread.

use agent_monitor_common::event::{Exit, kind};
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::programs::BtfTracePointContext;

use crate::emit;
use crate::maps::{EVENTS, TASKS, global};
use crate::object::Object;
use crate::outside;
use crate::probes::coverage;
use crate::task;

/// Reports and forgets a process whose last thread ends.
#[inline(always)]
pub fn exit(ctx: &BtfTracePointContext) -> i32 {
    // SAFETY: the hook's argument, which is the running task.
    let Some(current) = (unsafe { Object::new(ctx.arg(0)) }) else {
        return 0;
    };
    let Some(group) = task::group(current) else {
        return 0;
    };
    if outside::knows(group) {
        return 0;
    }
    let cgroup = task::id(group);
    let tgid: u32 = current.get(global!(OFFSETS.task_tgid));
    let Some(agent) = task::current_agent(cgroup, tgid) else {
        outside::note(group);
        return 0;
    };
    let Some(signal) = current.follow(global!(OFFSETS.task_signal)) else {
        return 0;
    };
    // do_exit() counts itself off signal->live before this tracepoint.
    let live: u32 = signal.get(global!(OFFSETS.signal_live));
    if live != 0 {
        return 0;
    }
    // Two threads that end together both see that none is left: one forgets.
    if TASKS.remove(tgid).is_err() {
        return 0;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // Its descriptors are still open: exit_files() comes later in do_exit().
    coverage::at_exit(current, agent, cgroup, now);
    emit::record::<Exit>(&EVENTS, kind::EXIT, agent, now, |record| {
        let mut header = emit::header::<Exit>(kind::EXIT, now, agent);
        header.cgroup = cgroup;
        header.tgid = tgid;
        header.tid = current.get(global!(OFFSETS.task_pid));
        header.start = task::start(current);
        let group: u32 = signal.get(global!(OFFSETS.signal_group_exit_code));
        let own: u32 = current.get(global!(OFFSETS.task_exit_code));
        let value = Exit {
            header,
            status: if group != 0 { group } else { own },
            pad: 0,
        };
        // SAFETY: the place is a reservation of this type.
        unsafe { record.write(value) };
        true
    });
    0
}
