//! `agent-monitor top` in a terminal and without one, on a real daemon. Needs root.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::monitor::{Monitor, SOON, Site};
use agent_monitor_tests::process::Process;
use agent_monitor_tests::terminal::Terminal;
use agent_monitor_tests::wait;
use agent_monitor_tests::world::{SERVER, World};
use rustix::process::Signal;

/// A client that sends, then waits.
const CLIENT: &str = "
import socket, sys
s = socket.create_connection((sys.argv[1], 7003), 5)
s.sendall(b'x' * 5000)
s.recv(1)
s.sendall(b'y')
s.recv(1)
";

/// An agent that has a connection open, over which bytes went both ways.
fn busy_agent(name: &str) -> (Agent, Arc<World>) {
    let world = World::new(name).unwrap();
    (Agent::cgroup(&world, name).unwrap(), world)
}

fn connected(agent: &Agent, world: &World) -> (Process, TcpStream) {
    let at = format!("{SERVER}:7003");
    let listener = world.net().run(|| Ok(TcpListener::bind(&at)?)).unwrap();
    let process = agent.spawn(&["python3", "-c", CLIENT, SERVER]).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.read_exact(&mut [0; 5000]).unwrap();
    // Direction changes: the bytes before are told of.
    stream.write_all(b"a").unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();
    (process, stream)
}

fn top(monitor: &Monitor, args: &[&str]) -> Command {
    let args = [&["top", "--interval", "200ms"], args].concat();
    let mut command = monitor.site().command(&args).unwrap();
    command.env_remove("NO_COLOR");
    command
}

/// Waits until the program has ended well and its terminal is as it was.
fn ends_well(terminal: &mut Terminal) {
    assert!(terminal.end(SOON).unwrap().success());
    wait::until("the terminal to be as it was", SOON, || {
        Ok(terminal.is_restored()?.then_some(()))
    })
    .unwrap();
}

#[test]
fn an_agent_is_seen_opened_and_left_by_keys() {
    let (agent, world) = busy_agent("top-keys");
    let monitor = Monitor::of(&agent).unwrap();
    let (_process, _stream) = connected(&agent, &world);
    // It would clear the screen.
    let hostile = ["sh", "-c", "sleep 60; true", "\u{1b}[2Jgone"];
    let _hostile = agent.spawn(&hostile).unwrap();
    let mut terminal = Terminal::run(&top(&monitor, &[]), 100, 30).unwrap();
    let name = agent.group().path().rsplit('/').next().unwrap().to_owned();
    let shown = terminal
        .wait_for(
            &[&name, "coverage  ", " events/s", "CONN/s", "Alerts 0"],
            SOON,
        )
        .unwrap();
    assert!(
        !terminal.is_restored().unwrap(),
        "it has a screen of its own"
    );
    let row = |text: &str| {
        let line = text.lines().find(|line| line.starts_with(&name))?;
        let words: Vec<_> = line.split_whitespace().skip(1).map(str::to_owned).collect();
        Some(words)
    };
    assert!(row(&shown).is_some(), "{shown}");
    let words = wait::until("its process and flow", SOON, || {
        let words = row(&terminal.text());
        Ok(words.filter(|words| words[0] != "0" && words[1] == "1"))
    })
    .unwrap();
    assert_eq!(words.last().unwrap(), "0", "nothing was lost: {words:?}");

    terminal.press("\r").unwrap();
    let remote = format!("→ {SERVER}:7003");
    terminal
        .wait_for(
            &["Flows 1", &remote, "established", "5.0 kB", "python3 -c"],
            SOON,
        )
        .unwrap();
    // Processes are listed by id: the last one is on the screen or below it.
    terminal.press("\t").unwrap();
    terminal.press("G").unwrap();
    terminal.wait_for(&[r"\u{1b}[2Jgone"], SOON).unwrap();

    terminal.resize(20, 5).unwrap();
    terminal.wait_for(&["Esc back"], SOON).unwrap();
    let small = terminal.text();
    assert!(small.lines().count() <= 5, "{small}");
    terminal.resize(120, 40).unwrap();
    terminal
        .wait_for(&["PROTOCOL", "COMMAND", "Alerts"], SOON)
        .unwrap();

    terminal.press("\u{1b}").unwrap();
    terminal.wait_for(&["CONN/s", "ALERTS▾"], SOON).unwrap();
    terminal.press("s").unwrap();
    terminal.wait_for(&["LOST▾"], SOON).unwrap();

    let tunnel = [
        "ssh",
        "-o",
        "BatchMode=yes",
        "-NR",
        "9001:127.0.0.1:8000",
        SERVER,
    ];
    let _tunnel = agent.spawn(&tunnel).unwrap();
    terminal
        .wait_for(
            &["1 medium", "Alerts 1", "medium/low", "reverse-ssh-tunnel"],
            SOON,
        )
        .unwrap();
    terminal.press("\t\r").unwrap();
    let shown = terminal
        .wait_for(
            &["severity  medium/low", "evidence  - ", "incident  reverse-"],
            SOON,
        )
        .unwrap();
    assert!(
        shown.contains("process   ssh -o BatchMode=yes -NR"),
        "{shown}"
    );

    terminal.press("?").unwrap();
    terminal.wait_for(&["what columns mean"], SOON).unwrap();
    terminal.press("q").unwrap();
    ends_well(&mut terminal);
    monitor.stop().unwrap();
}

