//! Whatever is lost is told within a second and shown by `status`. Each place is
//! made to lose for real where that can be done, else by the switch for it. Needs root.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent_monitor::loss::SIMULATE;
use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::cgroup::Cgroup;
use agent_monitor_tests::monitor::{Monitor, SOON, Site, Tail};
use agent_monitor_tests::paths::{self, INSIDE_BIN};
use agent_monitor_tests::wait;
use agent_monitor_tests::watched::Watched;
use agent_monitor_tests::world::World;
use rustix::process::Signal;
use serde_json::Value;

/// Nobody listens there, and connect() on a datagram socket sends nothing.
const NOBODY: &str = "127.0.0.1:9";
/// How long a load may take.
const LOAD: Duration = Duration::from_secs(60);
/// Within what a loss is to be told.
const AT_ONCE: u64 = 1_000_000_000;

/// Runs `load` in an agent; gives how many connects it made.
fn load(agent: &Agent, args: &[&str]) -> u64 {
    let program = format!("{INSIDE_BIN}/load");
    let command = [&[program.as_str()], args, &["--to", NOBODY]].concat();
    let told = agent.spawn(&command).unwrap().finish(LOAD).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    told["done"]["connect"].as_u64().unwrap()
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}

fn nanoseconds(event: &Value) -> u64 {
    let time: jiff::Timestamp = event["time"].as_str().unwrap().parse().unwrap();
    u64::try_from(time.as_nanosecond()).unwrap()
}

fn is_loss(event: &Value, stage: &str) -> bool {
    event["kind"] == "loss" && event["loss"]["stage"] == stage
}

/// A reader of losses alone, with a queue that a flood of other events does not fill.
fn losses(monitor: &Monitor) -> Tail {
    monitor.also_tail("losses", &["--kind", "loss"]).unwrap()
}

/// The first loss at a stage.
fn told(losses: &Tail, stage: &str) -> Value {
    wait::until(&format!("a loss at {stage}"), SOON * 3, || {
        let events = losses.events();
        Ok(events.into_iter().find(|event| is_loss(event, stage)))
    })
    .unwrap()
}

/// Waits until `status` says as much of a stage as the events do, of the whole and
/// of the agent if it is one's; gives the sum.
fn agree(monitor: &Monitor, losses: &Tail, stage: &str, agent: Option<&str>) -> u64 {
    wait::until("status to agree with the events", SOON * 3, || {
        let status = monitor.status()?;
        let events = losses.events();
        let of = events.iter().filter(|event| is_loss(event, stage));
        let sum: u64 = of.filter_map(|it| it["loss"]["records"].as_u64()).sum();
        let all = status["counters"]["losses"][stage].as_u64() == Some(sum);
        let agents = status["agents"].as_array().into_iter().flatten();
        let mut ours = agents.filter(|it| it["cgroup"].as_str() == agent);
        let known = agent.is_none() || ours.any(|it| it["losses"][stage].as_u64() == Some(sum));
        Ok((all && known).then_some(sum))
    })
    .unwrap()
}

/// Ends the watch once all is told and compares what was done with what was seen,
/// lost on the way, and lost to the reader.
fn adds_up(watched: Watched, losses: Tail, done: u64) {
    let told = watched.monitor().catch_up(&watched.agent);
    // The reader may be too slow for this one too; then everything before is told all the same.
    drop(told);
    let events = watched.stop().unwrap().0;
    let seen = events.iter().filter(|it| it["kind"] == "connect").count() as u64;
    let on_the_way = lost(&losses.rest().unwrap(), "connect");
    let mut by_reader = events;
    by_reader.retain(|event| is_loss(event, "tail"));
    let by_reader = lost(&by_reader, "connect");
    assert_eq!(
        seen + on_the_way + by_reader,
        done,
        "{seen} seen, {on_the_way} lost on the way, {by_reader} by the reader"
    );
}

