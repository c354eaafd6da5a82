//! One noisy agent does not blind the monitor to another, and every record of its
//! own is either seen or counted. Needs root.

use std::sync::Arc;
use std::time::Duration;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::monitor::{Monitor, Site};
use agent_monitor_tests::paths::INSIDE_BIN;
use agent_monitor_tests::world::World;
use serde_json::Value;

/// How long a load may take.
const LOAD: Duration = Duration::from_secs(60);
/// Nobody listens there: connections are refused, datagrams answered by ICMP.
const NOBODY: &str = "127.0.0.1:9";

fn count(events: &[Value], kind: &str) -> u64 {
    events.iter().filter(|event| event["kind"] == kind).count() as u64
}

fn lost(events: &[Value], kind: &str) -> u64 {
    let losses = events.iter().filter(|event| event["kind"] == "loss");
    losses
        .filter_map(|loss| loss["loss"]["kinds"][kind].as_u64())
        .sum()
}

#[test]
fn a_noisy_agent_takes_nothing_from_another_and_its_own_records_add_up() {
    let world = World::new("fair").unwrap();
    let noisy = Agent::cgroup(&world, "noisy").unwrap();
    let quiet = Agent::cgroup(&world, "quiet").unwrap();
    let site = Arc::new(Site::new().unwrap());
    let selectors = [noisy.selector(), quiet.selector()];
    let monitor = Monitor::start_at(&site, &selectors.each_ref().map(String::as_str), "").unwrap();
    // A reader each: a flood fills only the queue of who asks for it.
    let tail = |file: &str, agent: &Agent, kinds: &str| {
        let args = ["--agent", agent.name(), "--kind", kinds];
        monitor.also_tail(file, &args).unwrap()
    };
    let of_quiet = tail("quiet", &quiet, "exec,exit,connect,loss");
    let of_noisy = ["exit", "connect", "loss"].map(|kind| tail(kind, &noisy, kind));

    let program = format!("{INSIDE_BIN}/load");
    let start = |agent: &Agent, args: &[&str]| {
        let command = [&[program.as_str()], args, &["--to", NOBODY]].concat();
        agent.spawn(&command).unwrap()
    };
    let noise = [
        &["fork", "--count", "20000", "--seconds", "6"][..],
        &["connect", "--count", "100000", "--seconds", "6"],
        &["payload", "--count", "100000", "--seconds", "6"],
        &["events", "--count", "400000", "--seconds", "6"],
    ];
    let mut noise = noise.map(|args| start(&noisy, args));
    let mut work = [
        start(&quiet, &["exec", "--count", "40", "--rate", "10"]),
        start(&quiet, &["events", "--count", "200", "--rate", "50"]),
    ];
    let mut done = |process: &mut agent_monitor_tests::process::Process| -> Value {
        let told = process.finish(LOAD).unwrap();
        serde_json::from_str::<Value>(&told).unwrap()["done"].clone()
    };
    let quiet_done = work.each_mut().map(&mut done);
    let noisy_done = noise.each_mut().map(&mut done);
    // Everything that was sent is taken at the end, before the daemon goes.
    drop(monitor.stop().unwrap());
    let sum = |done: &[Value], kind: &str| -> u64 {
        done.iter().filter_map(|done| done[kind].as_u64()).sum()
    };

    let quiet = of_quiet.rest().unwrap();
    let losses: Vec<_> = quiet.iter().filter(|it| it["kind"] == "loss").collect();
    let own = losses.iter().filter(|it| it.get("agent").is_some());
    assert_eq!(own.count(), 0, "the quiet agent lost records: {losses:?}");
    // The two programs of the load itself are run too.
    assert_eq!(count(&quiet, "exec"), sum(&quiet_done, "exec") + 2);
    assert_eq!(count(&quiet, "exit"), sum(&quiet_done, "exit") + 2);
    assert_eq!(count(&quiet, "connect"), sum(&quiet_done, "connect"));

    let [exits, connects, losses] = of_noisy.map(|tail| tail.rest().unwrap());
    // What readers were too slow for is told in their own stream.
    let unread = |events: &[Value], kind| {
        let tail = |it: &&Value| it["loss"]["stage"] == "tail";
        lost(
            &events.iter().filter(tail).cloned().collect::<Vec<_>>(),
            kind,
        )
    };
    let programs = noisy_done.len() as u64;
    let adds_up = |kind, events: &[Value], done: u64| {
        let (seen, missed, unread) = (
            count(events, kind),
            lost(&losses, kind),
            unread(events, kind),
        );
        assert_eq!(
            seen + missed + unread,
            done,
            "{kind}: {seen} seen, {missed} lost on the way, {unread} by the reader"
        );
    };
    adds_up("exit", &exits, sum(&noisy_done, "exit") + programs);
    adds_up("connect", &connects, sum(&noisy_done, "connect"));
    assert!(lost(&losses, "connect") > 0, "it was not noisy enough");
}
