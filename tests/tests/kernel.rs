//! Processes and cgroups as the running kernel has them: what really runs, who
//! started it, how it ended, where it was. Needs root, and for one test Docker.

use std::ffi::CString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::cgroup::Cgroup;
use agent_monitor_tests::monitor::{Monitor, SOON};
use agent_monitor_tests::watched::{Events, Watched};
use agent_monitor_tests::world::World;
use serde_json::{Value, json};

/// Runs what follows in a child process and waits for it.
const IN_CHILD: &str = "
import ctypes, os, signal, sys, time
def child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    os.waitpid(pid, 0)
    return pid
";

fn python(watched: &Watched, script: &str, args: &[&str]) -> String {
    watched
        .python(&format!("{IN_CHILD}{script}"), args)
        .unwrap()
}

#[test]
fn exec_shows_the_arguments_the_program_gets_whatever_is_in_them() {
    let watched = Watched::cgroup("argv").unwrap();
    python(
        &watched,
        r"
run = lambda *argv: child(lambda: os.execv('/usr/bin/true', argv))
run('true', '', 'two words', '', 'empty')
run('\x1b]0;title\x07', '\x1b[2J\r\n\t', 'control')
run(b'true', b'\xff\xfe', b'bytes')
run('true', 'ends with empty', '')
run('true', 'x' * (4095 - len('true..whole.')) , 'whole')
run('true', 'y' * 9000, 'cut')
empty = lambda: ctypes.CDLL(None).execve(b'/usr/bin/true', (ctypes.c_char_p * 1)(None), (ctypes.c_char_p * 1)(None))
child(empty)
",
        &[],
    );
    let events = watched.events().unwrap();
    let argv = |mark: &str| events.exec(mark).unwrap()["exec"].clone();
    assert_eq!(
        argv("empty")["argv"],
        json!(["true", "", "two words", "", "empty"])
    );
    assert_eq!(argv("empty")["filename"], "/usr/bin/true");
    assert_eq!(
        argv("control")["argv"],
        json!(["\u{1b}]0;title\u{7}", "\u{1b}[2J\r\n\t", "control"])
    );
    assert_eq!(
        argv("bytes")["argv"],
        json!(["true", "\u{fffd}\u{fffd}", "bytes"])
    );
    let trailing = events.only("exec", |it| it["exec"]["argv"][1] == "ends with empty");
    assert_eq!(
        trailing.unwrap()["exec"]["argv"],
        json!(["true", "ends with empty", ""])
    );
    // 4,095 bytes, NULs included, are whole.
    let whole = argv("whole");
    let bytes = |exec: &Value| -> usize {
        let argv = exec["argv"].as_array().unwrap();
        argv.iter().map(|it| it.as_str().unwrap().len() + 1).sum()
    };
    assert_eq!(bytes(&whole), 4095);
    assert_eq!(whole.get("argv_truncated"), None);
    let cut = events
        .only("exec", |it| it["exec"]["argv_truncated"] == true)
        .unwrap();
    assert_eq!(cut["exec"]["argv"], json!(["true", "y".repeat(4090)]));
    // Since Linux 5.18 a program without arguments gets one that is empty.
    let none = events
        .only("exec", |it| it["exec"]["argv"] == json!([""]))
        .unwrap();
    assert_eq!(none["exec"]["filename"], "/usr/bin/true");
}

#[test]
fn the_executable_of_a_script_is_its_interpreter_and_mounts_are_followed() {
    let watched = Watched::docker("exe").unwrap();
    let script = watched.agent.shared().join("tool");
    std::fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    watched
        .agent
        .run(&["/opt/rig/shared/tool", "script"])
        .unwrap();
    watched
        .agent
        .run(&["/opt/rig/bin/miner", "--help"])
        .unwrap();
    watched.agent.run(&["/bin/true", "symlinked"]).unwrap();
    let events = watched.events().unwrap();

    let exec = events.exec("script").unwrap();
    assert_eq!(exec["exec"]["filename"], "/opt/rig/shared/tool");
    assert_eq!(
        exec["exec"]["argv"],
        json!(["/bin/sh", "/opt/rig/shared/tool", "script"])
    );
    assert_eq!(exec["exec"]["interpreter"], "/bin/sh");
    assert_eq!(exec["process"]["exe"], "/usr/bin/dash");
    assert_eq!(exec["process"]["comm"], "tool");

    let exec = events.exec("--help").unwrap();
    assert_eq!(exec["process"]["exe"], "/opt/rig/bin/miner");
    assert_eq!(exec["exec"]["filename"], "/opt/rig/bin/miner");

    let exec = events.exec("symlinked").unwrap();
    assert_eq!(exec["exec"]["filename"], "/bin/true");
    assert_eq!(exec["exec"].get("interpreter"), None);
    assert_eq!(exec["process"]["exe"], "/usr/bin/true");
}

