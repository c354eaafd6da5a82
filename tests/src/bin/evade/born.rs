//! Processes that are born in unusual ways.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::escape::mount_cgroups;
use crate::{Task, become_evade, check, exit_with, fork, in_child, plain, wait};

/// include/uapi/linux/sched.h.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Makes a cgroup below its own, enters it and runs a program there, all within a
/// millisecond; tries again with another where the machine was too busy for that.
/// Argument: the path of its own cgroup.
pub fn new_cgroup(task: &Task) -> Result<()> {
    const TRIES: usize = 50;
    let own = mount_cgroups()?.join(task.argument(0)?.trim_start_matches('/'));
    in_child(|| {
        for n in 0..TRIES {
            let name = format!("quick-{n}");
            let inner = own.join(&name);
            let began = Instant::now();
            std::fs::create_dir(&inner)?;
            std::fs::write(inner.join("cgroup.procs"), "0")?;
            let micros = began.elapsed().as_micros();
            if micros < 1000 {
                println!("made and entered {name} in {micros} µs");
                return become_evade(&["plain", &task.pool.to_string()]);
            }
            std::fs::write(own.join("cgroup.procs"), "0")?;
        }
        bail!("no cgroup was made and entered within a millisecond in {TRIES} tries")
    })
}

/// clone3(CLONE_INTO_CGROUP, since 5.7): the child is born in another cgroup of the
/// agent's. Argument: the path of its own cgroup.
pub fn clone_into_cgroup(task: &Task) -> Result<()> {
    let own = mount_cgroups()?.join(task.argument(0)?.trim_start_matches('/'));
    let inner = own.join("born");
    std::fs::create_dir(&inner)?;
    let pool = task.pool.to_string();
    in_cgroup(&File::open(&inner)?, || become_evade(&["plain", &pool]))
}

/// The parent of who logs in has ended before: nobody knows whose child it is.
pub fn double_fork(task: &Task) -> Result<()> {
    let (done, finished) = std::io::pipe()?;
    in_child(|| {
        // SAFETY: takes nothing.
        check(unsafe { libc::setsid() }, "setsid")?;
        let middle = std::process::id();
        if fork()? == 0 {
            // SAFETY: takes nothing.
            while unsafe { libc::getppid() } as u32 == middle {
                std::thread::yield_now();
            }
            let pool = task.pool.to_string();
            exit_with(in_child(|| become_evade(&["plain", &pool])));
        }
        Ok(())
    })?;
    // Every process that has the other end has ended when this reads the end.
    drop(finished);
    std::io::Read::read_to_end(&mut { done }, &mut Vec::new())?;
    Ok(())
}

/// A program runs and ends; its pid is then given to the process that logs in, at
/// once: clone3() with set_tid (since 5.5).
pub fn pid_reused(task: &Task) -> Result<()> {
    for _ in 0..100 {
        let first = fork()?;
        if first == 0 {
            use std::os::unix::process::CommandExt;
            let error = std::process::Command::new("true").arg("first").exec();
            exit_with(Err(error.into()));
        }
        wait(first)?;
        let mut how = arguments();
        let wanted = [first];
        how.set_tid = wanted.as_ptr() as u64;
        how.set_tid_size = 1;
        match in_clone(&mut how, || plain(task)) {
            Ok(()) => {
                println!("pid {first}");
                return Ok(());
            }
            // Another process has it by now.
            Err(error) if is_taken(&error) => {}
            Err(error) => return Err(error),
        }
    }
    bail!("no pid was free again")
}

fn is_taken(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.raw_os_error() == Some(libc::EEXIST))
}

fn arguments() -> libc::clone_args {
    // SAFETY: zeroes are a plain fork without an exit signal.
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.exit_signal = libc::SIGCHLD as u64;
    how
}

/// Runs `work` in a child made by clone3(), and waits for it.
fn in_clone(how: &mut libc::clone_args, work: impl FnOnce() -> Result<()>) -> Result<()> {
    // SAFETY: without CLONE_VM it is a fork, of a program with one thread.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_mut(how),
            size_of::<libc::clone_args>(),
        )
    };
    check(pid, "clone3")?;
    if pid == 0 {
        exit_with(work());
    }
    ensure!(i32::try_from(pid).is_ok());
    wait(pid as i32)
}

/// [`in_clone`] into a cgroup.
pub fn in_cgroup(cgroup: &File, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut how = arguments();
    how.flags = CLONE_INTO_CGROUP;
    how.cgroup = cgroup.as_raw_fd() as u64;
    in_clone(&mut how, work)
}
