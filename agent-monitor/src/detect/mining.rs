//! Mining pools, by what is said on a flow.

use std::collections::HashMap;
use std::sync::Arc;

use agent_monitor_common::event::FlowId;

use super::{Finding, Subject};
use crate::event::Process;
use crate::flow::Flow;
use crate::protocol::Side;
use crate::protocol::stratum::{Fact, Weight};

/// Rule id.
pub const RULE: &str = "mining-pool-protocol";
/// Stages of evidence.
const WEAK: usize = 0;
const ONE_SIDE: usize = 1;
const BOTH_SIDES: usize = 2;

/// Messages of a flow that are kept until they prove something.
const MAX_HELD: usize = 4;

/// What was heard on each flow: on live ones only, so the flow table bounds it.
#[derive(Default)]
pub struct Mining {
    heard: HashMap<FlowId, Heard>,
}

#[derive(Default)]
struct Heard {
    /// Who spoke as a miner, and who as a pool.
    miner: Option<Side>,
    pool: Option<Side>,
    /// One side said what both say: a document, not a session.
    document: bool,
    stage: Option<usize>,
    /// What was said before it proved anything.
    held: Vec<String>,
}

impl Heard {
    /// What was heard on this flow proves, together with `fact`.
    fn stage(&mut self, fact: &Fact) -> Option<usize> {
        if fact.weight == Weight::Weak {
            return Some(WEAK);
        }
        *(if fact.from_pool {
            &mut self.pool
        } else {
            &mut self.miner
        }) = Some(fact.side);
        self.document |= self.miner.is_some() && self.miner == self.pool;
        if self.document {
            return None;
        }
        if self.miner.is_some() && self.pool.is_some() {
            return Some(BOTH_SIDES);
        }
        // One side alone has to speak where and as its role does: the miner
        // connects, and neither begins with something else. A downloaded
        // document may hold any line.
        let usual = if fact.from_pool {
            Side::Responder
        } else {
            Side::Initiator
        };
        if !fact.plain || fact.side != usual {
            return None;
        }
        Some(if fact.weight == Weight::Proof {
            BOTH_SIDES
        } else {
            ONE_SIDE
        })
    }
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
        if cfg!(mutate = "mining-pool-protocol") {
            return None;
        }
        let heard = self.heard.entry(flow.id).or_default();
        let speaker = if fact.from_pool {
            "the pool"
        } else {
            "the miner"
        };
        let line = format!(
            "{speaker} said {} ({}): {}",
            fact.message,
            fact.dialect,
            String::from_utf8_lossy(&fact.bytes)
        );
        let stage = match heard.stage(fact) {
            Some(stage) if heard.stage.is_none_or(|before| before < stage) => stage,
            Some(_) => return None,
            None => {
                if heard.held.len() < MAX_HELD {
                    heard.held.push(line);
                }
                return None;
            }
        };
        heard.stage = Some(stage);
        let mut evidence = std::mem::take(&mut heard.held);
        evidence.push(line);
        let remote = flow
            .remote
            .map_or_else(|| "an unknown address".to_owned(), |r| r.to_string());
        let who = process.as_ref().map_or_else(
            || "A process of the agent".to_owned(),
            |process| format!("{}[{}]", process.comm, process.pid),
        );
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

    /// A flow is over, or no longer followed.
    pub fn closed(&mut self, flow: FlowId) {
        self.heard.remove(&flow);
    }
}
