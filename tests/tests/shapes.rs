//! Mining that nobody can read, by its shape: a real miner and pool over TLS, at a pace
//! that a test can wait for, and sessions that look alike at first. Needs root.

use std::sync::Arc;
use std::time::Duration;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::monitor::{Monitor, Site};
use agent_monitor_tests::process::Process;
use agent_monitor_tests::services::{TRUST, python, trust};
use agent_monitor_tests::world::{OTHER_SERVER, World};
use serde_json::Value;

/// Parts of seconds stand for some ten seconds each. The processor may be shared with much else.
const FASTER: &str = "\
{override: mining-pool-protocol, settings: {pushes: 8, submits: 8, age_s: 4, quiet_ms: 200, bytes_per_s: 100000}}
---
{override: miner-process, settings: {busy_s: 3, busy_percent: 8}}
";
const TIMEOUT: Duration = Duration::from_secs(40);

/// A watched agent, and a daemon that takes tenths of seconds for seconds.
struct Rig {
    monitor: Monitor,
    agent: Agent,
    world: Arc<World>,
}

impl Rig {
    fn new(name: &str) -> Self {
        let world = World::new(name).unwrap();
        let agent = Agent::cgroup(&world, "agent").unwrap();
        let site = Arc::new(Site::new().unwrap());
        let rules = site.dir().join("rules");
        std::fs::create_dir(&rules).unwrap();
        std::fs::write(rules.join("faster.yaml"), FASTER).unwrap();
        let rules = format!("[rules]\ndirs = [\"{}\"]\n", rules.display());
        let monitor = Monitor::start_at(&site, &[&agent.selector()], &rules).unwrap();
        Self {
            monitor,
            agent,
            world,
        }
    }

    /// A server script over TLS at hub.example.
    fn serve(&self, script: &str, arguments: &[&str], port: u16) -> Process {
        let [option, cert, key] = trust(&self.agent).unwrap();
        let arguments = [arguments, &[&option, &cert, &key]].concat();
        let server = python(&self.world, script, &arguments).unwrap();
        self.world.net().wait_for_listener(port).unwrap();
        server
    }

    /// Rule and grade of every alert.
    fn alerts(self) -> Vec<String> {
        self.monitor.catch_up(&self.agent).unwrap();
        let events = self.monitor.stop().unwrap();
        let lost = events.iter().find(|event| event["kind"] == "loss");
        assert_eq!(lost, None);
        let alerts = events.iter().filter(|event| event["kind"] == "alert");
        alerts.map(grade).collect()
    }
}

fn grade(event: &Value) -> String {
    let alert = &event["alert"];
    let text = |member: &str| alert[member].as_str().unwrap();
    format!(
        "{} {}/{}",
        text("rule"),
        text("severity"),
        text("confidence")
    )
}

/// What is told of a miner that talks to its pool over TLS, while `beside` goes on.
fn mine(name: &str, options: &[&str], beside: impl FnOnce(&Rig) -> Vec<Process>) -> Vec<String> {
    let rig = Rig::new(name);
    let pool = rig.serve("tls_mining.py", &["pool", OTHER_SERVER, "443", "1.2"], 443);
    let arguments = ["mine", "hub.example", "443", "0.8", "--trust", TRUST];
    let mut miner = rig
        .agent
        .python("tls_mining.py", &[&arguments, options].concat())
        .unwrap();
    for mut other in beside(&rig) {
        other.finish(TIMEOUT).unwrap();
    }
    miner.finish(TIMEOUT).unwrap();
    assert!(pool.output().matches("accepted").count() > 8);
    rig.alerts()
}

#[test]
fn an_idle_miner_behind_tls_is_a_weak_sign_and_other_sessions_that_push_are_none() {
    let mut server = None;
    let told = mine("tls_miner", &["--for", "24"], |rig| {
        let arguments = ["serve", OTHER_SERVER, "8443"];
        server = Some(rig.serve("sessions.py", &arguments, 8443));
        let sessions = ["chat", "irc", "events", "mqtt", "stream", "scrape"].iter();
        let sessions = sessions.map(|kind| {
            let every = if *kind == "stream" { "4" } else { "0.8" };
            let to = [*kind, "hub.example", "8443", "--trust", TRUST];
            let pace = ["--for", "20", "--every", every];
            let arguments = [&to[..], &pace].concat();
            rig.agent.python("sessions.py", &arguments).unwrap()
        });
        sessions.collect()
    });
    assert_eq!(told, ["mining-pool-protocol low/low"]);
}

#[test]
fn a_miner_behind_tls_that_computes_is_one() {
    let told = mine("tls_miner_busy", &["--for", "28", "--hash"], |_| Vec::new());
    assert_eq!(
        told,
        ["mining-pool-protocol low/low", "miner-process high/medium"]
    );
}
