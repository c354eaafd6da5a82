//! Where the members of kernel structures lie, from the running kernel's BTF.
//!
//! Rust eBPF programs have no CO-RE relocations, so their offsets are written
//! into a read-only map before they are loaded. Parsing a kernel's BTF takes
//! tens of megabytes, so the daemon leaves it to a child process that ends.

use std::path::Path;
use std::process::Command;

use agent_monitor_common::policy::Offsets;
use anyhow::{Context as _, Result, bail};
use btfparse::{Error, ErrorKind, Offset, Readable, TypeInformation};

/// The kernel's own types (CONFIG_DEBUG_INFO_BTF).
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Name of the hidden command that prints the offsets.
pub const COMMAND: &str = "kernel-offsets";

/// A member that the programs read.
struct Member {
    /// The structure.
    of: &'static str,
    /// Names it has had, newest first.
    paths: &'static [&'static str],
    /// Its place in [`Offsets`].
    place: fn(&mut Offsets) -> &mut u32,
}

macro_rules! members {
    ($($place:ident: $of:literal, $($path:literal)|+;)*) => {
        &[$(Member { of: $of, paths: &[$($path),+], place: |offsets| &mut offsets.$place }),*]
    };
}

const MEMBERS: &[Member] = members! {
    task_pid: "task_struct", "pid";
    task_tgid: "task_struct", "tgid";
    task_start: "task_struct", "start_boottime";
    task_real_parent: "task_struct", "real_parent";
    task_group_leader: "task_struct", "group_leader";
    task_mm: "task_struct", "mm";
    task_files: "task_struct", "files";
    task_signal: "task_struct", "signal";
    task_exit_code: "task_struct", "exit_code";
    task_comm: "task_struct", "comm";
    task_cgroups: "task_struct", "cgroups";
    css_set_dfl_cgrp: "css_set", "dfl_cgrp";
    cgroup_serial: "cgroup", "self.serial_nr";
    cgroup_kn: "cgroup", "kn";
    cgroup_root: "cgroup", "root";
    cgroup_root_hierarchy_id: "cgroup_root", "hierarchy_id";
    kernfs_id: "kernfs_node", "id";
    kernfs_parent: "kernfs_node", "__parent" | "parent"; // renamed in 6.15
    kernfs_name: "kernfs_node", "name";
    signal_live: "signal_struct", "live";
    signal_group_exit_code: "signal_struct", "group_exit_code";
    mm_arg_start: "mm_struct", "arg_start";
    mm_arg_end: "mm_struct", "arg_end";
    mm_exe_file: "mm_struct", "exe_file";
    file_mnt: "file", "f_path.mnt";
    file_dentry: "file", "f_path.dentry";
    file_inode: "file", "f_inode";
    dentry_parent: "dentry", "d_parent";
    dentry_name: "dentry", "d_name.name";
    mount_mnt: "mount", "mnt";
    mount_parent: "mount", "mnt_parent";
    mount_mountpoint: "mount", "mnt_mountpoint";
    vfsmount_root: "vfsmount", "mnt_root";
    inode_ino: "inode", "i_ino";
    inode_nlink: "inode", "i_nlink";
    inode_mode: "inode", "i_mode";
    inode_sb: "inode", "i_sb";
    sb_dev: "super_block", "s_dev";
    binprm_filename: "linux_binprm", "filename";
    files_fdt: "files_struct", "fdt";
    fdtable_fd: "fdtable", "fd";
    fdtable_max_fds: "fdtable", "max_fds";
    fdtable_open_fds: "fdtable", "open_fds";
    file_private_data: "file", "private_data";
    inode_rdev: "inode", "i_rdev";
    socket_sk: "socket", "sk";
    sock_protocol: "sock", "sk_protocol";
    sock_cgroup: "sock", "sk_cgrp_data.cgroup";
    sock_family: "sock_common", "skc_family";
    sock_daddr: "sock_common", "skc_daddr";
    sock_dport: "sock_common", "skc_dport";
    sock_v6_daddr: "sock_common", "skc_v6_daddr";
    sock_err: "sock", "sk_err";
    task_nsproxy: "task_struct", "nsproxy";
    task_thread_pid: "task_struct", "thread_pid";
    task_cred: "task_struct", "cred";
    cred_uid: "cred", "uid.val";
    cred_gid: "cred", "gid.val";
    cred_euid: "cred", "euid.val";
    cred_egid: "cred", "egid.val";
    cred_user_ns: "cred", "user_ns";
    nsproxy_cgroup: "nsproxy", "cgroup_ns";
    nsproxy_ipc: "nsproxy", "ipc_ns";
    nsproxy_mnt: "nsproxy", "mnt_ns";
    nsproxy_net: "nsproxy", "net_ns";
    nsproxy_uts: "nsproxy", "uts_ns";
    pid_level: "pid", "level";
    pid_numbers: "pid", "numbers";
    upid_ns: "upid", "ns";
    cgroup_ns_inum: "cgroup_namespace", "ns.inum";
    ipc_ns_inum: "ipc_namespace", "ns.inum";
    mnt_ns_inum: "mnt_namespace", "ns.inum";
    net_ns_inum: "net", "ns.inum";
    pid_ns_inum: "pid_namespace", "ns.inum";
    user_ns_inum: "user_namespace", "ns.inum";
    uts_ns_inum: "uts_namespace", "ns.inum";
    binprm_interp: "linux_binprm", "interp";
    files_fd_array: "files_struct", "fd_array";
};

