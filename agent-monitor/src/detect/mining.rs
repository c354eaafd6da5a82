//! Mining pools, by what is said on a flow.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_monitor_common::event::FlowId;
use foldhash::HashMap;

use super::{Detector, Finding, Subject, bytes, pool_shape, who};
use crate::event::Process;
use crate::flow::Flow;
use crate::protocol::Side;
use crate::protocol::stratum::{Fact, Weight};

/// What rules see of this.
pub static DETECTOR: Detector = Detector {
    name: "mining-pool-protocol",
    stages: &["weak-signs", "one-side", "both-sides"],
    settings: &[
        &pool_shape::PUSHES,
        &pool_shape::SUBMITS,
        &pool_shape::AGE,
        &pool_shape::SPREAD,
        &pool_shape::QUIET,
        &pool_shape::VOLUME,
    ],
};
/// Stages of evidence.
pub(super) const WEAK: usize = 0;
const ONE_SIDE: usize = 1;
const BOTH_SIDES: usize = 2;

/// Bytes of a flow's payload in its evidence.
const MAX_PAYLOAD: usize = 256;
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
    /// Coin, pool, login and program, as soon as a message tells.
    known: BTreeMap<&'static str, String>,
    /// Bytes of payload that were put into evidence.
    shown: usize,
}

/// Whether this is a node of one's own: on this machine, or on the port of
/// bitcoind's test network of one (`-regtest`, chainparamsbase.cpp).
fn is_own_node(flow: &Flow) -> bool {
    const REGTEST: u16 = 18443;
    flow.remote
        .is_some_and(|remote| remote.ip.is_loopback() || remote.port == REGTEST)
}

impl Heard {
    /// Notes who mines what, and where; says whether that was not known.
    fn learn(&mut self, fact: &Fact) -> bool {
        let mut news = false;
        let coin = fact.coin.map(str::to_owned);
        for (what, told) in [
            ("coin", coin.as_ref()),
            ("login", fact.identity.as_ref()),
            ("mining program", fact.agent.as_ref()),
            ("pool, by the miner's words", fact.pool.as_ref()),
        ] {
            let Some(told) = told else { continue };
            // A wallet tells the coin best.
            let better = what == "coin" && fact.identity.is_some();
            if better || !self.known.contains_key(what) {
                news |= self.known.insert(what, told.clone()).as_ref() != Some(told);
            }
        }
        news
    }

