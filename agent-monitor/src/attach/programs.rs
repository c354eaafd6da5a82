//! The attach table: every program, where it goes, what it needs, and what is
//! lost without it. `run` loads and attaches from it, `doctor` prints it.
//!
//! A program that a newer kernel offers something better for (fentry, LSM) gets a
//! row of its own with its kernel in `since`, and a [`Hook`] variant.

use aya::programs::CgroupSkbAttachType;
use aya_obj::generated::{bpf_attach_type, bpf_prog_type};

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    /// A BTF tracepoint, once for the node.
    Tracepoint(&'static str),
    /// A BPF iterator, run for each task when user space reads it.
    Iterator(&'static str),
    /// cgroup sock_create and its like, on agents' cgroups.
    Sock(bpf_attach_type),
    /// cgroup connect or sendmsg, on agents' cgroups.
    SockAddr(bpf_attach_type),
    /// cgroup sock_ops, on agents' cgroups.
    SockOps,
    /// cgroup skb, on agents' cgroups.
    Skb(CgroupSkbAttachType),
    /// cgroup dev, on agents' cgroups.
    Device,
    /// cgroup sysctl, on agents' cgroups.
    Sysctl,
}

impl Hook {
    /// Whether it is attached to agents' cgroups, and not once for the node.
    pub fn is_on_cgroups(self) -> bool {
        !matches!(self, Self::Tracepoint(_) | Self::Iterator(_))
    }

    /// The kernel's names for it: type of program, and of attachment.
    pub fn kind(self) -> (bpf_prog_type, bpf_attach_type) {
        use bpf_attach_type::*;
        use bpf_prog_type::*;
        match self {
            Self::Tracepoint(_) => (BPF_PROG_TYPE_TRACING, BPF_TRACE_RAW_TP),
            Self::Iterator(_) => (BPF_PROG_TYPE_TRACING, BPF_TRACE_ITER),
            Self::Sock(place) => (BPF_PROG_TYPE_CGROUP_SOCK, place),
            Self::SockAddr(place) => (BPF_PROG_TYPE_CGROUP_SOCK_ADDR, place),
            Self::SockOps => (BPF_PROG_TYPE_SOCK_OPS, BPF_CGROUP_SOCK_OPS),
            Self::Skb(CgroupSkbAttachType::Egress) => {
                (BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_EGRESS)
            }
            Self::Skb(CgroupSkbAttachType::Ingress) => {
                (BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_INGRESS)
            }
            Self::Device => (BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE),
            Self::Sysctl => (BPF_PROG_TYPE_CGROUP_SYSCTL, BPF_CGROUP_SYSCTL),
        }
    }
}

/// Major and minor version of a kernel.
pub type Version = (u32, u32);

/// The oldest kernel that the programs are tested on.
pub const OLDEST: Version = (6, 1);

/// Whether `run` can do without a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// `run` ends when the kernel refuses it.
    Required,
    /// `run` says so and goes on.
    Optional,
}

/// A program of the eBPF object.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its function's name.
    pub name: &'static str,
    /// Where it goes, in the words of the kernel's documentation.
    pub place: &'static str,
    /// Where it goes.
    pub hook: Hook,
    /// The oldest kernel that takes it.
    pub since: Version,
    /// Whether it can be done without.
    pub need: Need,
    /// What is not seen without it.
    pub gives: &'static str,
}

impl Program {
    const fn required(
        name: &'static str,
        place: &'static str,
        hook: Hook,
        gives: &'static str,
    ) -> Self {
        Self {
            name,
            place,
            hook,
            since: OLDEST,
            need: Need::Required,
            gives,
        }
    }

    const fn optional(self) -> Self {
        Self {
            need: Need::Optional,
            ..self
        }
    }
}

