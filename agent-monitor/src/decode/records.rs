//! What the kernel side tells, with lengths checked and text made valid.

use std::sync::Arc;

use agent_monitor_common::event::FlowId;
use bytes::Bytes;

use super::socket::{Bound, Closed, Socket};
use crate::event::{Address, Namespaces, Outcome};

/// A record, with lengths checked and text made valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Nanoseconds since boot.
    pub time: u64,
    /// Agent: cgroup id of its topmost cgroup; 0 is the node.
    pub agent: u64,
    /// Cgroup of the process, or of the socket's owner.
    pub cgroup: u64,
    /// The process: for payload, the socket's owner.
    pub process: ProcessKey,
    /// What happened.
    pub body: Body,
}

/// Nanoseconds in a clock tick (`USER_HZ` is 100 on every architecture aya
/// supports; /proc/PID/stat divides the same way, `nsec_to_clock_t()`).
pub(crate) const TICK_NS: u64 = 10_000_000;

/// A process: ids are reused, ids with a start are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    /// Thread-group id; 0 when not known.
    pub pid: u32,
    /// Start in clock ticks since boot, as procfs tells it; 0 when not known.
    pub start: u64,
}

impl ProcessKey {
    /// From the kernel's start, in nanoseconds since boot.
    pub fn from_ns(pid: u32, start_ns: u64) -> Self {
        Self {
            pid,
            start: start_ns / TICK_NS,
        }
    }

    /// Its start, in nanoseconds since boot, to a tick.
    pub fn start_ns(self) -> u64 {
        self.start.saturating_mul(TICK_NS)
    }
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A process forked.
    Fork {
        /// The new process.
        child: ProcessKey,
        /// Real user id.
        uid: u32,
        /// Name.
        comm: String,
    },
    /// A program was started.
    Exec(Box<Exec>),
    /// A process ended.
    Exit {
        /// Wait status.
        status: u32,
    },
    /// A cgroup was made, removed or entered.
    Cgroup {
        /// Which of the three.
        action: CgroupAction,
        /// Its id.
        id: u64,
        /// Its parent's id.
        parent: u64,
        /// Its path.
        path: String,
    },
    /// connect() was called.
    Connect(Connect),
    /// A datagram went to a new peer.
    Send(Connect),
    /// A TCP connection is established.
    Established {
        /// The flow.
        flow: FlowId,
        /// This end.
        local: Address,
        /// The other end.
        remote: Address,
        /// Whether this end connected.
        outbound: bool,
    },
    /// A TCP connection, or an attempt, is over.
    Closed(Closed),
    /// TCP sent nothing for a connect().
    Unstarted {
        /// The flow.
        flow: FlowId,
        /// Why.
        result: Outcome,
    },
    /// A socket was made.
    Socket(Socket),
    /// A socket has an address of its own.
    Bind(Bound),
    /// A socket listens.
    Listen(Bound),
    /// Bytes of a datagram.
    Datagram(Datagram),
    /// Datagrams with no long quiet between them.
    DatagramBurst {
        /// How many.
        burst: Burst,
        /// The other end.
        remote: Address,
        /// `IPPROTO_*`.
        protocol: u32,
    },
    /// A socket of datagrams is gone.
    Released {
        /// Its cookie, and how often it was connected.
        flow: FlowId,
    },
    /// Bytes from the head of a flow.
    Head(Head),
    /// Segments with no long quiet between them.
    Burst(Burst),
    /// Several of one flow, as they ended.
    Bursts(Vec<Burst>),
    /// A process tries to open or make a device node.
    Device(Device),
    /// A process writes a sysctl.
    Sysctl(Sysctl),
    /// A connection was there before the watch.
    Found {
        /// The flow.
        flow: FlowId,
        /// This end.
        local: Address,
        /// The other end.
        remote: Address,
        /// `IPPROTO_*`.
        protocol: u32,
        /// Whether this end seems to have connected.
        outbound: bool,
    },
    /// The size of one segment.
    Segment {
        /// The flow.
        flow: FlowId,
        /// Direction.
        way: Way,
        /// Place in the stream.
        offset: u32,
        /// Payload bytes.
        bytes: u32,
    },
}

