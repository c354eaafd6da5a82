//! Nothing of a daemon stays in the kernel, however it ends, and a daemon that
//! cannot start says why in one sentence. Needs root and bpftool.
//!
//! Other daemons may run on the machine: a program counts as left behind when it
//! has one of our names and no process holds it.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use agent_monitor::attach::programs::PROGRAMS;
use agent_monitor_tests::monitor::{Monitor, SOON, Site, program};
use agent_monitor_tests::process::tool;
use agent_monitor_tests::wait;
use rustix::process::Signal;
use serde_json::Value;

/// Our maps that have names of their own and are open in the daemon; programs hold the others.
const MAPS: [&str; 4] = ["WATCHED", "NURSERIES", "FLOW_CONTROL", "TOLD"];
/// Kinds of things in the kernel, as bpftool and fdinfo (proc_pid_fdinfo(5)) call
/// them. Links come first: their fdinfo names their program too.
const KINDS: [&str; 3] = ["link", "prog", "map"];

/// A selector that chooses no cgroup.
const NOBODY: &str = "cgroup:/agent-monitor-tests-nobody";

/// A program, map or link, by kind and id.
type Thing = (&'static str, u64);

/// What a process has open.
fn held_by(pid: &str) -> BTreeSet<Thing> {
    let mut found = BTreeSet::new();
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo"));
    for file in files.into_iter().flatten().flatten() {
        // A process may close it meanwhile.
        let text = fs::read_to_string(file.path()).unwrap_or_default();
        let thing = KINDS.into_iter().find_map(|kind| {
            let key = format!("{kind}_id:");
            let id = text.lines().find_map(|line| line.strip_prefix(&key))?;
            Some((kind, id.trim().parse().ok()?))
        });
        found.extend(thing);
    }
    found
}

fn list(kind: &str) -> Vec<Value> {
    let text = tool("bpftool", &["-j", kind, "list"]).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Everything in the kernel.
fn existing() -> BTreeSet<Thing> {
    let ids = |kind| {
        let all = list(kind).into_iter();
        all.map(move |it| (kind, it["id"].as_u64().unwrap()))
    };
    KINDS.into_iter().flat_map(ids).collect()
}

/// Everything in the kernel that has a name of ours, and links to such programs.
fn ours() -> BTreeSet<Thing> {
    let named = |kind, names: &[&str]| -> BTreeSet<Thing> {
        let all = list(kind).into_iter();
        all.filter(|it| {
            it["name"]
                .as_str()
                .is_some_and(|name| names.contains(&name))
        })
        .map(|it| (kind, it["id"].as_u64().unwrap()))
        .collect()
    };
    let names: Vec<_> = PROGRAMS.iter().map(|it| it.name).collect();
    let programs = named("prog", &names);
    let links = list("link").into_iter().filter_map(|it| {
        let program = ("prog", it["prog_id"].as_u64()?);
        programs
            .contains(&program)
            .then_some(("link", it["id"].as_u64()?))
    });
    let links: Vec<_> = links.collect();
    programs
        .into_iter()
        .chain(named("map", &MAPS))
        .chain(links)
        .collect()
}

/// Waits until everything of ours in the kernel is held by a process.
fn nothing_is_left_behind() {
    let check = wait::until("what was left behind to go", SOON, || {
        let ours = ours();
        let mut held = BTreeSet::new();
        for process in fs::read_dir("/proc")?.flatten() {
            if let Some(pid) = process
                .file_name()
                .to_str()
                .filter(|it| it.parse::<u32>().is_ok())
            {
                held.extend(held_by(pid));
            }
        }
        Ok(ours.is_subset(&held).then_some(()))
    });
    check.unwrap();
}

/// Ends a daemon by `end` and checks that everything it had is gone.
fn ends_cleanly(end: impl FnOnce(Monitor)) -> Arc<Site> {
    let monitor = Monitor::start(&["cgroup:/agent-monitor-test/*", "docker:*"]).unwrap();
    let site = Arc::clone(monitor.site());
    let had = held_by(&monitor.pid().to_string());
    for kind in KINDS {
        assert!(
            had.iter().any(|it| it.0 == kind),
            "it holds no {kind}: {had:?}"
        );
    }
    let programs = had.iter().filter(|it| it.0 == "prog").count();
    assert_eq!(programs, PROGRAMS.len());
    assert!(had.is_subset(&existing()));
    end(monitor);
    // The kernel frees some of it a little later.
    wait::until("all of it to be gone", SOON, || {
        Ok(had.is_disjoint(&existing()).then_some(()))
    })
    .unwrap();
    nothing_is_left_behind();
    site
}

#[test]
fn nothing_stays_after_sigterm() {
    let site = ends_cleanly(|monitor| drop(monitor.stop().unwrap()));
    assert!(!site.socket().exists());
}

#[test]
fn nothing_stays_after_sigint() {
    let site = ends_cleanly(|monitor| {
        drop(monitor.stop_with(Signal::INT).unwrap());
    });
    assert!(!site.socket().exists());
}

#[test]
fn nothing_stays_after_a_kill_but_the_socket_which_the_next_daemon_replaces() {
    let site = ends_cleanly(|monitor| drop(monitor.kill().unwrap()));
    assert!(site.socket().exists());
    let next = Monitor::start_at(&site, &["cgroup:/agent-monitor-test/*"], "").unwrap();
    next.stop().unwrap();
    assert!(!site.socket().exists());
}

/// Runs a command that must fail; gives its exit code and what it said.
fn fails(command: &mut Command) -> (i32, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&stdout), "");
    let said = String::from_utf8(stderr).unwrap();
    nothing_is_left_behind();
    (status.code().expect(&said), said)
}

