//! Bytes from the kernel → [`Record`]. Total: any input gives a record or an
//! error that is counted; no length is trusted.

#![forbid(unsafe_code)]

mod socket;
pub(crate) mod text;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use agent_monitor_common::event as wire;
use agent_monitor_common::event::{FlowId, Header, cgroup_action, direction, kind};
use agent_monitor_common::limits::{BURST_BYTES, BURSTS_AT_ONCE, CHUNK_LARGE, PATH_CAP};
use bytemuck::Pod;
use bytes::Bytes;

use crate::event::{Address, Namespaces, Outcome};
pub use socket::{Bound, Closed, Socket};

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
const TICK_NS: u64 = 10_000_000;

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

/// See [`wire::Exec`].
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

/// See [`wire::ExecDetails`].
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

/// See [`wire::Device`].
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

/// See [`wire::Connect`].
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

/// See [`wire::Head`].
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
    /// [`wire::HEAD_OF_LISTENER`], [`wire::HEAD_TAKEN_OVER`].
    pub flags: u32,
    /// Payload.
    pub data: Bytes,
}

/// See [`wire::Burst`].
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

/// See [`wire::Datagram`].
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

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Shorter than its kind's fixed part, or than it says.
    #[error("the record is cut short")]
    Short,
    /// Longer than its kind can be, or lengths inside do not add up.
    #[error("the record's lengths contradict each other")]
    Length,
    /// No such kind, direction or action.
    #[error("the record is of an unknown kind")]
    Unknown,
}

/// Reads the header of a record: enough to order and attribute it.
///
/// # Errors
/// Too short.
pub fn header(bytes: &[u8]) -> Result<Header, Error> {
    fixed::<Header>(bytes).map(|(header, _)| header)
}

/// Reads what a process can do unseen.
///
/// # Errors
/// Too short.
pub fn uncovered(bytes: &[u8]) -> Result<wire::Uncovered, Error> {
    fixed(bytes).map(|(found, _)| found)
}

/// Reads a record.
///
/// # Errors
/// See [`Error`].
pub fn record(bytes: &Bytes) -> Result<Record, Error> {
    let header = header(bytes)?;
    // A ring entry may be longer than what was written into it, never shorter.
    let len = usize::try_from(header.len).map_err(|_| Error::Length)?;
    if len > bytes.len() {
        return Err(Error::Short);
    }
    let bytes = bytes.slice(..len);
    let body = match header.kind {
        kind::FORK => fork(&bytes)?,
        kind::EXEC => exec(&bytes)?,
        kind::EXIT => Body::Exit {
            status: fixed::<wire::Exit>(&bytes)?.0.status,
        },
        kind::CGROUP => cgroup(&bytes)?,
        kind::CONNECT => Body::Connect(connect(&bytes)?),
        kind::SEND => Body::Send(connect(&bytes)?),
        kind::ESTABLISHED => established(&bytes)?,
        kind::CLOSED => socket::closed(&bytes)?,
        kind::HEAD => head(&bytes)?,
        kind::BURST => {
            let (one, _) = fixed::<wire::Burst>(&bytes)?;
            Body::Burst(burst(one.flow, &one.spell)?)
        }
        kind::BURSTS => bursts(&bytes)?,
        kind::DATAGRAM => datagram(&bytes)?,
        kind::DATAGRAM_BURST => {
            let (several, _) = fixed::<wire::DatagramBurst>(&bytes)?;
            Body::DatagramBurst {
                burst: burst(several.burst.flow, &several.burst.spell)?,
                remote: address(several.remote)?,
                protocol: several.protocol,
            }
        }
        kind::RELEASED => Body::Released {
            flow: fixed::<wire::Released>(&bytes)?.0.flow,
        },
        kind::SEGMENT => {
            let (segment, _) = fixed::<wire::Segment>(&bytes)?;
            Body::Segment {
                flow: segment.flow,
                way: way(segment.direction)?,
                offset: segment.offset,
                bytes: segment.bytes,
            }
        }
        kind::DEVICE => Body::Device(device(&bytes)?),
        kind::SOCKET => socket::socket(&bytes)?,
        kind::BIND => Body::Bind(socket::bound(&bytes)?),
        kind::LISTEN => Body::Listen(socket::bound(&bytes)?),
        kind::UNSTARTED => socket::unstarted(&bytes)?,
        kind::FOUND => found(&bytes)?,
        _ => return Err(Error::Unknown),
    };
    Ok(Record {
        time: header.time,
        agent: header.agent,
        cgroup: header.cgroup,
        process: ProcessKey::from_ns(header.tgid, header.start),
        body,
    })
}

