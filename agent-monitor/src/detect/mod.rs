//! Behaviour over time: what records add up to.
//!
//! A detector says what happens and shows it; whether it is bad, and how bad,
//! is for `rules` to say.

pub mod mining;
pub mod relay;
pub mod ssh_command;
pub mod tunnel;

use std::sync::Arc;

use agent_monitor_common::event::FlowId;

use crate::decode::ProcessKey;
use crate::event::Process;

/// What a detector has seen.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Id of the rule it is for.
    pub rule: &'static str,
    /// Stage of evidence, an index into the rule's stages.
    pub stage: usize,
    /// The agent.
    pub agent: u64,
    /// The process behind it.
    pub process: Option<Arc<Process>>,
    /// What it is about: findings that share one belong to one incident.
    pub subjects: Vec<Subject>,
    /// One sentence for a person.
    pub summary: String,
    /// The bytes, sizes and times that show it.
    pub evidence: Vec<String>,
    /// Nanoseconds since boot.
    pub time: u64,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A process.
    Process(ProcessKey),
    /// A flow.
    Flow(FlowId),
}
