//! `sched_process_exec(struct task_struct *p, pid_t old_pid, struct
//! linux_binprm *bprm)`, fs/exec.c, since 3.4; the new program's memory is in
//! place, so its argv is what really runs.

use agent_monitor_common::event::{EXEC_DATA, Exec, WithData, kind};
use agent_monitor_common::limits::{ARGV_CAP, PATH_CAP, PATH_COMPONENTS};
use agent_monitor_common::policy::LossReason;
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_boot_ns, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_ringbuf_output,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid};
use aya_ebpf::programs::BtfTracePointContext;

use crate::emit;
use crate::maps::{EVENTS, EXEC_SCRATCH, global};
use crate::task;

type Record = WithData<Exec, EXEC_DATA>;

/// Bytes of one path component: NAME_MAX and a NUL (include/uapi/linux/limits.h).
const COMPONENT: usize = 256;
/// File type bits of `i_mode`, and those of a socket (include/uapi/linux/stat.h).
const S_IFMT: u16 = 0o170000;
const S_IFSOCK: u16 = 0o140000;

/// Reports the program that a process of an agent now runs.
#[inline(always)]
pub fn exec(ctx: &BtfTracePointContext) -> i32 {
    let cgroup = task::current_cgroup();
    let tgid = task::current_tgid();
    let Some(agent) = task::current_agent(cgroup, tgid) else {
        return 0;
    };
    let current = task::current();
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
    let binprm = ctx.arg::<*const u8>(2) as u64;
    let used = fill(&mut scratch.record, &mut scratch.data, current, binprm);
    let header = &mut scratch.record.header;
    *header = emit::header::<Exec>(kind::EXEC, now, agent);
    header.len = (size_of::<Exec>() + used) as u32;
    header.cgroup = cgroup;
    header.start = start;
    header.tgid = tgid;
    header.tid = bpf_get_current_pid_tgid() as u32;
    let len = (size_of::<Exec>() + used).min(size_of::<Record>());
    // SAFETY: `len` bytes of the scratch value are written: the record, and as
    // much data as `fill` said.
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
fn fill(record: &mut Exec, data: &mut [u8; EXEC_DATA], task: u64, binprm: u64) -> usize {
    let parent: u64 = task::read(task, global!(OFFSETS.task_real_parent));
    record.ppid = task::read(parent, global!(OFFSETS.task_tgid));
    record.parent_start = task::start(parent);
    record.uid = bpf_get_current_uid_gid() as u32;
    record.comm = task::read(task, global!(OFFSETS.task_comm));
    record.stdio_sockets = stdio_sockets(task);
    record.pad = 0;

    let mm: u64 = task::read(task, global!(OFFSETS.task_mm));
    let file: u64 = task::read(mm, global!(OFFSETS.mm_exe_file));
    let inode: u64 = task::read(file, global!(OFFSETS.file_inode));
    record.inode = task::read(inode, global!(OFFSETS.inode_ino));
    record.links = task::read(inode, global!(OFFSETS.inode_nlink));
    let sb: u64 = task::read(inode, global!(OFFSETS.inode_sb));
    record.device = task::read(sb, global!(OFFSETS.sb_dev));

    let base = data.as_mut_ptr();
    let filename: u64 = task::read(binprm, global!(OFFSETS.binprm_filename));
    let mut used = read_str(base, PATH_CAP as u32, filename);
    record.filename_len = used as u32;

    let before = used;
    used = exe_path(base, used, file);
    record.exe_len = (used - before) as u32;

    let from: u64 = task::read(mm, global!(OFFSETS.mm_arg_start));
    let to: u64 = task::read(mm, global!(OFFSETS.mm_arg_end));
    let total = to.wrapping_sub(from).min(u64::from(u32::MAX)) as u32;
    record.argv_total = total;
    let mut take = total as usize;
    if take > ARGV_CAP - 1 {
        take = ARGV_CAP - 1;
    }
    record.argv_len = 0;
    if take > 0 && used <= 2 * PATH_CAP {
        // SAFETY: at most 1,024 + 4,095 bytes into EXEC_DATA = 5,120; the helper
        // checks the source. The mask repeats the bound for the verifier.
        let failed = unsafe {
            bpf_probe_read_user(
                base.add(used).cast(),
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

/// Copies a NUL-terminated string, its NUL included; gives its length.
#[inline(always)]
fn read_str(to: *mut u8, size: u32, from: u64) -> usize {
    // SAFETY: callers give `size` writable bytes; the helper checks the source.
    let read = unsafe { bpf_probe_read_kernel_str(to.cast(), size, from as *const _) };
    if read > 0 && read <= i64::from(size) {
        read as usize
    } else {
        0
    }
}

/// Writes the components of a file's path, from the leaf up to the root of its
/// mount namespace, each with a NUL, from `used` on; gives the end.
///
/// Follows what d_path() does (fs/d_path.c), over mount points.
#[inline(always)]
fn exe_path(base: *mut u8, mut used: usize, file: u64) -> usize {
    let begin = used;
    let mut dentry: u64 = task::read(file, global!(OFFSETS.file_dentry));
    let vfsmount: u64 = task::read(file, global!(OFFSETS.file_mnt));
    let mut mount = vfsmount.wrapping_sub(u64::from(global!(OFFSETS.mount_mnt)));
    for _ in 0..PATH_COMPONENTS {
        let parent: u64 = task::read(dentry, global!(OFFSETS.dentry_parent));
        let root: u64 = task::read(
            mount,
            global!(OFFSETS.mount_mnt) + global!(OFFSETS.vfsmount_root),
        );
        if dentry == root {
            let above: u64 = task::read(mount, global!(OFFSETS.mount_parent));
            if above == mount || above == 0 {
                break;
            }
            dentry = task::read(mount, global!(OFFSETS.mount_mountpoint));
            mount = above;
            continue;
        }
        // A memfd lies in no directory: its only component is its own name.
        if dentry == 0 || (dentry == parent && used != begin) {
            break;
        }
        if used > 2 * PATH_CAP - COMPONENT {
            break;
        }
        let name: u64 = task::read(dentry, global!(OFFSETS.dentry_name));
        // SAFETY: COMPONENT bytes from `used` on lie inside the first 2 × PATH_CAP.
        used += read_str(unsafe { base.add(used) }, COMPONENT as u32, name);
        dentry = parent;
    }
    used
}

/// Which of file descriptors 0 to 2 is a socket, a bit each.
#[inline(always)]
fn stdio_sockets(task: u64) -> u32 {
    let files: u64 = task::read(task, global!(OFFSETS.task_files));
    let table: u64 = task::read(files, global!(OFFSETS.files_fdt));
    let array: u64 = task::read(table, global!(OFFSETS.fdtable_fd));
    let mut sockets = 0;
    for n in 0..3u32 {
        let file: u64 = task::read(array, n * 8);
        let inode: u64 = task::read(file, global!(OFFSETS.file_inode));
        let mode: u16 = task::read(inode, global!(OFFSETS.inode_mode));
        if file != 0 && mode & S_IFMT == S_IFSOCK {
            sockets |= 1 << n;
        }
    }
    sockets
}
