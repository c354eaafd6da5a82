//! A process as /proc shows it: for those that started before anyone watched.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use agent_monitor_common::limits::ARGV_CAP;

use crate::decode::{TICK_NS, text};

/// Most bytes that are read of `stat` and `status`: both are below 4 KiB.
const FILE_CAP: u64 = 16 << 10;
/// Most bytes that are read of `maps`: some twenty thousand mappings without a file, which
/// take 5 ms.
const MAPS_CAP: u64 = 1 << 20;

/// A process, alive when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcInfo {
    /// Clock ticks since boot.
    pub start: u64,
    /// Parent's id; 0 for none.
    pub ppid: u32,
    /// Real user id.
    pub uid: Option<u32>,
    /// Name.
    pub comm: String,
    /// Path of the executable; kernel threads have none.
    pub exe: Option<Arc<str>>,
    /// Arguments, cut at [`ARGV_CAP`] bytes and `text::MAX_ARGUMENTS`.
    pub argv: Arc<[String]>,
}

/// A proc file system of the host's pid namespace.
#[derive(Clone, Debug)]
pub struct Procfs {
    root: PathBuf,
}

impl Default for Procfs {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/proc"),
        }
    }
}

impl Procfs {
    /// One mounted elsewhere.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Reads a process; `None` when there is none, or when another took its id
    /// while it was read.
    pub fn read(&self, pid: u32) -> Option<ProcInfo> {
        let dir = self.root.join(pid.to_string());
        let stat = Stat::read(&dir)?;
        let status = read_capped(&dir.join("status"), FILE_CAP).unwrap_or_default();
        let exe = fs::read_link(dir.join("exe")).ok();
        let cmdline = read_capped(&dir.join("cmdline"), ARGV_CAP as u64).unwrap_or_default();
        if Stat::read(&dir)?.start != stat.start {
            return None;
        }
        Some(ProcInfo {
            start: stat.start,
            ppid: stat.ppid,
            uid: real_uid(&status),
            comm: stat.comm,
            exe: exe.map(|path| path.to_string_lossy().into()),
            argv: text::arguments(&cmdline).0,
        })
    }

    /// Bytes of huge pages that a process has mapped; `None` when there is no such process,
    /// or a kernel without huge pages.
    pub fn huge_pages(&self, pid: u32) -> Option<u64> {
        let dir = self.root.join(pid.to_string());
        let status = read_capped(&dir.join("status"), FILE_CAP)?;
        // proc_pid_status(5): `HugetlbPages: 0 kB`.
        let kib: u64 = first_number(&status, b"HugetlbPages:")?;
        kib.checked_mul(1024)
    }

    /// Bytes of address space that a process has for huge pages of its own: neither shared
    /// nor a file's. `None` when there is no such process, or it has too many mappings.
    pub fn private_huge_pages(&self, pid: u32) -> Option<u64> {
        let path = self.root.join(pid.to_string()).join("maps");
        let maps = read_capped(&path, MAPS_CAP).filter(|it| (it.len() as u64) < MAPS_CAP)?;
        let sizes = maps.split(|&byte| byte == b'\n').filter_map(own_huge);
        Some(sizes.fold(0, u64::saturating_add))
    }

    /// What a process has done so far.
    pub fn work(&self, pid: u32) -> Option<Work> {
        let stat = Stat::read(&self.root.join(pid.to_string()))?;
        Some(Work {
            start: stat.start,
            used: stat.used.saturating_mul(TICK_NS),
        })
    }
}

/// What a process has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// When it started, in clock ticks since boot.
    pub start: u64,
    /// Nanoseconds of processor time, of all of its threads.
    pub used: u64,
}

struct Stat {
    comm: String,
    ppid: u32,
    /// In user and in kernel mode, in clock ticks.
    used: u64,
    start: u64,
}

