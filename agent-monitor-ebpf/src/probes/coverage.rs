//! What a process of an agent can do that none of the network programs sees:
//! they follow the cgroup a socket was born in, and only the internet's families.
//!
//! Looked at for every process now and then, as a BPF iterator (`iter/task`,
//! kernel/bpf/task_iter.c, since 5.8), and once more for each at its end.

use core::ffi::c_void;

use agent_monitor_common::event::{Header, Uncovered, kind, uncovered};
use agent_monitor_common::limits::{DESCRIPTORS, DESCRIPTORS_AT_EXIT, UNCOVERED_PER_PROCESS};
use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_loop, bpf_seq_write};
use aya_ebpf::programs::BtfTracePointContext;

use crate::address::{endpoint, mapped};
use crate::emit;
use crate::maps::{EVENTS, EXIT_SCRATCH, SCAN_SCRATCH, global};
use crate::object::Object;
use crate::outside;
use crate::task::{self, Address};

/// File type bits of `i_mode`, those of a socket and of a character device
/// (include/uapi/linux/stat.h).
const S_IFMT: u16 = 0o170000;
const S_IFSOCK: u16 = 0o140000;
const S_IFCHR: u16 = 0o020000;
/// /dev/net/tun: MISC_MAJOR and TUN_MINOR, as the kernel packs them (include/linux/kdev_t.h).
const TUN: u32 = (10 << 20) | 200;
/// Address families (include/linux/socket.h).
const AF_UNSPEC: u16 = 0;
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_KEY: u16 = 15;
const AF_NETLINK: u16 = 16;
const AF_ALG: u16 = 38;

/// Writes what is uncovered of one task to whoever reads the iterator:
/// records of [`Uncovered`], one after the other.
#[inline(always)]
pub fn scan(ctx: &BtfTracePointContext) -> i32 {
    // struct bpf_iter__task: the iterator's state, and the task, null at the end.
    let meta: *const *mut seq_file = ctx.arg(0);
    // SAFETY: the hook's argument.
    let Some(task) = (unsafe { Object::new(ctx.arg(1)) }) else {
        return 0;
    };
    // Threads of the kernel's own: half of all tasks, or more.
    if task.follow(global!(OFFSETS.task_mm)).is_none() {
        return 0;
    }
    let pid: u32 = task.get(global!(OFFSETS.task_pid));
    let tgid: u32 = task.get(global!(OFFSETS.task_tgid));
    if pid != tgid && shares_files(task) {
        return 0;
    }
    let cgroup = task::cgroup(task);
    let Some(agent) = task::agent_of(cgroup, tgid) else {
        return 0;
    };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: the first member of struct bpf_iter_meta; the kernel's own pointer.
    let way = Sequence(unsafe { *meta });
    look(task, agent, cgroup, now, DESCRIPTORS, way);
    0
}

/// Reports what the ending process of an agent still holds.
#[inline(always)]
pub fn at_exit(task: Object, agent: u64, cgroup: u64, now: u64) {
    look(task, agent, cgroup, now, DESCRIPTORS_AT_EXIT, Ring);
}

/// How findings leave the kernel, and where they are put together.
trait Way {
    fn scratch() -> Option<*mut Walk>;
    fn send(&self, found: &Uncovered);
}

/// To who reads the iterator.
struct Sequence(*mut seq_file);

impl Way for Sequence {
    #[inline(always)]
    fn scratch() -> Option<*mut Walk> {
        SCAN_SCRATCH.get_ptr_mut(0)
    }

    #[inline(always)]
    fn send(&self, found: &Uncovered) {
        // SAFETY: the iterator's own sequence, and as many bytes as a record has.
        // What does not fit is written again: the kernel repeats the task.
        unsafe {
            bpf_seq_write(
                self.0,
                (&raw const *found).cast_mut().cast(),
                size_of::<Uncovered>() as u32,
            );
        }
    }
}

/// To the ring of events.
struct Ring;

impl Way for Ring {
    #[inline(always)]
    fn scratch() -> Option<*mut Walk> {
        EXIT_SCRATCH.get_ptr_mut(0)
    }

    #[inline(always)]
    fn send(&self, found: &Uncovered) {
        let Header { agent, time, .. } = found.header;
        emit::record::<Uncovered>(&EVENTS, kind::UNCOVERED, agent, time, |record| {
            // SAFETY: the place is a reservation of this type.
            unsafe { record.write(*found) };
            true
        });
    }
}

/// Whether a thread has the descriptors of its group's leader: it can have its
/// own, and outlive it.
#[inline(always)]
fn shares_files(task: Object) -> bool {
    let files = |task: Object| {
        let files = task.follow(global!(OFFSETS.task_files));
        files.map_or(0, Object::address)
    };
    let leader = task.follow(global!(OFFSETS.task_group_leader));
    leader.is_some_and(|leader| files(task) == files(leader))
}

/// A walk over a process's descriptors. In a map, because the verifier follows
/// every value on the stack from step to step, and none in a map.
pub struct Walk {
    /// `fdtable.fd`: the files by descriptor.
    files: Address,
    /// `fdtable.open_fds`: a bit for each descriptor.
    open: Address,
    /// Descriptors that the table has room for.
    room: u32,
    /// The next 64 to look at.
    word: u32,
    /// Which of the last 64 are open and not looked at.
    bits: u64,
    /// What was sent.
    told: u32,
    /// Not 0: all were looked at.
    done: u32,
    found: Uncovered,
}

