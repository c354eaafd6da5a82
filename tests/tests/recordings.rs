//! Recordings of real tools, replayed: neither root nor a kernel is needed.

use std::path::PathBuf;

use agent_monitor::commands::replay::replay;
use agent_monitor::event::{Body, Confidence, Severity};
use agent_monitor::flow::address::is_inside;
use agent_monitor_tests::pairs::pairs;

/// Honest agents that have connections inside and outside at the same time.
const HONEST: &[&str] = &[
    "ssh_local_forward",
    "ssh_dynamic_forward",
    "llm_harness",
    "llm_harness_stateful",
    "http_forward_proxy",
    "port_forward",
    "db_app",
    "package_mirror",
    "peer_fan_out",
];

fn recording(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("data/recordings")
        .join(name)
        .with_extension("agmr")
}

/// Every revision of every alert in a recording, without what is only worth knowing.
fn alerts(name: &str) -> Vec<(String, Severity, Confidence)> {
    let mut alerts = Vec::new();
    replay(&recording(name), 0, |event| {
        if let Body::Alert(alert) = &event.body {
            assert_eq!(alert.coverage, "complete");
            if alert.severity == Severity::Info {
                return Ok(());
            }
            alerts.push((alert.rule.to_string(), alert.severity, alert.confidence));
        }
        Ok(())
    })
    .expect("the recording is whole");
    alerts
}

fn told(alerts: &[(&str, Severity, Confidence)]) -> Vec<(String, Severity, Confidence)> {
    let owned = alerts
        .iter()
        .map(|(rule, severity, confidence)| ((*rule).to_owned(), *severity, *confidence));
    owned.collect()
}

#[test]
fn a_reverse_ssh_tunnel_is_one_incident_of_three_stages() {
    assert_eq!(
        alerts("ssh_reverse_tunnel_with_traffic"),
        told(&[
            ("reverse-ssh-tunnel", Severity::Medium, Confidence::Low),
            ("reverse-ssh-tunnel", Severity::High, Confidence::Medium),
            ("reverse-ssh-tunnel", Severity::Critical, Confidence::High),
        ])
    );
    let mut revisions = Vec::new();
    replay(&recording("ssh_reverse_tunnel_with_traffic"), 0, |event| {
        if let Body::Alert(alert) = &event.body
            && &*alert.rule == "reverse-ssh-tunnel"
        {
            revisions.push((alert.incident.clone(), alert.revision));
        }
        Ok(())
    })
    .expect("the recording is whole");
    let incident = revisions[0].0.clone();
    let expected = [1, 2, 3].map(|revision| (incident.clone(), revision));
    assert_eq!(revisions, expected);
}

/// The last revision of a rule's alert, as JSON.
fn last(name: &str, rule: &str) -> serde_json::Value {
    let mut last = None;
    replay(&recording(name), 0, |event| {
        if matches!(&event.body, Body::Alert(alert) if &*alert.rule == rule) {
            last = Some(serde_json::to_value(event)?);
        }
        Ok(())
    })
    .expect("the recording is whole");
    last.expect("it is found")
}

#[test]
fn an_alert_has_what_a_person_needs_who_judges_it() {
    for (name, rule) in [
        ("ssh_reverse_tunnel_with_traffic", "reverse-ssh-tunnel"),
        ("tls_relay", "reverse-tunnel-relay"),
    ] {
        let event = last(name, rule);
        let (process, alert) = (&event["process"], &event["alert"]);
        assert!(!process["argv"][0].is_null(), "the command: {event:#}");
        assert!(process["ppid"].is_u64(), "{event:#}");
        assert_eq!(alert["coverage"], "complete");
        assert!(alert["count"].as_u64() >= alert["revision"].as_u64());
        assert!(alert["first_seen"].as_str() < alert["last_seen"].as_str());
        let evidence: Vec<&str> = alert["evidence"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|line| line.as_str())
            .collect();
        for part in [
            "flow ",
            "bytes in from",
            " ms after data came in from",
            "tcp ",
        ] {
            let told = evidence.iter().any(|line| line.contains(part));
            assert!(told, "no `{part}`: {evidence:#?}");
        }
    }
}

#[test]
fn a_relay_over_tls_that_no_tool_list_knows_is_found() {
    assert_eq!(
        alerts("tls_relay"),
        told(&[
            ("reverse-tunnel-relay", Severity::High, Confidence::Medium),
            ("reverse-tunnel-relay", Severity::Critical, Confidence::High),
        ])
    );
}

#[test]
fn a_relay_s_alert_names_the_events_of_both_its_flows() {
    for (name, rule) in [
        ("tls_relay", "reverse-tunnel-relay"),
        ("ssh_reverse_tunnel_with_traffic", "reverse-ssh-tunnel"),
    ] {
        let mut connects = Vec::new();
        let mut named = Vec::new();
        replay(&recording(name), 0, |event| {
            match &event.body {
                Body::Connect(connect) => connects.push((event.id.clone(), connect.remote)),
                Body::Alert(alert)
                    if &*alert.rule == rule && alert.severity == Severity::Critical =>
                {
                    let told = connects.iter().filter(|(id, _)| alert.events.contains(id));
                    named.extend(told.map(|(_, remote)| is_inside(remote.ip)));
                }
                _ => {}
            }
            Ok(())
        })
        .expect("the recording is whole");
        assert!(
            named.contains(&true) && named.contains(&false),
            "{name}: {named:?}"
        );
    }
}

#[test]
fn what_only_resembles_a_relay_raises_nothing() {
    for name in HONEST {
        assert_eq!(alerts(name), told(&[]), "{name}");
    }
}

/// What the threshold of two exchanges stands on; one is chance, and happens.
#[test]
fn no_two_connections_of_an_honest_agent_match_twice() {
    let exchanges = |name: &str| {
        let pairs = pairs(&recording(name)).expect("the recording is whole");
        pairs.iter().map(|pair| pair.score.exchanges()).max()
    };
    for name in HONEST {
        assert!(exchanges(name).unwrap_or_default() < 2, "{name}");
    }
    for name in ["ssh_reverse_tunnel_with_traffic", "tls_relay"] {
        assert!(exchanges(name).unwrap_or_default() >= 4, "{name}");
    }
}

#[test]
fn who_reserves_huge_pages_and_who_computes_in_them_are_found_again() {
    let high = || ("miner-process", Severity::High, Confidence::Medium);
    assert_eq!(alerts("huge_pages"), told(&[high(), high()]));
    // The last one is of what was read from /proc: it has no event.
    let event = last("huge_pages", "miner-process");
    assert_eq!(event["process"]["comm"], "python3", "{event:#}");
    let evidence = event["alert"]["evidence"].to_string();
    assert!(
        evidence.contains("1024 MiB of huge pages of its own"),
        "{evidence}"
    );
    assert!(
        evidence.contains("94 % of one processor over 61 s"),
        "{evidence}"
    );
}

#[test]
fn a_replay_gives_the_same_events_each_time() {
    let file = recording("ssh_reverse_tunnel_with_traffic");
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
