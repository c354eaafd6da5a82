//! What one JSON object of a miner or a pool means; requests here, answers in `answer`.

use std::collections::VecDeque;

use serde_json::Value;

use super::shape::{is_xmrig_job, is_xmrig_share, name, object, text};
use super::{Meaning, Side, Weight, answer, coin};

/// Requests remembered to tell what an answer answers.
const ASKED_MAX: usize = 64;
/// Longest request id remembered.
const ID_MAX: usize = 64;

/// The miner's methods of Stratum v1 and EthereumStratum/2.0.0, after `mining.`.
const MINER: &[&str] = &[
    "subscribe",
    "authorize",
    "configure",
    "submit",
    "extranonce.subscribe",
    "hello",
    "noop",
    "hashrate",
    "suggest_difficulty",
    "suggest_target",
    "get_transactions",
    "capabilities",
    "multi_version",
];
/// The pool's, with what each proves: work handed out, or just a pool.
pub(super) const POOL: &[(&str, Weight)] = &[
    ("notify", Weight::Proof),
    ("set_difficulty", Weight::Proof),
    ("set_target", Weight::Proof),
    ("set_extranonce", Weight::Strong),
    ("set", Weight::Strong),
    ("bye", Weight::Strong),
    ("set_version_mask", Weight::Strong),
];
/// Those of EthereumStratum/2.0.0 only.
const ETH2: &[&str] = &["hello", "noop", "hashrate", "set", "bye"];

/// The miner's requests that wait for an answer.
#[derive(Default)]
pub(super) struct Asked {
    requests: VecDeque<Request>,
    /// Who said anything a miner says, which makes its peer a pool.
    pub miner: Option<Side>,
    /// Whether it logged in or submitted as only eth-proxy's miners do.
    pub eth_proxy: bool,
    /// Whether it submitted as browsers' miners do, whose answers have no id.
    pub browser: bool,
}

struct Request {
    side: Side,
    id: Value,
    what: What,
    dialect: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Subscribe,
    Submit,
    GetWork,
}

impl Asked {
    pub fn note(&mut self, side: Side, message: &Value, what: What, dialect: &'static str) {
        let id = match &message["id"] {
            Value::Number(id) => Value::Number(id.clone()),
            Value::String(id) if id.len() <= ID_MAX => Value::String(id.clone()),
            _ => return,
        };
        if self.requests.len() == ASKED_MAX {
            self.requests.pop_front();
        }
        self.requests.push_back(Request {
            side,
            id,
            what,
            dialect,
        });
    }

    /// Takes the request this answers. An id is used once, but pools that push work reuse it.
    pub fn answered(&mut self, side: Side, id: &Value) -> Option<(What, &'static str)> {
        let at = self
            .requests
            .iter()
            .position(|r| r.side != side && r.id == *id)?;
        self.requests
            .remove(at)
            .map(|request| (request.what, request.dialect))
    }
}

/// What an object says, if a miner or a pool says it.
pub(super) fn meaning(line: &[u8], side: Side, asked: &mut Asked) -> Option<Meaning> {
    let message = object(line);
    match message.get("method") {
        Some(Value::String(method)) => called(method, &message, side, asked),
        Some(_) => None,
        None => match text(&message, "type") {
            Some(kind) => browser(kind, &message, side, asked),
            None => answer::meaning(&message, side, asked),
        },
    }
}

fn called(method: &str, message: &Value, side: Side, asked: &mut Asked) -> Option<Meaning> {
    let params = &message["params"];
    let meaning = if let Some(name) = method.strip_prefix("mining.") {
        mining(name, method, message, side, asked)?
    } else if method.starts_with("eth_") {
        eth_proxy(method, message, side, asked)?
    } else {
        match method {
            // Rule C: an Odoo-style login has a password, not a pass.
            "login"
                if text(params, "login").is_some()
                    && (params.get("pass").is_some() || params.get("agent").is_some()) =>
            {
                asked.note(side, message, What::Subscribe, "xmrig");
                let mut meaning = Meaning::new(false, Weight::Strong, "xmrig", method);
                meaning.identify(text(params, "login"));
                meaning.agent = text(params, "agent").map(name);
                meaning
            }
            "submit" if is_xmrig_share(params) => {
                asked.note(side, message, What::Submit, "xmrig");
                Meaning::new(false, Weight::Strong, "xmrig", method)
            }
            "job" if is_xmrig_job(params) => Meaning::new(true, Weight::Proof, "xmrig", method),
            // Kaspa's bridge says it without a prefix, so only to a known miner.
            "set_extranonce" if asked.miner == Some(side.other()) => {
                Meaning::new(true, Weight::Strong, "stratum-v1", method)
            }
            _ => return None,
        }
    };
    if !meaning.from_pool && meaning.weight >= Weight::Strong {
        asked.miner = Some(side);
    }
    Some(meaning)
}

