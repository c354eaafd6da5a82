//! The bpf() system call, for what aya has no function for.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use aya_obj::generated::{bpf_cmd, bpf_prog_info};
use bytemuck::NoUninit;

/// A command that returns a new file descriptor and writes to no memory of the caller.
///
/// # Errors
/// What the kernel answers.
pub fn open<T: NoUninit>(command: bpf_cmd, attr: &T) -> io::Result<OwnedFd> {
    let fd = call(command, attr)?;
    // SAFETY: a result that is not negative is a new file descriptor, which
    // nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn call<T: NoUninit>(command: bpf_cmd, attr: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads size_of::<T>() initialised bytes at `attr`, which
    // lives through the call, and treats what is left of its own bpf_attr as
    // zero. Addresses in it are checked by the kernel; those that it writes to
    // are this module's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as u32,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How often the kernel skipped a program because it was running already on that
/// CPU: `recursion_misses` of `struct bpf_prog_info`, since 5.12.
///
/// # Errors
/// It is no program.
pub fn recursion_misses(program: BorrowedFd<'_>) -> io::Result<u64> {
    // As much of the structure as is needed, in words: the kernel fills the part
    // it is given (bpf_prog_get_info_by_fd, kernel/bpf/syscall.c).
    const AT: usize = offset_of!(bpf_prog_info, recursion_misses) / size_of::<u64>();
    let mut info = [0_u64; AT + 1];
    let attr = ObjectInfo {
        // A file descriptor that is open is not negative.
        fd: program.as_raw_fd() as u32,
        len: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &attr)?;
    Ok(info[AT])
}

/// The part of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`
/// (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct ObjectInfo {
    fd: u32,
    len: u32,
    info: u64,
}
