//! The records that travel from the kernel through the ring buffers.
//!
//! Each starts with a [`Header`]. Kinds are explicit and never reused, so that
//! recordings stay readable.
//!
//! A long file: what both sides have to agree on is read in one piece.

use crate::limits::{ARGV_CAP, BURST_BYTES, COMM_LEN, PATH_CAP, SYSCTL_NAME, SYSCTL_VALUE};

/// Kinds of records, [`Header::kind`].
pub mod kind {
    /// [`super::Fork`]
    pub const FORK: u32 = 1;
    /// [`super::Exec`]
    pub const EXEC: u32 = 2;
    /// [`super::Exit`]
    pub const EXIT: u32 = 3;
    /// [`super::Cgroup`]
    pub const CGROUP: u32 = 4;
    /// [`super::Connect`]: connect() was called.
    pub const CONNECT: u32 = 5;
    /// [`super::Connect`]: an unconnected datagram socket sends to a new peer.
    pub const SEND: u32 = 6;
    /// [`super::Established`]
    pub const ESTABLISHED: u32 = 7;
    /// [`super::Closed`]
    pub const CLOSED: u32 = 8;
    /// [`super::Head`]
    pub const HEAD: u32 = 9;
    /// [`super::Burst`]
    pub const BURST: u32 = 10;
    /// [`super::Segment`]
    pub const SEGMENT: u32 = 11;
    /// [`super::Device`]
    pub const DEVICE: u32 = 12;
    /// [`super::Socket`]
    pub const SOCKET: u32 = 13;
    /// [`super::Bound`]: bind() has given a socket an address.
    pub const BIND: u32 = 14;
    /// [`super::Bound`]: listen() was called.
    pub const LISTEN: u32 = 15;
    /// [`super::Unstarted`]
    pub const UNSTARTED: u32 = 16;
    /// [`super::Uncovered`]
    pub const UNCOVERED: u32 = 20;
    /// [`super::Found`]: written by user space when a watch begins.
    pub const FOUND: u32 = 21;
    /// [`super::Datagram`]
    pub const DATAGRAM: u32 = 24;
    /// [`super::DatagramBurst`]
    pub const DATAGRAM_BURST: u32 = 25;
    /// [`super::Released`]
    pub const RELEASED: u32 = 26;
    /// [`super::Bursts`]
    pub const BURSTS: u32 = 28;
    /// [`super::Sysctl`]
    pub const SYSCTL: u32 = 29;

    /// No record, but something that a map had no room to remember: a process,
    /// a socket, a cgroup. Only counted.
    pub const MEMORY: u32 = 0;

    /// Counters by kind have room for this many kinds.
    pub const MOST: usize = 32;

    /// What a kind is called in `loss` events.
    pub fn name(kind: u32) -> &'static str {
        match kind {
            MEMORY => "memory",
            FORK => "fork",
            EXEC => "exec",
            EXIT => "exit",
            CGROUP => "cgroup",
            CONNECT => "connect",
            SEND => "send",
            ESTABLISHED => "established",
            CLOSED => "closed",
            HEAD => "head",
            BURST => "burst",
            SEGMENT => "segment",
            DEVICE => "device",
            SOCKET => "socket",
            BIND => "bind",
            LISTEN => "listen",
            UNSTARTED => "unstarted",
            UNCOVERED => "uncovered",
            FOUND => "found",
            DATAGRAM => "datagram",
            DATAGRAM_BURST => "datagram_burst",
            RELEASED => "released",
            BURSTS => "bursts",
            SYSCTL => "sysctl",
            _ => "other",
        }
    }
}

/// First member of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Header {
    /// One of [`kind`].
    pub kind: u32,
    /// Bytes of the whole record, this header included.
    pub len: u32,
    /// Nanoseconds since boot (`CLOCK_BOOTTIME`).
    pub time: u64,
    /// Agent: the cgroup id of its topmost cgroup.
    pub agent: u64,
    /// Cgroup id of the task, or of the socket's owner.
    pub cgroup: u64,
    /// When the process started, nanoseconds since boot; 0 if not known.
    pub start: u64,
    /// Thread-group id in the host's pid namespace; 0 if not known.
    pub tgid: u32,
    /// Thread id in the host's pid namespace; 0 for payload records.
    pub tid: u32,
}

