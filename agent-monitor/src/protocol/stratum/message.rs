//! What one JSON object means to a miner or a pool.

use std::collections::VecDeque;

use serde_json::Value;

use super::{Side, Weight};

/// Requests remembered to tell what an answer answers.
const ASKED_MAX: usize = 64;
/// Longest request id remembered.
const ID_MAX: usize = 64;
/// Characters of an identity kept; a Monero address has 95, an integrated one 106.
const IDENTITY_MAX: usize = 128;

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
const POOL: &[(&str, Weight)] = &[
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

/// What a message means.
pub(super) struct Meaning {
    pub from_pool: bool,
    pub weight: Weight,
    pub dialect: &'static str,
    pub message: String,
    pub identity: Option<String>,
}

impl Meaning {
    fn new(from_pool: bool, weight: Weight, dialect: &'static str, message: &str) -> Self {
        Self {
            from_pool,
            weight,
            dialect,
            message: message.to_owned(),
            identity: None,
        }
    }
}

/// The miner's requests that wait for an answer.
#[derive(Default)]
pub(super) struct Asked {
    requests: VecDeque<Request>,
    /// Who said anything a miner says, which makes its peer a pool.
    miner: Option<Side>,
    /// Whether it logged in or submitted as only eth-proxy's miners do.
    eth_proxy: bool,
}

struct Request {
    side: Side,
    id: Value,
    what: What,
    dialect: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Subscribe,
    Submit,
    GetWork,
}

impl Asked {
    fn note(&mut self, side: Side, message: &Value, what: What, dialect: &'static str) {
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
    fn answered(&mut self, side: Side, id: &Value) -> Option<(What, &'static str)> {
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
    let message: Value = serde_json::from_slice(line).ok()?;
    match message.get("method") {
        Some(Value::String(method)) => called(method, &message, side, asked),
        Some(_) => None,
        None => answer(&message, side, asked),
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
                meaning.identity = text(params, "login").map(shortened);
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
    name: &str,
    method: &str,
    message: &Value,
    side: Side,
    asked: &mut Asked,
) -> Option<Meaning> {
    let dialect = if ETH2.contains(&name) {
        "stratum-eth2"
    } else {
        "stratum-v1"
    };
    if let Some((_, weight)) = POOL.iter().find(|(pool, _)| *pool == name) {
        return Some(Meaning::new(true, *weight, dialect, method));
    }
    if !MINER.contains(&name) {
        return None;
    }
    match name {
        "subscribe" | "hello" => asked.note(side, message, What::Subscribe, dialect),
        "submit" => asked.note(side, message, What::Submit, dialect),
        _ => {}
    }
    let mut meaning = Meaning::new(false, Weight::Strong, dialect, method);
    if ["subscribe", "authorize", "submit", "hello"].contains(&name) {
        let params = &message["params"];
        let identity = params.get(0).or_else(|| params.get("agent"));
        meaning.identity = identity.and_then(Value::as_str).map(shortened);
    }
    Some(meaning)
}

/// Rule F. `eth_getWork` alone is also asked of one's own node.
fn eth_proxy(method: &str, message: &Value, side: Side, asked: &mut Asked) -> Option<Meaning> {
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
        "eth_submitLogin" => {
            meaning.identity = message["params"]
                .get(0)
                .and_then(Value::as_str)
                .map(shortened);
        }
        "eth_submitWork" => asked.note(side, message, What::Submit, dialect),
        _ => {}
    }
    Some(meaning)
}

/// What an answer, or a push that looks like one, says.
fn answer(message: &Value, side: Side, asked: &mut Asked) -> Option<Meaning> {
    let result = message.get("result")?;
    let request = asked.answered(side, &message["id"]);
    // Rule D: work says itself what it is.
    if is_xmrig_job(&result["job"]) {
        return Some(Meaning::new(true, Weight::Proof, "xmrig", "login result"));
    }
    if is_xmrig_job(result) {
        return Some(Meaning::new(true, Weight::Proof, "xmrig", "job"));
    }
    if names_subscriptions(result) {
        return Some(Meaning::new(
            true,
            Weight::Strong,
            "stratum-v1",
            "subscribe result",
        ));
    }
    let is_work = is_eth_work(result);
    match request {
        Some((What::Submit, dialect)) if is_accepted(result) => {
            Some(Meaning::new(true, Weight::Proof, dialect, "share accepted"))
        }
        // KawPow and Equihash pools give `[null, "<nonce prefix>"]`.
        Some((What::Subscribe, dialect))
            if dialect != "xmrig" && (result.is_array() || result.is_object()) =>
        {
            Some(Meaning::new(
                true,
                Weight::Strong,
                dialect,
                "subscribe result",
            ))
        }
        // To a miner that logged in, work is also pushed with id 0.
        _ if is_work && asked.eth_proxy && asked.miner == Some(side.other()) => {
            Some(Meaning::new(true, Weight::Proof, "eth-proxy", "work"))
        }
        Some((What::GetWork, dialect)) if is_work => {
            Some(Meaning::new(true, Weight::Weak, dialect, "work"))
        }
        _ => None,
    }
}

/// `true`, or XMRig's `{"status":"OK"}`.
fn is_accepted(result: &Value) -> bool {
    *result == Value::Bool(true) || text(result, "status") == Some("OK")
}

/// `[[["mining.set_difficulty","…"],["mining.notify","…"]],"865dd8ac",8]`, or with one pair alone.
fn names_subscriptions(result: &Value) -> bool {
    let subscriptions = &result[0];
    let named = |pair: &Value| {
        pair.get(0)
            .and_then(Value::as_str)
            .and_then(|name| name.strip_prefix("mining."))
            .is_some_and(|name| POOL.iter().any(|(pool, _)| *pool == name))
    };
    named(subscriptions)
        || subscriptions
            .as_array()
            .is_some_and(|pairs| pairs.iter().any(named))
}

/// Rule D.
fn is_xmrig_job(job: &Value) -> bool {
    job.get("job_id").is_some()
        && is_hex(job, "blob", 100, usize::MAX)
        && is_hex(job, "target", 6, 16)
}

/// Rule E.
fn is_xmrig_share(params: &Value) -> bool {
    params.get("job_id").is_some()
        && is_hex(params, "nonce", 8, 16)
        && is_hex(params, "result", 64, 64)
}

/// Header hash, seed hash and boundary, 32 bytes each.
fn is_eth_work(result: &Value) -> bool {
    let is_hash = |value: &Value| {
        let hash = value.as_str().and_then(|text| text.strip_prefix("0x"));
        hash.is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    result
        .as_array()
        .is_some_and(|list| (3..=4).contains(&list.len()) && list[..3].iter().all(is_hash))
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn is_hex(value: &Value, key: &str, least: usize, most: usize) -> bool {
    text(value, key).is_some_and(|text| {
        (least..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn shortened(text: &str) -> String {
    text.chars().take(IDENTITY_MAX).collect()
}
