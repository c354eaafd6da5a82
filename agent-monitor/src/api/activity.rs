//! What `GET /v1/activity` answers: what agents do, in numbers, as of the moment it is
//! asked for. Two answers make rates.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::Severity;

/// What agents do. Members that one version knows and the other does not read as empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Activity {
    /// When this was true, in nanoseconds since boot.
    pub boot_ns: u64,
    /// Records read from the kernel since the daemon started.
    pub records: u64,
    /// Events made of them.
    pub events: u64,
    /// Every agent of the status.
    pub agents: Vec<AgentActivity>,
}

/// What one agent does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentActivity {
    /// As in events.
    pub id: String,
    /// Its processes.
    pub processes: u64,
    /// Its flows that have not ended.
    pub flows: u64,
    /// Calls of connect() since it appeared, those included whose record was lost.
    pub connects: u64,
    /// Payload bytes from it since the daemon started, as of each flow's last burst.
    pub bytes_out: u64,
    /// The same to it.
    pub bytes_in: u64,
    /// Things that it could do unseen since it appeared, see `gap` events.
    pub holes: u64,
    /// Its incidents that can still grow, by severity.
    pub alerts: BTreeMap<Severity, u64>,
}
