//! Both sides see the same bytes in every type they share.
//!
//! The kernel side's layout is what the object's BTF says, this side's what the
//! compiler says. Types that go up in records are [`bytemuck::Pod`], which has no
//! padding, and are written whole: no byte that the kernel left there goes with
//! them. What follows a record (`WithData`) is cut to the length that was written.

use std::mem::offset_of;

use agent_monitor_common::event::*;
use agent_monitor_common::policy::*;
use aya_obj::Object;
use btfparse::{Offset, TypeInformation, TypeVariant};
use bytemuck::Pod;

use super::object::OBJECT;
use super::offsets::InMemory;

/// A type as this side has it.
struct Shared {
    name: &'static str,
    size: usize,
    members: Vec<(&'static str, usize)>,
}

fn pod<T: Pod>(name: &'static str, members: Vec<(&'static str, usize)>) -> Shared {
    Shared {
        name,
        size: size_of::<T>(),
        members,
    }
}

macro_rules! shared {
    ($($name:ident { $($member:ident),* $(,)? })*) => {
        vec![$(pod::<$name>(
            stringify!($name),
            vec![$((stringify!($member), offset_of!($name, $member))),*],
        )),*]
    };
}

/// Every type that travels or lives in a map: what agent-monitor-common defines.
#[rustfmt::skip]
fn shared() -> Vec<Shared> {
    shared! {
        Header { kind, len, time, agent, cgroup, start, tgid, tid }
        FlowId { cookie, generation }
        Endpoint { ip, port, pad }
        Fork { header, child_start, child, uid, comm }
        Exec { header, parent_start, inode, ppid, uid, device, links, stdio_sockets, filename_len, exe_len, argv_len, argv_total, details_len, comm }
        ExecDetails { gid, euid, egid, mode, cgroup_ns, ipc_ns, mnt_ns, net_ns, pid_ns, user_ns, uts_ns, interpreter_len }
        Exit { header, status, pad }
        Cgroup { header, id, parent, action, path_len }
        Connect { header, flow, remote, protocol, pad, last_rx_flow, last_rx_time }
        Established { header, flow, local, remote, direction, pad }
        Closed { header, flow, local, remote, bytes, packets, old_state, error, retransmits, rtt_us, segments_out, pad }
        Socket { header, flow, family, kind, protocol, pad }
        Bound { header, flow, local, protocol, pad }
        Unstarted { header, flow, state, pad }
        Datagram { header, flow, local, remote, direction, protocol, offset, len, captured, segment, data_len, pad }
        DatagramBurst { burst, remote, protocol, pad }
        Released { header, flow }
        Head { header, flow, local, remote, direction, protocol, offset, segment_left, data_len, flags }
        Burst { header, flow, spell }
        Spell { first, last, bytes, offset, packets, direction, data_len, pad, data }
        Bursts { header, flow, count, pad }
        Segment { header, flow, offset, bytes, direction, pad }
        Device { header, major, minor, access, class, refused, pad }
        Sysctl { header, value_len, truncated, name, value }
        Uncovered { header, comm, inode, socket_cgroup, remote, reason, family, protocol, pad }
        Found { header, flow, local, remote, protocol, direction }
        Watch { agent, since, counted }
        Owner { start, tgid, pad }
        Nursery { depth, pad }
        FlowControl { head_cap, flags }
        AgentState { window, used, emitted, lost, cgroups }
        Told { time, records, lost }
        Task { agent, cgroup, start, last_rx_flow, last_rx_time }
        Settings { quota, watch_containers, pad }
        Offsets { task_pid, task_tgid, task_start, task_real_parent, task_group_leader, task_mm, task_files, task_signal, task_exit_code, task_comm, task_cgroups, css_set_dfl_cgrp, cgroup_serial, cgroup_kn, cgroup_root, cgroup_root_hierarchy_id, kernfs_id, kernfs_parent, kernfs_name, signal_live, signal_group_exit_code, mm_arg_start, mm_arg_end, mm_exe_file, file_mnt, file_dentry, file_inode, dentry_parent, dentry_name, mount_mnt, mount_parent, mount_mountpoint, vfsmount_root, inode_ino, inode_nlink, inode_mode, inode_sb, sb_dev, binprm_filename, files_fdt, fdtable_fd, fdtable_max_fds, fdtable_open_fds, file_private_data, inode_rdev, socket_sk, sock_protocol, sock_cgroup, sock_family, sock_daddr, sock_dport, sock_v6_daddr, sock_err, task_nsproxy, task_thread_pid, task_cred, cred_uid, cred_gid, cred_euid, cred_egid, cred_user_ns, nsproxy_cgroup, nsproxy_ipc, nsproxy_mnt, nsproxy_net, nsproxy_uts, pid_level, pid_numbers, upid_ns, cgroup_ns_inum, ipc_ns_inum, mnt_ns_inum, net_ns_inum, pid_ns_inum, user_ns_inum, uts_ns_inum, binprm_interp, files_fd_array }
    }
}

