//! What an answer, or a push that looks like one, says.

use serde_json::Value;

use super::message::{Asked, POOL, What};
use super::shape::{is_accepted, is_eth_work, is_xmrig_job};
use super::{Meaning, Side, Weight};

/// What an object without a method says, if a pool says it.
pub(super) fn meaning(message: &Value, side: Side, asked: &mut Asked) -> Option<Meaning> {
    let result = message.get("result")?;
    let request = asked.answered(side, &message["id"]);
    // Rule D: work says itself what it is.
    if is_xmrig_job(&result["job"]) {
        return Some(Meaning::new(true, Weight::Proof, "xmrig", "login result"));
    }
    if is_xmrig_job(result) {
        return Some(Meaning::new(true, Weight::Proof, "xmrig", "job"));
    }
    let subscribed = |dialect| Meaning::new(true, Weight::Strong, dialect, "subscribe result");
    if names_subscriptions(result) {
        return Some(subscribed("stratum-v1"));
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
            Some(subscribed(dialect))
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
