//! Huge pages that are in use, on the node and by a process.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use super::procfs::{Procfs, Work};
use crate::decode::ProcessKey;

/// Where the kernel tells of huge pages: /proc and /sys.
#[derive(Clone, Debug)]
pub struct HugePages {
    /// A directory for each size (Documentation/admin-guide/mm/hugetlbpage.rst).
    sizes: PathBuf,
    procfs: Procfs,
}

impl Default for HugePages {
    fn default() -> Self {
        Self {
            sizes: "/sys/kernel/mm/hugepages".into(),
            procfs: Procfs::default(),
        }
    }
}

impl HugePages {
    /// Bytes of huge pages of every size that somebody on the node uses.
    pub fn in_use(&self) -> u64 {
        let sizes = fs::read_dir(&self.sizes).into_iter().flatten().flatten();
        sizes
            .filter_map(|size| in_use(&size.path()))
            .fold(0, u64::saturating_add)
    }

    /// Bytes of huge pages that a process has mapped. From `many` on only those of its own are
    /// counted, as far as that can be told: what it shares is no scratch memory.
    pub fn held(&self, pid: u32, many: u64) -> Option<u64> {
        let all = self.procfs.huge_pages(pid)?;
        if all < many {
            return Some(all);
        }
        let own = self.procfs.private_huge_pages(pid);
        Some(own.map_or(all, |own| own.min(all)))
    }

    /// Which process has this id, and the nanoseconds of processor time that it has used.
    pub fn used(&self, pid: u32) -> Option<(ProcessKey, u64)> {
        let Work { start, used } = self.procfs.work(pid)?;
        Some((ProcessKey { pid, start }, used))
    }
}

/// Of one size: `hugepages-2048kB`.
fn in_use(dir: &Path) -> Option<u64> {
    let name = dir.file_name()?.to_str()?;
    let kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
    let read = |file| {
        let text = fs::read_to_string(dir.join(file)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let pages = read("nr_hugepages")?.saturating_sub(read("free_hugepages")?);
    pages.checked_mul(kib.parse::<u64>().ok()?.checked_mul(1024)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_every_size_that_are_not_free_are_in_use() {
        let root = tempfile::tempdir().expect("a directory");
        let huge = HugePages {
            sizes: root.path().to_owned(),
            procfs: Procfs::default(),
        };
        assert_eq!(huge.in_use(), 0);
        for (name, pages, free) in [
            ("hugepages-2048kB", "1280\n", "112\n"),
            ("hugepages-1048576kB", "3\n", "2\n"),
            ("hugepages-64kB", "none\n", "0\n"),
            ("other", "7\n", "0\n"),
        ] {
            let dir = root.path().join(name);
            fs::create_dir(&dir).expect("a directory");
            fs::write(dir.join("nr_hugepages"), pages).expect("a file");
            fs::write(dir.join("free_hugepages"), free).expect("a file");
        }
        assert_eq!(huge.in_use(), (1_168 << 21) + (1 << 30));
    }

    #[test]
    fn this_very_process_holds_none_and_is_known_by_its_start() {
        let (huge, pid) = (HugePages::default(), std::process::id());
        assert_eq!((huge.held(pid, 1), huge.held(pid, 0)), (Some(0), Some(0)));
        let (key, _) = huge.used(pid).expect("this process");
        let read = Procfs::default().read(pid).expect("this process");
        assert_eq!((key.pid, key.start), (pid, read.start));
    }
}
