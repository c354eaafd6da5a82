//! What user space tells the kernel, and the counters it reads back.

use crate::event::{FlowId, kind};

/// Value of the `WATCHED` map: which agent a cgroup belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Watch {
    /// Id of the agent: the cgroup id of its topmost cgroup.
    pub agent: u64,
    /// Nanoseconds since boot at which the watch began.
    pub since: u64,
    /// Not 0: it counts among the agent's cgroups ([`AgentState::cgroups`]).
    pub counted: u64,
}

/// Value of the `NURSERIES` map: cgroups below which agents are born.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Nursery {
    /// 1: every child is an agent until user space decides otherwise.
    /// More: children are nurseries of one less.
    pub depth: u32,
    /// Padding.
    pub pad: u32,
}

/// Value of the `FLOW_CONTROL` map: how much of a flow goes up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct FlowControl {
    /// Bytes of head of each direction.
    pub head_cap: u32,
    /// [`FLOW_SEGMENTS`] or 0.
    pub flags: u32,
}

/// Send up the size of every segment after the head.
pub const FLOW_SEGMENTS: u32 = 1;

/// Classes of records, each with a quota of its own per agent and window, so
/// that a flood of one kind cannot displace another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Class {
    /// fork, exec, exit and cgroup records.
    Process = 0,
    /// socket, bind, listen, connect, send, established and closed records.
    Network = 1,
    /// Heads of flows.
    Head = 2,
    /// Bursts.
    Burst = 3,
    /// Segment sizes of flows that user space follows.
    Segment = 4,
    /// Device nodes.
    Device = 5,
    /// All about datagrams but connect(): to send them to many costs an agent nothing.
    Datagram = 6,
    /// Writes to sysctls.
    Sysctl = 7,
}

/// How many [`Class`]es there are.
pub const CLASSES: usize = 8;

impl Class {
    /// Whose quota a record of this [`kind`] is taken from.
    #[inline(always)]
    pub const fn of(kind: u32) -> Self {
        match kind {
            kind::FORK | kind::EXEC | kind::EXIT | kind::CGROUP => Self::Process,
            kind::HEAD => Self::Head,
            kind::BURST | kind::BURSTS => Self::Burst,
            kind::SEGMENT => Self::Segment,
            kind::DEVICE => Self::Device,
            kind::SYSCTL => Self::Sysctl,
            kind::SEND | kind::DATAGRAM | kind::DATAGRAM_BURST | kind::RELEASED => Self::Datagram,
            _ => Self::Network,
        }
    }
}

/// Why a record did not reach user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum LossReason {
    /// The agent had used up its quota of this class in this window.
    Quota = 0,
    /// The ring buffer was full.
    Ring = 1,
    /// A kernel map was full or a kernel read failed.
    Kernel = 2,
}

/// How many [`LossReason`]s there are.
pub const LOSS_REASONS: usize = 3;

/// Value of the `AGENTS` map: an agent's quotas in use and its losses.
///
/// The kernel side only ever adds to it atomically.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct AgentState {
    /// Start of the current quota window of each class, nanoseconds since boot.
    pub window: [u64; CLASSES],
    /// Records of each class emitted in the current window.
    pub used: [u64; CLASSES],
    /// Records of each [`kind`] sent up since the agent appeared.
    pub emitted: [u64; kind::MOST],
    /// Records of each [`kind`] lost, by [`LossReason`].
    pub lost: [[u64; kind::MOST]; LOSS_REASONS],
    /// Cgroups of it that the kernel side watches since their birth.
    pub cgroups: u64,
}

/// Value of the `TOLD` map: what of an agent has been told, for a daemon that
/// takes over from one that was killed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Told {
    /// When the daemon was certainly there, nanoseconds since boot.
    pub time: u64,
    /// Records of each [`kind`] that were told, or told to be lost by a daemon's end.
    pub records: [u64; kind::MOST],
    /// Losses of each [`kind`] that were told, by [`LossReason`].
    pub lost: [[u64; kind::MOST]; LOSS_REASONS],
}

/// Value of the `TASKS` map: what is remembered of a process of an agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Task {
    /// The agent it belongs to, wherever it is moved.
    pub agent: u64,
    /// The cgroup it was last seen in.
    pub cgroup: u64,
    /// When it started, nanoseconds since boot; of a process that was there
    /// before the watch, to a clock tick.
    pub start: u64,
    /// The flow on which data last arrived for a socket it owns.
    pub last_rx_flow: FlowId,
    /// When; 0: never.
    pub last_rx_time: u64,
}

/// Value of the `OWNERS` map: whose a socket is that was made before the watch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Owner {
    /// When the process started, nanoseconds since boot, to a clock tick.
    pub start: u64,
    /// The process.
    pub tgid: u32,
    /// Padding.
    pub pad: u32,
}

/// Read-only settings, written before the programs are loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Settings {
    /// Records an agent may emit per class and [`crate::limits::QUOTA_WINDOW_NS`].
    pub quota: [u64; CLASSES],
    /// Not 0: a new cgroup whose name looks like a container's is watched at birth.
    pub watch_containers: u32,
    /// Padding.
    pub pad: u32,
}

