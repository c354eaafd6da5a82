//! Tunnel programs, by what they say and whom they ask for.

use std::sync::Arc;

use super::{Detector, Finding, Subject, bytes, who};
use crate::event::Process;
use crate::flow::Flow;
use crate::protocol::Fact;
use crate::protocol::tool::names;

/// A tunnel program is at work on a flow.
pub static DETECTOR: Detector = Detector {
    name: "tunnel-tool",
    stages: &["recognised"],
    settings: &[],
};

/// What a fact says of a tunnel program, if the agent began the flow.
pub fn recognised(
    flow: &Flow,
    fact: &Fact,
    process: Option<&Arc<Process>>,
    time: u64,
) -> Option<Finding> {
    if !flow.is_outbound() {
        return None;
    }
    let (tool, evidence) = match fact {
        Fact::Tool(fact) if fact.bytes.is_empty() => (fact.tool, vec![fact.in_words()]),
        Fact::Tool(fact) => (
            fact.tool,
            vec![
                format!("{}: {}", fact.in_words(), bytes::text(&fact.bytes)),
                bytes::hex(&fact.bytes),
            ],
        ),
        other => {
            let name = other.server_name()?;
            (names::tool(name)?, vec![format!("server name {name}")])
        }
    };
    let remote = flow.remote?;
    let who = who(process);
    Some(Finding {
        detector: &DETECTOR,
        stage: 0,
        agent: flow.agent,
        process: process.cloned(),
        subjects: vec![Subject::Flow(flow.id)],
        remote: Some(remote),
        summary: format!("{who} uses the tunnel program {tool} with {remote}"),
        evidence,
        time,
    })
}
