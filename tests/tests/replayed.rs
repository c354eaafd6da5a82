//! What a recording is made for: its replay raises the alerts that live raised.
//! Needs root.

use std::collections::BTreeSet;

use agent_monitor::event::Body;
use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::monitor::Monitor;
use agent_monitor_tests::recorder::Recorder;
use agent_monitor_tests::scenario::find;
use agent_monitor_tests::world::World;
use serde_json::Value;

/// Rule, severity and confidence of every revision of an alert.
type Alerts = BTreeSet<(String, u64, String, String)>;

fn alert(event: &Value) -> (String, u64, String, String) {
    let alert = &event["alert"];
    let text = |name: &str| alert[name].as_str().unwrap_or_default().to_owned();
    let revision = alert["revision"].as_u64().unwrap_or_default();
    (text("rule"), revision, text("severity"), text("confidence"))
}

#[test]
fn a_recording_s_replay_raises_what_live_raised() {
    for name in ["ssh_reverse_tunnel_with_traffic", "stratum_monero"] {
        let world = World::new(name).unwrap();
        let agent = Agent::cgroup(&world, "recorded").unwrap();
        let monitor = Monitor::of(&agent).unwrap();
        let recorder = Recorder::of(&agent).unwrap();
        (find(name).unwrap().run)(&agent).unwrap();
        monitor.catch_up(&agent).unwrap();
        let replayed = recorder.finish().unwrap().events;
        let live: Alerts = (monitor.stop().unwrap().iter())
            .filter(|event| event["kind"] == "alert")
            .map(alert)
            .collect();
        let replayed: Alerts = replayed
            .iter()
            .filter(|event| matches!(event.body, Body::Alert(_)))
            .map(|event| alert(&serde_json::to_value(event).unwrap()))
            .collect();
        assert!(live.len() > 1, "{name}: {live:?}");
        assert_eq!(replayed, live, "{name}");
    }
}