/// A structure of the object's BTF: its size, and its members' names and places.
fn in_object(types: &TypeInformation, name: &str) -> (usize, Vec<(String, usize)>) {
    let list = types
        .id_of("Shared")
        .expect("the object lists shared types");
    let Some(TypeVariant::Struct(list)) = types.from_id(list) else {
        panic!("Shared is no structure");
    };
    // By the list: the kernel side has structures of the same name for itself.
    let found = list
        .member_list()
        .iter()
        .find(|member| member.name().as_deref() == Some(name));
    let found =
        found.unwrap_or_else(|| panic!("{name} is not in agent-monitor-ebpf/src/layout.rs"));
    let Some(TypeVariant::Array(none)) = types.from_id(found.tid()) else {
        panic!("{name} is no array");
    };
    let Some(TypeVariant::Struct(structure)) = types.from_id(*none.element_tid()) else {
        panic!("{name} is no structure");
    };
    let members = structure.member_list().iter().map(|member| {
        let Offset::ByteOffset(place) = member.offset() else {
            panic!("{name} has bit fields");
        };
        (member.name().unwrap_or_default(), place as usize)
    });
    (*structure.size(), members.collect())
}

#[test]
fn both_sides_agree_on_every_shared_layout() {
    let object = Object::parse(OBJECT).unwrap();
    let btf = object.btf.expect("the object has BTF").to_bytes();
    let types = TypeInformation::new(&InMemory(&btf)).expect("its BTF can be read");
    for here in shared() {
        let (size, members) = in_object(&types, here.name);
        let members: Vec<_> = members
            .iter()
            .map(|(name, at)| (name.as_str(), *at))
            .collect();
        assert_eq!(here.members, members, "{}", here.name);
        assert_eq!(here.size, size, "{}", here.name);
    }
}

#[test]
fn no_shared_type_is_left_out() {
    let sources = [
        include_str!("../../../agent-monitor-common/src/event.rs"),
        include_str!("../../../agent-monitor-common/src/policy.rs"),
    ];
    let defined = sources
        .iter()
        .flat_map(|source| source.lines())
        .filter_map(|line| {
            let name = line.strip_prefix("pub struct ")?.split([' ', '<']).next()?;
            (name != "WithData").then_some(name)
        });
    let mut defined: Vec<&str> = defined.collect();
    let shared = shared();
    let mut listed: Vec<&str> = shared.iter().map(|shared| shared.name).collect();
    defined.sort_unstable();
    listed.sort_unstable();
    assert_eq!(
        defined, listed,
        "list it in shared(), and in agent-monitor-ebpf/src/layout.rs"
    );
}

#[test]
fn what_follows_a_record_begins_where_the_record_ends() {
    assert_eq!(
        offset_of!(WithData<Exec, EXEC_DATA>, data),
        size_of::<Exec>()
    );
    assert_eq!(offset_of!(WithData<Head, 256>, data), size_of::<Head>());
    assert_eq!(offset_of!(WithData<Cgroup, 512>, data), size_of::<Cgroup>());
}