/// What btfparse reads from.
pub(super) struct InMemory<'a>(pub(super) &'a [u8]);

impl Readable for InMemory<'_> {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let part = usize::try_from(offset)
            .ok()
            .and_then(|from| self.0.get(from..from.checked_add(buffer.len())?));
        let Some(part) = part else {
            // btfparse reads types until this kind tells it to stop.
            return Err(Error::new(ErrorKind::EOF, "the types end here"));
        };
        buffer.copy_from_slice(part);
        Ok(())
    }
}

/// Resolves every offset from a BTF file.
///
/// # Errors
/// The file cannot be read, or a member is missing; the error names it.
pub fn resolve(btf: &Path) -> Result<Offsets> {
    if !btf.exists() {
        bail!(
            "{} is missing: this kernel was built without BTF (CONFIG_DEBUG_INFO_BTF); \
             use a kernel that has it",
            btf.display()
        );
    }
    let bytes = std::fs::read(btf).with_context(|| format!("cannot read {}", btf.display()))?;
    let types = TypeInformation::new(&InMemory(&bytes)).map_err(|error| {
        anyhow::anyhow!(
            "cannot read the kernel's types in {}: {error:?}",
            btf.display()
        )
    })?;
    let mut offsets = Offsets::default();
    for member in MEMBERS {
        let structure = types.id_of(member.of).with_context(|| {
            format!(
                "the kernel's BTF has no `{}`: this kernel is not supported",
                member.of
            )
        })?;
        let found = member
            .paths
            .iter()
            .find_map(|path| types.offset_of(structure, path).ok());
        let Some((_, Offset::ByteOffset(bytes))) = found else {
            bail!(
                "the kernel's `{}` has no member `{}`: this kernel is not supported",
                member.of,
                member.paths.join("` or `")
            );
        };
        *(member.place)(&mut offsets) = bytes;
    }
    Ok(offsets)
}

/// What the hidden command does: resolves and prints the offsets.
///
/// # Errors
/// As [`resolve`].
pub fn print() -> Result<()> {
    let offsets = resolve(Path::new(KERNEL_BTF))?;
    let words: &[u32] = bytemuck::cast_slice(std::slice::from_ref(&offsets));
    let line: Vec<String> = words.iter().map(u32::to_string).collect();
    println!("{}", line.join(" "));
    Ok(())
}

/// Resolves the offsets in a child process: this binary's hidden command.
///
/// # Errors
/// The child could not be started or failed; its message is passed on.
pub fn resolve_in_child() -> Result<Offsets> {
    let binary = std::env::current_exe().context("cannot find the agent-monitor binary itself")?;
    let output = Command::new(&binary)
        .arg(COMMAND)
        .output()
        .with_context(|| {
            format!(
                "cannot start {} to read the kernel's types",
                binary.display()
            )
        })?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let words: Vec<u32> = String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .context("the child that reads the kernel's types printed something else")?;
    bytemuck::try_pod_read_unaligned(bytemuck::cast_slice(&words))
        .map_err(|_| anyhow::anyhow!("the child that reads the kernel's types printed too little"))
}