#[test]
fn signals_end_it_with_the_terminal_as_it_was() {
    let (agent, _world) = busy_agent("top-signals");
    let monitor = Monitor::of(&agent).unwrap();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut terminal = Terminal::run(&top(&monitor, &[]), 80, 24).unwrap();
        terminal.wait_for(&["AGENT"], SOON).unwrap();
        terminal.signal(signal).unwrap();
        ends_well(&mut terminal);
    }
    monitor.stop().unwrap();
}

#[test]
fn a_shell_can_stop_it_and_have_it_go_on() {
    let (agent, _world) = busy_agent("top-stopped");
    let monitor = Monitor::of(&agent).unwrap();
    // Only a shell that knows of jobs can continue one.
    let mut shell = Command::new("bash");
    let script = "\"$@\"; echo it is stopped; read; fg >/dev/null";
    shell.args(["--norc", "-mc", script, "bash"]);
    let top = top(&monitor, &[]);
    shell.arg(top.get_program()).args(top.get_args());
    shell.env("AGENT_MONITOR_SOCKET", monitor.site().socket());
    let mut terminal = Terminal::run(&shell, 80, 24).unwrap();
    terminal.wait_for(&["AGENT"], SOON).unwrap();
    terminal.press("\u{1a}").unwrap();
    terminal.wait_for(&["it is stopped"], SOON).unwrap();
    assert!(terminal.is_restored().unwrap());
    terminal.press("\n").unwrap();
    terminal.wait_for(&["AGENT", "q quit"], SOON).unwrap();
    terminal.press("\u{3}").unwrap();
    ends_well(&mut terminal);
    monitor.stop().unwrap();
}

#[test]
fn a_daemon_that_goes_away_is_told_of_and_found_again() {
    let (agent, _world) = busy_agent("top-again");
    let site = Arc::new(Site::new().unwrap());
    let monitor = Monitor::start_at(&site, &[&agent.selector()], "").unwrap();
    let mut terminal = Terminal::run(&top(&monitor, &[]), 100, 24).unwrap();
    terminal.wait_for(&["attached, up"], SOON).unwrap();
    monitor.signal(Signal::STOP).unwrap();
    terminal
        .wait_for(&["NO ANSWER for ", "CONN/s"], SOON)
        .unwrap();
    monitor.signal(Signal::CONT).unwrap();
    terminal.wait_for(&["attached, up"], SOON).unwrap();
    monitor.stop().unwrap();
    terminal
        .wait_for(&["NO ANSWER, trying again: no agent-", "CONN/s"], SOON)
        .unwrap();
    let monitor = Monitor::start_at(&site, &[&agent.selector()], "").unwrap();
    let shown = terminal.wait_for(&["attached, up"], SOON).unwrap();
    assert!(!shown.contains("NO ANSWER"), "{shown}");
    terminal.press("q").unwrap();
    ends_well(&mut terminal);
    monitor.stop().unwrap();
}

#[test]
fn where_there_is_no_terminal_one_look_is_printed() {
    let (agent, world) = busy_agent("top-plain");
    let monitor = Monitor::of(&agent).unwrap();
    let (_process, _stream) = connected(&agent, &world);
    monitor.catch_up(&agent).unwrap();
    let output = top(&monitor, &[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(text.contains(" events/s  0 lost/s  1 agent\n"), "{text}");
    let head = text.lines().find(|line| line.starts_with(" AGENT"));
    let head: Vec<_> = head.unwrap().split_whitespace().collect();
    let name = agent.group().path().rsplit('/').next().unwrap().to_owned();
    let row = text
        .lines()
        .find(|line| line.trim_start().starts_with(&name));
    let row: Vec<_> = row
        .unwrap_or_else(|| panic!("{text}"))
        .split_whitespace()
        .collect();
    assert_eq!(head[..3], ["AGENT", "PROCS", "FLOWS"]);
    assert_eq!(row[2], "1", "a live flow: {text}");
    let none = top(&monitor, &["--agent", "another"]).output().unwrap();
    let text = String::from_utf8(none.stdout).unwrap();
    assert!(
        text.contains("  0 agents\n") && !text.contains(&name),
        "{text}"
    );
    monitor.stop().unwrap();
}
