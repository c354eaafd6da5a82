//! Every program: where it is attached and what is lost without it.

use aya::programs::CgroupSkbAttachType;

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    /// A BTF tracepoint, once for the node.
    Tracepoint(&'static str),
    /// cgroup sock_create, on agents' cgroups.
    SockCreate,
    /// cgroup connect or sendmsg, on agents' cgroups.
    SockAddr,
    /// cgroup sock_ops, on agents' cgroups.
    SockOps,
    /// cgroup skb, on agents' cgroups.
    Skb(CgroupSkbAttachType),
}

/// A program of the eBPF object. All of them load on Linux 6.1 and newer.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its function's name.
    pub name: &'static str,
    /// Where it goes.
    pub hook: Hook,
    /// What is not seen without it.
    pub gives: &'static str,
}

/// In the order in which they are attached: memory of sockets first, so that
/// what follows finds it; packets last.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "process_exit",
        hook: Hook::Tracepoint("sched_process_exit"),
        gives: "ends of processes",
    },
    Program {
        name: "process_fork",
        hook: Hook::Tracepoint("sched_process_fork"),
        gives: "births and ancestry of processes",
    },
    Program {
        name: "process_exec",
        hook: Hook::Tracepoint("sched_process_exec"),
        gives: "programs and their arguments",
    },
    Program {
        name: "cgroup_mkdir",
        hook: Hook::Tracepoint("cgroup_mkdir"),
        gives: "new containers, nested cgroups",
    },
    Program {
        name: "cgroup_rmdir",
        hook: Hook::Tracepoint("cgroup_rmdir"),
        gives: "ends of containers",
    },
    Program {
        name: "cgroup_attach",
        hook: Hook::Tracepoint("cgroup_attach_task"),
        gives: "moves into and out of an agent's cgroup",
    },
    Program {
        name: "socket_create",
        hook: Hook::SockCreate,
        gives: "owners of sockets",
    },
    Program {
        name: "connect4",
        hook: Hook::SockAddr,
        gives: "IPv4 connects",
    },
    Program {
        name: "connect6",
        hook: Hook::SockAddr,
        gives: "IPv6 connects",
    },
    Program {
        name: "sendmsg4",
        hook: Hook::SockAddr,
        gives: "IPv4 datagrams to new peers",
    },
    Program {
        name: "sendmsg6",
        hook: Hook::SockAddr,
        gives: "IPv6 datagrams to new peers",
    },
    Program {
        name: "tcp_state",
        hook: Hook::SockOps,
        gives: "outcomes and ends of TCP connections",
    },
    Program {
        name: "packet_out",
        hook: Hook::Skb(CgroupSkbAttachType::Egress),
        gives: "what agents send",
    },
    Program {
        name: "packet_in",
        hook: Hook::Skb(CgroupSkbAttachType::Ingress),
        gives: "what agents receive",
    },
];