/// A record and the bytes that follow it; only as many travel as
/// [`Header::len`] says.
#[repr(C)]
pub struct WithData<T, const N: usize> {
    /// The record.
    pub record: T,
    /// What follows.
    pub data: [u8; N],
}

/// A flow: a socket, and which of its connections or peers. A socket's cookie
/// outlives `connect(AF_UNSPEC)` and a second connect().
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct FlowId {
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// Counted at each connect() of this socket. With [`PEER_FLOW`] set: one peer
    /// of a datagram socket that is not connected to it.
    pub generation: u64,
}

/// High bit of [`FlowId::generation`]: the rest is the peer's address. For IPv4 it
/// is exact: the protocol in bits 48 to 55, then the address, then the port.
pub const PEER_FLOW: u64 = 1 << 63;
/// With [`PEER_FLOW`]: an IPv6 peer, whose address, port and protocol are hashed.
pub const PEER_HASHED: u64 = 1 << 62;

/// An address and port. IPv4 is kept v4-mapped (RFC 4291, 2.5.5.2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Endpoint {
    /// Sixteen bytes in network order.
    pub ip: [u8; 16],
    /// Host order.
    pub port: u32,
    /// Padding.
    pub pad: u32,
}

/// A process has forked; the header is the parent's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Fork {
    /// Common part.
    pub header: Header,
    /// Start of the child, nanoseconds since boot.
    pub child_start: u64,
    /// Thread-group id of the child.
    pub child: u32,
    /// Real user id of the parent.
    pub uid: u32,
    /// Name of the child: the parent's, until it execs.
    pub comm: [u8; COMM_LEN],
}

/// A program has been started.
///
/// What follows it holds, one after the other, [`ExecDetails`] (`details_len` bytes),
/// the file name as it was given to execve() (`filename_len` bytes), the
/// interpreter's (`interpreter_len` bytes), the path of the executable's dentry as
/// NUL-terminated components from the leaf up (`exe_len` bytes), and argv as it
/// lies in the new program's memory (`argv_len` bytes, NUL after each).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Exec {
    /// Common part.
    pub header: Header,
    /// Start of the parent, nanoseconds since boot.
    pub parent_start: u64,
    /// Inode of the executable.
    pub inode: u64,
    /// Thread-group id of the parent.
    pub ppid: u32,
    /// Real user id.
    pub uid: u32,
    /// Device of the executable, as the kernel's `dev_t`.
    pub device: u32,
    /// Links to the executable: 0 for a memfd or a deleted file.
    pub links: u32,
    /// Bit n: file descriptor n (0 to 2) is a socket.
    pub stdio_sockets: u32,
    /// Bytes of the file name in what follows.
    pub filename_len: u32,
    /// Bytes of the executable's path in what follows.
    pub exe_len: u32,
    /// Bytes of argv in what follows.
    pub argv_len: u32,
    /// Bytes of argv in the program's memory.
    pub argv_total: u32,
    /// Bytes of [`ExecDetails`]; 0 in the first recordings, which have none.
    pub details_len: u32,
    /// Name of the process after the exec.
    pub comm: [u8; COMM_LEN],
}

/// With whose rights a program runs, where, and by what.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct ExecDetails {
    /// Real group id.
    pub gid: u32,
    /// Effective user id after the exec.
    pub euid: u32,
    /// Effective group id after the exec.
    pub egid: u32,
    /// `i_mode` of the executable.
    pub mode: u32,
    /// Inode numbers of the process's namespaces, as /proc/PID/ns shows them.
    pub cgroup_ns: u32,
    /// IPC.
    pub ipc_ns: u32,
    /// Mounts.
    pub mnt_ns: u32,
    /// Network.
    pub net_ns: u32,
    /// Process ids.
    pub pid_ns: u32,
    /// Users.
    pub user_ns: u32,
    /// Host name.
    pub uts_ns: u32,
    /// Bytes of the interpreter's path: 0 unless the file is a script, or
    /// binfmt_misc runs it.
    pub interpreter_len: u32,
}

