//! What agent-monitor says of every scenario: exactly these incidents, and no
//! others. Needs root, and for containers Docker.

use std::collections::BTreeMap;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::monitor::Monitor;
use agent_monitor_tests::scenario::{SCENARIOS, find};
use agent_monitor_tests::world::World;
use serde_json::Value;

/// An incident: its rule, and severity/confidence of each of its revisions.
type Incident = (&'static str, &'static [&'static str]);

/// A command line that asks for it, sizes on the wire, visitors who come in.
const SSH: Incident = (
    "reverse-ssh-tunnel",
    &["medium/low", "high/medium", "critical/high"],
);
/// The same without a telling command line.
const SSH_BY_WIRE: Incident = ("reverse-ssh-tunnel", &["high/medium", "critical/high"]);
/// dropbear compresses by default, which hides the sizes.
const SSH_COMPRESSED: Incident = ("reverse-ssh-tunnel", &["medium/low", "critical/high"]);
/// Exchanges that match, then several both ways.
const RELAY: Incident = ("reverse-tunnel-relay", &["high/medium", "critical/high"]);
/// What the miner says, then both sides.
const MINING: Incident = ("mining-pool-protocol", &["high/medium", "critical/high"]);

/// The same where the miner says who it is only after the pool has answered.
const MINING_NAMED_LATE: Incident = (
    "mining-pool-protocol",
    &["high/medium", "critical/high", "critical/high"],
);

/// A shell on a socket, and what is typed into it: two processes of which one has the
/// connection, or one and the same.
const SHELL: Incident = ("reverse-shell", &["critical/high"]);

/// One proxy, however many come through it.
const PROXY: Incident = ("tunnel-tool", &["medium/high"]);

/// First contacts that fail one after the other, then many within a minute.
const PROBE: Incident = ("internal-network-probe", &["medium/medium", "high/high"]);

/// What every SSH connection to outside is, whatever it carries.
const OUTBOUND: Incident = ("ssh-outbound", &["info/high"]);

/// Every scenario, with the incidents it must lead to.
const EXPECTED: &[(&str, &[Incident])] = &[
    ("ssh_reverse_tunnel_with_traffic", &[SSH, OUTBOUND]),
    ("ssh_reverse_by_config_file", &[SSH_BY_WIRE, OUTBOUND]),
    // The command line is the second ssh's, the connection the master's.
    (
        "ssh_reverse_by_master",
        &[
            ("reverse-ssh-tunnel", &["medium/low"]),
            SSH_BY_WIRE,
            OUTBOUND,
        ],
    ),
    ("autossh", &[SSH, OUTBOUND]),
    ("dropbear_reverse", &[SSH_COMPRESSED, OUTBOUND]),
    ("paramiko_reverse", &[SSH_BY_WIRE, OUTBOUND]),
    ("ssh_local_forward", &[OUTBOUND]),
    ("ssh_dynamic_forward", &[OUTBOUND]),
    ("ssh_remote_command", &[OUTBOUND]),
    ("tls_relay", &[RELAY]),
    ("tls_relay_multiplexed", &[RELAY]),
    ("port_forward", &[]),
    ("stratum_bitcoin", &[MINING_NAMED_LATE]),
    ("stratum_monero", &[MINING]),
    ("monero_one_byte_writes", &[MINING]),
    ("stratum_third_party", &[MINING_NAMED_LATE]),
    ("reverse_shell_bash", &[SHELL]),
    ("reverse_shell_python", &[SHELL, SHELL]),
    ("reverse_shell_python_pty", &[SHELL]),
    ("reverse_shell_perl", &[SHELL]),
    ("reverse_shell_socat", &[SHELL]),
    ("reverse_shell_socat_pty", &[SHELL]),
    ("reverse_shell_nc", &[SHELL]),
    ("reverse_shell_busybox", &[SHELL]),
    ("reverse_shell_ncat", &[SHELL]),
    ("reverse_shell_pipes", &[SHELL]),
    ("socks_proxy_for_outside", &[PROXY]),
    ("socks_proxy_outside", &[]),
    ("internal_scan", &[PROBE]),
    ("peer_fan_out", &[]),
    ("llm_harness", &[]),
    ("llm_harness_stateful", &[]),
    ("http_forward_proxy", &[]),
    ("db_app", &[]),
    ("package_mirror", &[]),
    ("mcp", &[]),
    ("ordinary_work", &[]),
];

fn check(name: &str, make: impl FnOnce(&std::sync::Arc<World>) -> anyhow::Result<Agent>) {
    let (_, expected) = EXPECTED.iter().find(|(it, _)| *it == name).unwrap();
    let world = World::new(name).unwrap();
    let agent = make(&world).unwrap();
    let monitor = Monitor::of(&agent).unwrap();
    (find(name).unwrap().run)(&agent).unwrap();
    monitor.catch_up(&agent).unwrap();
    let events = monitor.stop().unwrap();

    let mut incidents: BTreeMap<&str, (&str, Vec<String>)> = BTreeMap::new();
    for event in events.iter().filter(|event| event["kind"] == "alert") {
        let alert = &event["alert"];
        let text = |member: &str| alert[member].as_str().unwrap();
        let incident = incidents
            .entry(text("incident"))
            .or_insert((text("rule"), Vec::new()));
        incident
            .1
            .push(format!("{}/{}", text("severity"), text("confidence")));
        assert_eq!(alert["revision"], incident.1.len(), "{event:#}");
        assert_eq!(alert["coverage"], "complete", "{event:#}");
        assert_eq!(event["agent"]["cgroup"], agent.group().path(), "{event:#}");
        assert!(event["process"]["pid"].is_u64(), "{event:#}");
        assert!(event["process"]["exe"].is_string(), "{event:#}");
        assert!(event["process"]["argv"][0].is_string(), "{event:#}");
        assert!(
            !alert["evidence"].as_array().unwrap().is_empty(),
            "{event:#}"
        );
    }
    let mut found: Vec<_> = incidents.into_values().collect();
    let mut expected: Vec<(&str, Vec<String>)> = expected
        .iter()
        .map(|(rule, stages)| (*rule, stages.iter().map(|it| (*it).to_owned()).collect()))
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "{}", alerts_of(&events));
    let lost: Vec<_> = events
        .iter()
        .filter(|event| event["kind"] == "loss")
        .collect();
    assert!(lost.is_empty(), "{lost:#?}");
}

fn alerts_of(events: &[Value]) -> String {
    let alerts = events.iter().filter(|event| event["kind"] == "alert");
    alerts.map(|alert| format!("{alert:#}\n")).collect()
}

macro_rules! scenarios {
    (cgroup: $($name:ident)* ; docker: $($in_docker:ident)*) => {
        mod in_a_cgroup {
            $(#[test] fn $name() { super::check(stringify!($name), |world| super::Agent::cgroup(world, "agent")); })*
        }
        mod in_docker {
            $(#[test] fn $in_docker() { super::check(stringify!($in_docker), |world| super::Agent::docker(world, "agent")); })*
        }
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

scenarios! {
    cgroup:
    ssh_reverse_tunnel_with_traffic ssh_reverse_by_config_file ssh_reverse_by_master autossh
    dropbear_reverse paramiko_reverse ssh_local_forward ssh_dynamic_forward ssh_remote_command
    tls_relay tls_relay_multiplexed port_forward
    stratum_bitcoin stratum_monero monero_one_byte_writes stratum_third_party
    reverse_shell_bash reverse_shell_python reverse_shell_python_pty reverse_shell_perl
    reverse_shell_socat reverse_shell_socat_pty
    reverse_shell_nc reverse_shell_busybox reverse_shell_ncat reverse_shell_pipes
    socks_proxy_for_outside socks_proxy_outside internal_scan peer_fan_out
    llm_harness llm_harness_stateful http_forward_proxy db_app package_mirror mcp ordinary_work;
    docker: ssh_reverse_tunnel_with_traffic stratum_monero ordinary_work
}

#[test]
fn every_scenario_is_tested_and_expectations_agree_with_the_rig() {
    let names: Vec<_> = SCENARIOS.iter().map(|it| it.name).collect();
    assert_eq!(names, TESTED);
    for (scenario, (name, incidents)) in SCENARIOS.iter().zip(EXPECTED) {
        assert_eq!(scenario.name, *name);
        let bad = incidents.iter().filter(|incident| **incident != OUTBOUND);
        let rules: Vec<_> = bad.map(|(rule, _)| *rule).collect();
        match scenario.alert {
            Some(rule) => assert!(rules.iter().all(|it| *it == rule) && !rules.is_empty()),
            None => assert!(rules.is_empty()),
        }
    }
}