fn fixed<T: Pod>(bytes: &[u8]) -> Result<(T, &[u8]), Error> {
    let (front, rest) = bytes.split_at_checked(size_of::<T>()).ok_or(Error::Short)?;
    Ok((bytemuck::pod_read_unaligned(front), rest))
}

fn size(length: u32) -> Result<usize, Error> {
    usize::try_from(length).map_err(|_| Error::Length)
}

fn address(endpoint: wire::Endpoint) -> Result<Address, Error> {
    let ip = IpAddr::V6(Ipv6Addr::from(endpoint.ip)).to_canonical();
    let port = u16::try_from(endpoint.port).map_err(|_| Error::Length)?;
    Ok(Address { ip, port })
}

fn way(value: u32) -> Result<Way, Error> {
    match value {
        direction::OUT => Ok(Way::Out),
        direction::IN => Ok(Way::In),
        _ => Err(Error::Unknown),
    }
}

fn fork(bytes: &[u8]) -> Result<Body, Error> {
    let (fork, _) = fixed::<wire::Fork>(bytes)?;
    Ok(Body::Fork {
        child: ProcessKey::from_ns(fork.child, fork.child_start),
        uid: fork.uid,
        comm: text::until_nul(&fork.comm),
    })
}

fn exec(bytes: &[u8]) -> Result<Body, Error> {
    fn part(bytes: &[u8], length: u32) -> Result<(&[u8], &[u8]), Error> {
        bytes.split_at_checked(size(length)?).ok_or(Error::Length)
    }
    let (exec, rest) = fixed::<wire::Exec>(bytes)?;
    let (details, rest) = part(rest, exec.details_len)?;
    let details = match details {
        [] => None,
        details => Some(fixed::<wire::ExecDetails>(details)?.0),
    };
    let (filename, rest) = part(rest, exec.filename_len)?;
    let (interpreter, rest) = part(rest, details.map_or(0, |it| it.interpreter_len))?;
    let (exe, rest) = part(rest, exec.exe_len)?;
    let (argv, _) = part(rest, exec.argv_len)?;
    let (argv, more) = text::arguments(argv);
    Ok(Body::Exec(Box::new(Exec {
        parent: ProcessKey::from_ns(exec.ppid, exec.parent_start),
        uid: exec.uid,
        comm: text::until_nul(&exec.comm),
        filename: text::until_nul(filename),
        exe: text::path_from_leaf(exe).into(),
        argv,
        argv_truncated: more || exec.argv_total > exec.argv_len,
        inode: exec.inode,
        device: exec.device,
        links: exec.links,
        stdio_sockets: exec.stdio_sockets,
        details: details.map(|details| exec_details(&details, interpreter)),
    })))
}

fn exec_details(details: &wire::ExecDetails, interpreter: &[u8]) -> ExecDetails {
    // S_ISUID and S_ISGID, include/uapi/linux/stat.h.
    let (setuid, setgid) = (0o4000, 0o2000);
    ExecDetails {
        interpreter: (!interpreter.is_empty()).then(|| text::until_nul(interpreter)),
        gid: details.gid,
        euid: details.euid,
        egid: details.egid,
        setuid: details.mode & setuid != 0,
        setgid: details.mode & setgid != 0,
        namespaces: Namespaces {
            cgroup: details.cgroup_ns,
            ipc: details.ipc_ns,
            mnt: details.mnt_ns,
            net: details.net_ns,
            pid: details.pid_ns,
            user: details.user_ns,
            uts: details.uts_ns,
        },
    }
}

fn cgroup(bytes: &[u8]) -> Result<Body, Error> {
    let (cgroup, rest) = fixed::<wire::Cgroup>(bytes)?;
    let len = size(cgroup.path_len)?;
    if len > PATH_CAP {
        return Err(Error::Length);
    }
    let action = match cgroup.action {
        cgroup_action::MKDIR => CgroupAction::Created,
        cgroup_action::RMDIR => CgroupAction::Removed,
        cgroup_action::ATTACH => CgroupAction::Entered,
        _ => return Err(Error::Unknown),
    };
    Ok(Body::Cgroup {
        action,
        id: cgroup.id,
        parent: cgroup.parent,
        path: text::until_nul(rest.get(..len).ok_or(Error::Length)?),
    })
}