/// How many records of a kind were lost, wherever.
fn lost(events: &[Value], kind: &str) -> u64 {
    let losses = events.iter().filter(|event| event["kind"] == "loss");
    losses
        .filter_map(|loss| loss["loss"]["kinds"][kind].as_u64())
        .sum()
}

#[test]
fn what_is_over_an_agent_s_quota_is_counted_to_the_record() {
    let watched = Watched::cgroup("quota").unwrap();
    let monitor = watched.monitor();
    let losses = losses(monitor);
    let done = load(&watched.agent, &["events", "--count", "120000"]);
    let end = now();
    let first = told(&losses, "quota");
    assert!(nanoseconds(&first) < end + AT_ONCE, "{first}");
    let path = watched.agent.group().path().to_owned();
    assert_eq!(first["agent"]["cgroup"], path.as_str());
    assert!(
        first["loss"]["kinds"]["connect"].as_u64() > Some(0),
        "{first}"
    );
    agree(monitor, &losses, "quota", Some(&path));
    adds_up(watched, losses, done);
}

#[test]
fn what_does_not_fit_into_the_ring_is_counted_to_the_record() {
    let watched = Watched::cgroup("ring").unwrap();
    let monitor = watched.monitor();
    let losses = losses(monitor);
    monitor.signal(Signal::STOP).unwrap();
    let done = load(
        &watched.agent,
        &["events", "--count", "60000", "--rate", "25000"],
    );
    let end = now();
    monitor.signal(Signal::CONT).unwrap();
    let first = told(&losses, "ring");
    assert!(nanoseconds(&first) < end + AT_ONCE, "{first}");
    let path = watched.agent.group().path().to_owned();
    assert_eq!(first["agent"]["cgroup"], path.as_str());
    agree(monitor, &losses, "ring", Some(&path));
    adds_up(watched, losses, done);
}

#[test]
fn a_full_map_of_the_kernel_s_is_told() {
    let world = World::new("full").unwrap();
    let name = format!("nursery.{}", world.id());
    let base = Cgroup::create(&name).unwrap();
    let monitor = Monitor::start(&[&format!("cgroup:{}/*/*", base.path())]).unwrap();
    let losses = losses(&monitor);
    // MAX_NURSERIES is 1,024.
    for number in 0..1_100 {
        std::fs::create_dir(base.dir().join(number.to_string())).unwrap();
    }
    let end = now();
    let first = told(&losses, "kernel");
    assert!(nanoseconds(&first) < end + AT_ONCE, "{first}");
    assert_eq!(first.get("agent"), None, "it is no one agent's: {first}");
    assert!(
        first["loss"]["kinds"]["memory"].as_u64() > Some(0),
        "{first}"
    );
    assert!(agree(&monitor, &losses, "kernel", None) >= 1_100 - 1_024);
    base.remove().unwrap();
}

#[test]
fn what_is_held_for_a_selector_and_dropped_is_told_once_it_is_decided() {
    let world = World::new("held").unwrap();
    // A container runtime that never answers: after ten seconds the container is watched.
    let socket = world.dir().join("docker.sock");
    let _silent = UnixListener::bind(&socket).unwrap();
    let site = Site::new().unwrap();
    let site = Arc::new(site.asking(Some(&format!("unix://{}", socket.display()))));
    let monitor = Monitor::start_at(&site, &["docker:held-*"], "").unwrap();
    let losses = losses(&monitor);
    let tree = Cgroup::create(&format!("held.{}", world.id())).unwrap();
    let scope = tree.dir().join(format!("docker-{}.scope", "d".repeat(64)));
    std::fs::create_dir(&scope).unwrap();
    let script = format!(
        "echo 0 > {}/cgroup.procs; exec {}/load events --count 9000 --rate 9000 --to {NOBODY}",
        scope.display(),
        paths::bin().unwrap().display()
    );
    let status = Command::new("sh").args(["-c", &script]).status().unwrap();
    assert!(status.success());
    let first = told(&losses, "held");
    let cgroup = first["agent"]["cgroup"].as_str().unwrap();
    assert!(cgroup.ends_with(".scope"), "{first}");
    let held = agree(&monitor, &losses, "held", Some(cgroup));
    assert!(held >= 9_000 - 4_096, "{held}");
    let end = now();
    assert!(nanoseconds(&first) < end + AT_ONCE, "{first}");
    tree.remove().unwrap();
}