/// Most bytes of text that can follow an [`Exec`].
pub const EXEC_DATA: usize = 3 * PATH_CAP + ARGV_CAP;

/// The last thread of a process has ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Exit {
    /// Common part.
    pub header: Header,
    /// As wait() reports it: signal in the low seven bits, code above eight.
    pub status: u32,
    /// Padding.
    pub pad: u32,
}

/// What happened to a cgroup.
pub mod cgroup_action {
    /// It was made.
    pub const MKDIR: u32 = 1;
    /// It was removed.
    pub const RMDIR: u32 = 2;
    /// A process was moved into it; the header is that process's, its `cgroup`
    /// the one it belonged to before.
    pub const ATTACH: u32 = 3;
}

/// A cgroup of the default hierarchy was made, removed or entered.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Cgroup {
    /// Common part. For mkdir and rmdir the process is the container runtime.
    pub header: Header,
    /// Id of the cgroup.
    pub id: u64,
    /// Id of its parent.
    pub parent: u64,
    /// One of [`cgroup_action`].
    pub action: u32,
    /// Bytes of the path below the hierarchy's root, which follows.
    pub path_len: u32,
}

/// connect() on a TCP or UDP socket, or a datagram to a new peer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Connect {
    /// Common part: the process that called.
    pub header: Header,
    /// The flow that this begins.
    pub flow: FlowId,
    /// Where to.
    pub remote: Endpoint,
    /// `IPPROTO_*` of the socket.
    pub protocol: u32,
    /// Padding.
    pub pad: u32,
    /// The flow on which data last arrived for a socket of this process.
    pub last_rx_flow: FlowId,
    /// When, nanoseconds since boot; 0: never.
    pub last_rx_time: u64,
}

/// Directions, seen from the agent.
pub mod direction {
    /// From the agent.
    pub const OUT: u32 = 0;
    /// To the agent.
    pub const IN: u32 = 1;
}

/// A TCP connection is established; the header is the socket's owner's: who
/// called socket(), and for an accepted connection who made the listener.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Established {
    /// Common part.
    pub header: Header,
    /// The flow.
    pub flow: FlowId,
    /// This end.
    pub local: Endpoint,
    /// The other end.
    pub remote: Endpoint,
    /// [`direction::OUT`]: this end connected; [`direction::IN`]: it accepted.
    pub direction: u32,
    /// Padding.
    pub pad: u32,
}

/// A TCP connection, or an attempt at one, has ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Closed {
    /// Common part.
    pub header: Header,
    /// The flow.
    pub flow: FlowId,
    /// This end.
    pub local: Endpoint,
    /// The other end.
    pub remote: Endpoint,
    /// New payload bytes, by [`direction`].
    pub bytes: [u64; 2],
    /// Packets with payload, by [`direction`].
    pub packets: [u64; 2],
    /// State before the end, `TCP_*` of linux/tcp_states.h: `TCP_SYN_SENT` (2)
    /// when the connection never came about.
    pub old_state: u32,
    /// `sk_err` at the end, an `errno`; 0: none, and in the first recordings.
    pub error: u32,
    /// Segments sent again (`tcp_sock.total_retrans`). Records of the first
    /// recordings end before this: [`Closed::FIRST_LEN`].
    pub retransmits: u32,
    /// Smoothed round-trip time, microseconds; 0: not measured.
    pub rtt_us: u32,
    /// Segments sent, those without payload included (`tcp_sock.segs_out`).
    pub segments_out: u32,
    /// Padding.
    pub pad: u32,
}

impl Closed {
    /// Bytes of the record before it told of more than `error`.
    pub const FIRST_LEN: usize = core::mem::offset_of!(Closed, retransmits);
}

/// socket() has made an inet socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Socket {
    /// Common part: the process that called.
    pub header: Header,
    /// Its first flow, if it comes to one.
    pub flow: FlowId,
    /// `AF_INET` or `AF_INET6`.
    pub family: u32,
    /// `SOCK_*`.
    pub kind: u32,
    /// `IPPROTO_*`.
    pub protocol: u32,
    /// Padding.
    pub pad: u32,
}

