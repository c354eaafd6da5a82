//! Out of the agent's cgroup.

use std::fs::File;
use std::path::PathBuf;

use anyhow::Result;

use crate::{PATIENCE, Task, born, check, plain};

/// Mounts the version 2 hierarchy, as a privileged container may.
pub fn mount_cgroups() -> Result<PathBuf> {
    let place = PathBuf::from("/tmp/cgroups");
    std::fs::create_dir_all(&place)?;
    // SAFETY: C strings, and no data.
    let mounted = unsafe {
        libc::mount(
            c"none".as_ptr(),
            c"/tmp/cgroups".as_ptr(),
            c"cgroup2".as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    check(mounted, "mount cgroup2")?;
    Ok(place)
}

/// Moves itself into another cgroup and logs in from there, without a program of
/// its own. Argument: that cgroup's path.
pub fn leave(task: &Task) -> Result<()> {
    let outside = mount_cgroups()?.join(task.argument(0)?.trim_start_matches('/'));
    std::fs::write(outside.join("cgroup.procs"), "0")?;
    plain(task)?;
    linger(task);
    Ok(())
}

/// Has a child that is born in another cgroup log in. Argument: that cgroup's path.
pub fn born_outside(task: &Task) -> Result<()> {
    let outside = mount_cgroups()?.join(task.argument(0)?.trim_start_matches('/'));
    let cgroup = File::open(outside)?;
    born::in_cgroup(&cgroup, || plain(task))
}

/// Stays until the file that the second argument names is there.
pub fn linger(task: &Task) {
    let Ok(file) = task.argument(1) else {
        return;
    };
    let end = std::time::Instant::now() + 3 * PATIENCE;
    while !std::path::Path::new(file).exists() && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