#[inline(always)]
fn look<W: Way>(task: Object, agent: u64, cgroup: u64, now: u64, steps: u32, way: W) {
    let Some(walk) = W::scratch() else {
        return;
    };
    // SAFETY: a per-CPU value that only this program uses; the kernel does not
    // start it again on a CPU where it runs.
    let walk = unsafe { &mut *walk };
    let found = &mut walk.found;
    found.header = emit::header::<Uncovered>(kind::UNCOVERED, now, agent);
    found.header.cgroup = cgroup;
    found.header.start = task::start(task);
    found.header.tgid = task.get(global!(OFFSETS.task_tgid));
    found.header.tid = task.get(global!(OFFSETS.task_pid));
    found.comm = task::comm(task);
    found.inode = 0;
    found.socket_cgroup = 0;
    found.remote = endpoint([0; 4], 0);
    found.reason = uncovered::OUTSIDE;
    found.family = 0;
    found.protocol = 0;
    found.pad = 0;
    if task::agent_of_cgroup(cgroup).is_none() {
        outside::note_stray();
        way.send(found);
    }
    let files = task.follow(global!(OFFSETS.task_files));
    let Some(table) = files.and_then(|files| files.follow(global!(OFFSETS.files_fdt))) else {
        return;
    };
    walk.files = table.get(global!(OFFSETS.fdtable_fd));
    walk.open = table.get(global!(OFFSETS.fdtable_open_fds));
    walk.room = table.get(global!(OFFSETS.fdtable_max_fds));
    walk.word = 0;
    walk.bits = 0;
    walk.told = 0;
    walk.done = 0;
    // SAFETY: the kernel calls `step` at most `steps` times, one after the other,
    // with `way`, which lives through the call.
    unsafe {
        bpf_loop(
            steps,
            step::<W> as *mut c_void,
            (&raw const way).cast_mut().cast(),
            0,
        );
    }
    if walk.done == 0 {
        walk.found.reason = uncovered::TOO_MANY;
        walk.found.inode = 0;
        way.send(&walk.found);
    }
}

/// Looks at one open descriptor, or skips 64 that are closed; 1 ends the walk.
/// Called by the kernel, so that the verifier follows it once and not for each step.
unsafe extern "C" fn step<W: Way>(_index: u64, way: *const W) -> i64 {
    let Some(walk) = W::scratch() else {
        return 1;
    };
    // SAFETY: `look` waits in its bpf_loop() meanwhile, and nobody else uses it.
    let walk = unsafe { &mut *walk };
    if walk.bits == 0 {
        if walk.word * 64 >= walk.room {
            walk.done = 1;
            return 1;
        }
        walk.bits = task::read(walk.open, walk.word * 8);
        walk.word += 1;
        if walk.bits == 0 {
            return 0;
        }
    }
    let descriptor = (walk.word - 1) * 64 + walk.bits.trailing_zeros();
    walk.bits &= walk.bits - 1;
    let file: Address = task::read(walk.files, descriptor * 8);
    if file != 0 && examine(file, &mut walk.found) {
        // SAFETY: what `look` gave, which lives as long.
        unsafe { &*way }.send(&walk.found);
        walk.told += 1;
    }
    // Most processes have few: no further step only to see that there is none.
    walk.done = u32::from(walk.bits == 0 && walk.word * 64 >= walk.room);
    i64::from(walk.done != 0 || walk.told == UNCOVERED_PER_PROCESS)
}

/// Whether what an open file carries is not seen; then `found` says why.
#[inline(always)]
fn examine(file: Address, found: &mut Uncovered) -> bool {
    let inode: Address = task::read(file, global!(OFFSETS.file_inode));
    let mode: u16 = task::read(inode, global!(OFFSETS.inode_mode));
    if mode & S_IFMT == S_IFCHR {
        if task::read::<u32>(inode, global!(OFFSETS.inode_rdev)) != TUN {
            return false;
        }
        found.reason = uncovered::TUN;
        found.inode = task::read(inode, global!(OFFSETS.inode_ino));
        found.family = 0;
        found.remote = endpoint([0; 4], 0);
        return true;
    }
    if mode & S_IFMT != S_IFSOCK {
        return false;
    }
    let socket: Address = task::read(file, global!(OFFSETS.file_private_data));
    let sk: Address = task::read(socket, global!(OFFSETS.socket_sk));
    if sk == 0 {
        return false;
    }
    let family: u16 = task::read(sk, global!(OFFSETS.sock_family));
    match family {
        AF_UNSPEC | AF_UNIX | AF_NETLINK | AF_KEY | AF_ALG => return false,
        AF_INET | AF_INET6 => {
            let born: Address = task::read(sk, global!(OFFSETS.sock_cgroup));
            found.socket_cgroup = task::cgroup_id(born);
            if task::agent_of_cgroup(found.socket_cgroup).is_some() {
                return false;
            }
            found.reason = uncovered::SOCKET;
            let ip = if family == AF_INET {
                mapped(task::read(sk, global!(OFFSETS.sock_daddr)))
            } else {
                task::read(sk, global!(OFFSETS.sock_v6_daddr))
            };
            let port: u16 = task::read(sk, global!(OFFSETS.sock_dport));
            found.remote = endpoint(ip, u16::from_be(port));
        }
        _ => {
            found.reason = uncovered::FAMILY;
            found.remote = endpoint([0; 4], 0);
        }
    }
    found.inode = task::read(inode, global!(OFFSETS.inode_ino));
    found.family = u32::from(family);
    found.protocol = u32::from(task::read::<u16>(sk, global!(OFFSETS.sock_protocol)));
    true
}
