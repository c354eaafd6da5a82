//! cgroup `sysctl`, fs/proc/proc_sysctl.c (proc_sys_call_handler), since 5.2: runs when
//! a process reads or writes a file of /proc/sys, after the file's own permissions have
//! allowed it. There is no socket here; the agent is the current cgroup's.

use agent_monitor_common::event::{Sysctl, kind};
use agent_monitor_common::limits::{SYSCTL_NAME, SYSCTL_VALUE};
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_boot_ns, bpf_sysctl_get_name, bpf_sysctl_get_new_value,
};
use aya_ebpf::programs::SysctlContext;

use crate::maps::EVENTS;
use crate::{emit, task};

/// `-E2BIG`: the value has more bytes than were asked for.
const TOO_LONG: i64 = -7;

/// Reports what is written; reading is left alone.
#[inline(always)]
pub fn access(ctx: &SysctlContext) {
    // SAFETY: the hook's context.
    if unsafe { (*ctx.sysctl).write } == 0 {
        return;
    }
    let Some(caller) = task::Caller::current() else {
        return;
    };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    emit::record::<Sysctl>(&EVENTS, kind::SYSCTL, caller.agent, now, |record| {
        // SAFETY: the place is a reservation of this type, of which every byte is
        // written: the name is filled up with zeroes here, the value by the kernel
        // (copy_sysctl_value, kernel/bpf/cgroup.c).
        unsafe {
            (&raw mut (*record).header).write(caller.header::<Sysctl>(kind::SYSCTL, now));
            let name = &raw mut (*record).name;
            name.cast::<[u64; SYSCTL_NAME / 8]>()
                .write([0; SYSCTL_NAME / 8]);
            let value = &raw mut (*record).value;
            // A longer name than fits is cut.
            bpf_sysctl_get_name(ctx.sysctl, name.cast(), SYSCTL_NAME as u64, 0);
            let len = bpf_sysctl_get_new_value(ctx.sysctl, value.cast(), SYSCTL_VALUE as u64);
            let (len, truncated) = match len {
                TOO_LONG => (SYSCTL_VALUE as u32 - 1, 1),
                // Nothing is written.
                ..0 => (0, 0),
                _ => (len as u32, 0),
            };
            (&raw mut (*record).value_len).write(len);
            (&raw mut (*record).truncated).write(truncated);
        }
        true
    });
}
