//! `sched_process_exit(struct task_struct *p)`, kernel/exit.c (since 6.16 with
//! a second argument); fires for each thread.

use agent_monitor_common::event::{Exit, kind};
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::programs::BtfTracePointContext;

use crate::emit;
use crate::maps::{EVENTS, TASKS, global};
use crate::probes::coverage;
use crate::task;

/// Reports and forgets a process whose last thread ends.
#[inline(always)]
pub fn exit(_ctx: &BtfTracePointContext) -> i32 {
    let cgroup = task::current_cgroup();
    let tgid = task::current_tgid();
    let Some(agent) = task::current_agent(cgroup, tgid) else {
        return 0;
    };
    let current = task::current();
    let signal: u64 = task::read(current, global!(OFFSETS.task_signal));
    // do_exit() counts itself off signal->live before this tracepoint.
    let live: u32 = task::read(signal, global!(OFFSETS.signal_live));
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
        header.tid = aya_ebpf::helpers::bpf_get_current_pid_tgid() as u32;
        header.start = task::start(current);
        let group: u32 = task::read(signal, global!(OFFSETS.signal_group_exit_code));
        let own: u32 = task::read(current, global!(OFFSETS.task_exit_code));
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
