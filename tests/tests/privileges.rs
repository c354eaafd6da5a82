//! What the daemon keeps of root's privileges, and what is lost without each.
//! Needs root.

use std::fs::File;
use std::sync::Arc;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::monitor::{Monitor, SOON, Site};
use agent_monitor_tests::process::Process;
use agent_monitor_tests::wait;
use agent_monitor_tests::world::{SERVER, World};

/// CAP_DAC_READ_SEARCH (2), CAP_NET_ADMIN (12), CAP_SYS_PTRACE (19), CAP_PERFMON (38),
/// CAP_BPF (39), by their numbers in include/uapi/linux/capability.h.
const KEPT: u64 = 1 << 2 | 1 << 12 | 1 << 19 | 1 << 38 | 1 << 39;

/// A process of another user than root's with an open connection.
const HOLDER: &str = r"
import os, socket, sys
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    os.execv('/usr/bin/python3', ['python3', '-c', sys.argv[1], *sys.argv[1:]])
held = socket.create_connection((sys.argv[2], 7400))
print('ready', flush=True)
held.recv(1)
";

const SERVICE: &str = r"
import socket, sys
listener = socket.create_server((sys.argv[1], 7400))
print('listening', flush=True)
held, _ = listener.accept()
held.recv(1)
";

struct Scene {
    world: Arc<World>,
    agent: Agent,
    _server: Process,
    _holder: Process,
}

fn scene(name: &str) -> Scene {
    let world = World::new(name).unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let mut server = world
        .spawn(&["/usr/bin/python3", "-c", SERVICE, SERVER])
        .unwrap();
    server.wait_for_line("listening", SOON).unwrap();
    let holder = ["/usr/bin/python3", "-c", HOLDER, HOLDER, SERVER];
    let mut holder = agent.spawn(&holder).unwrap();
    holder.wait_for_line("ready", SOON).unwrap();
    Scene {
        world,
        agent,
        _server: server,
        _holder: holder,
    }
}

fn start(scene: &Scene, without: Option<&'static str>) -> anyhow::Result<Monitor> {
    let mut site = Site::new()?;
    if let Some(capability) = without {
        site = site.without(capability);
    }
    Monitor::start_at(&Arc::new(site), &[&scene.agent.selector()], "")
}

/// Whether the connection from before the watch is told.
fn taken_over(scene: &Scene, monitor: &Monitor) -> bool {
    monitor.catch_up(&scene.agent).unwrap();
    let flows = monitor.of_kind("flow");
    flows
        .iter()
        .any(|it| it["flow"]["state"] == "open" && it["flow"]["remote"]["port"] == 7400)
}

#[test]
fn the_daemon_gives_up_all_that_it_does_not_need() {
    let scene = scene("privileges");
    let monitor = start(&scene, None).unwrap();
    assert!(taken_over(&scene, &monitor));
    let tasks = std::fs::read_dir(format!("/proc/{}/task", monitor.pid())).unwrap();
    for task in tasks {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let value = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            u64::from_str_radix(line[name.len()..].trim(), 16).unwrap()
        };
        for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(value(set), KEPT, "{set} {status}");
        }
        assert_eq!(value("CapInh:"), 0);
        assert_eq!(value("CapAmb:"), 0);
        assert_eq!(value("NoNewPrivs:"), 1);
    }
    monitor.stop().unwrap();
    drop(scene.world);
}

#[test]
fn without_one_of_three_it_says_so_and_does_not_start() {
    let scene = scene("privileges-none");
    for (capability, said) in [
        ("bpf", "failed to create map"),
        ("perfmon", "the kernel refused the program"),
        ("net_admin", "the kernel refused the program"),
    ] {
        let site = Site::new().unwrap().without(capability);
        let config = site.configure("").unwrap();
        let args = ["run", "--agent", &scene.agent.selector(), "--config"];
        let mut command = site.command(&args).unwrap();
        let log = File::create(site.dir().join("log")).unwrap();
        let mut daemon = command.arg(config).stderr(log).spawn().unwrap();
        let status = wait::until("its end", SOON, || Ok(daemon.try_wait()?));
        if status.is_err() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
        assert_eq!(status.unwrap().code(), Some(1));
        let error = std::fs::read_to_string(site.dir().join("log")).unwrap();
        let name = format!("CAP_{} is missing", capability.to_uppercase());
        assert!(error.contains(&name), "{capability}: {error}");
        assert!(error.contains(said), "{capability}: {error}");
    }
}

#[test]
fn without_one_of_two_what_was_there_before_is_not_seen_but_all_that_comes_is() {
    let scene = scene("privileges-some");
    for capability in ["sys_ptrace", "dac_read_search"] {
        let monitor = start(&scene, Some(capability)).unwrap();
        assert!(!taken_over(&scene, &monitor), "{capability}");
        let warning = format!("CAP_{} is missing", capability.to_uppercase());
        assert!(monitor.log().contains(&warning), "{}", monitor.log());
        scene.agent.run(&["true"]).unwrap();
        let exec = |it: &serde_json::Value| it["exec"]["argv"][0] == "true";
        monitor.wait_for("what comes", SOON, exec).unwrap();
        monitor.stop().unwrap();
    }
}
