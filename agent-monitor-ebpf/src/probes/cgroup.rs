//! `cgroup_mkdir(struct cgroup *cgrp, const char *path)`, `cgroup_rmdir` alike,
//! `cgroup_attach_task(struct cgroup *dst, const char *path, struct task_struct
//! *task, bool threadgroup)`, include/trace/events/cgroup.h, since 4.13.
//!
//! The current task is a container runtime or systemd: only the hook's own
//! arguments tell where something happens. They fire for v1 hierarchies too,
//! whose ids collide with v2's.

use agent_monitor_common::event::{Cgroup, WithData, cgroup_action, kind};
use agent_monitor_common::limits::{MAX_AGENT_CGROUPS, PATH_CAP};
use agent_monitor_common::policy::{AgentState, Nursery, Watch};
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel_str};
use aya_ebpf::programs::BtfTracePointContext;

use crate::atomic;
use crate::emit;
use crate::maps::{AGENTS, EVENTS, NURSERIES, WATCHED, global};
use crate::object::Object;
use crate::outside;
use crate::task;

/// The agent that stands for the node itself in [`AGENTS`].
const NODE: u64 = 0;
/// Counters of an agent that has done nothing yet: too large for the stack.
// SAFETY: AgentState is made of u64 only, for which zero is a value.
static NEW: AgentState = unsafe { core::mem::zeroed() };
/// Bytes of a cgroup's name that are looked at: 64 hex digits and a NUL fit.
const NAME: usize = 80;

/// A cgroup of the default hierarchy.
struct Place {
    id: u64,
    parent: u64,
    name: u64,
}

/// Looks at a `struct cgroup`; nothing for v1 hierarchies.
#[inline(always)]
fn place(cgroup: u64) -> Option<Place> {
    let root: u64 = task::read(cgroup, global!(OFFSETS.cgroup_root));
    // The default hierarchy is the first to be set up, and its id 0 is what
    // /proc/PID/cgroup shows (cgroup_init, kernel/cgroup/cgroup.c).
    if task::read::<u32>(root, global!(OFFSETS.cgroup_root_hierarchy_id)) != 0 {
        return None;
    }
    let node: u64 = task::read(cgroup, global!(OFFSETS.cgroup_kn));
    let above: u64 = task::read(node, global!(OFFSETS.kernfs_parent));
    Some(Place {
        id: task::read(node, global!(OFFSETS.kernfs_id)),
        parent: task::read(above, global!(OFFSETS.kernfs_id)),
        name: task::read(node, global!(OFFSETS.kernfs_name)),
    })
}

/// A cgroup is made: inside an agent it belongs to it; where agents are born,
/// or when it looks like a container, it is an agent until user space decides.
#[inline(always)]
pub fn mkdir(ctx: &BtfTracePointContext) -> i32 {
    let Some(place) = place(ctx.arg::<*const u8>(0) as u64) else {
        return 0;
    };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let agent = match task::agent_of_cgroup(place.parent) {
        Some(agent) => {
            watch(place.id, agent, now);
            agent
        }
        // SAFETY: read of plain integers; an update at the same time gives the
        // old or the new value.
        None => match unsafe { NURSERIES.get(place.parent) } {
            Some(nursery) if nursery.depth > 1 => {
                let below = Nursery {
                    depth: nursery.depth - 1,
                    pad: 0,
                };
                if NURSERIES.insert(place.id, below, 0).is_err() {
                    emit::no_room(NODE);
                }
                if global!(SETTINGS.watch_containers) != 0 && names_container(place.name) {
                    bear(place.id, now)
                } else {
                    NODE
                }
            }
            Some(_) => bear(place.id, now),
            None if global!(SETTINGS.watch_containers) != 0 && names_container(place.name) => {
                bear(place.id, now)
            }
            None => return 0,
        },
    };
    report(ctx, &place, cgroup_action::MKDIR, agent, now, None);
    0
}