/// In the order in which they are attached: memory of sockets first, so that
/// what follows finds it; packets last.
pub const PROGRAMS: &[Program] = &[
    Program::required(
        "process_exit",
        "tp_btf sched_process_exit",
        Hook::Tracepoint("sched_process_exit"),
        "ends of processes",
    ),
    Program::required(
        "process_fork",
        "tp_btf sched_process_fork",
        Hook::Tracepoint("sched_process_fork"),
        "births and ancestry of processes",
    ),
    Program::required(
        "process_exec",
        "tp_btf sched_process_exec",
        Hook::Tracepoint("sched_process_exec"),
        "programs and their arguments",
    ),
    Program::required(
        "cgroup_mkdir",
        "tp_btf cgroup_mkdir",
        Hook::Tracepoint("cgroup_mkdir"),
        "new containers, nested cgroups",
    ),
    Program::required(
        "cgroup_rmdir",
        "tp_btf cgroup_rmdir",
        Hook::Tracepoint("cgroup_rmdir"),
        "ends of containers",
    ),
    Program::required(
        "cgroup_attach",
        "tp_btf cgroup_attach_task",
        Hook::Tracepoint("cgroup_attach_task"),
        "moves into and out of an agent's cgroup",
    ),
    Program::required(
        "uncovered",
        "iter/task",
        Hook::Iterator("task"),
        "sockets and processes that no other program sees",
    )
    .optional(),
    Program::required(
        "socket_create",
        "cgroup sock_create",
        Hook::Sock(bpf_attach_type::BPF_CGROUP_INET_SOCK_CREATE),
        "owners of sockets",
    ),
    Program::required(
        "bind4",
        "cgroup post_bind4",
        Hook::Sock(bpf_attach_type::BPF_CGROUP_INET4_POST_BIND),
        "IPv4 addresses that sockets are bound to",
    )
    .optional(),
    Program::required(
        "bind6",
        "cgroup post_bind6",
        Hook::Sock(bpf_attach_type::BPF_CGROUP_INET6_POST_BIND),
        "IPv6 addresses that sockets are bound to",
    )
    .optional(),
    Program::required(
        "socket_release",
        "cgroup sock_release",
        Hook::Sock(bpf_attach_type::BPF_CGROUP_INET_SOCK_RELEASE),
        "connects that failed before a packet was sent",
    )
    .optional(),
    Program::required(
        "connect4",
        "cgroup connect4",
        Hook::SockAddr(bpf_attach_type::BPF_CGROUP_INET4_CONNECT),
        "IPv4 connects",
    ),
    Program::required(
        "connect6",
        "cgroup connect6",
        Hook::SockAddr(bpf_attach_type::BPF_CGROUP_INET6_CONNECT),
        "IPv6 connects",
    ),
    Program::required(
        "sendmsg4",
        "cgroup sendmsg4",
        Hook::SockAddr(bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG),
        "IPv4 datagrams to new peers",
    )
    .optional(),
    Program::required(
        "sendmsg6",
        "cgroup sendmsg6",
        Hook::SockAddr(bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG),
        "IPv6 datagrams to new peers",
    )
    .optional(),
    Program::required(
        "tcp_state",
        "cgroup sock_ops",
        Hook::SockOps,
        "outcomes and ends of TCP connections",
    ),
    Program::required(
        "packet_out",
        "cgroup skb egress",
        Hook::Skb(CgroupSkbAttachType::Egress),
        "what agents send",
    ),
    Program::required(
        "packet_in",
        "cgroup skb ingress",
        Hook::Skb(CgroupSkbAttachType::Ingress),
        "what agents receive",
    ),
    // Refused where a cgroup has a device program that allows no other beside it.
    Program::required(
        "device",
        "cgroup dev",
        Hook::Device,
        "device events, `gpu-device-open`",
    )
    .optional(),
    // Refused alike, and where there is no /proc/sys (CONFIG_SYSCTL).
    Program::required(
        "sysctl",
        "cgroup sysctl",
        Hook::Sysctl,
        "sysctl events: what agents set of the kernel",
    )
    .optional(),
];
