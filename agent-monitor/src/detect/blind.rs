//! What keeps agent-monitor from seeing an agent.

use std::sync::Arc;

use super::{Detector, Finding, Subject};
use crate::decode::ProcessKey;
use crate::event::{Loss, Process};

/// Losses, and gaps that should not be.
pub static DETECTOR: Detector = Detector {
    name: "monitoring-loss",
    stages: &["missed"],
    settings: &[],
};

/// A time for which something an agent did could not be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The agent; 0: the node.
    pub agent: u64,
    /// The process that can act unseen; pid 0 where there is no one process.
    pub process: ProcessKey,
    /// Why, in words.
    pub reason: String,
    /// Nanoseconds since boot.
    pub from: u64,
    /// Nanoseconds since boot.
    pub to: u64,
    /// Told before: it has only become longer.
    pub again: bool,
}

/// An agent can act unseen.
pub fn hole(hole: &Hole, process: Option<&Arc<Process>>) -> Finding {
    let subject = match hole.process.pid {
        0 => Subject::Agent,
        _ => Subject::Process(hole.process),
    };
    Finding {
        detector: &DETECTOR,
        stage: 0,
        agent: hole.agent,
        process: process.cloned(),
        subjects: vec![subject],
        remote: None,
        summary: hole.reason.clone(),
        evidence: vec![hole.reason.clone()],
        time: hole.to,
        tells_more: false,
    }
}

/// Records of an agent (0: of no one agent) were lost.
pub fn loss(agent: u64, loss: &Loss, time: u64) -> Finding {
    let kinds: Vec<String> = loss
        .kinds
        .iter()
        .map(|(kind, records)| format!("{records} {kind}"))
        .collect();
    Finding {
        detector: &DETECTOR,
        stage: 0,
        agent,
        process: None,
        subjects: vec![Subject::Agent],
        remote: None,
        summary: format!(
            "{} records of {} were lost ({})",
            loss.records,
            if agent == 0 { "the node" } else { "the agent" },
            loss.stage.name()
        ),
        evidence: vec![format!(
            "lost at stage {}: {}",
            loss.stage.name(),
            kinds.join(", ")
        )],
        time,
        tells_more: false,
    }
}
