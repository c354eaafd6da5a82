//! Bytes from the kernel → [`Record`]. Total: any input gives a record or an
//! error that is counted; no length is trusted.

#![forbid(unsafe_code)]

mod records;
mod socket;
pub(crate) mod text;

use std::net::{IpAddr, Ipv6Addr};

use agent_monitor_common::event as wire;
use agent_monitor_common::event::{FlowId, Header, cgroup_action, direction, kind};
use agent_monitor_common::limits::{BURST_BYTES, BURSTS_AT_ONCE, CHUNK_LARGE, PATH_CAP};
use bytemuck::Pod;
use bytes::Bytes;

use crate::event::{Address, Namespaces};
pub(crate) use records::TICK_NS;
pub use records::{
    Body, Burst, CgroupAction, Connect, Datagram, Device, DeviceClass, Exec, ExecDetails, Head,
    ProcessKey, Record, Sysctl, Way,
};
pub use socket::{Bound, Closed, Socket};

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
        kind::SYSCTL => Body::Sysctl(sysctl(&bytes)?),
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

fn sysctl(bytes: &[u8]) -> Result<Sysctl, Error> {
    let (sysctl, _) = fixed::<wire::Sysctl>(bytes)?;
    let value = sysctl.value.get(..size(sysctl.value_len)?);
    let value = String::from_utf8_lossy(value.ok_or(Error::Length)?);
    Ok(Sysctl {
        name: dotted(&text::until_nul(&sysctl.name)),
        // `echo` and its like end a line; the kernel takes a NUL for the end, too.
        value: value
            .trim_end_matches(|it: char| it == '\0' || it.is_ascii_whitespace())
            .to_owned(),
        truncated: sysctl.truncated != 0,
    })
}

/// A path below /proc/sys as sysctl(8) writes it: `.` between the parts, and `/` where a
/// part has a `.`, as the name of a VLAN's interface.
fn dotted(path: &str) -> String {
    let swapped = path.chars().map(|it| match it {
        '/' => '.',
        '.' => '/',
        other => other,
    });
    swapped.collect()
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
