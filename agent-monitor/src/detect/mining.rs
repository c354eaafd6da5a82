//! Mining pools, by what is said on a flow.

use std::collections::HashMap;
use std::sync::Arc;

use agent_monitor_common::event::FlowId;

use super::{Finding, Subject};
use crate::event::Process;
use crate::flow::Flow;
use crate::protocol::stratum::{Fact, Weight};

/// Rule id.
pub const RULE: &str = "mining-pool-protocol";
/// Stages of evidence.
const WEAK: usize = 0;
const ONE_SIDE: usize = 1;
const BOTH_SIDES: usize = 2;

/// Flows on which something was said.
const MAX_FLOWS: usize = 16_384;

/// What was heard on each flow.
#[derive(Default)]
pub struct Mining {
    heard: HashMap<FlowId, Heard>,
}

#[derive(Clone, Copy, Default)]
struct Heard {
    miner: bool,
    pool: bool,
    stage: Option<usize>,
}

impl Mining {
    /// A message of a mining protocol. Gives a finding when it proves more than
    /// what was heard on this flow before.
    pub fn message(
        &mut self,
        flow: &Flow,
        fact: &Fact,
        process: Option<Arc<Process>>,
        time: u64,
    ) -> Option<Finding> {
        if self.heard.len() >= MAX_FLOWS && !self.heard.contains_key(&flow.id) {
            return None;
        }
        let heard = self.heard.entry(flow.id).or_default();
        if fact.weight > Weight::Weak {
            *(if fact.from_pool {
                &mut heard.pool
            } else {
                &mut heard.miner
            }) = true;
        }
        let stage = match fact.weight {
            Weight::Proof => BOTH_SIDES,
            Weight::Strong if heard.miner && heard.pool => BOTH_SIDES,
            Weight::Strong => ONE_SIDE,
            Weight::Weak => WEAK,
        };
        if heard.stage.is_some_and(|before| before >= stage) {
            return None;
        }
        heard.stage = Some(stage);
        let remote = flow
            .remote
            .map_or_else(|| "an unknown address".to_owned(), |r| r.to_string());
        let who = process.as_ref().map_or_else(
            || "A process of the agent".to_owned(),
            |process| format!("{}[{}]", process.comm, process.pid),
        );
        let speaker = if fact.from_pool {
            "the pool"
        } else {
            "the miner"
        };
        let mut evidence = vec![format!(
            "{speaker} said {} ({}): {}",
            fact.message,
            fact.dialect,
            String::from_utf8_lossy(&fact.bytes)
        )];
        if let Some(identity) = &fact.identity {
            evidence.push(format!("as {identity}"));
        }
        Some(Finding {
            rule: RULE,
            stage,
            agent: flow.agent,
            process,
            subjects: vec![Subject::Flow(flow.id)],
            summary: match stage {
                WEAK => format!("{who} may be asking {remote} for mining work"),
                ONE_SIDE => format!("{who} speaks a mining pool's protocol with {remote}"),
                _ => format!("{who} mines in a pool at {remote}"),
            },
            evidence,
            time,
        })
    }

    /// A flow is over.
    pub fn closed(&mut self, flow: FlowId) {
        self.heard.remove(&flow);
    }
}