fn device(bytes: &[u8]) -> Result<Device, Error> {
    let (device, _) = fixed::<wire::Device>(bytes)?;
    Ok(Device {
        class: match device.class {
            1 => DeviceClass::Block,
            2 => DeviceClass::Character,
            _ => return Err(Error::Unknown),
        },
        major: device.major,
        minor: device.minor,
        access: device.access,
        refused: device.refused != 0,
    })
}

fn connect(bytes: &[u8]) -> Result<Connect, Error> {
    let (connect, _) = fixed::<wire::Connect>(bytes)?;
    Ok(Connect {
        flow: connect.flow,
        remote: address(connect.remote)?,
        protocol: connect.protocol,
        last_rx: (connect.last_rx_time != 0)
            .then_some((connect.last_rx_flow, connect.last_rx_time)),
    })
}

fn found(bytes: &[u8]) -> Result<Body, Error> {
    let (found, _) = fixed::<wire::Found>(bytes)?;
    Ok(Body::Found {
        flow: found.flow,
        local: address(found.local)?,
        remote: address(found.remote)?,
        protocol: found.protocol,
        outbound: way(found.direction)? == Way::Out,
    })
}

fn established(bytes: &[u8]) -> Result<Body, Error> {
    let (established, _) = fixed::<wire::Established>(bytes)?;
    Ok(Body::Established {
        flow: established.flow,
        local: address(established.local)?,
        remote: address(established.remote)?,
        outbound: way(established.direction)? == Way::Out,
    })
}

fn head(bytes: &Bytes) -> Result<Body, Error> {
    let (head, rest) = fixed::<wire::Head>(bytes)?;
    let len = size(head.data_len)?;
    if len > CHUNK_LARGE || len > rest.len() || head.data_len > head.segment_left {
        return Err(Error::Length);
    }
    let from = size_of::<wire::Head>();
    Ok(Body::Head(Head {
        flow: head.flow,
        local: address(head.local)?,
        remote: address(head.remote)?,
        way: way(head.direction)?,
        protocol: head.protocol,
        offset: head.offset,
        segment_left: head.segment_left,
        flags: head.flags,
        data: bytes.slice(from..from + len),
    }))
}

fn datagram(bytes: &Bytes) -> Result<Body, Error> {
    let (datagram, rest) = fixed::<wire::Datagram>(bytes)?;
    let len = size(datagram.data_len)?;
    let end = datagram.offset.checked_add(datagram.data_len);
    let fits = end.is_some_and(|end| end <= datagram.captured) && datagram.captured <= datagram.len;
    if len > CHUNK_LARGE || len > rest.len() || !fits {
        return Err(Error::Length);
    }
    let from = size_of::<wire::Datagram>();
    Ok(Body::Datagram(Datagram {
        flow: datagram.flow,
        local: address(datagram.local)?,
        remote: address(datagram.remote)?,
        way: way(datagram.direction)?,
        protocol: datagram.protocol,
        offset: datagram.offset,
        len: datagram.len,
        captured: datagram.captured,
        segment: datagram.segment,
        data: bytes.slice(from..from + len),
    }))
}

fn burst(flow: FlowId, spell: &wire::Spell) -> Result<Burst, Error> {
    let len = size(spell.data_len)?;
    if len > BURST_BYTES {
        return Err(Error::Length);
    }
    Ok(Burst {
        flow,
        way: way(spell.direction)?,
        first: spell.first,
        last: spell.last,
        bytes: spell.bytes,
        offset: spell.offset,
        packets: spell.packets,
        data: Bytes::copy_from_slice(&spell.data[..len]),
    })
}

fn bursts(bytes: &[u8]) -> Result<Body, Error> {
    let (bursts, spells) = fixed::<wire::Bursts>(bytes)?;
    let count = size(bursts.count)?;
    if count > BURSTS_AT_ONCE || spells.len() != count * size_of::<wire::Spell>() {
        return Err(Error::Length);
    }
    let spells = spells.chunks_exact(size_of::<wire::Spell>());
    let several = spells.map(|spell| burst(bursts.flow, &bytemuck::pod_read_unaligned(spell)));
    Ok(Body::Bursts(several.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests;
