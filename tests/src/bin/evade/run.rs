//! Programs that are not what, or not called what, they seem.

use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;
use std::ptr;

use anyhow::{Context, Result};

use crate::{Task, check, code, in_child, plain};

/// fexecve() of a copy in memory: no file of that program is ever there.
pub fn memfd(task: &Task) -> Result<()> {
    let own = std::fs::read("/proc/self/exe")?;
    let file = code::in_memory(c"ordinary", &own)?;
    in_child(|| {
        let pool = CString::new(task.pool.to_string())?;
        let arguments = [c"ordinary", c"plain", &pool];
        let mut arguments: Vec<_> = arguments.map(CStr::as_ptr).to_vec();
        arguments.push(ptr::null());
        let environment = [ptr::null()];
        // SAFETY: both lists end with null, and their strings live.
        unsafe {
            libc::fexecve(file.as_raw_fd(), arguments.as_ptr(), environment.as_ptr());
        }
        Err(std::io::Error::last_os_error()).context("fexecve")
    })
}

/// Overwrites its arguments and its name after it was started, then logs in.
pub fn new_arguments(task: &Task) -> Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("an odd /proc/self/stat")?;
    // Fields 48 and 49 of proc_pid_stat(5) are arg_start and arg_end; the third is
    // the first here.
    let mut fields = fields.split_whitespace().skip(48 - 3);
    let mut next = || -> Result<usize> { Ok(fields.next().context("too short")?.parse()?) };
    let (from, to) = (next()?, next()?);
    // SAFETY: the arguments' own memory, which is writable. What was made of them
    // before are copies.
    unsafe {
        ptr::write_bytes(from as *mut u8, b'x', to - from - 1);
        check(
            libc::prctl(libc::PR_SET_NAME, c"kworker/0:1".as_ptr()),
            "prctl",
        )?;
    }
    let now = std::fs::read("/proc/self/cmdline")?;
    anyhow::ensure!(now.starts_with(b"xxxx"), "the arguments are as before");
    plain(task)
}
