//! Births into cgroups, ends of processes and agents, and what an agent that may
//! make cgroups can do with them. Needs root.

use std::fs;

use agent_monitor_common::limits::MAX_AGENT_CGROUPS;
use agent_monitor_tests::cgroup::Cgroup;
use agent_monitor_tests::monitor::{Monitor, SOON};
use agent_monitor_tests::wait;
use agent_monitor_tests::watched::{Events, Watched};
use agent_monitor_tests::world::World;
use serde_json::json;

/// `born(path, argv)`: a child of this process that is in another cgroup from its
/// first instruction on (clone3 with CLONE_INTO_CGROUP), and becomes a program.
const BORN: &str = r"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
CLONE3, CLONE_INTO_CGROUP, SIGCHLD = 435, 0x200000000, 17
def born(group, argv):
    directory = os.open(group, os.O_RDONLY)
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, …, cgroup
    arguments = ctypes.create_string_buffer(struct.pack('=11Q', CLONE_INTO_CGROUP, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, directory), 88)
    pid = libc.syscall(CLONE3, arguments, 88)
    if pid < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if pid == 0:
        os.execv(argv[0], argv)
    os.waitpid(pid, 0)
    return pid
print(born(sys.argv[1], sys.argv[2:]), flush=True)
";

/// Runs [`BORN`] outside of every agent; gives the child's pid.
fn born(group: &Cgroup, mark: &str) -> u32 {
    let output = std::process::Command::new("python3")
        .args(["-c", BORN])
        .arg(group.dir())
        .args(["/usr/bin/true", mark])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn a_process_that_is_born_into_an_agent_is_seen_from_its_birth() {
    let watched = Watched::cgroup("born").unwrap();
    let pid = born(watched.agent.group(), "born inside");
    let path = watched.agent.group().path().to_owned();
    let events = watched.events().unwrap();
    let exec = events.exec("born inside").unwrap();
    assert_eq!(exec["process"]["pid"], pid);
    assert_eq!(exec["agent"]["cgroup"], path.as_str());
    let entered = events
        .only("cgroup", |it| it["process"]["pid"] == pid)
        .unwrap();
    assert_eq!(
        entered["cgroup"],
        json!({"action": "entered", "path": path})
    );
    events
        .only("exit", |it| it["process"]["pid"] == pid)
        .unwrap();
}

#[test]
fn a_process_that_an_agent_bears_elsewhere_has_escaped() {
    let watched = Watched::cgroup("bears").unwrap();
    let elsewhere = Cgroup::create(&format!("elsewhere.{}", watched.world.id())).unwrap();
    let path = elsewhere.path().to_owned();
    // The agent's own root shows no cgroups: it is lent the host's.
    let open = format!("/proc/{}/fd", std::process::id());
    let directory = fs::File::open(elsewhere.dir()).unwrap();
    let lent = format!("{open}/{}", std::os::fd::AsRawFd::as_raw_fd(&directory));
    let said = watched
        .python(BORN, &[&lent, "/usr/bin/true", "born outside"])
        .unwrap();
    let pid: u32 = said.trim().parse().unwrap();
    let own = watched.agent.group().path().to_owned();
    let events = watched.events().unwrap();
    let argv = json!(["/usr/bin/true", "born outside"]);
    let exec = events
        .only("exec", |it| it["exec"]["argv"] == argv)
        .unwrap();
    assert_eq!(exec["agent"]["cgroup"], own.as_str());
    assert_eq!(exec["process"]["pid"], pid);
    let entered = events
        .only("cgroup", |it| it["process"]["pid"] == pid)
        .unwrap();
    assert_eq!(
        entered["cgroup"],
        json!({"action": "entered", "path": path})
    );
    events
        .only("alert", |it| it["alert"]["rule"] == "cgroup-escape")
        .unwrap();
    elsewhere.remove().unwrap();
}

#[test]
fn a_process_ends_with_its_last_thread_and_keeps_its_id_when_another_execs() {
    let watched = Watched::cgroup("threads").unwrap();
    let said = watched
        .python(
            r"
import ctypes, os, threading, time
def child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(1)
    os.waitpid(pid, 0)
    return pid
def leader_first():
    def last():
        time.sleep(0.2)
        os._exit(3)
    threading.Thread(target=last).start()
    # exit(2) of this thread alone.
    ctypes.CDLL(None).syscall(60, 0)
def thread_execs():
    thread = threading.Thread(target=os.execv, args=('/usr/bin/true', ['true', 'by a thread']))
    thread.start()
    time.sleep(5)
print(child(leader_first), child(thread_execs))
",
            &[],
        )
        .unwrap();
    let pids: Vec<u32> = said
        .split_whitespace()
        .map(|it| it.parse().unwrap())
        .collect();
    let events = watched.events().unwrap();
    let end = events
        .only("exit", |it| it["process"]["pid"] == pids[0])
        .unwrap();
    assert_eq!(end["exit"]["code"], 3);
    assert!(
        end["exit"]["runtime_ns"].as_u64().unwrap() > 150_000_000,
        "{end}"
    );
    let exec = events.exec("by a thread").unwrap();
    assert_eq!(exec["process"]["pid"], pids[1]);
    let end = events
        .only("exit", |it| it["process"]["pid"] == pids[1])
        .unwrap();
    assert_eq!(end["exit"]["code"], 0);
    assert_eq!(end["process"]["argv"][1], "by a thread");
}

#[test]
fn an_agent_whose_cgroup_is_removed_is_gone() {
    let world = World::new("gone").unwrap();
    let name = format!("gone.{}", world.id());
    let group = Cgroup::create(&name).unwrap();
    let monitor = Monitor::start(&[&format!("cgroup:{}", group.path())]).unwrap();
    group.remove().unwrap();
    monitor
        .wait_for("its end", SOON, |it| {
            it["agent"]["state"] == "gone" && it["agent"]["name"] == name.as_str()
        })
        .unwrap();
    wait::until("a status without it", SOON, || {
        let status = monitor.status()?;
        let agents = status["agents"].as_array().map(Vec::len);
        Ok((agents == Some(0)).then_some(()))
    })
    .unwrap();
    let events = Events(monitor.stop().unwrap());
    let removed = json!({"action": "removed", "path": group.path()});
    events.only("cgroup", |it| it["cgroup"] == removed).unwrap();
}

#[test]
fn an_agent_that_makes_too_many_cgroups_loses_its_own_and_is_still_followed_in_them() {
    let watched = Watched::cgroup("many").unwrap();
    let dir = watched.agent.group().dir().to_owned();
    let child = |number: u64| dir.join(format!("c{number}"));
    let before = dir.join("before");
    fs::create_dir(&before).unwrap();
    // The reader of `tail` may not fall behind: its queue would drop what is looked for.
    let keep_up = |action: &str, name: String| {
        let told = |it: &serde_json::Value| {
            let path = it["cgroup"]["path"].as_str();
            it["cgroup"]["action"] == action && path.is_some_and(|path| path.ends_with(&name))
        };
        watched.monitor().wait_for(&name, SOON, told).unwrap();
    };
    for number in 0..MAX_AGENT_CGROUPS + 10 {
        fs::create_dir(child(number)).unwrap();
        if number % 200 == 199 && number < MAX_AGENT_CGROUPS - 1 {
            keep_up("created", format!("/c{number}"));
        }
    }
    // Who moves into one beyond the cap is told of as of any other.
    let join = format!(
        "echo 0 > '{}/cgroup.procs' && exec /bin/true 'beyond the cap'",
        child(MAX_AGENT_CGROUPS + 5).display()
    );
    let enter = format!(
        "echo 0 > '{}/cgroup.procs'; sh -c \"{join}\"",
        before.display()
    );
    let status = std::process::Command::new("sh")
        .args(["-c", &enter])
        .status();
    assert!(status.unwrap().success());
    let loss = watched
        .monitor()
        .wait_for("a loss", SOON, |it| it["kind"] == "loss")
        .unwrap();
    assert_eq!(loss["agent"]["cgroup"], watched.agent.group().path());
    assert_eq!(loss["loss"]["stage"], "kernel", "{loss}");
    // What is removed makes room.
    for number in 0..MAX_AGENT_CGROUPS + 10 {
        fs::remove_dir(child(number)).unwrap();
        if number % 200 == 199 && number < MAX_AGENT_CGROUPS - 1 {
            keep_up("removed", format!("/c{number}"));
        }
    }
    let losses = |events: &Events| -> u64 {
        let losses = events.of_kind("loss");
        losses
            .iter()
            .filter_map(|it| it["loss"]["kinds"]["memory"].as_u64())
            .sum()
    };
    for number in 0..MAX_AGENT_CGROUPS - 1 {
        let child = dir.join(format!("d{number}"));
        fs::create_dir(&child).unwrap();
        fs::remove_dir(&child).unwrap();
        if number % 100 == 99 {
            keep_up("removed", format!("/d{number}"));
        }
    }
    let events = watched.events().unwrap();
    events.exec("beyond the cap").unwrap();
    // One is left over for `before`.
    assert_eq!(losses(&events), 11);
}
