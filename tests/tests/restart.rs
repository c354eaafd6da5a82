//! `run --pin`: a daemon that is killed and started again loses no hook, and what
//! it missed is told. Needs root and bpftool.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use agent_monitor::attach::pins;
use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::monitor::{Monitor, SOON, Site};
use agent_monitor_tests::process::tool;
use agent_monitor_tests::world::World;
use serde_json::Value;

const LOAD: &str = "/opt/rig/bin/load";

/// Ids of the links that are pinned for a site.
fn links(site: &Site) -> BTreeSet<u64> {
    let daemon = pins::of_daemon(&site.socket());
    let text = tool("bpftool", &["-j", "-f", "link", "list"]).unwrap();
    let all: Vec<Value> = serde_json::from_str(&text).unwrap();
    let ours = all.iter().filter(|link| {
        let files = link["pinned"].as_array().into_iter().flatten();
        files
            .filter_map(Value::as_str)
            .any(|file| file.starts_with(daemon.to_str().unwrap()))
    });
    ours.map(|link| link["id"].as_u64().unwrap()).collect()
}

/// Records of this kind that are told to be lost.
fn lost(events: &[Value], kind: &str) -> u64 {
    let losses = events.iter().filter(|event| event["kind"] == "loss");
    losses
        .filter_map(|loss| loss["loss"]["kinds"][kind].as_u64())
        .sum()
}

fn programs_run(events: &[Value]) -> u64 {
    let is_load = |event: &&Value| event["kind"] == "exec" && event["process"]["argv"][1] == "load";
    events.iter().filter(is_load).count() as u64
}

fn gap<'a>(events: &'a [Value], reason: &str) -> Option<&'a Value> {
    events.iter().find(|event| {
        event["kind"] == "gap" && event["gap"]["reason"].as_str().unwrap().contains(reason)
    })
}

#[test]
fn every_program_that_runs_while_the_daemon_is_killed_and_started_again_is_seen_or_counted() {
    let world = World::new("restart").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let site = Arc::new(Site::new().unwrap().pinning().unwrap());
    let start = || Monitor::start_at(&site, &[&agent.selector()], "").unwrap();
    let first = start();
    let attached = links(&site);
    assert!(attached.len() > 10, "{attached:?}");

    let mut load = agent
        .spawn(&[LOAD, "exec", "--count", "1500", "--rate", "300"])
        .unwrap();
    let seen = |event: &Value| event["kind"] == "exec" && event["process"]["argv"][1] == "load";
    first.wait_for("the load", SOON, seen).unwrap();
    let before = first.kill().unwrap();
    assert_eq!(links(&site), attached, "a hook was lost with the daemon");
    let second = start();
    assert_eq!(links(&site), attached, "a hook was attached anew");
    let told: Value = serde_json::from_str(&load.finish(Duration::from_secs(60)).unwrap()).unwrap();
    second.catch_up(&agent).unwrap();
    assert_eq!(
        second.status().unwrap()["pinned"]
            .as_str()
            .map(|it| it.contains("am-monitor")),
        Some(true)
    );
    let after = second.stop().unwrap();

    let done = told["done"]["exec"].as_u64().unwrap();
    assert_eq!(done, 1500);
    let seen = programs_run(&before) + programs_run(&after);
    let counted = lost(&after, "exec");
    assert!(
        seen + counted >= done,
        "{done} done, {seen} seen, {counted} counted as lost"
    );
    // What was told in the last second before the kill may be counted, no more.
    assert!(seen <= done && counted < 600, "{seen} seen, {counted} lost");
    assert!(seen > done / 2, "{seen} of {done} seen");

    let absence =
        gap(&after, "agent-monitor was not running").expect("the daemon's absence is told");
    assert_eq!(absence["agent"]["cgroup"], agent.group().path());
    assert!(
        absence["gap"]["from"].as_str() < absence["gap"]["to"].as_str(),
        "{absence}"
    );
    assert!(
        gap(&after, "there before the watch began").is_none(),
        "it was covered before"
    );
    let starts: BTreeSet<_> = after
        .iter()
        .filter(|event| event["kind"] == "exec")
        .map(|event| {
            (
                event["process"]["pid"].as_u64(),
                event["process"]["start"].as_u64(),
            )
        })
        .collect();
    let execs = after.iter().filter(|event| event["kind"] == "exec").count();
    assert_eq!(starts.len(), execs, "a program was told twice");
}

#[test]
fn a_daemon_that_is_stopped_leaves_its_hooks_and_the_next_one_tells_what_waited() {
    let world = World::new("stopped").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let site = Arc::new(Site::new().unwrap().pinning().unwrap());
    let start = || Monitor::start_at(&site, &[&agent.selector()], "").unwrap();
    let first = start();
    agent.run(&["true", "watched"]).unwrap();
    first.catch_up(&agent).unwrap();
    let before = first.stop().unwrap();
    assert!(gap(&before, "agent-monitor was stopped").is_some());
    agent.run(&["true", "meanwhile"]).unwrap();
    let second = start();
    second.catch_up(&agent).unwrap();
    let after = second.stop().unwrap();
    let told = |mark: &str| {
        let is_it = |event: &&Value| event["kind"] == "exec" && event["process"]["argv"][1] == mark;
        after.iter().filter(is_it).count()
    };
    assert_eq!((told("watched"), told("meanwhile")), (0, 1));
    let losses: Vec<_> = after.iter().filter(|it| it["kind"] == "loss").collect();
    assert!(losses.is_empty(), "nothing was lost: {losses:?}");
}

#[test]
fn pins_of_another_selector_are_replaced_and_a_run_without_pin_removes_them() {
    let world = World::new("replaced").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let site = Arc::new(Site::new().unwrap().pinning().unwrap());
    let first = Monitor::start_at(&site, &[&agent.selector()], "").unwrap();
    first.kill().unwrap();
    let before = links(&site);
    assert!(!before.is_empty());
    let parent = "cgroup:/agent-monitor-test/*";
    let second = Monitor::start_at(&site, &[parent], "").unwrap();
    let now = links(&site);
    assert!(
        !now.is_empty() && now.is_disjoint(&before),
        "{before:?} {now:?}"
    );
    agent.run(&["true", "once"]).unwrap();
    second.catch_up(&agent).unwrap();
    let events = second.stop().unwrap();
    let once = |event: &&Value| event["process"]["argv"][1] == "once" && event["kind"] == "exec";
    assert_eq!(events.iter().filter(once).count(), 1);

    let config = site.configure("").unwrap();
    let mut without = site
        .command(&[
            "run",
            "--agent",
            parent,
            "--config",
            config.to_str().unwrap(),
        ])
        .unwrap()
        .spawn()
        .unwrap();
    let waited = site
        .command(&["status", "--wait", "30s"])
        .unwrap()
        .output()
        .unwrap();
    let left = links(&site);
    without.kill().unwrap();
    without.wait().unwrap();
    assert!(waited.status.success(), "{waited:?}");
    assert_eq!(left, BTreeSet::new());
    assert!(!pins::of_daemon(&site.socket()).exists());
}
