//! The Debian package on a node with systemd: `cargo xtask dist` makes it and runs
//! this. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use agent_monitor_tests::cgroup::Cgroup;
use agent_monitor_tests::node::{Node, dist, write};
use agent_monitor_tests::process::{Process, checked, tool};
use agent_monitor_tests::wait;
use serde_json::{Value, json};

const UNIT: &str = "agent-monitor.service";
/// Longer than anything takes that is waited for here.
const SOON: Duration = Duration::from_secs(30);
/// CAP_DAC_READ_SEARCH (2), CAP_NET_ADMIN (12), CAP_SYS_PTRACE (19), CAP_PERFMON (38),
/// CAP_BPF (39), by their numbers in include/uapi/linux/capability.h.
const KEPT: u64 = 1 << 2 | 1 << 12 | 1 << 19 | 1 << 38 | 1 << 39;

const CONFIG: &str = "/etc/agent-monitor/config.toml";

/// Alerts go to a file, and to a receiver that has a name.
const SINKS: &str = r#"
[metrics]
listen = "127.0.0.1:9469"

[[sink]]
kind = "file"
name = "local"
path = "/var/log/agent-monitor/alerts.ndjson"

[[sink]]
kind = "syslog"
name = "siem"
address = "siem.example.test:1514"
"#;

/// Runs a program that no file holds, when there has been time to see the agent.
const AGENT: &str = r#"[Service]
ExecStart=/usr/bin/python3 -c "import os, time; time.sleep(3); f = os.memfd_create('x'); os.write(f, open('/bin/true', 'rb').read()); os.execve(f, ['hidden'], {})"
"#;

/// A name server that knows one name, 127.0.0.1, and the receiver that has it.
const RECEIVER: &str = r"
import socket, threading
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(('127.0.0.1', 53))
def answer():
    while True:
        query, asker = names.recvfrom(512)
        end = query.index(0, 12) + 5
        known = query[12:end - 5] == b'\4siem\7example\4test' and query[end - 3] == 1
        record = b'\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1' if known else b''
        names.sendto(query[:2] + b'\x81\x80\0\1' + (b'\0\1' if known else b'\0\0') + bytes(4) + query[12:end] + record, asker)
threading.Thread(target=answer, daemon=True).start()
receiver = socket.create_server(('127.0.0.1', 1514))
print('listening', flush=True)
while True:
    peer, _ = receiver.accept()
    while line := peer.recv(65536):
        print(line.decode('utf-8', 'replace'), flush=True)
";

fn install(node: &Node, deb: &str) {
    let inside = node.path("/root/package.deb");
    fs::copy(deb, inside).unwrap();
    node.run(
        "dpkg",
        &["--force-confold", "--install", "/root/package.deb"],
    )
    .unwrap();
}

fn package() -> String {
    dist("agent-monitor.deb").unwrap().display().to_string()
}

/// The package as its next version would be: newer, and with another default configuration.
fn next_version(node: &Node) -> String {
    let tree = node.dir().join("next");
    let (deb, dir) = (package(), tree.display().to_string());
    tool("dpkg-deb", &["--raw-extract", &deb, &dir]).unwrap();
    let edit = |file: &str, change: &dyn Fn(String) -> String| {
        let file = tree.join(file);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, change(text)).unwrap();
    };
    edit("DEBIAN/control", &|text| {
        let lines = text.lines().map(|line| {
            if line.starts_with("Version:") {
                "Version: 99".to_owned()
            } else {
                line.to_owned()
            }
        });
        lines.collect::<Vec<_>>().join("\n") + "\n"
    });
    edit("etc/agent-monitor/config.toml", &|text| {
        text + "# New in version 99.\n"
    });
    let next = node.dir().join("next.deb").display().to_string();
    tool("dpkg-deb", &["-Znone", "--build", &dir, &next]).unwrap();
    next
}