    /// What was heard on this flow proves, together with `fact`.
    fn stage(&mut self, fact: &Fact, weight: Weight) -> Option<usize> {
        if weight == Weight::Weak {
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
        Some(if weight == Weight::Proof {
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
        // Whoever owns a node asks it for work too, and looks at what it gives.
        let weight = match fact.is_asked_of_node() && is_own_node(flow) {
            true => Weight::Weak,
            false => fact.weight,
        };
        let heard = self.heard.entry(flow.id).or_default();
        let speaker = if fact.from_pool {
            "the pool"
        } else {
            "the miner"
        };
        let shown = &fact.bytes[..fact.bytes.len().min(MAX_PAYLOAD - heard.shown)];
        heard.shown += shown.len();
        let mut line = format!("{speaker} said {} ({})", fact.message, fact.dialect);
        // Of ciphertext nothing is shown, nor beyond the limit.
        if !shown.is_empty() {
            let more = if shown.len() < fact.bytes.len() {
                "…"
            } else {
                ""
            };
            line += &format!(": {}{more}", bytes::text(shown));
        }
        let proves = heard.stage(fact, weight);
        let news = heard.learn(fact);
        let stage = match (proves, heard.stage) {
            (None, _) => {
                if heard.held.len() < MAX_HELD {
                    heard.held.push(line);
                }
                return None;
            }
            (Some(stage), before) if before.is_none_or(|before| before < stage) => stage,
            // Who mines is often said only after the pool has answered.
            (Some(_), Some(before)) if news => before,
            (Some(_), _) => return None,
        };
        let tells_more = heard.stage.replace(stage) == Some(stage);
        let mut evidence = std::mem::take(&mut heard.held);
        evidence.push(line);
        if !shown.is_empty() {
            evidence.push(bytes::hex(shown));
        }
        evidence.extend(
            heard
                .known
                .iter()
                .map(|(what, known)| format!("{what}: {known}")),
        );
        if flow.is_ambiguous {
            evidence.push("some of the bytes came in two versions".to_owned());
        }
        let address = flow
            .remote
            .map_or_else(|| "an unknown address".to_owned(), |r| r.to_string());
        // Names are as the agent sent them; the address is where it went.
        let remote = match &flow.server_name {
            Some(name) => {
                evidence.push(format!("server name: {name}"));
                format!("{name} ({address})")
            }
            None => address,
        };
        let who = who(process.as_ref());
        Some(Finding {
            detector: &DETECTOR,
            stage,
            agent: flow.agent,
            process,
            subjects: vec![Subject::Flow(flow.id)],
            remote: flow.remote,
            summary: match stage {
                WEAK => format!("{who} may be asking {remote} for mining work"),
                ONE_SIDE => format!("{who} speaks a mining pool's protocol with {remote}"),
                _ => format!("{who} mines in a pool at {remote}"),
            },
            evidence,
            time,
            tells_more,
        })
    }

    /// A flow is over, or no longer followed.
    pub fn closed(&mut self, flow: FlowId) {
        self.heard.remove(&flow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(side: Side, from_pool: bool, weight: Weight) -> Fact {
        Fact {
            side,
            from_pool,
            weight,
            dialect: "stratum-v1",
            message: "a message".to_owned(),
            coin: None,
            identity: None,
            agent: None,
            pool: None,
            plain: true,
            bytes: vec![b'x'; 200],
        }
    }

    /// The stages of the findings that these messages of one flow make.
    fn stages(facts: &[Fact]) -> Vec<usize> {
        let mut mining = Mining::default();
        let flow = Flow::unknown(7);
        facts
            .iter()
            .filter_map(|fact| mining.message(&flow, fact, None, 0))
            .map(|finding| finding.stage)
            .collect()
    }

    use Side::{Initiator, Responder};
    use Weight::{Proof, Strong, Weak};

    #[test]
    fn a_miners_message_then_the_pools_raise_the_stage_once_each() {
        let said = [
            fact(Initiator, false, Strong),
            fact(Initiator, false, Strong),
            fact(Responder, true, Strong),
            fact(Responder, true, Proof),
        ];
        assert_eq!(stages(&said), [ONE_SIDE, BOTH_SIDES]);
    }

    #[test]
    fn work_handed_out_by_the_pool_proves_it_alone() {
        assert_eq!(stages(&[fact(Responder, true, Proof)]), [BOTH_SIDES]);
    }

    #[test]
    fn what_honest_programs_say_too_is_a_weak_sign() {
        assert_eq!(stages(&[fact(Initiator, false, Weak)]), [WEAK]);
    }

    #[test]
    fn one_side_that_says_everything_is_a_document() {
        let download = |from_pool| Fact {
            plain: false,
            ..fact(Responder, from_pool, Proof)
        };
        let said = [download(true), download(false), download(true)];
        assert_eq!(stages(&said), [0; 0]);
    }

    #[test]
    fn a_session_behind_a_proxys_handshake_takes_both_sides() {
        let later = |side, from_pool| Fact {
            plain: false,
            ..fact(side, from_pool, Strong)
        };
        assert_eq!(
            stages(&[later(Initiator, false), later(Responder, true)]),
            [BOTH_SIDES]
        );
    }

    #[test]
    fn what_was_said_is_in_the_evidence_as_text_and_in_hexadecimal() {
        let said = Fact {
            bytes: b"{\"id\":1}\xff\n".to_vec(),
            ..fact(Initiator, false, Strong)
        };
        let found = Mining::default().message(&Flow::unknown(7), &said, None, 0);
        let evidence = found.expect("a miner speaks").evidence;
        assert_eq!(
            evidence,
            [
                r#"the miner said a message (stratum-v1): {"id":1}\xff\u{a}"#,
                "in hexadecimal: 7b226964223a317dff0a"
            ]
        );
    }

    #[test]
    fn evidence_names_coin_login_program_and_pool() {
        let said = Fact {
            coin: Some("Monero"),
            identity: Some("44AFFq5kSiGB…XVg9vLAx8vJ4".to_owned()),
            agent: Some("XMRig/6.21.0".to_owned()),
            pool: Some("pool.example:3333".to_owned()),
            ..fact(Initiator, false, Strong)
        };
        let mut flow = Flow::unknown(7);
        flow.server_name = Some("carrier.example".into());
        let found = Mining::default().message(&flow, &said, None, 0);
        let evidence = found.expect("a miner speaks").evidence;
        for line in [
            "coin: Monero",
            "login: 44AFFq5kSiGB…XVg9vLAx8vJ4",
            "mining program: XMRig/6.21.0",
            "pool, by the miner's words: pool.example:3333",
            "server name: carrier.example",
        ] {
            assert!(evidence.iter().any(|it| it == line), "{line}: {evidence:?}");
        }
    }

    /// As in Stratum v1, where the pool answers before the miner says who it is.
    #[test]
    fn who_mines_is_told_although_it_is_said_after_the_proof() {
        let authorize = Fact {
            identity: Some("bc1qar0srrr7…".to_owned()),
            ..fact(Initiator, false, Strong)
        };
        let said = [
            fact(Initiator, false, Strong),
            fact(Responder, true, Strong),
            authorize.clone(),
            authorize,
        ];
        let mut mining = Mining::default();
        let found: Vec<_> = said
            .iter()
            .filter_map(|fact| mining.message(&Flow::unknown(7), fact, None, 0))
            .map(|finding| (finding.stage, finding.tells_more, finding.evidence))
            .collect();
        let grades: Vec<_> = found.iter().map(|it| (it.0, it.1)).collect();
        assert_eq!(
            grades,
            [(ONE_SIDE, false), (BOTH_SIDES, false), (BOTH_SIDES, true)]
        );
        let login = "login: bc1qar0srrr7…".to_owned();
        assert!(found[2].2.contains(&login), "{found:?}");
    }

    #[test]
    fn evidence_holds_at_most_256_bytes_of_payload() {
        let mut mining = Mining::default();
        let said = [fact(Initiator, false, Strong), fact(Responder, true, Proof)];
        let payload: usize = said
            .iter()
            .filter_map(|fact| mining.message(&Flow::unknown(7), fact, None, 0))
            .flat_map(|finding| finding.evidence)
            .filter(|line| !line.starts_with("in hexadecimal"))
            .map(|line| line.bytes().filter(|byte| *byte == b'x').count())
            .sum();
        assert_eq!(payload, MAX_PAYLOAD);
    }
}
