//! The demo as a program: that it passes, also without Docker, and that it leaves
//! nothing behind when it is interrupted. `cargo xtask test` runs it with Docker,
//! and without a detector.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use agent_monitor_tests::leftovers;
use rustix::process::{Pid, Signal, kill_process_group};

fn demo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.args(args).stdin(Stdio::null());
    command
}

/// The world's id: what follows the dot in the agent's name.
fn id(output: &str) -> &str {
    let (_, rest) = output.split_once("demo-agent.").unwrap();
    rest.split_whitespace().next().unwrap()
}

#[test]
fn passes_without_docker_and_says_so() {
    let output = demo(&["--no-docker"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains("the agent is a plain cgroup"), "{said}");
    assert!(said.contains("PASSED: 4 of 4 expected"), "{said}");
    assert!(
        said.contains("ALERT critical/high mining-pool-protocol"),
        "the live view shows alerts: {said}"
    );
    assert_eq!(leftovers::of(id(&said)), [""; 0]);
}

#[test]
fn leaves_nothing_behind_when_interrupted_at_the_terminal() {
    // A group of its own, as a shell makes for what it starts.
    let mut child: Child = demo(&[])
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    while !said.contains("=== 2/4") {
        assert!(lines.read_line(&mut said).unwrap() > 0, "ended: {said}");
    }
    assert!(!leftovers::of(id(&said)).is_empty());
    let group = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process_group(group, Signal::INT).unwrap();
    while lines.read_line(&mut said).unwrap() > 0 {}
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert_eq!(leftovers::of(id(&said)), [""; 0]);
}