/// A TCP or UDP socket has an address of its own, or listens there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Bound {
    /// Common part: the process that called bind(); of a listener, who made the socket.
    pub header: Header,
    /// The socket's flow, if it comes to one; of a listener, its cookie.
    pub flow: FlowId,
    /// The address.
    pub local: Endpoint,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u32,
    /// Padding.
    pub pad: u32,
}

/// TCP sent nothing for a connect(): told of when the socket is closed, or
/// connect() is called again.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Unstarted {
    /// Common part: the socket's owner.
    pub header: Header,
    /// The flow.
    pub flow: FlowId,
    /// State at the end, `TCP_*` of linux/tcp_states.h: `TCP_SYN_SENT` (2) when
    /// the SYN was still to wait for data (TCP Fast Open).
    pub state: u32,
    /// Padding.
    pub pad: u32,
}

/// [`Head::flags`]: the bytes came with the handshake's last segment, under the
/// listener's flow; they belong to the connection accepted from `remote`.
pub const HEAD_OF_LISTENER: u32 = 1;
/// [`Head::flags`]: the socket was not seen being made, so `offset` counts from
/// the first segment seen.
pub const HEAD_TAKEN_OVER: u32 = 2;

/// Bytes from the head of one direction of a flow. One segment may fill several.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Head {
    /// Common part.
    pub header: Header,
    /// The flow.
    pub flow: FlowId,
    /// This end, from the packet.
    pub local: Endpoint,
    /// The other end, from the packet.
    pub remote: Endpoint,
    /// One of [`direction`].
    pub direction: u32,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u32,
    /// Place of the bytes that follow in this direction's stream.
    pub offset: u32,
    /// Payload bytes of the segment, from this record's `offset` to its end.
    pub segment_left: u32,
    /// Bytes of payload that follow.
    pub data_len: u32,
    /// [`HEAD_OF_LISTENER`], [`HEAD_TAKEN_OVER`].
    pub flags: u32,
}

/// Segments in one direction with no long quiet between them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Burst {
    /// Common part; its time is that of the packet that closed the burst.
    pub header: Header,
    /// The flow.
    pub flow: FlowId,
    /// What was counted.
    pub spell: Spell,
}

/// What is told of a burst, whatever it belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Spell {
    /// Time of the first segment, nanoseconds since boot.
    pub first: u64,
    /// Time of the last segment.
    pub last: u64,
    /// New payload bytes.
    pub bytes: u64,
    /// Place of the burst's first byte in this direction's stream.
    pub offset: u64,
    /// Segments with new payload.
    pub packets: u32,
    /// One of [`direction`].
    pub direction: u32,
    /// Bytes in `data`.
    pub data_len: u32,
    /// Padding.
    pub pad: u32,
    /// First bytes.
    pub data: [u8; BURST_BYTES],
}

/// Bursts of one flow that ended in quick succession: as many [`Spell`]s follow, in
/// the order of their ends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Bursts {
    /// Common part; its time is that of the packet that closed the last of them.
    pub header: Header,
    /// The flow.
    pub flow: FlowId,
    /// How many follow.
    pub count: u32,
    /// Padding.
    pub pad: u32,
}

/// Size of one segment of a flow that user space asked to follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Segment {
    /// Common part.
    pub header: Header,
    /// The flow.
    pub flow: FlowId,
    /// Place in this direction's stream.
    pub offset: u32,
    /// Payload bytes.
    pub bytes: u32,
    /// One of [`direction`].
    pub direction: u32,
    /// Padding.
    pub pad: u32,
}

/// A process tries to open a device node, or to make one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Device {
    /// Common part: the process that tries.
    pub header: Header,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// `BPF_DEVCG_ACC_*` (linux/bpf.h): 1 mknod, 2 read, 4 write.
    pub access: u32,
    /// `BPF_DEVCG_DEV_*`: 1 block, 2 character.
    pub class: u32,
    /// Not 0: another device program of the cgroup has refused it.
    pub refused: u32,
    /// Padding.
    pub pad: u32,
}

