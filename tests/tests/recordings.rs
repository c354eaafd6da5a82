//! Recordings of real tools, replayed: neither root nor a kernel is needed.

use std::path::PathBuf;

use agent_monitor::commands::replay::replay;
use agent_monitor::event::{Body, Confidence, Severity};

/// Every revision of every alert in a recording.
fn alerts(name: &str) -> Vec<(&'static str, Severity, Confidence)> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("data/recordings")
        .join(name)
        .with_extension("agmr");
    let mut alerts = Vec::new();
    replay(&file, 0, |event| {
        if let Body::Alert(alert) = &event.body {
            assert_eq!(alert.coverage, "complete");
            alerts.push((alert.rule, alert.severity, alert.confidence));
        }
        Ok(())
    })
    .expect("the recording is whole");
    alerts
}

#[test]
fn a_reverse_ssh_tunnel_is_one_incident_of_three_stages() {
    assert_eq!(
        alerts("ssh_reverse_tunnel_with_traffic"),
        [
            ("reverse-ssh-tunnel", Severity::Medium, Confidence::Low),
            ("reverse-ssh-tunnel", Severity::High, Confidence::Medium),
            ("reverse-ssh-tunnel", Severity::Critical, Confidence::High),
        ]
    );
}

#[test]
fn a_relay_over_tls_that_no_tool_list_knows_is_found() {
    assert_eq!(
        alerts("tls_relay"),
        [
            ("reverse-tunnel-relay", Severity::High, Confidence::Medium),
            ("reverse-tunnel-relay", Severity::Critical, Confidence::High),
        ]
    );
}

#[test]
fn what_only_resembles_a_relay_raises_nothing() {
    for name in [
        "ssh_local_forward",
        "ssh_dynamic_forward",
        "llm_harness",
        "http_forward_proxy",
        "port_forward",
        "db_app",
    ] {
        assert_eq!(alerts(name), [], "{name}");
    }
}

#[test]
fn a_replay_gives_the_same_events_each_time() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("data/recordings/ssh_reverse_tunnel_with_traffic.agmr");
    let events = || {
        let mut lines = Vec::new();
        replay(&file, 0, |event| {
            lines.push(serde_json::to_string(event)?);
            Ok(())
        })
        .expect("the recording is whole");
        lines
    };
    assert_eq!(events(), events());
}
