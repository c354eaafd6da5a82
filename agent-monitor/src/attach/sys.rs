//! The bpf() system call, for what aya has no function for: links of every kind
//! as file descriptors, pins of them, and what the kernel says of programs.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::mem::offset_of;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_prog_info};
use bytemuck::NoUninit;

use super::programs::Hook;

/// A command that returns a new file descriptor and writes to no memory of the caller.
///
/// # Errors
/// What the kernel answers.
pub fn open<T: NoUninit>(command: bpf_cmd, attr: &T) -> io::Result<OwnedFd> {
    let fd = call(command, std::ptr::from_ref(attr).cast_mut())?;
    // SAFETY: a result that is not negative is a new file descriptor, which
    // nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `attr` is writable if the command writes to it.
fn call<T: NoUninit>(command: bpf_cmd, attr: *mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads size_of::<T>() initialised bytes at `attr`, which
    // lives through the call, and treats what is left of its own bpf_attr as
    // zero. Addresses in it are checked by the kernel; those that it writes to
    // are this module's.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as u32, attr, size_of::<T>()) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    // A file descriptor that is open is not negative.
    fd.as_raw_fd() as u32
}

/// Attaches a loaded program to its hook, for a cgroup's hook on `cgroup` and
/// everything below. It stays attached as long as the link is open or pinned.
/// Links to one cgroup stack, whoever made them.
///
/// # Errors
/// What the kernel answers.
pub fn attach(hook: Hook, program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    match hook {
        Hook::Tracepoint(_) => attach_to_node(program),
        _ => open(
            bpf_cmd::BPF_LINK_CREATE,
            &LinkCreate {
                prog_fd: raw(program),
                target_fd: match hook.is_on_cgroups() {
                    true => raw(cgroup),
                    false => 0,
                },
                attach_type: hook.kind().1 as u32,
                flags: 0,
            },
        ),
    }
}

/// Attaches a tracepoint's program, which knows its own place.
///
/// # Errors
/// What the kernel answers.
pub fn attach_to_node(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    open(
        bpf_cmd::BPF_RAW_TRACEPOINT_OPEN,
        &RawTracepointOpen {
            name: 0,
            prog_fd: raw(program),
            pad: 0,
        },
    )
}

/// Pins a map, program or link: it stays as long as the file does.
///
/// # Errors
/// The path is not in a BPF file system, or exists.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Pin {
        path: path.as_ptr() as u64,
        fd: raw(fd),
        flags: 0,
    };
    call(bpf_cmd::BPF_OBJ_PIN, &raw mut attr).map(drop)
}

/// Opens what is pinned.
///
/// # Errors
/// There is nothing of that name.
pub fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = Pin {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    open(bpf_cmd::BPF_OBJ_GET, &attr)
}

/// What the kernel counts of a program.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunStats {
    /// How often it ran; counted while `kernel.bpf_stats_enabled` is 1.
    pub runs: u64,
    /// For how long, in nanoseconds; alike.
    pub nanoseconds: u64,
    /// How often it was skipped because it was running already on that CPU.
    pub skipped: u64,
}

/// What is counted of a program: `run_cnt`, `run_time_ns` and, since 5.12,
/// `recursion_misses` of `struct bpf_prog_info`.
///
/// # Errors
/// It is no program.
pub fn run_stats(program: BorrowedFd<'_>) -> io::Result<RunStats> {
    // As much of the structure as is needed, in words: the kernel fills the part
    // it is given (bpf_prog_get_info_by_fd, kernel/bpf/syscall.c).
    const SKIPPED: usize = offset_of!(bpf_prog_info, recursion_misses) / size_of::<u64>();
    const TIME: usize = offset_of!(bpf_prog_info, run_time_ns) / size_of::<u64>();
    const RUNS: usize = offset_of!(bpf_prog_info, run_cnt) / size_of::<u64>();
    const { assert!(TIME < SKIPPED && RUNS < SKIPPED) };
    let info = info::<{ SKIPPED + 1 }>(program)?;
    Ok(RunStats {
        runs: info[RUNS],
        nanoseconds: info[TIME],
        skipped: info[SKIPPED],
    })
}