#[test]
fn a_flow_that_has_to_go_for_another_is_told() {
    let watched = Watched::cgroup("flows").unwrap();
    let losses = losses(watched.monitor());
    // The table has room for 16,384.
    load(
        &watched.agent,
        &["flows", "--count", "18000", "--rate", "4500"],
    );
    let end = now();
    let first = told(&losses, "flow");
    assert!(nanoseconds(&first) < end + AT_ONCE, "{first}");
    let path = watched.agent.group().path();
    assert_eq!(first["agent"]["cgroup"], path);
    assert!(agree(watched.monitor(), &losses, "flow", Some(path)) > 0);
}

#[test]
fn what_a_reader_of_tail_is_too_slow_for_is_told_to_it_and_shown_by_status() {
    let watched = Watched::cgroup("slow").unwrap();
    let monitor = watched.monitor();
    let slow = monitor.also_tail("slow", &["--kind", "connect"]).unwrap();
    load(&watched.agent, &["events", "--count", "1"]);
    wait::until("tail to read", SOON, || {
        Ok((!slow.events().is_empty()).then_some(()))
    })
    .unwrap();
    let pid = slow.pid();
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    load(
        &watched.agent,
        &["events", "--count", "15000", "--rate", "10000"],
    );
    wait::until("status to tell of it", SOON, || {
        let tail = monitor.status()?["counters"]["losses"]["tail"].as_u64();
        Ok(tail.filter(|lost| *lost > 0))
    })
    .unwrap();
    rustix::process::kill_process(pid, Signal::CONT).unwrap();
    wait::until("tail to tell of it", SOON, || {
        let told = slow.events().iter().any(|event| is_loss(event, "tail"));
        Ok(told.then_some(()))
    })
    .unwrap();
}

#[test]
fn losses_that_cannot_be_brought_about_are_told_and_shown_when_simulated() {
    const LOST: [(&str, u64); 8] = [
        ("recursion", 1),
        ("decode", 2),
        ("enrich", 3),
        ("relay", 4),
        ("incident", 5),
        ("store", 6),
        ("correlation", 7),
        ("shell", 8),
    ];
    let switch: Vec<_> = LOST
        .iter()
        .map(|(stage, n)| format!("{stage}={n}"))
        .collect();
    let site = Arc::new(Site::new().unwrap().with(SIMULATE, &switch.join(",")));
    let selector = "cgroup:/agent-monitor-test/nobody";
    let monitor = Monitor::start_at(&site, &[selector], "").unwrap();
    let losses = losses(&monitor);
    let end = now();
    for (stage, records) in LOST {
        let event = told(&losses, stage);
        assert!(nanoseconds(&event) < end + AT_ONCE, "{event}");
        assert_eq!(event["loss"]["records"], records);
        assert_eq!(event.get("agent"), None, "{event}");
        assert_eq!(agree(&monitor, &losses, stage, None), records);
    }
    assert!(monitor.log().contains(SIMULATE), "{}", monitor.log());
    let mut table = site.command(&["status", "--output", "pretty"]).unwrap();
    let table = String::from_utf8(table.output().unwrap().stdout).unwrap();
    let shown: BTreeMap<_, _> = LOST
        .iter()
        .map(|(stage, n)| (*stage, table.contains(&format!("{n} records at {stage}"))))
        .collect();
    assert!(shown.values().all(|it| *it), "{shown:?}\n{table}");
}
