//! `sched_process_exec(struct task_struct *p, pid_t old_pid, struct
//! linux_binprm *bprm)`, fs/exec.c, since 3.4; the new program's memory and
//! rights are in place, so its argv is what really runs.

mod path;

use core::arch::asm;

use agent_monitor_common::event::{EXEC_DATA, Exec, ExecDetails, kind};
use agent_monitor_common::limits::{ARGV_CAP, PATH_CAP};
use agent_monitor_common::policy::LossReason;
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_boot_ns, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_ringbuf_output,
};
use aya_ebpf::programs::BtfTracePointContext;

use crate::emit;
use crate::maps::{EVENTS, EXEC_SCRATCH, global};
use crate::object::Object;
use crate::outside;
use crate::task::{self, Address};
pub use path::Walk;

/// File type bits of `i_mode`, and those of a socket (include/uapi/linux/stat.h).
const S_IFMT: u16 = 0o170000;
const S_IFSOCK: u16 = 0o140000;

/// Where a record is put together.
#[repr(C)]
pub struct Scratch {
    record: Exec,
    details: ExecDetails,
    data: [u8; EXEC_DATA],
    /// Not sent.
    walk: Walk,
}

/// Bytes of a record before its text.
const FIXED: usize = size_of::<Exec>() + size_of::<ExecDetails>();

