//! Rules of one's own, and reloading them while the daemon runs. Needs root.

use std::path::Path;
use std::sync::Arc;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::monitor::{Monitor, SOON, Site};
use agent_monitor_tests::wait;
use agent_monitor_tests::world::World;
use rustix::process::Signal;

/// A rule for `sh -c 'true WORD'`.
fn write(dir: &Path, id: &str, word: &str) {
    let text = format!(
        "title: {word}\nid: {id}\nlevel: medium\nevent: exec\ndetection:\n  sel: {{exec.argv|contains: '{word}'}}\n  \
         condition: sel\n"
    );
    std::fs::write(dir.join(format!("{id}.yaml")), text).unwrap();
}

#[test]
fn rules_are_swapped_whole_by_a_command_and_by_sighup_and_stay_when_new_ones_are_wrong() {
    let world = World::new("rules").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "first", "word-one");
    let site = Arc::new(Site::new().unwrap());
    let config = format!("[rules]\ndirs = [{:?}]\n", dir.path());
    let selector = format!("cgroup:{}", agent.group().path());
    let monitor = Monitor::start_at(&site, &[&selector], &config).unwrap();
    let say = |word: &str| {
        agent.run(&["sh", "-c", &format!("true {word}")]).unwrap();
    };
    let reload = || {
        site.command(&["rules", "reload", "--socket"])
            .unwrap()
            .arg(site.socket())
            .output()
            .unwrap()
    };

    say("word-one");
    write(dir.path(), "first", "word-two");
    let answer = reload();
    assert!(answer.status.success(), "{answer:?}");
    say("word-one");
    say("word-two");

    std::fs::write(dir.path().join("bad.yaml"), "titel: x\n").unwrap();
    let answer = reload();
    let told = String::from_utf8_lossy(&answer.stderr);
    assert!(!answer.status.success(), "{told}");
    assert!(
        told.contains("the old ones stay") && told.contains("bad.yaml:1"),
        "{told}"
    );
    let error = monitor.status().unwrap()["rules"]["error"].clone();
    assert!(error.as_str().unwrap().contains("bad.yaml:1"), "{error}");
    say("word-two");

    std::fs::remove_file(dir.path().join("bad.yaml")).unwrap();
    write(dir.path(), "first", "word-three");
    monitor.signal(Signal::HUP).unwrap();
    wait::until("the rules to be read", SOON, || {
        Ok(monitor.status()?["rules"]
            .get("error")
            .is_none()
            .then_some(()))
    })
    .unwrap();
    say("word-three");
    monitor.catch_up(&agent).unwrap();

    let events = monitor.stop().unwrap();
    let alerts = events.iter().filter(|event| event["kind"] == "alert");
    let titles: Vec<_> = alerts
        .map(|event| event["alert"]["title"].as_str().unwrap())
        .collect();
    assert_eq!(titles, ["word-one", "word-two", "word-two", "word-three"]);
}
