//! Containers that a runtime's answer chooses: what a chosen one did before the
//! answer is there, of others there is nothing. Needs root and Docker.

use std::sync::Arc;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::docker::{Docker, IMAGE, LABEL};
use agent_monitor_tests::monitor::{Monitor, SOON, Site};
use agent_monitor_tests::wait;
use agent_monitor_tests::watched::Events;
use agent_monitor_tests::world::World;
use anyhow::Context;
use serde_json::json;

fn start(docker: &Docker, selector: &str) -> Monitor {
    let site = Site::new().unwrap().asking(docker.host());
    Monitor::start_at(&Arc::new(site), &[selector], "").unwrap()
}

/// Has both do something, and checks that all that is told is of `chosen`.
fn only_the_chosen(monitor: Monitor, chosen: &Agent, other: &Agent) -> Events {
    other.run(&["sh", "-c", "true in the other"]).unwrap();
    chosen.run(&["sh", "-c", "true in the chosen"]).unwrap();
    monitor.catch_up(chosen).unwrap();
    // Containers of tests that run at the same time come and go, undecided.
    wait::until("the status to settle", SOON, || {
        let status = monitor.status()?;
        let agents = status["agents"].as_array().context("no agents")?;
        let of = |agent: &Agent| {
            let id = agent.container_id();
            agents.iter().find(|it| it["id"].as_str() == id)
        };
        let watched = agents.iter().filter(|it| it["state"] == "watched");
        let done = of(other).is_none()
            && watched.count() == 1
            && of(chosen).is_some_and(|it| it["name"] == chosen.name() && it["state"] == "watched");
        Ok(done.then_some(()))
    })
    .unwrap();
    let events = Events(monitor.stop().unwrap());
    for event in events.of_agents() {
        let agent = &event["agent"];
        assert_eq!(agent["id"], chosen.container_id().unwrap(), "{event}");
        assert_eq!(agent["name"], chosen.name(), "{event}");
        assert_eq!(
            agent["container"],
            json!({"id": chosen.container_id(), "name": chosen.name(), "image": IMAGE, "runtime": "docker"}),
            "{event}"
        );
        assert_eq!(agent["cgroup"], chosen.group().path(), "{event}");
    }
    assert!(events.of_kind("loss").is_empty());
    events.exec("true in the chosen").unwrap();
    events
}

/// A container is chosen at birth: it is complete from its first program on.
fn chosen_at_birth(selector: impl FnOnce(&World) -> String) {
    let docker = Docker::shared().unwrap();
    let world = World::new("selectors").unwrap();
    let foreign = World::new("foreign").unwrap();
    let monitor = start(&docker, &selector(&world));
    let other = Agent::docker(&foreign, "other").unwrap();
    let chosen = Agent::docker(&world, "chosen").unwrap();
    let events = only_the_chosen(monitor, &chosen, &other);
    // It has appeared before anything of it is told, and its programs are in order.
    assert_eq!(events.0[0]["agent"]["state"], "appeared", "{}", events.0[0]);
    let programs: Vec<_> = events
        .of_kind("exec")
        .iter()
        .map(|it| it["exec"]["argv"].clone())
        .collect();
    let first: Vec<_> = programs
        .iter()
        .filter(|argv| argv[1] != "init")
        .take(2)
        .collect();
    assert_eq!(first[0][0], "/sbin/docker-init", "{programs:#?}");
    assert_eq!(*first[1], json!(["sleep", "infinity"]), "{programs:#?}");
    let times: Vec<_> = events
        .of_kind("exec")
        .iter()
        .map(|it| it["time"].to_string())
        .collect();
    assert!(times.is_sorted(), "{times:#?}");
}

#[test]
fn a_container_is_chosen_by_its_name() {
    chosen_at_birth(|world| format!("docker:chosen.{}*", world.id()));
}

#[test]
fn a_container_is_chosen_by_its_label() {
    chosen_at_birth(|world| format!("label:{LABEL}={}", world.id()));
}

#[test]
fn containers_that_were_there_before_are_chosen_too() {
    let docker = Docker::shared().unwrap();
    let world = World::new("before").unwrap();
    let other = Agent::docker(&world, "other").unwrap();
    let chosen = Agent::docker(&world, "chosen").unwrap();
    let monitor = start(&docker, &format!("container:chosen.{}", world.id()));
    let events = only_the_chosen(monitor, &chosen, &other);
    assert_eq!(events.0[0]["agent"]["state"], "appeared", "{}", events.0[0]);
    // What was before is not known, and that is said.
    assert!(!events.of_kind("gap").is_empty());
}