#[test]
fn the_script_and_the_last_of_its_interpreters_are_told() {
    let watched = Watched::cgroup("interpreter").unwrap();
    python(
        &watched,
        r"
def script(name, first_line):
    with open(name, 'w') as file:
        file.write(first_line + '\nexit 0\n')
    os.chmod(name, 0o755)
script('/tmp/inner', '#!/bin/sh -e')
script('/tmp/outer', '#!/tmp/inner')
child(lambda: os.execv('/tmp/outer', ['outer', 'a script of a script']))
",
        &[],
    );
    let events = watched.events().unwrap();
    let exec = &events.exec("a script of a script").unwrap()["exec"];
    assert_eq!(exec["filename"], "/tmp/outer");
    assert_eq!(exec["interpreter"], "/bin/sh");
    let argv = [
        "/bin/sh",
        "-e",
        "/tmp/inner",
        "/tmp/outer",
        "a script of a script",
    ];
    assert_eq!(exec["argv"], json!(argv));
}

#[test]
fn a_program_that_runs_with_another_s_rights_tells_whose_they_were_and_are() {
    let watched = Watched::cgroup("setuid").unwrap();
    python(
        &watched,
        r"
import shutil
shutil.copy('/usr/bin/true', '/tmp/risen')
os.chown('/tmp/risen', 12, 34)
os.chmod('/tmp/risen', 0o6755)
def as_nobody():
    os.setgid(65534)
    os.setuid(65534)
    # From here on it is known to have no more rights.
    pid = os.fork()
    if pid == 0:
        os.execv('/bin/sh', ['sh', '-c', '/tmp/risen risen; true', 'low'])
    os.waitpid(pid, 0)
child(as_nobody)
child(lambda: os.execv('/usr/bin/true', ['true', 'plain']))
",
        &[],
    );
    let events = watched.events().unwrap();
    let exec = events.exec("risen").unwrap();
    assert_eq!(exec["process"]["uid"], 65534);
    let told = &exec["exec"];
    let ids = ["gid", "euid", "euid_before", "egid"].map(|name| told[name].as_u64());
    assert_eq!(ids, [65534, 12, 65534, 34].map(Some), "{told}");
    assert_eq!(
        (&told["setuid"], &told["setgid"]),
        (&json!(true), &json!(true))
    );
    let plain = &events.exec("plain").unwrap()["exec"];
    assert_eq!((&plain["euid"], &plain["egid"]), (&json!(0), &json!(0)));
    for absent in ["euid_before", "setuid", "setgid"] {
        assert_eq!(plain.get(absent), None, "{plain}");
    }
}

#[test]
fn the_namespaces_of_a_program_are_those_that_proc_shows() {
    let watched = Watched::cgroup("namespaces").unwrap();
    let output = python(
        &watched,
        r"
def show():
    names = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts']
    return [os.stat(f'/proc/self/ns/{name}').st_ino for name in names]
def away():
    # New ones for mounts, host name, IPC, network and cgroups. That for pids is its
    # children's only, and so not told of itself.
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x00020000 | 0x04000000 | 0x08000000 | 0x40000000 | 0x02000000 | 0x20000000) == 0
    print(*show(), flush=True)
    os.execv('/usr/bin/true', ['true', 'away'])
print(*show(), flush=True)
child(away)
child(lambda: os.execv('/usr/bin/true', ['true', 'at home']))
",
        &[],
    );
    let shown: Vec<Vec<u64>> = output
        .lines()
        .map(|line| line.split(' ').map(|it| it.parse().unwrap()).collect())
        .collect();
    let events = watched.events().unwrap();
    let names = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
    for (mark, shown) in ["at home", "away"].into_iter().zip(&shown) {
        let told = &events.exec(mark).unwrap()["exec"]["namespaces"];
        let told = names.map(|name| told[name].as_u64().unwrap());
        assert_eq!(told[..], shown[..], "{mark}");
    }
    let same = |name| {
        let place = names.iter().position(|it| *it == name).unwrap();
        shown[0][place] == shown[1][place]
    };
    assert_eq!(
        names.map(same),
        names.map(|it| ["pid", "user"].contains(&it))
    );
}