/// Reports the program that a process of an agent now runs.
#[inline(always)]
pub fn exec(ctx: &BtfTracePointContext) -> i32 {
    // SAFETY: the hook's arguments.
    let (current, binprm) = unsafe { (Object::new(ctx.arg(0)), Object::new(ctx.arg(2))) };
    let (Some(current), Some(binprm)) = (current, binprm) else {
        return 0;
    };
    let Some(group) = task::group(current) else {
        return 0;
    };
    if outside::knows(group) {
        return 0;
    }
    let cgroup = task::id(group);
    let tgid: u32 = current.get(global!(OFFSETS.task_tgid));
    let Some(agent) = task::current_agent(cgroup, tgid) else {
        outside::note(group);
        return 0;
    };
    let start = task::start(current);
    if task::remembered(tgid).is_none() {
        task::remember(tgid, agent, cgroup, start);
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let Some(allowed) = emit::allowed(&EVENTS, agent, kind::EXEC, now) else {
        return 0;
    };
    let Some(scratch) = EXEC_SCRATCH.get_ptr_mut(0) else {
        allowed.lost(LossReason::Kernel);
        return 0;
    };
    // SAFETY: a per-CPU value that only this program uses; the kernel does not
    // run it twice at once on one CPU.
    let scratch = unsafe { &mut *scratch };
    let used = fill(scratch, current, binprm);
    let len = (FIXED + used).min(FIXED + EXEC_DATA);
    let header = &mut scratch.record.header;
    *header = emit::header::<Exec>(kind::EXEC, now, agent);
    header.len = len as u32;
    header.cgroup = cgroup;
    header.start = start;
    header.tgid = tgid;
    header.tid = current.get(global!(OFFSETS.task_pid));
    // SAFETY: `len` bytes of the scratch value are written: the record, its
    // details, and as much data as `fill` said.
    let failed = unsafe {
        bpf_ringbuf_output(
            (&raw const EVENTS).cast_mut().cast(),
            (&raw mut *scratch).cast(),
            len as u64,
            emit::wake(now),
        )
    };
    if failed == 0 {
        allowed.sent();
    } else {
        allowed.lost(LossReason::Ring);
    }
    0
}

/// Fills all but the header; gives the bytes of `data` in use.
#[inline(always)]
fn fill(scratch: &mut Scratch, task: Object, binprm: Object) -> usize {
    let record = &mut scratch.record;
    (record.ppid, record.parent_start) = match task.follow(global!(OFFSETS.task_real_parent)) {
        Some(parent) => (parent.get(global!(OFFSETS.task_tgid)), task::start(parent)),
        None => (0, 0),
    };
    record.comm = task::comm(task);
    record.stdio_sockets = stdio_sockets(task);
    record.details_len = size_of::<ExecDetails>() as u32;
    record.uid = rights(&mut scratch.details, task);
    namespaces(&mut scratch.details, task);

    let mut used = 0;
    let data = scratch.data.as_mut_ptr();
    let filename: Address = binprm.get(global!(OFFSETS.binprm_filename));
    used += read_str(data, PATH_CAP as u32, filename);
    record.filename_len = used as u32;
    // Each interpreter takes the place of the one before (bprm_change_interp).
    let interpreter: Address = binprm.get(global!(OFFSETS.binprm_interp));
    scratch.details.interpreter_len = 0;
    if interpreter != filename {
        // SAFETY: PATH_CAP bytes from at most PATH_CAP on lie inside EXEC_DATA.
        let read = read_str(unsafe { data.add(used) }, PATH_CAP as u32, interpreter);
        scratch.details.interpreter_len = read as u32;
        used += read;
    }

    (record.inode, record.links, record.device) = (0, 0, 0);
    (record.exe_len, record.argv_len, record.argv_total) = (0, 0, 0);
    scratch.details.mode = 0;
    let Some(mm) = task.follow(global!(OFFSETS.task_mm)) else {
        return used;
    };
    if let Some(file) = mm.follow(global!(OFFSETS.mm_exe_file)) {
        if let Some(inode) = file.follow(global!(OFFSETS.file_inode)) {
            record.inode = inode.get(global!(OFFSETS.inode_ino));
            record.links = inode.get(global!(OFFSETS.inode_nlink));
            scratch.details.mode = u32::from(inode.get::<u16>(global!(OFFSETS.inode_mode)));
            record.device = match inode.follow(global!(OFFSETS.inode_sb)) {
                Some(sb) => sb.get(global!(OFFSETS.sb_dev)),
                None => 0,
            };
        }
        let before = used;
        used = path::write(scratch, used, file);
        scratch.record.exe_len = (used - before) as u32;
    }
    let record = &mut scratch.record;

    let from: Address = mm.get(global!(OFFSETS.mm_arg_start));
    let to: Address = mm.get(global!(OFFSETS.mm_arg_end));
    let total = to.wrapping_sub(from).min(u64::from(u32::MAX)) as u32;
    record.argv_total = total;
    let mut take = total as usize;
    if take > ARGV_CAP - 1 {
        take = ARGV_CAP - 1;
    }
    if take > 0 && used <= 3 * PATH_CAP {
        // SAFETY: at most 1,536 + 4,095 bytes into EXEC_DATA = 5,632; the helper
        // checks the source. The mask repeats the bound for the verifier.
        let failed = unsafe {
            bpf_probe_read_user(
                scratch.data.as_mut_ptr().add(used).cast(),
                (take & (ARGV_CAP - 1)) as u32,
                from as *const _,
            )
        };
        if failed == 0 {
            record.argv_len = take as u32;
            used += take;
        }
    }
    used
}

/// Fills in the ids that a task has; gives the real user id.
#[inline(always)]
fn rights(details: &mut ExecDetails, task: Object) -> u32 {
    (details.gid, details.euid, details.egid, details.user_ns) = (0, 0, 0, 0);
    let Some(cred) = task.follow(global!(OFFSETS.task_cred)) else {
        return 0;
    };
    details.gid = cred.get(global!(OFFSETS.cred_gid));
    details.euid = cred.get(global!(OFFSETS.cred_euid));
    details.egid = cred.get(global!(OFFSETS.cred_egid));
    details.user_ns = number(
        cred,
        global!(OFFSETS.cred_user_ns),
        global!(OFFSETS.user_ns_inum),
    );
    cred.get(global!(OFFSETS.cred_uid))
}

/// Fills in the namespaces of a task, but for that of users.
#[inline(always)]
fn namespaces(details: &mut ExecDetails, task: Object) {
    details.pid_ns = pid_namespace(task);
    (details.cgroup_ns, details.ipc_ns, details.mnt_ns) = (0, 0, 0);
    (details.net_ns, details.uts_ns) = (0, 0);
    let Some(all) = task.follow(global!(OFFSETS.task_nsproxy)) else {
        return;
    };
    macro_rules! namespace {
        ($member:ident, $number:ident) => {
            number(all, global!(OFFSETS.$member), global!(OFFSETS.$number))
        };
    }
    details.cgroup_ns = namespace!(nsproxy_cgroup, cgroup_ns_inum);
    details.ipc_ns = namespace!(nsproxy_ipc, ipc_ns_inum);
    details.mnt_ns = namespace!(nsproxy_mnt, mnt_ns_inum);
    details.net_ns = namespace!(nsproxy_net, net_ns_inum);
    details.uts_ns = namespace!(nsproxy_uts, uts_ns_inum);
}

/// The inode number of the namespace that a member points at.
#[inline(always)]
fn number(holder: Object, member: u32, inum: u32) -> u32 {
    match holder.follow(member) {
        Some(namespace) => namespace.get(inum),
        None => 0,
    }
}

/// `nsproxy` has the pid namespace of children yet to come: a task's own is that of
/// its deepest id (task_active_pid_ns, kernel/pid.c).
#[inline(always)]
fn pid_namespace(task: Object) -> u32 {
    let Some(pid) = task.follow(global!(OFFSETS.task_thread_pid)) else {
        return 0;
    };
    let level: u32 = pid.get(global!(OFFSETS.pid_level));
    let own = global!(OFFSETS.upid_ns);
    // `ns` is the last member of the array's elements.
    let at = global!(OFFSETS.pid_numbers) + level * (own + 8) + own;
    // The verifier follows no array whose length it does not know.
    let namespace: Address = task::read(pid.address(), at);
    task::read(namespace, global!(OFFSETS.pid_ns_inum))
}

/// Copies a NUL-terminated string, its NUL included; gives its length.
#[inline(always)]
fn read_str(to: *mut u8, size: u32, from: Address) -> usize {
    // SAFETY: callers give `size` writable bytes; the helper checks the source.
    let mut read = unsafe { bpf_probe_read_kernel_str(to.cast(), size, from as *const _) } as u64;
    // SAFETY: a move of a register to itself. The compiler cannot split the comparison
    // into what the verifier of 6.1 does not put together again.
    unsafe { asm!("{0} = {0}", inout(reg) read, options(nomem, nostack)) };
    // An error is negative, and as unsigned larger than any size.
    if read <= u64::from(size) {
        read as usize
    } else {
        0
    }
}

/// Which of file descriptors 0 to 2 is a socket, a bit each.
#[inline(always)]
fn stdio_sockets(task: Object) -> u32 {
    let Some(files) = task.follow(global!(OFFSETS.task_files)) else {
        return 0;
    };
    let Some(table) = files.follow(global!(OFFSETS.files_fdt)) else {
        return 0;
    };
    let array: Address = table.get(global!(OFFSETS.fdtable_fd));
    let mut sockets = 0;
    // Most processes have no more descriptors than `files_struct` itself holds.
    if array == files.address() + u64::from(global!(OFFSETS.files_fd_array)) {
        for n in 0..3u32 {
            let file = files.follow(global!(OFFSETS.files_fd_array) + n * 8);
            let inode = file.and_then(|file| file.follow(global!(OFFSETS.file_inode)));
            let mode = inode.map_or(0, |inode| inode.get(global!(OFFSETS.inode_mode)));
            sockets |= is_socket(mode) << n;
        }
    } else {
        for n in 0..3u32 {
            let file: Address = task::read(array, n * 8);
            let inode: Address = task::read(file, global!(OFFSETS.file_inode));
            sockets |= is_socket(task::read(inode, global!(OFFSETS.inode_mode))) << n;
        }
    }
    sockets
}

/// 1 if these are a socket's mode bits.
#[inline(always)]
fn is_socket(mode: u16) -> u32 {
    u32::from(mode & S_IFMT == S_IFSOCK)
}