/// See [`agent_monitor_common::event::Exec`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exec {
    /// The parent.
    pub parent: ProcessKey,
    /// Real user id.
    pub uid: u32,
    /// Name.
    pub comm: String,
    /// As given to execve().
    pub filename: String,
    /// Path of the executable.
    pub exe: Arc<str>,
    /// Arguments, at most `text::MAX_ARGUMENTS`.
    pub argv: Arc<[String]>,
    /// argv was longer.
    pub argv_truncated: bool,
    /// Inode of the executable.
    pub inode: u64,
    /// Device of the executable.
    pub device: u32,
    /// Links to it.
    pub links: u32,
    /// Bit n: file descriptor n is a socket.
    pub stdio_sockets: u32,
    /// What the first recordings do not have.
    pub details: Option<ExecDetails>,
}

/// See [`agent_monitor_common::event::ExecDetails`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExecDetails {
    /// What runs the file, if it does not run by itself.
    pub interpreter: Option<String>,
    /// Real group id.
    pub gid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Effective group id.
    pub egid: u32,
    /// The executable is set-user-ID.
    pub setuid: bool,
    /// The executable is set-group-ID.
    pub setgid: bool,
    /// Where the process is.
    pub namespaces: Namespaces,
}

/// See [`agent_monitor_common::event::Device`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Character or block.
    pub class: DeviceClass,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// `BPF_DEVCG_ACC_*`: 1 mknod, 2 read, 4 write.
    pub access: u32,
    /// Another device program has refused it.
    pub refused: bool,
}

/// See [`agent_monitor_common::event::Sysctl`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// As sysctl(8) writes it, `vm.nr_hugepages`.
    pub name: String,
    /// What is written, without white space at its end.
    pub value: String,
    /// More is written.
    pub truncated: bool,
}

/// Character and block devices have numbers of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceClass {
    /// Character.
    Character,
    /// Block.
    Block,
}

/// What happened to a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupAction {
    /// Made.
    Created,
    /// Removed.
    Removed,
    /// A process moved in.
    Entered,
}

/// See [`agent_monitor_common::event::Connect`].
#[derive(Clone, Debug, PartialEq)]
pub struct Connect {
    /// The flow.
    pub flow: FlowId,
    /// Where to.
    pub remote: Address,
    /// `IPPROTO_*`.
    pub protocol: u32,
    /// The flow on which data last arrived for this process, and when.
    pub last_rx: Option<(FlowId, u64)>,
}

/// Direction, seen from the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the agent.
    Out,
    /// To the agent.
    In,
}

/// See [`agent_monitor_common::event::Head`].
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// The flow.
    pub flow: FlowId,
    /// This end.
    pub local: Address,
    /// The other end.
    pub remote: Address,
    /// Direction.
    pub way: Way,
    /// `IPPROTO_*`.
    pub protocol: u32,
    /// Place in the stream.
    pub offset: u32,
    /// Payload bytes of the segment from `offset` on.
    pub segment_left: u32,
    /// [`agent_monitor_common::event::HEAD_OF_LISTENER`], [`agent_monitor_common::event::HEAD_TAKEN_OVER`].
    pub flags: u32,
    /// Payload.
    pub data: Bytes,
}

/// See [`agent_monitor_common::event::Burst`].
#[derive(Clone, Debug, PartialEq)]
pub struct Burst {
    /// The flow.
    pub flow: FlowId,
    /// Direction.
    pub way: Way,
    /// Time of the first segment.
    pub first: u64,
    /// Time of the last segment.
    pub last: u64,
    /// New payload bytes.
    pub bytes: u64,
    /// Place of the first in the stream.
    pub offset: u64,
    /// Segments.
    pub packets: u32,
    /// First bytes.
    pub data: Bytes,
}

/// See [`agent_monitor_common::event::Datagram`].
#[derive(Clone, Debug, PartialEq)]
pub struct Datagram {
    /// The flow.
    pub flow: FlowId,
    /// This end.
    pub local: Address,
    /// The other end.
    pub remote: Address,
    /// Direction.
    pub way: Way,
    /// `IPPROTO_*`.
    pub protocol: u32,
    /// Place of the bytes in the datagram.
    pub offset: u32,
    /// Bytes of the datagram.
    pub len: u32,
    /// How many of them come.
    pub captured: u32,
    /// Not 0: several datagrams of that many bytes.
    pub segment: u32,
    /// Payload.
    pub data: Bytes,
}

impl From<&Head> for Datagram {
    /// Datagrams were once told of as a stream's head, a record each.
    fn from(head: &Head) -> Self {
        Self {
            flow: head.flow,
            local: head.local,
            remote: head.remote,
            way: head.way,
            protocol: head.protocol,
            offset: 0,
            len: head.segment_left,
            captured: u32::try_from(head.data.len()).unwrap_or(u32::MAX),
            segment: 0,
            data: head.data.clone(),
        }
    }
}