#[test]
fn a_program_without_a_file_is_flagged() {
    let watched = Watched::cgroup("memfd").unwrap();
    python(
        &watched,
        r"
true = open('/usr/bin/true', 'rb').read()
memory = os.memfd_create('loader')
os.write(memory, true)
child(lambda: os.execve(memory, ['x', 'from memory'], {}))
with open('/tmp/deleted', 'wb') as file:
    file.write(true)
os.chmod('/tmp/deleted', 0o755)
deleted = os.open('/tmp/deleted', os.O_RDONLY)
os.unlink('/tmp/deleted')
child(lambda: os.execve(f'/proc/self/fd/{deleted}', ['x', 'deleted'], {}))
child(lambda: os.execv('/usr/bin/true', ['x', 'from disk']))
",
        &[],
    );
    let events = watched.events().unwrap();
    for mark in ["from memory", "deleted"] {
        assert_eq!(events.exec(mark).unwrap()["exec"]["memfd"], true, "{mark}");
    }
    let memory = &events.exec("from memory").unwrap()["process"]["exe"];
    assert!(
        memory.as_str().unwrap().contains("memfd:loader"),
        "{memory}"
    );
    assert_eq!(events.exec("from disk").unwrap()["exec"].get("memfd"), None);
}

#[test]
fn standard_streams_that_are_sockets_are_named() {
    let watched = Watched::cgroup("stdio").unwrap();
    python(
        &watched,
        r"
import socket
one, other = socket.socketpair()
def shell():
    os.dup2(one.fileno(), 0)
    os.dup2(one.fileno(), 2)
    os.execv('/usr/bin/true', ['sh', 'on a socket'])
child(shell)
child(lambda: os.execv('/usr/bin/true', ['sh', 'on files']))
",
        &[],
    );
    let events = watched.events().unwrap();
    let sockets = |mark: &str| {
        events.exec(mark).unwrap()["exec"]
            .get("stdio_sockets")
            .cloned()
    };
    assert_eq!(sockets("on a socket"), Some(json!([0, 2])));
    assert_eq!(sockets("on files"), None);
}

#[test]
fn an_end_has_its_code_or_signal_and_threads_have_none_of_their_own() {
    let watched = Watched::cgroup("exit").unwrap();
    let output = python(
        &watched,
        r"
import threading
pids = [child(lambda: os._exit(0)), child(lambda: os._exit(7)), child(lambda: os._exit(255))]
for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
    pids.append(child(lambda: os.kill(os.getpid(), number)))
def threads():
    all = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(5)]
    [thread.start() for thread in all]
    [thread.join() for thread in all]
pids.append(child(threads))
print(*pids)
",
        &[],
    );
    let pids: Vec<u32> = output
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    let events = watched.events().unwrap();
    let ends = [
        ("code", 0),
        ("code", 7),
        ("code", 255),
        ("signal", 9),
        ("signal", 15),
        ("signal", 11),
        ("code", 0),
    ];
    assert_eq!(pids.len(), ends.len());
    for (pid, (member, value)) in pids.iter().zip(ends) {
        let end = events
            .only("exit", |it| it["process"]["pid"] == *pid)
            .unwrap();
        let exit = end["exit"].as_object().unwrap();
        assert_eq!(exit[member], value, "{end}");
        assert!(
            !exit.contains_key(if member == "code" { "signal" } else { "code" }),
            "{end}"
        );
        let runtime = exit["runtime_ns"].as_u64().unwrap();
        assert!((1..20_000_000_000).contains(&runtime), "{end}");
    }
}

