//! What a daemon might say, for tests.

use super::look::{Address, Alert, AlertBody, Belongings, Flow, Named, Process, Sample};
use crate::api::activity::{Activity, AgentActivity};
use crate::api::status::{AgentStatus, Counters, SinkStatus, State, Status, StoreStatus};
use crate::event::Severity;

/// A second, in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

/// A daemon with these agents, so many seconds after boot.
pub fn sample(seconds: u64, agents: &[AgentActivity]) -> Sample {
    let of = |agent: &AgentActivity| AgentStatus {
        id: agent.id.clone(),
        name: format!("agent-{}", agent.id),
        cgroup: format!("/agents/{}", agent.id),
        state: "watched".into(),
        attached: true,
        ..AgentStatus::default()
    };
    Sample {
        status: Status {
            version: "0.1.0".into(),
            node: "node-1".into(),
            started: "2026-01-31T12:00:00Z".into(),
            uptime_seconds: seconds,
            state: State::Attached,
            agents: agents.iter().map(of).collect(),
            counters: Counters::default(),
            store: StoreStatus {
                well: true,
                ..StoreStatus::default()
            },
            ..Status::default()
        },
        activity: Activity {
            boot_ns: seconds * SECOND,
            records: 0,
            events: 1_000 * seconds,
            agents: agents.to_vec(),
        },
    }
}

/// An agent that has done nothing.
pub fn agent(id: &str) -> AgentActivity {
    AgentActivity {
        id: id.into(),
        ..AgentActivity::default()
    }
}

/// Two looks at three agents, a second apart, with one sink that fails and some losses.
pub fn busy() -> [Sample; 2] {
    let web = AgentActivity {
        processes: 12,
        flows: 34,
        connects: 100,
        bytes_out: 5_000,
        bytes_in: 70_000,
        alerts: [(Severity::Critical, 2), (Severity::Medium, 3)].into(),
        ..agent("web")
    };
    let idle = agent("idle");
    let miner = AgentActivity {
        processes: 2,
        flows: 1,
        alerts: [(Severity::High, 1)].into(),
        holes: 1,
        ..agent("miner")
    };
    let mut later = web.clone();
    later.connects += 10;
    later.bytes_out += 1_200_000;
    later.bytes_in += 34_000;
    let before = sample(11, &[idle.clone(), web, miner.clone()]);
    let mut now = sample(12, &[idle, later, miner]);
    now.status.counters.losses = [("quota".to_owned(), 37)].into();
    now.status.agents[2].attached = false;
    now.status.agents[2].lost = 37;
    now.status.sinks = vec![
        SinkStatus {
            name: "local".into(),
            ..SinkStatus::default()
        },
        SinkStatus {
            name: "siem".into(),
            lag: 120,
            last_error: Some("connection refused".into()),
            ..SinkStatus::default()
        },
    ];
    [before, now]
}

/// An alert about an agent; `n` makes its incident and its time.
pub fn alert(agent: &str, n: u32, severity: Severity) -> Alert {
    Alert {
        time: format!("2026-01-31T12:00:{n:02}.000000000Z"),
        agent: Named {
            id: agent.into(),
            name: format!("agent-{agent}"),
        },
        process: Process {
            pid: 5273,
            uid: Some(0),
            comm: "ssh".into(),
            argv: vec!["ssh".into(), "-R".into(), "9001:localhost:8000".into()],
        },
        alert: AlertBody {
            incident: format!("incident-{n}"),
            revision: 1,
            rule: "reverse-ssh-tunnel".into(),
            severity: Some(severity),
            confidence: "high".into(),
            summary: "ssh[5273] lets 198.51.100.1:22 reach 127.0.0.1:8000 inside".into(),
            evidence: vec!["564 bytes in, then 392 bytes out".into()],
            attack: vec!["T1572".into()],
            count: 3,
            first_seen: "2026-01-31T12:00:00.000000000Z".into(),
            last_seen: "2026-01-31T12:00:09.000000000Z".into(),
            coverage: "complete".into(),
        },
    }
}

/// What an agent has: two flows and a process.
pub fn belongings() -> Belongings {
    let flow = |name: &str, ip: &str, bytes| Flow {
        flow: "1f-0".into(),
        direction: "outbound".into(),
        transport: "tcp".into(),
        remote: Address {
            ip: ip.into(),
            port: 443,
        },
        protocol: if name.is_empty() { "" } else { "tls" }.into(),
        server_name: name.into(),
        result: "established".into(),
        bytes_out: bytes,
        bytes_in: 17,
    };
    Belongings {
        flows: vec![
            flow("git.example", "203.0.113.9", 34_000_000),
            flow("", "2001:db8::1", 120),
        ],
        processes: vec![Process {
            pid: 5273,
            uid: Some(1000),
            comm: "ssh".into(),
            argv: vec!["ssh".into(), "-N".into(), "a b".into()],
        }],
    }
}
