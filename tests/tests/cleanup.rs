//! Nothing stays behind: after a run, and after a killed run once the next has begun.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use agent_monitor_tests::leftovers;

fn scenario(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scenario"));
    command.args(args);
    command
}

/// Runs a scenario to its end and returns its world's id and its daemon's socket.
fn complete(kind: &str) -> (String, Option<String>) {
    let output = scenario(&["run", "mcp", "--agent", kind]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert_eq!(errors, "");
    (id(&text), value(&text, "docker host: unix://"))
}

fn value(text: &str, key: &str) -> Option<String> {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .map(str::to_owned)
}

/// The world's id: what follows the dot in the agent's name.
fn id(text: &str) -> String {
    let name = value(text, "agent: ").unwrap();
    name.split_once('.').unwrap().1.to_owned()
}

/// Starts a scenario, kills it when all is set up, and returns its world's id.
fn killed(kind: &str) -> String {
    let mut child: Child = scenario(&["run", "mcp", "--wait", "--agent", kind])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    while !text.contains("press Enter") {
        assert!(
            lines.read_line(&mut text).unwrap() > 0,
            "it ended early: {text}"
        );
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let id = id(&text);
    assert!(
        !leftovers::of(&id).is_empty(),
        "nothing was left to be removed"
    );
    id
}

#[test]
fn nothing_of_a_cgroup_run_stays() {
    let (id, _) = complete("cgroup");
    assert_eq!(leftovers::of(&id), [""; 0]);
}

#[test]
fn what_a_killed_cgroup_run_left_is_removed() {
    let id = killed("cgroup");
    assert!(scenario(&["clean"]).status().unwrap().success());
    assert_eq!(leftovers::of(&id), [""; 0]);
}

#[test]
fn neither_containers_nor_a_daemon_stay_even_of_a_killed_run() {
    let left = killed("docker");
    let (id, daemon) = complete("docker");
    assert_eq!(leftovers::of(&left), [""; 0]);
    assert_eq!(leftovers::of(&id), [""; 0]);
    let Some(socket) = daemon else {
        let list = Command::new("docker").args(["ps", "-a"]).output().unwrap();
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        assert!(!list.contains(&left) && !list.contains(&id), "{list}");
        return;
    };
    // The daemon is ours: it is stopped after use, and by `clean`.
    assert!(!Path::new(&socket).exists(), "{socket}");
    let left = killed("docker");
    assert!(Path::new(&socket).exists(), "{socket}");
    assert!(scenario(&["clean"]).status().unwrap().success());
    assert_eq!(leftovers::of(&left), [""; 0]);
    assert!(!Path::new(&socket).exists(), "{socket}");
}
