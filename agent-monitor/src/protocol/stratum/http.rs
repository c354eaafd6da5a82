//! Mining over HTTP: getwork and getblocktemplate (Bitcoin and its kin), the
//! same of a Monero node (XMRig's daemon mode), eth_getWork of an Ethereum node.
//!
//! They are asked of a node or a pool alike: rule G.

use serde_json::Value;

use super::super::http::Request;
use super::message::{Asked, eth_proxy};
use super::shape::{is_accepted, is_eth_work, is_hex, name, object, text};
use super::{Meaning, Side, Weight};

/// What XMRig asks of a node with GET (`DaemonClient`, src/base/net/stratum).
const HEIGHT: [&str; 2] = ["/getheight", "/getinfo"];
/// Requests remembered until they are answered.
const WAITING_MAX: usize = 64;

/// Follows one HTTP connection.
#[derive(Default)]
pub(in crate::protocol) struct OverHttp {
    asked: Asked,
    /// What each unanswered request was about.
    waiting: std::collections::VecDeque<Option<Asks>>,
    /// Of the request that is being received.
    agent: Option<String>,
    pool: Option<String>,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Work(&'static str),
    Submit(&'static str),
    Other,
}

impl OverHttp {
    /// Takes a request's head, whose bytes are `head`.
    pub fn request(
        &mut self,
        side: Side,
        request: &Request,
        head: &[u8],
    ) -> Option<super::super::Fact> {
        self.agent = request.agent.as_deref().map(name);
        self.pool = request.host.clone();
        let meaning = if request.mining_extensions {
            Meaning::new(false, Weight::Strong, "getwork", "X-Mining-Extensions")
        } else {
            // XMRig asks a node for its height, over and over. So do wallets, which
            // do not call themselves a miner.
            let path = request.path();
            let is_miner = self.agent.as_deref().is_some_and(is_xmrig);
            let asked = HEIGHT.iter().find(|it| is_miner && it.as_bytes() == path)?;
            let mut meaning = Meaning::new(false, Weight::Strong, "getblocktemplate", asked);
            meaning.coin = Some("Monero and its kin");
            meaning
        };
        Some(self.fact(meaning, side, head))
    }

    /// Takes the body of a message, which is empty if it is not a small JSON object.
    pub fn body(
        &mut self,
        side: Side,
        from_client: bool,
        json: &[u8],
    ) -> Option<super::super::Fact> {
        let message = match json {
            [] => Value::Null,
            json => object(json),
        };
        let meaning = if from_client {
            let asked = self.asks(&message, side);
            if self.waiting.len() == WAITING_MAX {
                self.waiting.pop_front();
            }
            self.waiting
                .push_back(asked.as_ref().map(|(_, asks)| *asks));
            asked.map(|(meaning, _)| meaning)
        } else {
            self.waiting
                .pop_front()
                .flatten()
                .and_then(|asks| answers(asks, &message))
        };
        meaning.map(|meaning| self.fact(meaning, side, json))
    }

    fn asks(&mut self, message: &Value, side: Side) -> Option<(Meaning, Asks)> {
        let method = text(message, "method")?;
        let params = &message["params"];
        let first = &params[0];
        let strong = |dialect| Meaning::new(false, Weight::Strong, dialect, method);
        let (template, work) = ("getblocktemplate", "getwork");
        Some(match method {
            "getwork" if first.is_string() => (strong(work), Asks::Submit(work)),
            "getwork" => (strong(work), Asks::Work(work)),
            "getblocktemplate" | "get_block_template" => {
                let mut meaning = strong(template);
                // A Monero node is told whom to pay.
                if let Some(wallet) = text(params, "wallet_address") {
                    meaning.coin = Some("Monero and its kin");
                    meaning.identify(Some(wallet));
                } else {
                    meaning.coin = Some("Bitcoin and its kin");
                }
                (meaning, Asks::Work(template))
            }
            "submitblock" | "submit_block" if first.is_string() => {
                (strong(template), Asks::Submit(template))
            }
            _ => {
                let meaning = eth_proxy(method, message, side, &mut self.asked)?;
                let asks = match method {
                    "eth_getWork" => Asks::Work("eth-proxy"),
                    "eth_submitWork" => Asks::Submit("eth-proxy"),
                    _ => Asks::Other,
                };
                (meaning, asks)
            }
        })
    }

    fn fact(&self, mut meaning: Meaning, side: Side, bytes: &[u8]) -> super::super::Fact {
        if !meaning.from_pool {
            meaning.agent = self.agent.clone();
            meaning.pool = self.pool.clone();
        }
        super::super::Fact::Mining(meaning.into_fact(side, true, bytes))
    }
}

/// Whether a program calls itself XMRig, or one made from it (`APP_ID`, src/version.h).
fn is_xmrig(agent: &str) -> bool {
    let name = agent.split('/').next().unwrap_or_default();
    name.to_ascii_lowercase().starts_with("xmrig")
}

/// What a node's answer means.
fn answers(asks: Asks, message: &Value) -> Option<Meaning> {
    let result = message.get("result")?;
    match asks {
        Asks::Other => None,
        Asks::Work("eth-proxy") if is_eth_work(result) => {
            Some(Meaning::new(true, Weight::Weak, "eth-proxy", "work"))
        }
        Asks::Work(dialect) => {
            // A template of Bitcoin's names the block before it; one of Monero's is a blob.
            let is_work = is_hex(result, "previousblockhash", 64, 64)
                || is_hex(result, "blocktemplate_blob", 100, usize::MAX)
                || (is_hex(result, "data", 256, 256) && is_hex(result, "target", 64, 64));
            is_work.then(|| Meaning::new(true, Weight::Proof, dialect, "work"))
        }
        Asks::Submit(dialect) => {
            let no_error = message.get("error").is_none_or(Value::is_null);
            // submitblock answers null when the block is taken (BIP 22).
            let taken = is_accepted(result) || (result.is_null() && dialect != "eth-proxy");
            (taken && no_error)
                .then(|| Meaning::new(true, Weight::Proof, dialect, "share accepted"))
        }
    }
}