/// The daemon's pid, as the node sees it, once systemd takes it for started.
fn started(node: &Node) -> String {
    wait::until("the service to be active", SOON, || {
        let active = node.property(UNIT, "ActiveState")? == "active";
        let pid = node.property(UNIT, "MainPID")?;
        Ok((active && pid != "0").then_some(pid))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", journal(node)))
}

/// What the daemon says of itself, for whoever reads of a failure.
fn journal(node: &Node) -> String {
    let said = |program: &str, args: &[&str]| {
        node.run(program, args)
            .unwrap_or_else(|error| error.to_string())
    };
    let journal = said("journalctl", &["--no-pager", "--lines=50"]);
    let status = said("agent-monitor", &["status", "--output", "json"]);
    format!("{journal}\n{status}")
}

fn exists(node: &Node, path: &str) -> bool {
    node.path(path).symlink_metadata().is_ok()
}

#[test]
fn the_binary_needs_no_library_and_no_file() {
    let binary = dist("files/agent-monitor").unwrap();
    let libraries = tool("ldd", &[&binary.display().to_string()]).unwrap();
    assert_eq!(libraries.trim(), "statically linked");
    let empty = tempfile::tempdir().unwrap();
    fs::copy(&binary, empty.path().join("agent-monitor")).unwrap();
    let inside = |args: &[&str]| {
        let mut command = Command::new("chroot");
        command.arg(empty.path()).arg("/agent-monitor").args(args);
        command
    };
    let version = checked(&mut inside(&["--version"])).unwrap();
    assert!(version.starts_with("agent-monitor "), "{version}");
    checked(&mut inside(&["rules", "test"])).unwrap();
    // Without /proc and /sys nothing can run: it says so.
    let doctor = inside(&["doctor", "--output", "json"]).output().unwrap();
    assert_eq!(doctor.status.code(), Some(1));
    let lines = String::from_utf8(doctor.stdout).unwrap();
    let checks = lines.lines().map(serde_json::from_str::<Value>);
    let checks: Vec<Value> = checks.collect::<Result<_, _>>().unwrap();
    assert!(checks.iter().any(|it| it["state"] == "missing"), "{lines}");
}

#[test]
fn an_installed_package_runs_confined_by_its_unit_and_delivers() {
    let node = Node::boot(|upper| {
        // Names of ways that a static program cannot go.
        write(&upper.join("etc/nsswitch.conf"), "hosts: elsewhere\n")?;
        write(&upper.join("etc/resolv.conf"), "nameserver 127.0.0.1\n")?;
        write(&upper.join("etc/agent-monitor/conf.d/sinks.toml"), SINKS)?;
        write(&upper.join("etc/systemd/system/demo-agent.service"), AGENT)
    })
    .unwrap();
    let said = node.dir().join("received");
    let mut receiver = node.command("python3", &["-c", RECEIVER]);
    let mut receiver = Process::start(&mut receiver, &said).unwrap();
    receiver.wait_for_line("listening", SOON).unwrap();
    let agent = format!("{}/system.slice/demo-agent.service", node.cgroup().path());
    let agents = format!("[agents]\nselect = [\"cgroup:{agent}\"]\n");
    node.write("/etc/agent-monitor/conf.d/agents.toml", &agents)
        .unwrap();

    install(&node, &package());
    let pid = started(&node);
    assert_eq!(node.property(UNIT, "Type").unwrap(), "notify");
    let status = node.property(UNIT, "StatusText").unwrap();
    assert!(status.starts_with("attached: "), "{status}");
    let enabled = node.run("systemctl", &["is-enabled", UNIT]).unwrap();
    assert_eq!(enabled, "enabled");
    node.run("agent-monitor", &["status", "--wait", "10s"])
        .unwrap();
    node.run("curl", &["-sf", "http://127.0.0.1:9469/readyz"])
        .unwrap();

    // What the unit says is so.
    let process = fs::read_to_string(node.path(&format!("/proc/{pid}/status"))).unwrap();
    let value = |name: &str| {
        let line = process.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {process}")).trim()
    };
    // seccomp(2): a filter is in force.
    assert_eq!(value("Seccomp:"), "2");
    assert_eq!(value("NoNewPrivs:"), "1");
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(u64::from_str_radix(value(set), 16).unwrap(), KEPT, "{set}");
    }

    // And it works that way: from the kernel to the receiver.
    node.run("systemctl", &["start", "demo-agent.service"])
        .unwrap();
    let file = node.path("/var/log/agent-monitor/alerts.ndjson");
    let has = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_default();
        Ok(text.contains("memfd-exec").then_some(()))
    };
    wait::until("the alert in the file", SOON, || has(&file))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", journal(&node)));
    wait::until("the alert at the receiver", SOON, || has(&said))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", journal(&node)));

    // systemctl reload reads the configuration again, in the same process.
    let more =
        "[[sink]]\nkind = \"file\"\nname = \"more\"\npath = \"/var/log/agent-monitor/more\"\n";
    node.write("/etc/agent-monitor/conf.d/zz.toml", more)
        .unwrap();
    node.run("systemctl", &["reload", UNIT]).unwrap();
    wait::until("the new sink", SOON, || {
        let sinks = node.run("agent-monitor", &["sinks", "list", "--output", "json"])?;
        Ok(sinks.contains("\"more\"").then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", journal(&node)));
    assert_eq!(started(&node), pid);
    drop(receiver);
    node.end().unwrap();
}

#[test]
fn a_daemon_that_is_stuck_is_started_again_by_the_watchdog() {
    let node = Node::boot(|upper| {
        // Sooner than in earnest.
        let quick = "[Service]\nWatchdogSec=2\n";
        let dir = upper.join("etc/systemd/system/agent-monitor.service.d");
        write(&dir.join("quick.conf"), quick)
    })
    .unwrap();
    install(&node, &package());
    let first = started(&node);
    // Twice the time in which it has to be heard of: it is.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(node.property(UNIT, "NRestarts").unwrap(), "0");
    assert_eq!(started(&node), first);

    node.run("kill", &["-STOP", &first]).unwrap();
    let second = wait::until("another daemon", SOON, || {
        let pid = node.property(UNIT, "MainPID")?;
        let again = node.property(UNIT, "NRestarts")? != "0";
        Ok((again && pid != "0" && pid != first).then_some(pid))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", journal(&node)));
    assert_eq!(started(&node), second);
    let said = journal(&node);
    assert!(said.contains("Watchdog timeout"), "{said}");
    // It says what it did not see.
    let gaps = ["tail", "--kind", "gap", "-n", "100", "--output", "json"];
    let line = node.command("timeout", &[&["3", "agent-monitor"], &gaps[..]].concat());
    let told = { line }.output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("\"kind\":\"gap\""), "{told}\n{said}");
    node.end().unwrap();
}

#[test]
fn an_upgrade_keeps_what_the_operator_changed_and_purging_leaves_nothing() {
    let node = Node::boot(|_| Ok(())).unwrap();
    install(&node, &package());
    let first = started(&node);
    for file in [
        "/usr/bin/agent-monitor",
        "/usr/lib/systemd/system/agent-monitor.service",
        "/usr/share/man/man1/agent-monitor.1.gz",
        "/usr/share/man/man1/agent-monitor-rules-test.1.gz",
        "/usr/share/bash-completion/completions/agent-monitor",
        "/usr/share/zsh/vendor-completions/_agent-monitor",
        "/usr/share/fish/vendor_completions.d/agent-monitor.fish",
        "/usr/share/doc/agent-monitor/copyright",
        "/var/lib/agent-monitor/store.db",
        "/var/log/agent-monitor",
        CONFIG,
    ] {
        assert!(exists(&node, file), "{file}");
    }
    node.run("agent-monitor", &["config", "check"]).unwrap();
    let installed = node.run("dpkg", &["--verify", "agent-monitor"]).unwrap();
    assert_eq!(installed, "", "files differ from the package's");

    let config = fs::read_to_string(node.path(CONFIG)).unwrap();
    let config = config.replace("#select = ", "select = [\"cgroup:/mine/*\"] #");
    node.write(CONFIG, &config).unwrap();
    install(&node, &next_version(&node));
    let second = started(&node);
    assert_ne!(first, second, "the old daemon still runs");
    assert_eq!(fs::read_to_string(node.path(CONFIG)).unwrap(), config);
    let theirs = fs::read_to_string(node.path(&format!("{CONFIG}.dpkg-dist"))).unwrap();
    assert!(theirs.contains("New in version 99"));
    let shown = node.run("agent-monitor", &["config", "show"]).unwrap();
    assert!(shown.contains("cgroup:/mine/*"), "{shown}");

    node.run("dpkg", &["--remove", "agent-monitor"]).unwrap();
    assert!(!exists(&node, &format!("/proc/{second}")));
    for file in [
        "/usr/bin/agent-monitor",
        "/run/agent-monitor.sock",
        "/usr/share/doc/agent-monitor",
    ] {
        assert!(!exists(&node, file), "{file} after removing");
    }
    assert!(exists(&node, CONFIG));
    assert!(exists(&node, "/var/lib/agent-monitor/store.db"));

    node.run("dpkg", &["--purge", "agent-monitor"]).unwrap();
    let left = [
        "/etc/agent-monitor",
        "/var/lib/agent-monitor",
        "/var/log/agent-monitor",
    ];
    for file in left {
        assert!(!exists(&node, file), "{file} after purging");
    }
    let units = node
        .run("systemctl", &["list-unit-files", "--no-legend"])
        .unwrap();
    assert!(!units.contains("agent-monitor"), "{units}");
    node.end().unwrap();
}

/// A container as `deploy/kubernetes` asks for it, in the words of the OCI's runtime
/// specification: the capabilities are the unit's, which another test compares with
/// the manifest's. A pod's cgroup namespace is its own where cgroup2 is mounted alone.
fn pod(bundle: &Path, own_cgroups: bool, agent: &str) -> Value {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/agent-monitor.service");
    let unit = fs::read_to_string(unit).unwrap();
    let bounding = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let capabilities: Vec<&str> = bounding.unwrap().split_whitespace().collect();
    let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "ipc"})];
    if own_cgroups {
        namespaces.push(json!({"type": "cgroup"}));
    }
    let bind = |from: &Path, to: &str, mode: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", mode]});
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/usr/bin/agent-monitor", "run", "--agent", format!("cgroup:{agent}")],
            "env": ["PATH=/usr/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid", "noexec", "nodev"]},
            bind(Path::new("/sys/fs/cgroup"), "/sys/fs/cgroup", "ro"),
            bind(&bundle.join("state"), "/var/lib/agent-monitor", "rw"),
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        ],
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/sys"],
        },
    })
}