#[test]
fn ancestors_that_never_ran_a_program_of_their_own_are_known() {
    let watched = Watched::cgroup("fork").unwrap();
    let output = python(
        &watched,
        r"
def middle():
    print(os.getppid(), os.getpid(), flush=True)
    child(lambda: os.execv('/usr/bin/true', ['true', 'grandchild']))
child(middle)
",
        &[],
    );
    let pids: Vec<u64> = output
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    let events = watched.events().unwrap();
    let process = &events.exec("grandchild").unwrap()["process"];
    assert_eq!(process["ppid"], pids[1]);
    assert_eq!(process["comm"], "true");
    for (ancestor, pid) in [(0, pids[1]), (1, pids[0])] {
        let ancestor = &process["ancestors"][ancestor];
        assert_eq!(ancestor["pid"], pid, "{process:#}");
        assert_eq!(ancestor["comm"], "python3", "{process:#}");
        let exe = ancestor["exe"].as_str().unwrap();
        assert!(exe.contains("/usr/bin/python3"), "{exe}");
    }
    let end = events.only("exit", |it| it["process"]["pid"] == pids[1]);
    assert_eq!(end.unwrap()["process"]["ppid"], pids[0]);
}

/// Runs `true <mark>` in the cgroup `group`, which is made between fork and exec
/// with all of `folders`, the outermost first.
fn run_in_new(group: &Cgroup, folders: &[&str], mark: &str) {
    let path = |name: &str| CString::new(group.dir().join(name).to_str().unwrap()).unwrap();
    let made: Vec<_> = folders.iter().map(|name| path(name)).collect();
    let last = folders.last().copied().unwrap_or_default();
    let entrance = path(&format!("{last}/cgroup.procs"));
    let mut command = Command::new("true");
    command.arg(mark);
    let enter = move || {
        use rustix::fs::{Mode, OFlags};
        for folder in &made {
            rustix::fs::mkdir(folder.as_c_str(), Mode::RWXU)?;
        }
        let entrance = rustix::fs::open(
            entrance.as_c_str(),
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::io::write(&entrance, b"0")?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes a few system calls with
    // paths prepared before, and allocates nothing.
    unsafe { command.pre_exec(enter) };
    assert!(command.status().unwrap().success());
}

/// Nanoseconds within the minute of an event's time.
fn nanoseconds(event: &Value) -> u64 {
    let time = event["time"].as_str().unwrap();
    // 2030-01-01T00:00:12.123456789Z
    let seconds: u64 = time[17..19].parse().unwrap();
    seconds * 1_000_000_000 + time[20..29].parse::<u64>().unwrap()
}

#[test]
fn what_runs_in_a_cgroup_born_inside_an_agent_is_seen_from_its_first_program() {
    const ROUNDS: usize = 20;
    let watched = Watched::cgroup("nested").unwrap();
    let group = watched.agent.group();
    for round in 0..ROUNDS {
        let folders = [format!("a{round}"), format!("a{round}/b")];
        let folders: Vec<_> = folders.iter().map(String::as_str).collect();
        run_in_new(group, &folders, &format!("nested-{round}"));
    }
    let path = group.path().to_owned();
    let events = watched.events().unwrap();
    let mut quickest = u64::MAX;
    for round in 0..ROUNDS {
        let exec = events.exec(&format!("nested-{round}")).unwrap();
        assert_eq!(exec["agent"]["cgroup"], path.as_str());
        let happened = |action: &str, folder: String| {
            let folder = format!("{path}/{folder}");
            let cgroup = json!({"action": action, "path": folder});
            events.only("cgroup", |it| it["cgroup"] == cgroup).unwrap()
        };
        happened("created", format!("a{round}"));
        let created = happened("created", format!("a{round}/b"));
        let entered = happened("entered", format!("a{round}/b"));
        assert_eq!(entered["process"]["pid"], exec["process"]["pid"]);
        let minute = 60_000_000_000;
        let after = (nanoseconds(exec) + minute - nanoseconds(created)) % minute;
        quickest = quickest.min(after);
    }
    assert!(quickest < 1_000_000, "mkdir to exec took {quickest} ns");
}

#[test]
fn a_process_that_is_moved_out_is_still_watched_and_one_moved_in_is_from_then_on() {
    let watched = Watched::cgroup("moved").unwrap();
    let world = watched.world.id().to_owned();
    let elsewhere = Cgroup::create(&format!("elsewhere.{world}")).unwrap();
    let waits = format!(
        "{IN_CHILD}
print('ready', flush=True)
while not os.path.exists('/opt/rig/shared/go'): time.sleep(0.005)
child(lambda: os.execv('/usr/bin/true', ['true', 'after the move']))
"
    );
    let mut fugitive = watched.agent.spawn(&["python3", "-c", &waits]).unwrap();
    fugitive.wait_for_line("ready", SOON).unwrap();
    let pid = fugitive.pid().unwrap();
    std::fs::write(elsewhere.dir().join("cgroup.procs"), pid.to_string()).unwrap();
    std::fs::write(watched.agent.shared().join("go"), "").unwrap();
    fugitive.finish(SOON).unwrap();

    // From a cgroup that is nobody's.
    let join = format!(
        "echo 0 > {}/cgroup.procs; /bin/true 'from outside'",
        watched.agent.group().dir().display()
    );
    let mut newcomer = Command::new("sh").args(["-c", &join]).spawn().unwrap();
    let newcomer_pid = newcomer.id();
    assert!(newcomer.wait().unwrap().success());

    let path = watched.agent.group().path().to_owned();
    let events = watched.events().unwrap();
    let entered = |pid: u32, path: &str| {
        let cgroup = json!({"action": "entered", "path": path});
        events
            .only("cgroup", |it| {
                it["cgroup"] == cgroup && it["process"]["pid"] == pid
            })
            .unwrap()["agent"]["cgroup"]
            .clone()
    };
    assert_eq!(entered(pid, elsewhere.path()), path.as_str());
    assert_eq!(entered(newcomer_pid, &path), path.as_str());
    let exec = events.exec("after the move").unwrap();
    assert_eq!(exec["agent"]["cgroup"], path.as_str());
    assert_eq!(exec["process"]["ppid"], pid);
    let exec = events.exec("from outside").unwrap();
    assert_eq!(exec["process"]["ppid"], newcomer_pid);
    events
        .only("exit", |it| it["process"]["pid"] == newcomer_pid)
        .unwrap();
    elsewhere.remove().unwrap();
}

#[test]
fn what_happens_outside_agents_gives_no_event() {
    let watched = Watched::cgroup("outside").unwrap();
    let other = Agent::cgroup(&watched.world, "other").unwrap();
    let work = "import os, socket; s = socket.socket(); s.connect_ex(('127.0.0.1', 9)); os.system('true other')";
    other.run(&["python3", "-c", work]).unwrap();
    watched
        .world
        .spawn(&["/usr/bin/python3", "-c", work])
        .unwrap()
        .finish(SOON)
        .unwrap();
    watched.agent.run(&["true", "inside"]).unwrap();
    let path = watched.agent.group().path().to_owned();
    let events = watched.events().unwrap();
    events.exec("inside").unwrap();
    for event in events.of_agents() {
        assert_eq!(event["agent"]["cgroup"], path.as_str(), "{event}");
        assert!(!event.to_string().contains("other"), "{event}");
    }
}

#[test]
fn agents_of_a_subtree_that_is_removed_and_made_again_are_still_covered() {
    let world = World::new("again").unwrap();
    let name = |agent: &str| format!("tree.{}/{agent}", world.id());
    let one = Cgroup::create(&name("one")).unwrap();
    let tree = one.dir().parent().unwrap().to_owned();
    let path = one.path().rsplit_once('/').unwrap().0.to_owned();
    let monitor = Monitor::start(&[&format!("cgroup:{path}/*")]).unwrap();
    let connect = "import socket, sys; socket.socket().connect_ex(('127.0.0.1', 9))";
    let run = |group: &Cgroup, mark: &str| {
        let join = format!(
            "echo 0 > {}/cgroup.procs; exec /usr/bin/python3 -c \"{connect}\" {mark}",
            group.dir().display()
        );
        assert!(
            Command::new("sh")
                .args(["-c", &join])
                .status()
                .unwrap()
                .success()
        );
    };
    run(&one, "before");
    one.remove().unwrap();
    assert!(!tree.exists());
    let two = Cgroup::create(&name("two")).unwrap();
    run(&two, "after");
    for (group, mark) in [(&one, "before"), (&two, "after")] {
        for kind in ["exec", "connect", "flow"] {
            let event = monitor
                .wait_for(&format!("{kind} {mark}"), SOON, |it| {
                    let last = it["process"]["argv"]
                        .as_array()
                        .and_then(|argv| argv.last());
                    it["kind"] == kind && last.is_some_and(|it| it == mark)
                })
                .unwrap();
            assert_eq!(event["agent"]["cgroup"], group.path());
        }
    }
    Events(monitor.stop().unwrap())
        .only("agent", |it| {
            it["agent"]["name"] == "two" && it["agent"]["state"] == "appeared"
        })
        .unwrap();
    two.remove().unwrap();
    let _ = std::fs::remove_dir(&tree);
}
