//! The cgroup2 file system: where it is mounted, which cgroups there are, and
//! their ids.
//!
//! A cgroup's id in the kernel is its kernfs node's id. Where `ino_t` has 64
//! bits, that is the inode number of the cgroup's directory (`kernfs_ino()`,
//! include/linux/kernfs.h), so `stat` answers what `name_to_handle_at` would,
//! and `readdir` gives the ids of children for free.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

#[cfg(not(target_pointer_width = "64"))]
compile_error!("a cgroup's inode number is its id only where ino_t has 64 bits");

/// Levels below the mount that are scanned: far deeper than runtimes nest, so
/// that a chain built to be deep ends the walk.
const MAX_DEPTH: usize = 64;

/// The cgroup2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupFs {
    mount: PathBuf,
    hybrid: bool,
}

/// Why there is no cgroup2 hierarchy to work with.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The list of mounts could not be read.
    #[error("cannot read /proc/self/mounts: {0}; mount /proc")]
    Mounts(#[source] io::Error),
    /// Nothing is mounted.
    #[error(
        "no cgroup2 file system is mounted; run `mount -t cgroup2 none /sys/fs/cgroup` \
         (beside version 1: `mkdir /sys/fs/cgroup/unified` and mount it there), \
         or in a container mount the host's /sys/fs/cgroup"
    )]
    NotMounted,
    /// What is mounted begins below the root.
    #[error(
        "the cgroup2 file system at {0} shows a part of the node's cgroups only, as in a container with a \
         cgroup namespace of its own; mount the host's /sys/fs/cgroup in its place"
    )]
    Part(PathBuf),
}

/// The inode number of the root of all cgroups: `kernfs_create_root()` gives out
/// numbers from 1 on, and the root is first (fs/kernfs/dir.c).
const ROOT_INODE: u64 = 1;

/// A cgroup that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Below the mount, beginning with `/`.
    pub path: String,
    /// The kernel's id.
    pub id: u64,
}

/// Every cgroup, parents before children.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// What was found.
    pub groups: Vec<Group>,
    /// Cgroups that were seen but not kept or not entered, because of the limit
    /// or their depth, or because they could not be read. What lies below them
    /// is not counted.
    pub omitted: u64,
}

impl CgroupFs {
    /// Nanoseconds of processor time that a cgroup and those below it have used: `usage_usec`,
    /// which there is even without the cpu controller (cgroup-v2.rst).
    pub fn processor_time(&self, path: &str) -> Option<u64> {
        let text = fs::read_to_string(self.dir(path).join("cpu.stat")).ok()?;
        let mut lines = text.lines();
        let used = lines.find_map(|line| line.strip_prefix("usage_usec "))?;
        used.parse::<u64>().ok()?.checked_mul(1_000)
    }

    /// Finds the mount. Where several exist, the usual places are preferred.
    pub fn find() -> Result<Self, FindError> {
        let mounts = fs::read("/proc/self/mounts").map_err(FindError::Mounts)?;
        let found = Self::from_mounts(&mounts).ok_or(FindError::NotMounted)?;
        // The kernel tells of cgroups by their paths from the root. Below another one
        // no path would be found again, and nothing would be seen.
        match fs::metadata(&found.mount) {
            Ok(root) if root.ino() != ROOT_INODE => Err(FindError::Part(found.mount)),
            _ => Ok(found),
        }
    }

    fn from_mounts(mounts: &[u8]) -> Option<Self> {
        let mut found: Vec<PathBuf> = Vec::new();
        let mut hybrid = false;
        for line in mounts.split(|&byte| byte == b'\n') {
            // fstab(5): device, mount point, type, options, two numbers.
            let mut fields = line.split(|&byte| byte == b' ').skip(1);
            let (Some(point), Some(kind)) = (fields.next(), fields.next()) else {
                continue;
            };
            match kind {
                b"cgroup2" => found.push(unescape(point)),
                b"cgroup" => hybrid = true,
                _ => {}
            }
        }
        let usual = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let preferred = usual.iter().find(|path| found.iter().any(|f| f == *path));
        let mount = match preferred {
            Some(path) => path.to_path_buf(),
            None => found.into_iter().next()?,
        };
        Some(Self { mount, hybrid })
    }

    /// Where the hierarchy is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Whether version 1 hierarchies are mounted beside it.
    pub fn is_hybrid(&self) -> bool {
        self.hybrid
    }