/// A process writes a file of /proc/sys.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Sysctl {
    /// Common part: the process that writes.
    pub header: Header,
    /// Bytes of the value, at most [`SYSCTL_VALUE`] - 1.
    pub value_len: u32,
    /// Not 0: more is written than `value` has room for.
    pub truncated: u32,
    /// The file's path below /proc/sys, with a NUL after it.
    pub name: [u8; SYSCTL_NAME],
    /// What is written, zeroes after it.
    pub value: [u8; SYSCTL_VALUE],
}

/// Why what a process does is not seen, [`Uncovered::reason`].
pub mod uncovered {
    /// The process is in a cgroup that is no agent's: it was moved, or born there.
    pub const OUTSIDE: u32 = 1;
    /// It holds an internet socket that was born in a cgroup that is no agent's.
    pub const SOCKET: u32 = 2;
    /// It holds a socket of a family that no cgroup program sees: packets, vsock.
    pub const FAMILY: u32 = 3;
    /// It holds a TUN or TAP device.
    pub const TUN: u32 = 4;
    /// It holds more descriptors than are looked at.
    pub const TOO_MANY: u32 = 5;
}

/// A process of an agent can do what no program of ours sees. Found by looking
/// at all processes now and then, and at each process's end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Uncovered {
    /// Common part: the process, and the cgroup it is in.
    pub header: Header,
    /// Name of the process.
    pub comm: [u8; COMM_LEN],
    /// Inode of the socket or device; 0 where there is none.
    pub inode: u64,
    /// The cgroup a socket was born in.
    pub socket_cgroup: u64,
    /// The socket's other end, zeroes where there is none.
    pub remote: Endpoint,
    /// One of [`uncovered`].
    pub reason: u32,
    /// The socket's `AF_*`.
    pub family: u32,
    /// The socket's `IPPROTO_*`.
    pub protocol: u32,
    /// Padding.
    pub pad: u32,
}

/// A connection that was there before the watch; the header is that of the
/// process that has held it longest.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Found {
    /// Common part.
    pub header: Header,
    /// The flow.
    pub flow: FlowId,
    /// This end.
    pub local: Endpoint,
    /// The other end.
    pub remote: Endpoint,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u32,
    /// Guessed: [`direction::IN`] where a socket of the agent listens on its local port.
    pub direction: u32,
}

/// Bytes of a datagram, or of a packet that is neither TCP's nor UDP's. One
/// datagram may fill several, one after the other.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Datagram {
    /// Common part; the same time for all of one datagram.
    pub header: Header,
    /// The flow.
    pub flow: FlowId,
    /// This end, from the packet. The port is 0 where there is none.
    pub local: Endpoint,
    /// The other end, as the program named it: what a translation of addresses
    /// makes of it on the way is not seen by the program either.
    pub remote: Endpoint,
    /// One of [`direction`].
    pub direction: u32,
    /// `IPPROTO_*` of the packet.
    pub protocol: u32,
    /// Place of the bytes that follow in the datagram.
    pub offset: u32,
    /// Bytes of the datagram: UDP's payload, the payload of an ICMP echo, of
    /// other packets all after the IP header.
    pub len: u32,
    /// How many of them go up, in this record and others.
    pub captured: u32,
    /// Not 0: this is several datagrams of that many bytes each, the last one
    /// shorter, sent or received at once (UDP_SEGMENT, UDP_GRO; udp(7)).
    pub segment: u32,
    /// Bytes that follow.
    pub data_len: u32,
    /// Padding.
    pub pad: u32,
}

/// Datagrams in one direction of a flow with no long quiet between them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct DatagramBurst {
    /// As of a stream, its `offset` the bytes that went before in this direction.
    pub burst: Burst,
    /// As [`Datagram::remote`].
    pub remote: Endpoint,
    /// As [`Datagram::protocol`].
    pub protocol: u32,
    /// Padding.
    pub pad: u32,
}

/// A socket of datagrams is gone, and with it all of its flows; or one of TCP from
/// before the watch, of whose end TCP does not tell.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct Released {
    /// Common part: who made the socket.
    pub header: Header,
    /// The socket's cookie, and how often it was connected.
    pub flow: FlowId,
}