/// A container of runc's, removed on drop.
struct Container(String);

impl Container {
    fn exec(&self, args: &[&str]) -> anyhow::Result<String> {
        let exec = ["exec", &self.0, "/usr/bin/agent-monitor"];
        checked(Command::new("runc").args(exec).args(args))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = tool("runc", &["delete", "--force", &self.0]);
    }
}

#[test]
fn the_pod_sees_agents_with_no_more_than_the_manifest_gives_it() {
    for own_cgroups in [false, true] {
        let name = format!("agent-monitor-pod-{}", std::process::id());
        let agent = Cgroup::create(&format!("pod-agent.{}", std::process::id())).unwrap();
        let bundle = tempfile::tempdir().unwrap();
        for folder in ["rootfs/usr/bin", "state"] {
            fs::create_dir_all(bundle.path().join(folder)).unwrap();
        }
        let binary = bundle.path().join("rootfs/usr/bin/agent-monitor");
        fs::copy(dist("files/agent-monitor").unwrap(), binary).unwrap();
        let spec = pod(bundle.path(), own_cgroups, agent.path());
        fs::write(bundle.path().join("config.json"), spec.to_string()).unwrap();

        let mut run = Command::new("runc");
        run.args(["run", "--bundle"]).arg(bundle.path()).arg(&name);
        let mut daemon = Process::start(&mut run, &bundle.path().join("log")).unwrap();
        let container = Container(name);
        daemon.wait_for_line("attached", SOON).unwrap();
        container.exec(&["status", "--wait", "10s"]).unwrap();

        // The agent is there since before; what it starts is told with its arguments.
        let enter = "echo $$ > \"$1/cgroup.procs\"; exec /usr/bin/env true seen";
        let mut work = Command::new("sh");
        checked(work.args(["-euc", enter, "agent"]).arg(agent.dir())).unwrap();
        let tail = ["tail", "--kind", "exec", "-n", "20", "--output", "json"];
        let told = bundle.path().join("told");
        let mut tail_in = Command::new("runc");
        tail_in.args(["exec", &container.0, "/usr/bin/agent-monitor"]);
        let mut tail_in = Process::start(tail_in.args(tail), &told).unwrap();
        let line = tail_in.wait_for_line("\"seen\"", SOON).unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["agent"]["cgroup"], agent.path(), "{line}");
        drop(tail_in);
        drop(container);
        drop(daemon);
        agent.remove().unwrap();
    }
}