/// A cgroup is removed.
#[inline(always)]
pub fn rmdir(ctx: &BtfTracePointContext) -> i32 {
    let Some(place) = place(ctx.arg::<*const u8>(0) as u64) else {
        return 0;
    };
    let _ = NURSERIES.remove(place.id);
    // SAFETY: read of plain integers, which are not changed while it exists.
    let Some(&Watch { agent, counted, .. }) = (unsafe { WATCHED.get(place.id) }) else {
        return 0;
    };
    if WATCHED.remove(place.id).is_ok() && counted != 0 {
        uncount(agent);
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    report(ctx, &place, cgroup_action::RMDIR, agent, now, None);
    0
}

/// A process has been moved: into an agent, within it, or out of it.
#[inline(always)]
pub fn attach(ctx: &BtfTracePointContext) -> i32 {
    let Some(place) = place(ctx.arg::<*const u8>(0) as u64) else {
        return 0;
    };
    // SAFETY: the hook's argument.
    let Some(moved) = (unsafe { Object::new(ctx.arg(2)) }) else {
        return 0;
    };
    let tgid: u32 = moved.get(global!(OFFSETS.task_tgid));
    let destination = task::agent_of_cgroup(place.id);
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let start = task::start(moved);
    let (agent, from) = match (task::remembered(tgid), destination) {
        (Some(known), _) => {
            // SAFETY: a value of TASKS, valid while the program runs.
            let known = unsafe { &mut *known };
            let from = known.cgroup;
            known.cgroup = place.id;
            if destination.is_none() {
                outside::note_stray();
            }
            (known.agent, from)
        }
        (None, Some(agent)) => {
            task::remember(tgid, agent, place.id, start);
            (agent, 0)
        }
        (None, None) => return 0,
    };
    report(
        ctx,
        &place,
        cgroup_action::ATTACH,
        agent,
        now,
        Some((tgid, start, from)),
    );
    0
}

/// Watches a cgroup as an agent of its own.
#[inline(always)]
fn bear(id: u64, now: u64) -> u64 {
    let new: &AgentState = &NEW;
    if AGENTS.insert(id, new, 0).is_err() {
        // Without counters it could not be told what it lost.
        emit::no_room(NODE);
        return NODE;
    }
    watch(id, id, now);
    id
}

/// Watches a cgroup as part of an agent, if that has not too many already. Beyond,
/// its processes are still known by who forked them.
#[inline(always)]
fn watch(id: u64, agent: u64, now: u64) {
    let Some(state) = AGENTS.get_ptr_mut(agent) else {
        return;
    };
    // SAFETY: a value of AGENTS, valid while the program runs.
    let before = unsafe { atomic::fetch_add(&raw mut (*state).cgroups, 1) };
    let watch = Watch {
        agent,
        since: now,
        counted: 1,
    };
    if before >= MAX_AGENT_CGROUPS || WATCHED.insert(id, watch, 0).is_err() {
        uncount(agent);
        emit::no_room(agent);
    }
}

/// One cgroup less.
#[inline(always)]
fn uncount(agent: u64) {
    if let Some(state) = AGENTS.get_ptr_mut(agent) {
        // SAFETY: a value of AGENTS, valid while the program runs.
        unsafe { atomic::fetch_add(&raw mut (*state).cgroups, 1_u64.wrapping_neg()) };
    }
}

/// A process was born elsewhere than where its parent is (clone3 with
/// CLONE_INTO_CGROUP): no attach tells of it. Its path is left to user space.
#[inline(always)]
pub fn born_into(cgroup: u64, from: u64, agent: u64, tgid: u32, start: u64, now: u64) {
    emit::record::<Cgroup>(&EVENTS, kind::CGROUP, agent, now, |record| {
        let mut header = emit::header::<Cgroup>(kind::CGROUP, now, agent);
        header.tgid = tgid;
        header.start = start;
        header.cgroup = from;
        let value = Cgroup {
            header,
            id: cgroup,
            parent: 0,
            action: cgroup_action::ATTACH,
            path_len: 0,
        };
        // SAFETY: the place is a reservation of this type.
        unsafe { record.write(value) };
        true
    });
}

#[inline(always)]
fn report(
    ctx: &BtfTracePointContext,
    place: &Place,
    action: u32,
    agent: u64,
    now: u64,
    process: Option<(u32, u64, u64)>,
) {
    let path = ctx.arg::<*const u8>(1);
    emit::record::<WithData<Cgroup, PATH_CAP>>(&EVENTS, kind::CGROUP, agent, now, |record| {
        // SAFETY: the place is a reservation of this type; the helper checks the source.
        unsafe {
            let read = bpf_probe_read_kernel_str(
                (&raw mut (*record).data).cast(),
                PATH_CAP as u32,
                path.cast(),
            );
            // The length that comes back counts the NUL.
            let path_len = if read > 0 && read <= PATH_CAP as i64 {
                read as u32 - 1
            } else {
                0
            };
            let mut header = emit::header::<WithData<Cgroup, PATH_CAP>>(kind::CGROUP, now, agent);
            header.len = size_of::<Cgroup>() as u32 + path_len;
            if let Some((tgid, start, from)) = process {
                header.tgid = tgid;
                header.start = start;
                header.cgroup = from;
            }
            (&raw mut (*record).record).write(Cgroup {
                header,
                id: place.id,
                parent: place.parent,
                action,
                path_len,
            });
        }
        true
    });
}

/// Whether a cgroup's name is one that container runtimes give: 64 hex digits
/// (docker and containerd with cgroupfs), or `docker-`, `cri-containerd-`,
/// `crio-`, `libpod-`, `nerdctl-`, `lxc.payload.` and more. User space looks
/// closer; this only has to miss none.
#[inline(always)]
fn names_container(name: u64) -> bool {
    let mut bytes = [0u8; NAME];
    // SAFETY: NAME writable bytes; the helper checks the source.
    let len = unsafe {
        bpf_probe_read_kernel_str(bytes.as_mut_ptr().cast(), NAME as u32, name as *const _)
    };
    if len == 65 {
        let mut hex = true;
        for byte in &bytes[..64] {
            hex &= byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        }
        if hex {
            return true;
        }
    }
    starts(&bytes, b"docker-")
        || starts(&bytes, b"cri-cont")
        || starts(&bytes, b"crio-")
        || starts(&bytes, b"libpod-")
        || starts(&bytes, b"nerdctl-")
        || starts(&bytes, b"lxc.payl")
}

#[inline(always)]
fn starts<const N: usize>(bytes: &[u8; NAME], prefix: &[u8; N]) -> bool {
    let mut same = true;
    for n in 0..N {
        same &= bytes[n] == prefix[n];
    }
    same
}