/// The kernel's id of a program.
///
/// # Errors
/// It is no program.
pub fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    // `type` and `id` are the first word of `struct bpf_prog_info`.
    const { assert!(offset_of!(bpf_prog_info, id) == size_of::<u32>()) };
    let [word] = info::<1>(program)?;
    Ok(u32::from_ne_bytes(
        word.to_ne_bytes()[4..].try_into().unwrap_or_default(),
    ))
}

fn info<const WORDS: usize>(program: BorrowedFd<'_>) -> io::Result<[u64; WORDS]> {
    let mut info = [0_u64; WORDS];
    let mut attr = ObjectInfo {
        fd: raw(program),
        len: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &raw mut attr)?;
    Ok(info)
}

/// Most programs of one kind on a cgroup (`BPF_CGROUP_MAX_PROGS`, kernel/bpf/cgroup.c).
const MAX_PROGRAMS: usize = 64;

/// Ids of the programs that are attached to a cgroup itself, in one place.
///
/// # Errors
/// It is no cgroup, or has been removed.
pub fn attached(cgroup: BorrowedFd<'_>, place: bpf_attach_type) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut attr = ProgramQuery {
        target_fd: raw(cgroup),
        attach_type: place as u32,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        pad: 0,
    };
    call(bpf_cmd::BPF_PROG_QUERY, &raw mut attr)?;
    let count = usize::try_from(attr.count).unwrap_or(MAX_PROGRAMS);
    Ok(ids[..count.min(MAX_PROGRAMS)].to_vec())
}

/// Runs an iterator's program over what it iterates; gives what it writes.
///
/// # Errors
/// What the kernel answers.
pub fn iterate(program: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let link = open(
        bpf_cmd::BPF_LINK_CREATE,
        &LinkCreate {
            prog_fd: raw(program),
            target_fd: 0,
            attach_type: bpf_attach_type::BPF_TRACE_ITER as u32,
            flags: 0,
        },
    )?;
    let iterator = open(
        bpf_cmd::BPF_ITER_CREATE,
        &IteratorCreate {
            link_fd: raw(link.as_fd()),
            flags: 0,
        },
    )?;
    let mut written = Vec::new();
    File::from(iterator).read_to_end(&mut written)?;
    Ok(written)
}

// The parts of `union bpf_attr` (include/uapi/linux/bpf.h).

/// For `BPF_LINK_CREATE`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// For `BPF_RAW_TRACEPOINT_OPEN`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct RawTracepointOpen {
    name: u64,
    prog_fd: u32,
    pad: u32,
}

/// For `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// For `BPF_ITER_CREATE`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct IteratorCreate {
    link_fd: u32,
    flags: u32,
}

/// For `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct ProgramQuery {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    pad: u32,
}

/// For `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct ObjectInfo {
    fd: u32,
    len: u32,
    info: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_laid_out_as_the_kernel_s() {
        use aya_obj::generated::{
            bpf_attr__bindgen_ty_5 as Object, bpf_attr__bindgen_ty_14 as Link,
        };
        assert_eq!(
            offset_of!(LinkCreate, attach_type),
            offset_of!(Link, attach_type)
        );
        assert_eq!(offset_of!(LinkCreate, flags), offset_of!(Link, flags));
        assert_eq!(offset_of!(Pin, fd), offset_of!(Object, bpf_fd));
        assert_eq!(offset_of!(bpf_prog_info, recursion_misses) % 8, 0);
        assert_eq!(offset_of!(bpf_prog_info, run_time_ns) % 8, 0);
        assert_eq!(offset_of!(bpf_prog_info, run_cnt) % 8, 0);
    }
}
