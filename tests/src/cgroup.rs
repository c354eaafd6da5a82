//! Control groups of the version 2 hierarchy.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait;

/// The parent of every cgroup the rig makes, below the cgroup2 mount.
pub const PARENT: &str = "/agent-monitor-test";

/// A directory of the version 2 hierarchy.
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: String,
    dir: PathBuf,
}

impl Cgroup {
    /// Makes `/agent-monitor-test/<name>`.
    ///
    /// # Errors
    /// When there is no cgroup2 mount or the directory cannot be made.
    pub fn create(name: &str) -> Result<Self> {
        Self::create_at(&format!("{PARENT}/{name}"))
    }

    /// Makes the cgroup of this path below the mount.
    ///
    /// # Errors
    /// As [`Cgroup::create`].
    pub fn create_at(path: &str) -> Result<Self> {
        let path = path.to_owned();
        let dir = mount_point()?.join(&path[1..]);
        // Another run may remove the empty parent between the two steps.
        wait::until(
            "the cgroup",
            Duration::from_secs(1),
            || match fs::create_dir_all(&dir) {
                Ok(()) => Ok(Some(())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error).with_context(|| format!("make {}", dir.display())),
            },
        )?;
        Ok(Self { path, dir })
    }

    /// The version 2 cgroup that `pid` is in.
    ///
    /// # Errors
    /// When the process has gone, or its line cannot be found.
    pub fn of_process(pid: u32) -> Result<Self> {
        let file = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        let path = text
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .with_context(|| format!("no version 2 line in {file}"))?
            .to_owned();
        let dir = mount_point()?.join(path.trim_start_matches('/'));
        Ok(Self { path, dir })
    }

    /// The path below the mount, as `/proc/PID/cgroup` shows it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The cgroup's id as the kernel's programs see it: the directory's inode.
    ///
    /// # Errors
    /// When the directory has gone.
    pub fn id(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(fs::metadata(&self.dir)
            .with_context(|| self.dir.display().to_string())?
            .ino())
    }

    /// The file that moves into this cgroup whoever writes `0` to it.
    pub(crate) fn entrance(&self) -> Result<File> {
        let file = self.dir.join("cgroup.procs");
        OpenOptions::new()
            .write(true)
            .open(&file)
            .with_context(|| format!("open {}", file.display()))
    }

    /// Pids of the processes in it and below; none when it has gone.
    ///
    /// # Errors
    /// When the kernel's list cannot be read.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        let mut folders = vec![self.dir.clone()];
        while let Some(dir) = folders.pop() {
            match fs::read_to_string(dir.join("cgroup.procs")) {
                Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
                Err(error) if gone(&error) => continue,
                Err(error) => return Err(error).with_context(|| dir.display().to_string()),
            }
            folders.extend(children(&dir));
        }
        Ok(found)
    }

    /// Kills everything in it and removes it, and the rig's parent if empty.
    ///
    /// # Errors
    /// When it is still there after some seconds.
    pub fn remove(&self) -> Result<()> {
        let what = format!("{} to be removed", self.dir.display());
        wait::until_gone(&what, Duration::from_secs(5), || {
            let _ = fs::write(self.dir.join("cgroup.kill"), "1");
            remove_below(&self.dir);
            match fs::remove_dir(&self.dir) {
                Ok(()) => Ok(Some(())),
                Err(error) if gone(&error) => Ok(Some(())),
                // Busy until the killed processes have gone.
                Err(_) => Ok(None),
            }
        })?;
        if self.path.starts_with(PARENT) {
            // Fails while another agent lives in it, as it should.
            let _ = self.dir.parent().map(fs::remove_dir);
        }
        Ok(())
    }
}

/// The cgroups the rig has made that exist now.
///
/// # Errors
/// When there is no cgroup2 mount.
pub fn existing() -> Result<Vec<Cgroup>> {
    let parent = mount_point()?.join(&PARENT[1..]);
    Ok(children(&parent)
        .into_iter()
        .filter_map(|dir| {
            let name = dir.file_name()?.to_str()?;
            let path = format!("{PARENT}/{name}");
            Some(Cgroup { path, dir })
        })
        .collect())
}

/// Removes the cgroups below `dir` that are empty, the innermost first.
fn remove_below(dir: &Path) {
    for child in children(dir) {
        remove_below(&child);
        let _ = fs::remove_dir(child);
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map_or_else(
        |_| Vec::new(),
        |entries| {
            entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.is_dir())
                .collect()
        },
    )
}

/// A removed cgroup is "not found" by name and "no such device" by open file.
fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Where the version 2 hierarchy is mounted: not at `/sys/fs/cgroup` on a hybrid host.
///
/// # Errors
/// When it is not mounted.
pub fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .and_then(|fields| fields.get(1).map(PathBuf::from))
        .context("no cgroup2 file system is mounted")
}
