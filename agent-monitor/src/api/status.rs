//! What `GET /v1/status` answers.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::rules::reload::Loaded;
use crate::store::recorder::Health;

/// The daemon, as it sees itself. Members that a reader's version knows and the
/// daemon's does not read as empty, so that the two may differ in version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// The node's name, as in events.
    pub node: String,
    /// The daemon's process id.
    pub pid: u32,
    /// When the daemon started, RFC 3339.
    pub started: String,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// How far it is.
    pub state: State,
    /// Release of the running kernel.
    pub kernel: String,
    /// The agents it knows.
    pub agents: Vec<AgentStatus>,
    /// eBPF programs, each with the number of places it is attached to.
    pub programs: BTreeMap<String, u32>,
    /// What each program took; only what the kernel has counted, which it does
    /// while the sysctl `kernel.bpf_stats_enabled` is 1.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub run_times: BTreeMap<String, RunTime>,
    /// Records that wait: `held` for a selector to be decided, `store` to be stored,
    /// `tail` for the slowest reader.
    pub queues: BTreeMap<String, u64>,
    /// When the thread that takes records last said so.
    #[serde(skip)]
    pub seen: Option<Instant>,
    /// Where its programs are pinned, if they outlive it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned: Option<String>,
    /// The rules it judges by.
    pub rules: Loaded,
    /// What went through it.
    pub counters: Counters,
    /// Where alerts and events are kept.
    pub store: StoreStatus,
    /// Where events are forwarded to.
    pub sinks: Vec<SinkStatus>,
}

/// The store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreStatus {
    /// Whether it is open and the last write succeeded.
    pub well: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Bytes of the database in use.
    pub bytes: u64,
    /// Alerts and events stored since the daemon started.
    pub stored: u64,
    /// Alerts and events that wait until it can be written.
    pub pending: u64,
    /// Events that an alert refers to and that were forgotten before they could be stored.
    pub context_missing: u64,
}

impl From<Health> for StoreStatus {
    fn from(health: Health) -> Self {
        Self {
            well: health.is_well,
            error: health.error,
            bytes: health.bytes,
            stored: health.stored,
            pending: u64::try_from(health.pending).unwrap_or(u64::MAX),
            context_missing: health.context_missing,
        }
    }
}

/// What a program took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunTime {
    /// How often it ran.
    pub runs: u64,
    /// For how long, in all.
    pub nanoseconds: u64,
}

/// How far the daemon is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does not see everything yet.
    #[default]
    Attaching,
    /// Every program is attached and every agent that was there is known.
    Attached,
    /// It is going away.
    Stopping,
}

/// One agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentStatus {
    /// As in events.
    pub id: String,
    /// As in events.
    pub name: String,
    /// Path below the cgroup2 mount.
    pub cgroup: String,
    /// `watched`, `tentative` while its selector is undecided, or `gone`.
    pub state: String,
    /// Whether network and device programs cover it.
    pub attached: bool,
    /// Events seen of it.
    pub events: u64,
    /// Records of it that were lost.
    pub lost: u64,
    /// The same, by the stage that lost them.
    pub losses: BTreeMap<String, u64>,
}

/// What went through the daemon since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Records read from the kernel.
    pub records: u64,
    /// Events made of them.
    pub events: u64,
    /// Records lost, by the stage that lost them.
    pub losses: BTreeMap<String, u64>,
}

/// One sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SinkStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Its kind there.
    pub kind: String,
    /// Sequence number up to which everything was delivered.
    pub cursor: u64,
    /// Records stored and not yet delivered.
    pub lag: u64,
    /// Age of the oldest of them, in seconds.
    pub lag_seconds: u64,
    /// Deliveries that failed since the daemon started.
    pub retries: u64,
    /// Alerts that the receiver took and broke off after, each time: dead letters since.
    pub unconfirmed: u64,
    /// Alerts that the receiver refused for good, kept apart: `agent-monitor sinks`.
    pub dead_letters: u64,
    /// Why the last attempt failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
