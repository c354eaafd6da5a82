//! Reverse shells, by what goes over the wire. Those whose shell has the socket
//! itself are told of at their exec, by the rule alone.

use std::sync::Arc;

use super::{Detector, Finding, Subject, who};
use crate::event::Process;
use crate::flow::Flow;
use crate::protocol::shell::Fact;

/// Somebody outside types into a shell of the agent's.
pub static DETECTOR: Detector = Detector {
    name: "reverse-shell",
    stages: &["dialogue"],
    settings: &[],
};

/// What a shell's dialogue says, on a flow that the agent began.
pub fn dialogue(
    flow: &Flow,
    fact: &Fact,
    process: Option<&Arc<Process>>,
    time: u64,
) -> Option<Finding> {
    let remote = flow.remote.filter(|it| !it.ip.is_loopback())?;
    let key = flow.connector.unwrap_or(flow.owner);
    let process_too = (key.pid != 0).then_some(Subject::Process(key));
    flow.is_outbound().then(|| Finding {
        detector: &DETECTOR,
        stage: 0,
        agent: flow.agent,
        process: process.cloned(),
        subjects: [Some(Subject::Flow(flow.id)), process_too]
            .into_iter()
            .flatten()
            .collect(),
        remote: Some(remote),
        summary: format!("{} gives {remote} a shell", who(process)),
        evidence: vec![fact.in_words()],
        time,
        tells_more: false,
    })
}