impl Stat {
    /// proc_pid_stat(5): `pid (comm) state ppid …`; the 14th and 15th field are processor
    /// time, the 22nd is the start.
    fn read(dir: &Path) -> Option<Self> {
        let bytes = read_capped(&dir.join("stat"), FILE_CAP)?;
        // The name may hold parentheses and line ends; after it come only numbers.
        let open = bytes.iter().position(|&byte| byte == b'(')?;
        let close = bytes.iter().rposition(|&byte| byte == b')')?;
        let comm = String::from_utf8_lossy(bytes.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(&bytes[close + 1..]).ok()?;
        // The first field after the name is the third.
        let mut fields = rest.split_ascii_whitespace();
        let ppid = fields.nth(4 - 3)?.parse().ok()?;
        let user: u64 = fields.nth(14 - 5)?.parse().ok()?;
        let kernel: u64 = fields.next()?.parse().ok()?;
        let start = fields.nth(22 - 16)?.parse().ok()?;
        Some(Self {
            comm,
            ppid,
            used: user.saturating_add(kernel),
            start,
        })
    }
}

fn real_uid(status: &[u8]) -> Option<u32> {
    first_number(status, b"Uid:")
}

/// The first number in the line of `status` that begins like this.
fn first_number<T: FromStr>(status: &[u8], name: &[u8]) -> Option<T> {
    // The kernel escapes line ends in the name above it.
    let line = status
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(name))?;
    std::str::from_utf8(line)
        .ok()?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

/// The size of a mapping, if it is of huge pages, private and anonymous: proc_pid_maps(5) shows
/// it under the name of the file that the kernel makes for it (hugetlb_file_setup, mm/mmap.c).
fn own_huge(line: &[u8]) -> Option<u64> {
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let (range, rights) = (fields.next()?, fields.next()?);
    // After offset, device and inode.
    if fields.nth(3)? != "/anon_hugepage" || !rights.ends_with('p') {
        return None;
    }
    let (from, to) = range.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    address(to)?.checked_sub(address(from)?)
}

fn read_capped(path: &Path, cap: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(cap)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_very_process() {
        let info = Procfs::default()
            .read(std::process::id())
            .expect("this process");
        assert_eq!(info.ppid, std::os::unix::process::parent_id());
        assert_eq!(info.uid, Some(rustix::process::getuid().as_raw()));
        let exe = std::env::current_exe().expect("a path");
        assert_eq!(info.exe.as_deref(), exe.to_str());
        assert_eq!(*info.argv, std::env::args().collect::<Vec<_>>());
        assert!(info.start > 0);
    }

    #[test]
    fn a_name_made_to_look_like_fields_is_still_a_name() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("7");
        fs::create_dir(&dir).expect("a directory");
        let fields = "R 5 7 7 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 4242 0 0";
        fs::write(dir.join("stat"), format!("7 (a) S 1\n(b) {fields}\n")).expect("a file");
        let info = Procfs::at(root.path()).read(7).expect("a process");
        assert_eq!(
            (info.comm.as_str(), info.ppid, info.start),
            ("a) S 1\n(b", 5, 4242)
        );
        assert_eq!((info.uid, info.exe, info.argv.len()), (None, None, 0));
        let work = Procfs::at(root.path()).work(7).expect("a process");
        assert_eq!((work.start, work.used), (4242, (1 + 2) * TICK_NS));
        let status = "Name:\tHugetlbPages:\\t9\nVmSwap:\t 0 kB\nHugetlbPages:\t 2392064 kB\n";
        fs::write(dir.join("status"), status).expect("a file");
        let held = Procfs::at(root.path()).huge_pages(7);
        assert_eq!(held, Some(2_336 << 20));
    }

    #[test]
    fn huge_pages_of_its_own_are_neither_shared_nor_a_file_s() {
        let root = tempfile::tempdir().expect("a directory");
        let (procfs, dir) = (Procfs::at(root.path()), root.path().join("7"));
        fs::create_dir(&dir).expect("a directory");
        let maps = "\
            55aa0000-55ab0000 r-xp 00000000 fe:00 77        /usr/bin/x\n\
            7f0040000000-7f00c2000000 rw-p 00000000 00:10 1 /anon_hugepage (deleted)\n\
            7f00d0000000-7f00d0200000 rw-p 00000000 00:10 2 /anon_hugepage (deleted)\n\
            7f0100000000-7f0200000000 rw-s 00000000 00:10 3 /anon_hugepage (deleted)\n\
            7f0300000000-7f0400000000 rw-s 00000000 00:31 4 /dev/hugepages/rtemap_0\n\
            7f0500000000-7f0600000000 rw-p 00000000 00:00 0 \n\
            ffff-0000 rw-p 00000000 00:10 5                 /anon_hugepage (deleted)\n";
        fs::write(dir.join("maps"), maps).expect("a file");
        assert_eq!(procfs.private_huge_pages(7), Some(2_082 << 20));
        fs::write(dir.join("maps"), vec![b'x'; 1 << 20]).expect("a file");
        assert_eq!(procfs.private_huge_pages(7), None, "too many");
        assert_eq!(procfs.private_huge_pages(8), None);
    }

    #[test]
    fn a_process_that_is_gone_or_unreadable_is_none() {
        let root = tempfile::tempdir().expect("a directory");
        let procfs = Procfs::at(root.path());
        assert_eq!(procfs.read(7), None);
        fs::create_dir(root.path().join("7")).expect("a directory");
        for stat in [
            "",
            "7",
            "7 )x(",
            "7 (x) R",
            "7 (x) R y 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9",
        ] {
            fs::write(root.path().join("7/stat"), stat).expect("a file");
            assert_eq!(procfs.read(7), None, "{stat}");
        }
    }
}