/// Rules A and B.
fn mining(
    called: &str,
    method: &str,
    message: &Value,
    side: Side,
    asked: &mut Asked,
) -> Option<Meaning> {
    let params = &message["params"];
    let eth1 = params.get(1).and_then(Value::as_str) == Some("EthereumStratum/1.0.0");
    let dialect = match called {
        _ if ETH2.contains(&called) => "stratum-eth2",
        "subscribe" if eth1 => "stratum-eth1",
        _ => "stratum-v1",
    };
    if let Some((_, weight)) = POOL.iter().find(|(pool, _)| *pool == called) {
        return Some(Meaning::new(true, *weight, dialect, method));
    }
    if !MINER.contains(&called) {
        return None;
    }
    match called {
        "subscribe" | "hello" => asked.note(side, message, What::Subscribe, dialect),
        "submit" => asked.note(side, message, What::Submit, dialect),
        _ => {}
    }
    let mut meaning = Meaning::new(false, Weight::Strong, dialect, method);
    let at = |n: usize| params.get(n).and_then(Value::as_str);
    match called {
        "subscribe" => {
            meaning.agent = at(0).map(name);
            // Equihash and KawPow: program, session, host, port.
            if let Some(host) = at(2).filter(|host| host.contains('.')) {
                meaning.pool = Some(pool(host, &params[3]));
                meaning.coin = Some("Zcash, Ravencoin or kin (Equihash, KawPow)");
            }
        }
        "authorize" | "submit" => meaning.identify(at(0)),
        "hello" => {
            meaning.agent = text(params, "agent").map(name);
            // Its port is in hexadecimal (EIP-1571).
            let port = text(params, "port").and_then(|port| u16::from_str_radix(port, 16).ok());
            let port = port.map_or(Value::Null, Value::from);
            meaning.pool = text(params, "host").map(|host| pool(host, &port));
        }
        _ => {}
    }
    Some(meaning)
}

fn pool(host: &str, port: &Value) -> String {
    let host = name(host);
    match port {
        Value::String(port) => format!("{host}:{}", name(port)),
        Value::Number(port) => format!("{host}:{port}"),
        _ => host,
    }
}

/// Rule F. `eth_getWork` alone is also asked of one's own node.
pub(super) fn eth_proxy(
    method: &str,
    message: &Value,
    side: Side,
    asked: &mut Asked,
) -> Option<Meaning> {
    let dialect = "eth-proxy";
    if method == "eth_getWork" {
        asked.note(side, message, What::GetWork, dialect);
        return Some(Meaning::new(false, Weight::Weak, dialect, method));
    }
    if !["eth_submitLogin", "eth_submitWork", "eth_submitHashrate"].contains(&method) {
        return None;
    }
    asked.eth_proxy = true;
    let mut meaning = Meaning::new(false, Weight::Strong, dialect, method);
    match method {
        "eth_submitLogin" => meaning.identify(message["params"].get(0).and_then(Value::as_str)),
        "eth_submitWork" => asked.note(side, message, What::Submit, dialect),
        _ => {}
    }
    Some(meaning)
}

/// Miners in web pages have a `type` where others have a method.
fn browser(kind: &str, message: &Value, side: Side, asked: &mut Asked) -> Option<Meaning> {
    let dialect = "browser";
    let params = &message["params"];
    let mut meaning = match kind {
        "auth" if text(params, "site_key").is_some() => {
            Meaning::new(false, Weight::Strong, dialect, kind)
        }
        "submit" if is_xmrig_share(params) => {
            asked.browser = true;
            Meaning::new(false, Weight::Strong, dialect, kind)
        }
        "job" if is_xmrig_job(params) => Meaning::new(true, Weight::Proof, dialect, kind),
        "hash_accepted" if asked.browser && asked.miner == Some(side.other()) => {
            Meaning::new(true, Weight::Proof, dialect, "share accepted")
        }
        _ => return None,
    };
    if !meaning.from_pool {
        asked.miner = Some(side);
        meaning.identify(text(params, "site_key"));
        meaning.coin = coin::of_dialect(dialect);
    }
    Some(meaning)
}