/// Offsets of kernel structure members, in bytes, resolved from the running
/// kernel's BTF before load: aya's Rust programs have no CO-RE relocations.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Offsets {
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.start_boottime`
    pub task_start: u32,
    /// `task_struct.real_parent`
    pub task_real_parent: u32,
    /// `task_struct.group_leader`
    pub task_group_leader: u32,
    /// `task_struct.mm`
    pub task_mm: u32,
    /// `task_struct.files`
    pub task_files: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `task_struct.exit_code`
    pub task_exit_code: u32,
    /// `task_struct.comm`
    pub task_comm: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`
    pub css_set_dfl_cgrp: u32,
    /// `cgroup.self.serial_nr`
    pub cgroup_serial: u32,
    /// `cgroup.kn`
    pub cgroup_kn: u32,
    /// `cgroup.root`
    pub cgroup_root: u32,
    /// `cgroup_root.hierarchy_id`
    pub cgroup_root_hierarchy_id: u32,
    /// `kernfs_node.id`
    pub kernfs_id: u32,
    /// `kernfs_node.__parent`, `parent` before 6.15
    pub kernfs_parent: u32,
    /// `kernfs_node.name`
    pub kernfs_name: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `signal_struct.group_exit_code`
    pub signal_group_exit_code: u32,
    /// `mm_struct.arg_start`
    pub mm_arg_start: u32,
    /// `mm_struct.arg_end`
    pub mm_arg_end: u32,
    /// `mm_struct.exe_file`
    pub mm_exe_file: u32,
    /// `file.f_path.mnt`
    pub file_mnt: u32,
    /// `file.f_path.dentry`
    pub file_dentry: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `dentry.d_parent`
    pub dentry_parent: u32,
    /// `dentry.d_name.name`
    pub dentry_name: u32,
    /// `mount.mnt`: a `vfsmount` is embedded in its `mount`
    pub mount_mnt: u32,
    /// `mount.mnt_parent`
    pub mount_parent: u32,
    /// `mount.mnt_mountpoint`
    pub mount_mountpoint: u32,
    /// `vfsmount.mnt_root`
    pub vfsmount_root: u32,
    /// `inode.i_ino`
    pub inode_ino: u32,
    /// `inode.i_nlink` (the union's `__i_nlink`)
    pub inode_nlink: u32,
    /// `inode.i_mode`
    pub inode_mode: u32,
    /// `inode.i_sb`
    pub inode_sb: u32,
    /// `super_block.s_dev`
    pub sb_dev: u32,
    /// `linux_binprm.filename`
    pub binprm_filename: u32,
    /// `files_struct.fdt`
    pub files_fdt: u32,
    /// `fdtable.fd`
    pub fdtable_fd: u32,
    /// `fdtable.max_fds`
    pub fdtable_max_fds: u32,
    /// `fdtable.open_fds`
    pub fdtable_open_fds: u32,
    /// `file.private_data`
    pub file_private_data: u32,
    /// `inode.i_rdev`
    pub inode_rdev: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `sock.sk_protocol`
    pub sock_protocol: u32,
    /// `sock.sk_cgrp_data.cgroup`
    pub sock_cgroup: u32,
    /// `sock_common.skc_family`; a `sock` begins with its `sock_common`
    pub sock_family: u32,
    /// `sock_common.skc_daddr`
    pub sock_daddr: u32,
    /// `sock_common.skc_dport`
    pub sock_dport: u32,
    /// `sock_common.skc_v6_daddr`
    pub sock_v6_daddr: u32,
    /// `sock.sk_err`
    pub sock_err: u32,
    /// `task_struct.nsproxy`
    pub task_nsproxy: u32,
    /// `task_struct.thread_pid`
    pub task_thread_pid: u32,
    /// `task_struct.cred`
    pub task_cred: u32,
    /// `cred.uid`
    pub cred_uid: u32,
    /// `cred.gid`
    pub cred_gid: u32,
    /// `cred.euid`
    pub cred_euid: u32,
    /// `cred.egid`
    pub cred_egid: u32,
    /// `cred.user_ns`
    pub cred_user_ns: u32,
    /// `nsproxy.cgroup_ns`
    pub nsproxy_cgroup: u32,
    /// `nsproxy.ipc_ns`
    pub nsproxy_ipc: u32,
    /// `nsproxy.mnt_ns`
    pub nsproxy_mnt: u32,
    /// `nsproxy.net_ns`
    pub nsproxy_net: u32,
    /// `nsproxy.uts_ns`
    pub nsproxy_uts: u32,
    /// `pid.level`
    pub pid_level: u32,
    /// `pid.numbers`: by level, an `upid` each
    pub pid_numbers: u32,
    /// `upid.ns`, its last member
    pub upid_ns: u32,
    /// `cgroup_namespace.ns.inum`
    pub cgroup_ns_inum: u32,
    /// `ipc_namespace.ns.inum`
    pub ipc_ns_inum: u32,
    /// `mnt_namespace.ns.inum`
    pub mnt_ns_inum: u32,
    /// `net.ns.inum`
    pub net_ns_inum: u32,
    /// `pid_namespace.ns.inum`
    pub pid_ns_inum: u32,
    /// `user_namespace.ns.inum`
    pub user_ns_inum: u32,
    /// `uts_namespace.ns.inum`
    pub uts_ns_inum: u32,
    /// `linux_binprm.interp`
    pub binprm_interp: u32,
    /// `files_struct.fd_array`
    pub files_fd_array: u32,
}