    /// The directory of the cgroup with this path below the mount.
    pub fn dir(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    /// The kernel's id of a cgroup.
    ///
    /// # Errors
    /// When there is no such cgroup (any more).
    pub fn id(&self, path: &str) -> io::Result<u64> {
        Ok(fs::symlink_metadata(self.dir(path))?.ino())
    }

    /// The path of a process's cgroup, while it is there.
    pub fn of_process(pid: u32) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("0::"));
        line.map(str::to_owned)
    }

    /// The path of the cgroup with this id, by walking, at most `limit` cgroups.
    pub fn path_of(&self, id: u64, limit: usize) -> Option<String> {
        let mut found = None;
        self.walk(limit, |group| {
            let here = group.id == id;
            if here {
                found = Some(group.path.clone());
            }
            !here
        });
        found
    }

    /// All cgroups below the root, at most `limit`. Cgroups that come or go
    /// meanwhile may be in it or not.
    pub fn scan(&self, limit: usize) -> Scan {
        let mut groups = Vec::new();
        let omitted = self.walk(limit, |group| {
            groups.push(group.clone());
            true
        });
        Scan { groups, omitted }
    }

    /// Walks level by level until `visit` says no; returns how many were omitted.
    fn walk(&self, limit: usize, mut visit: impl FnMut(&Group) -> bool) -> u64 {
        let mut omitted = 0;
        let mut left = limit;
        let mut queue = VecDeque::from([(PathBuf::new(), 1)]);
        while let Some((below, depth)) = queue.pop_front() {
            let Ok(entries) = fs::read_dir(self.mount.join(&below)) else {
                // Removed since, or not readable; only the latter is a miss.
                omitted += u64::from(self.mount.join(&below).exists());
                continue;
            };
            for entry in entries.flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if left == 0 || depth > MAX_DEPTH {
                    omitted += 1;
                    continue;
                }
                left -= 1;
                let below = below.join(entry.file_name());
                let path = format!("/{}", below.to_string_lossy());
                if !visit(&Group {
                    path,
                    id: entry.ino(),
                }) {
                    return omitted;
                }
                queue.push_back((below, depth + 1));
            }
        }
        omitted
    }
}

/// Undoes the octal escapes of /proc/self/mounts (`\040` is a space).
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &rest[4..] } else { tail };
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unified_machine_has_one_mount_and_is_not_hybrid() {
        let mounts = b"proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        let fs = CgroupFs::from_mounts(mounts).expect("a mount");
        assert_eq!(
            (fs.mount(), fs.is_hybrid()),
            (Path::new("/sys/fs/cgroup"), false)
        );
    }

    #[test]
    fn a_hybrid_machine_s_cgroup2_mount_is_found_beside_version_1() {
        let mounts = b"tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
            cgroup2 /mnt/mine cgroup2 rw 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let fs = CgroupFs::from_mounts(mounts).expect("a mount");
        assert_eq!(
            (fs.mount(), fs.is_hybrid()),
            (Path::new("/sys/fs/cgroup/unified"), true)
        );
        assert_eq!(
            fs.dir("/docker/x"),
            Path::new("/sys/fs/cgroup/unified/docker/x")
        );
    }

    #[test]
    fn an_unusual_mount_point_is_unescaped() {
        let fs =
            CgroupFs::from_mounts(b"x /my\\040groups\\134a cgroup2 rw 0 0\n").expect("a mount");
        assert_eq!(fs.mount(), Path::new("/my groups\\a"));
    }

    #[test]
    fn without_a_mount_the_error_says_what_to_run() {
        assert_eq!(
            CgroupFs::from_mounts(b"cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\nx\n"),
            None
        );
        assert!(
            FindError::NotMounted
                .to_string()
                .contains("mount -t cgroup2")
        );
    }

    #[test]
    fn a_scan_is_bounded_in_number_and_depth_and_counts_what_it_leaves_out() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["a", "b", "c", "a/d"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        fs::write(dir.path().join("cgroup.procs"), "").expect("a file");
        let deep: PathBuf = std::iter::repeat_n("z", MAX_DEPTH + 2).collect();
        let cgroups = CgroupFs {
            mount: dir.path().to_owned(),
            hybrid: false,
        };
        let all = cgroups.scan(100);
        assert_eq!((all.groups.len(), all.omitted), (4, 0));
        let at = |path: &str| all.groups.iter().position(|group| group.path == path);
        assert!(at("/a") < at("/a/d"), "parents come first");
        let some = cgroups.scan(2);
        assert_eq!((some.groups.len(), some.omitted > 0), (2, true));
        fs::create_dir_all(dir.path().join(deep)).expect("directories");
        let cut = cgroups.scan(1000);
        assert_eq!((cut.groups.len(), cut.omitted), (4 + MAX_DEPTH, 1));
    }
}
