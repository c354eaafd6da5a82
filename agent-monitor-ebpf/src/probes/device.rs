//! cgroup `dev`, security/device_cgroup.c (devcgroup_check_permission), since
//! 4.15: runs when a process opens a device node or makes one, after the file's
//! own permissions have allowed it. There is no socket here; the agent is the
//! current cgroup's.

use agent_monitor_common::event::{Device, kind};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_retval, bpf_ktime_get_boot_ns};
use aya_ebpf::programs::DeviceContext;

use crate::maps::EVENTS;
use crate::{emit, task};

/// `BPF_DEVCG_DEV_CHAR`, include/uapi/linux/bpf.h.
const CHARACTER: u32 = 2;

/// Reports an access to a device that ordinary programs have no use for.
#[inline(always)]
pub fn access(ctx: &DeviceContext) {
    // SAFETY: the hook's context.
    let (access_type, major, minor) = unsafe {
        (
            (*ctx.device).access_type,
            (*ctx.device).major,
            (*ctx.device).minor,
        )
    };
    // Access in the upper half, type in the lower (struct bpf_cgroup_dev_ctx).
    let (class, access) = (access_type & 0xffff, access_type >> 16);
    if class == CHARACTER && is_ordinary(major, minor) {
        return;
    }
    let cgroup = task::current_cgroup();
    let tgid = task::current_tgid();
    let Some(agent) = task::agent_of_cgroup(cgroup) else {
        return;
    };
    // SAFETY: no arguments. What the cgroup's other device programs have said that
    // ran before: the cgroup's own in the order of attachment, then those above it.
    let (now, refused) = unsafe { (bpf_ktime_get_boot_ns(), bpf_get_retval() != 0) };
    emit::record::<Device>(&EVENTS, kind::DEVICE, agent, now, |record| {
        let mut header = emit::header::<Device>(kind::DEVICE, now, agent);
        header.cgroup = cgroup;
        header.tgid = tgid;
        header.tid = bpf_get_current_pid_tgid() as u32;
        header.start = match task::remembered(tgid) {
            // SAFETY: a value of TASKS, valid while the program runs.
            Some(known) => unsafe { (*known).start },
            None => task::current().map_or(0, task::start),
        };
        let value = Device {
            header,
            major,
            minor,
            access,
            class,
            refused: u32::from(refused),
            pad: 0,
        };
        // SAFETY: the place is a reservation of this type.
        unsafe { record.write(value) };
        true
    });
}

/// The character devices that every container has (Documentation/admin-guide/devices.txt).
#[inline(always)]
fn is_ordinary(major: u32, minor: u32) -> bool {
    match major {
        // null, zero, full, random, urandom
        1 => matches!(minor, 3 | 5 | 7 | 8 | 9),
        // tty, ptmx
        5 => matches!(minor, 0 | 2),
        // pts/*
        136..=143 => true,
        _ => false,
    }
}