/// Exit code 1, and one line that contains all of `parts`.
fn fails_saying(command: &mut Command, parts: &[&str]) {
    let (code, said) = fails(command);
    assert_eq!(code, 1, "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("error: "), "{said}");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

fn run(site: &Site) -> Command {
    let config = site.configure("").unwrap();
    let mut command = site
        .command(&["run", "--agent", "cgroup:/agent-monitor-test/*"])
        .unwrap();
    command.arg("--config").arg(config);
    command
}

/// `run` after a change of the mounts that only it sees.
fn run_after(site: &Site, change: &str) -> Command {
    let run = run(site);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private", "sh", "-c"]);
    command.arg(format!("{change} && exec \"$@\"")).arg("sh");
    command.arg(run.get_program()).args(run.get_args());
    for (name, value) in run.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

#[test]
fn a_selector_that_cannot_be_understood_is_wrong_usage() {
    let site = Site::new().unwrap();
    let (code, said) = fails(&mut site.command(&["run", "--agent", "coder"]).unwrap());
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("coder") && said.contains("write for example"),
        "{said}"
    );
    assert!(!site.socket().exists());
}

#[test]
fn a_configuration_that_cannot_be_read_is_named() {
    let site = Site::new().unwrap();
    let mut missing = site
        .command(&["run", "--config", "/nonexistent/am.toml"])
        .unwrap();
    fails_saying(&mut missing, &["/nonexistent/am.toml", "No such file"]);
    let config = site.configure("[agents]\nselect = [\"coder\"]").unwrap();
    let config = config.to_str().unwrap();
    let mut bad = site.command(&["run", "--config", config]).unwrap();
    fails_saying(&mut bad, &["coder", "write for example"]);
    let config = site.configure("[storee]\n").unwrap();
    let (code, said) = fails(
        &mut site
            .command(&["run", "--config", config.to_str().unwrap()])
            .unwrap(),
    );
    assert_eq!(code, 1);
    assert!(said.contains("storee") && said.contains("line 3"), "{said}");
    assert!(!site.socket().exists());
}

#[test]
fn a_second_daemon_leaves_the_first_alone() {
    let first = Monitor::start(&["cgroup:/agent-monitor-test/*"]).unwrap();
    let pid = format!("(pid {})", first.pid());
    let socket = first.site().socket();
    let parts = [pid.as_str(), socket.to_str().unwrap(), "--socket"];
    fails_saying(&mut run(first.site()), &parts);
    assert_eq!(first.status().unwrap()["state"], "attached");
    first.stop().unwrap();
}

#[test]
fn a_user_who_is_not_root_is_told_so() {
    let site = Site::new().unwrap();
    // Where nobody may look, as the build's folder may be.
    let copy = site.dir().join("agent-monitor");
    fs::copy(program().unwrap(), &copy).unwrap();
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(site.dir(), all).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .args(["run", "--socket"])
        .arg(site.dir().join("socket"));
    fails_saying(&mut command, &["root", "sudo"]);
}

#[test]
fn a_machine_without_cgroup2_is_told_so() {
    let site = Site::new().unwrap();
    let unmount = "for at in $(awk '$3 == \"cgroup2\" {print $2}' /proc/self/mounts); do umount -l $at || exit 9; done";
    fails_saying(&mut run_after(&site, unmount), &["cgroup2", "mount"]);
    assert!(!site.socket().exists());
}

#[test]
fn a_kernel_without_types_is_told_so() {
    let site = Site::new().unwrap();
    let hide = "mount -t tmpfs none /sys/kernel/btf";
    fails_saying(
        &mut run_after(&site, hide),
        &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"],
    );
    assert!(!site.socket().exists());
}

#[test]
fn a_store_that_cannot_be_opened_stops_nothing_and_is_opened_once_it_can_be() {
    let site = Arc::new(Site::new().unwrap());
    let store = site.dir().join("store.db");
    fs::create_dir(&store).unwrap();
    let monitor = Monitor::start_at(&site, &[NOBODY], "").unwrap();
    let status = monitor.status().unwrap();
    assert_eq!(status["state"], "attached");
    assert_eq!(status["store"]["well"], false, "{status:#}");
    let log = monitor.log();
    assert!(log.contains(store.to_str().unwrap()), "{log}");
    fs::remove_dir(&store).unwrap();
    wait::until("the store to be well", SOON, || {
        let status = monitor.status()?;
        Ok((status["store"]["well"] == true).then_some(()))
    })
    .unwrap();
    monitor.stop().unwrap();
}

#[test]
fn a_file_that_is_no_socket_is_not_overwritten() {
    let site = Site::new().unwrap();
    fs::write(site.socket(), "precious").unwrap();
    fails_saying(
        &mut run(&site),
        &[site.socket().to_str().unwrap(), "--socket"],
    );
    assert_eq!(fs::read(site.socket()).unwrap(), b"precious");
}

#[test]
fn status_says_when_there_is_no_daemon() {
    let site = Site::new().unwrap();
    let started = std::time::Instant::now();
    let mut status = site.command(&["status", "--wait", "1s"]).unwrap();
    fails_saying(
        &mut status,
        &[site.socket().to_str().unwrap(), "agent-monitor run"],
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}
