//! Programs that do nothing, at the hooks that agent-monitor uses: what remains
//! is what the hooks and the kernel's statistics cost themselves.
//!
//! Two instructions need no compiler; they are loaded by the system call itself.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use aya_obj::btf::{Btf, BtfKind};
use aya_obj::generated::{bpf_attach_type as attach, bpf_attr, bpf_cmd, bpf_prog_type as program};

use crate::cgroup::Cgroup;

/// `r0 = 1; exit`: let it happen.
const NOTHING: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];

/// Cgroup hooks, by type of program and of attachment.
const AT_CGROUPS: [(program, attach); 13] = [
    (
        program::BPF_PROG_TYPE_CGROUP_SOCK,
        attach::BPF_CGROUP_INET_SOCK_CREATE,
    ),
    (
        program::BPF_PROG_TYPE_CGROUP_SOCK,
        attach::BPF_CGROUP_INET4_POST_BIND,
    ),
    (
        program::BPF_PROG_TYPE_CGROUP_SOCK,
        attach::BPF_CGROUP_INET6_POST_BIND,
    ),
    (
        program::BPF_PROG_TYPE_CGROUP_SOCK,
        attach::BPF_CGROUP_INET_SOCK_RELEASE,
    ),
    (
        program::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        attach::BPF_CGROUP_INET4_CONNECT,
    ),
    (
        program::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        attach::BPF_CGROUP_INET6_CONNECT,
    ),
    (
        program::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        attach::BPF_CGROUP_UDP4_SENDMSG,
    ),
    (
        program::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        attach::BPF_CGROUP_UDP6_SENDMSG,
    ),
    (program::BPF_PROG_TYPE_SOCK_OPS, attach::BPF_CGROUP_SOCK_OPS),
    (
        program::BPF_PROG_TYPE_CGROUP_SKB,
        attach::BPF_CGROUP_INET_EGRESS,
    ),
    (
        program::BPF_PROG_TYPE_CGROUP_SKB,
        attach::BPF_CGROUP_INET_INGRESS,
    ),
    (
        program::BPF_PROG_TYPE_CGROUP_DEVICE,
        attach::BPF_CGROUP_DEVICE,
    ),
    (
        program::BPF_PROG_TYPE_CGROUP_SYSCTL,
        attach::BPF_CGROUP_SYSCTL,
    ),
];

/// Tracepoints of the life of processes and cgroups.
const TRACEPOINTS: [&str; 6] = [
    "btf_trace_sched_process_fork",
    "btf_trace_sched_process_exec",
    "btf_trace_sched_process_exit",
    "btf_trace_cgroup_mkdir",
    "btf_trace_cgroup_rmdir",
    "btf_trace_cgroup_attach_task",
];

/// They run until this is dropped.
#[derive(Debug)]
pub struct Floor {
    _open: Vec<OwnedFd>,
}

impl Floor {
    /// Loads and attaches them to `agent` and to the node's tracepoints.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn attach(agent: &Cgroup) -> Result<Self> {
        let cgroup = File::open(agent.dir()).context("open the agent's cgroup")?;
        let mut open = Vec::new();
        for (kind, place) in AT_CGROUPS {
            let loaded = load(kind, place, 0).with_context(|| format!("load for {place:?}"))?;
            let link = link(&loaded, &cgroup, place);
            open.push(link.with_context(|| format!("attach to {place:?}"))?);
            open.push(loaded);
        }
        let btf = Btf::from_sys_fs().context("read the kernel's types")?;
        for name in TRACEPOINTS {
            let id = btf.id_by_type_name_kind(name, BtfKind::Typedef)?;
            let loaded = load(program::BPF_PROG_TYPE_TRACING, attach::BPF_TRACE_RAW_TP, id)
                .with_context(|| format!("load for {name}"))?;
            open.push(tracepoint(&loaded).with_context(|| format!("attach to {name}"))?);
            open.push(loaded);
        }
        Ok(Self { _open: open })
    }
}

fn load(kind: program, place: attach, type_id: u32) -> io::Result<OwnedFd> {
    // SAFETY: bpf_attr is made of integers, for which zero is a value.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: BPF_PROG_LOAD's member of the union.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = kind as u32;
    load.expected_attach_type = place as u32;
    load.insns = NOTHING.as_ptr() as u64;
    load.insn_cnt = NOTHING.len() as u32;
    load.license = c"GPL".as_ptr() as u64;
    load.attach_btf_id = type_id;
    call(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

fn link(loaded: &OwnedFd, cgroup: &impl AsFd, place: attach) -> io::Result<OwnedFd> {
    // SAFETY: as in `load`.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: BPF_LINK_CREATE's member of the union.
    let create = unsafe { &mut attr.link_create };
    create.__bindgen_anon_1.prog_fd = loaded.as_raw_fd() as u32;
    create.__bindgen_anon_2.target_fd = cgroup.as_fd().as_raw_fd() as u32;
    create.attach_type = place as u32;
    call(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

fn tracepoint(loaded: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: as in `load`.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.raw_tracepoint.prog_fd = loaded.as_raw_fd() as u32;
    call(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)
}

/// bpf(2), for commands that give a descriptor.
fn call(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let size = size_of::<bpf_attr>();
    // SAFETY: the attributes are of the size given, and what they point at is
    // static or outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command as i32, attr, size) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given it to this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
