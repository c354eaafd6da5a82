//! What `run --pin` leaves in the kernel, as files in the BPF file system:
//! `/sys/fs/bpf/agent-monitor/<daemon>/<version>/`, with a map, program or link
//! each. A daemon is known by its socket. The version is a hash of the object and
//! of everything it was started with: what another version has pinned is never
//! used, and is removed, which detaches it.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::fs::statfs;

use super::sys;

/// Where the BPF file system is; systemd mounts it.
pub const MOUNT: &str = "/sys/fs/bpf";
/// Where pins are.
pub const ROOT: &str = "/sys/fs/bpf/agent-monitor";
/// Magic number of the BPF file system (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The pins of one version of one daemon.
#[derive(Debug)]
pub struct Pins {
    dir: PathBuf,
}

impl Pins {
    /// The pins of the daemon at `socket` that has this `version`; there may be
    /// none yet. Those of its other versions are removed.
    ///
    /// # Errors
    /// There is no BPF file system, or it cannot be written to.
    pub fn open(socket: &Path, version: u64) -> Result<Self> {
        if !is_mounted() {
            bail!("--pin needs a BPF file system at {MOUNT}: mount -t bpf bpf {MOUNT}");
        }
        let daemon = of_daemon(socket);
        let dir = daemon.join(format!("{version:016x}"));
        for other in list(&daemon) {
            if other != dir {
                tracing::info!(pins = %other.display(), "removing what another version has pinned");
                remove(&other)?;
            }
        }
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// Removes every pin of the daemon at `socket`: what only they kept attached
    /// is detached.
    ///
    /// # Errors
    /// They cannot be removed.
    pub fn remove_all(socket: &Path) -> Result<()> {
        let daemon = of_daemon(socket);
        if !daemon.exists() {
            return Ok(());
        }
        tracing::info!(pins = %daemon.display(), "removing what an earlier daemon has pinned");
        for version in list(&daemon) {
            remove(&version)?;
        }
        fs::remove_dir(&daemon).with_context(|| format!("cannot remove {}", daemon.display()))?;
        // The last one takes the root with it.
        let _ = fs::remove_dir(ROOT);
        Ok(())
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Opens a pin, if there is one of this name.
    pub fn get(&self, name: &str) -> Option<OwnedFd> {
        sys::pinned(&self.dir.join(name)).ok()
    }

    /// Makes a pin.
    ///
    /// # Errors
    /// There is one of this name already, or no memory.
    pub fn put(&self, name: &str, fd: impl AsFd) -> Result<()> {
        let path = self.dir.join(name);
        sys::pin(fd.as_fd(), &path).with_context(|| format!("cannot pin {}", path.display()))
    }

    /// Removes a pin, if there is one of this name.
    pub fn forget(&self, name: &str) {
        let _ = fs::remove_file(self.dir.join(name));
    }

    /// Names of all pins.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let names = list(&self.dir).into_iter();
        names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
    }

    /// Removes all pins, to begin anew.
    ///
    /// # Errors
    /// They cannot be removed.
    pub fn clear(&self) -> Result<()> {
        for path in list(&self.dir) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

/// Whether there is a BPF file system where it should be.
pub fn is_mounted() -> bool {
    statfs(MOUNT).is_ok_and(|found| u64::try_from(found.f_type) == Ok(BPF_FS_MAGIC))
}

/// Daemons that have pins: their directories.
pub fn daemons() -> Vec<PathBuf> {
    list(Path::new(ROOT))
}

/// A version: the same only for the same object, started the same way.
pub fn version(parts: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// The directory of the daemon at `socket`: the path as far as it can be read in a
/// name, which has no dots there (bpf_lookup, kernel/bpf/inode.c), and a hash.
pub fn of_daemon(socket: &Path) -> PathBuf {
    let text = socket.to_string_lossy();
    let plain: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    // NAME_MAX is 255 bytes.
    let tail = &plain[plain.len().saturating_sub(100)..];
    let hash = version(&[socket.as_os_str().as_encoded_bytes()]);
    Path::new(ROOT).join(format!("{}-{hash:016x}", tail.trim_start_matches('-')))
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn remove(dir: &Path) -> Result<()> {
    let removed: io::Result<()> = list(dir)
        .into_iter()
        .try_for_each(fs::remove_file)
        .and_then(|()| fs::remove_dir(dir));
    removed.with_context(|| format!("cannot remove {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_socket_has_a_name_of_its_own_without_dots() {
        let one = of_daemon(Path::new("/run/agent-monitor.sock"));
        let other = of_daemon(Path::new("/run/agent-monitor-sock"));
        assert_ne!(one, other);
        let long = of_daemon(Path::new(&"/é".repeat(2_000)));
        for path in [one, other, long] {
            let name = path.file_name().expect("it has one").to_string_lossy();
            assert!(name.len() < 255 && !name.contains('.'), "{name}");
        }
    }

    #[test]
    fn a_version_changes_with_each_of_its_parts() {
        let version = |one: &str, other: &str| version(&[one.as_bytes(), other.as_bytes()]);
        assert_eq!(version("a", "b"), version("a", "b"));
        assert_ne!(version("a", "b"), version("a", "c"));
        assert_ne!(version("ab", ""), version("a", "b"));
    }
}
