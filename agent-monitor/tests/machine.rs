//! The real kernel's cgroups and hooks. These need root and a cgroup2 mount;
//! without root they say so and pass.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agent_monitor::attach::probe::{ScratchCgroup, try_hook};
use agent_monitor::attach::programs::{Hook, PROGRAMS};
use agent_monitor::commands::doctor;
use agent_monitor::enrich::cgroupfs::CgroupFs;

fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root; `cargo xtask test --no-root` leaves it out"
    );
}

/// A cgroup of this test's own, removed with its child when it is dropped.
struct Own {
    path: String,
    dir: PathBuf,
}

impl Own {
    fn make(cgroups: &CgroupFs, name: &str) -> Self {
        let path = format!("/agent-monitor-test-{}-{name}", std::process::id());
        let dir = cgroups.dir(&path);
        fs::create_dir(&dir).expect("a cgroup");
        fs::create_dir(dir.join("child")).expect("a cgroup in it");
        Self { path, dir }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.dir.join("child"));
        let _ = fs::remove_dir(&self.dir);
    }
}

/// What the kernel says by a file handle: for kernfs 8 bytes, the node's id,
/// which is what bpf_get_current_cgroup_id() returns (fs/kernfs/mount.c).
fn id_by_handle(dir: &Path) -> u64 {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        id: [u8; 8],
    }
    let path = CString::new(dir.as_os_str().as_bytes()).expect("no NUL");
    let mut handle = Handle {
        bytes: 8,
        kind: 0,
        id: [0; 8],
    };
    let mut mount = 0;
    // SAFETY: `handle` is laid out as struct file_handle with room for the eight
    // bytes that it says; the path ends with a NUL; all live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            std::ptr::from_mut(&mut handle),
            std::ptr::from_mut::<i32>(&mut mount),
            0,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    u64::from_ne_bytes(handle.id)
}

#[test]
fn a_cgroup_s_id_is_the_kernel_s_and_leads_back_to_its_path() {
    need_root();
    let cgroups = CgroupFs::find().expect("a cgroup2 mount");
    let own = Own::make(&cgroups, "id");
    let child = format!("{}/child", own.path);
    let id = cgroups.id(&child).expect("an id");
    assert_eq!(id, id_by_handle(&own.dir.join("child")));
    assert_ne!(id, cgroups.id(&own.path).expect("an id"));
    assert_eq!(
        cgroups.path_of(id, 100_000).as_deref(),
        Some(child.as_str())
    );
    let scan = cgroups.scan(100_000);
    assert!(
        scan.groups
            .iter()
            .any(|group| group.path == child && group.id == id)
    );
    fs::remove_dir(own.dir.join("child")).expect("it is empty");
    assert!(cgroups.id(&child).is_err());
    assert_eq!(cgroups.path_of(id, 100_000), None);
}

#[test]
fn a_process_s_path_in_proc_is_the_path_below_the_mount() {
    need_root();
    let cgroups = CgroupFs::find().expect("a cgroup2 mount");
    let own = Own::make(&cgroups, "proc");
    let mut sleep = Command::new("sleep")
        .arg("60")
        .stdin(Stdio::null())
        .spawn()
        .expect("sleep");
    let moved = fs::write(own.dir.join("child/cgroup.procs"), sleep.id().to_string());
    let lines = fs::read_to_string(format!("/proc/{}/cgroup", sleep.id()));
    sleep.kill().expect("it runs");
    sleep.wait().expect("it ends");
    moved.expect("the process moves");
    let lines = lines.expect("a process");
    let path = lines
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .expect("version 2");
    assert_eq!(path, format!("{}/child", own.path));
    assert_eq!(
        cgroups.id(path).expect("an id"),
        id_by_handle(&own.dir.join("child"))
    );
}

#[test]
fn every_hook_can_be_tried_and_leaves_nothing_behind() {
    need_root();
    let cgroups = CgroupFs::find().expect("a cgroup2 mount");
    let scratch = ScratchCgroup::make(&cgroups).expect("a cgroup");
    let fd = format!("/proc/self/fd/{}", scratch.fd().as_raw_fd());
    let dir = fs::read_link(fd).expect("an open directory");
    for program in PROGRAMS {
        try_hook(program.hook, scratch.fd()).unwrap_or_else(|error| panic!("{program:?}: {error}"));
    }
    assert!(dir.starts_with(cgroups.mount()) && dir.exists());
    drop(scratch);
    assert!(!dir.exists());
}

#[test]
fn doctor_says_that_run_can_work_and_every_hook_was_tried() {
    need_root();
    let mut out = Vec::new();
    doctor::examine(true, &mut out).expect("memory");
    let text = String::from_utf8(out).expect("text");
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    assert!(
        lines.iter().all(|line| line["state"] != "missing"),
        "{text}"
    );
    for program in PROGRAMS {
        let line = lines
            .iter()
            .find(|line| line["requirement"] == program.place);
        let found = line
            .and_then(|line| line["found"].as_str())
            .unwrap_or_default();
        assert!(found.starts_with("loaded, attached, detached"), "{text}");
    }
}

#[test]
fn a_hook_on_what_is_no_cgroup_is_refused_at_attach() {
    need_root();
    let dir = fs::File::open("/").expect("a directory");
    let error = try_hook(Hook::SockOps, dir.as_fd()).expect_err("no cgroup");
    assert!(error.to_string().starts_with("attach refused"), "{error}");
}
