//! What values in messages look like.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

/// Characters of a wallet or a login that are shown of each end, if it is long.
const SHOWN: usize = 12;
/// Longest text kept whole.
const TEXT_MAX: usize = 64;

/// Reads a JSON object as far as it goes: what comes after something that is
/// no JSON, or after bytes that were not captured, is left out.
pub(super) fn object(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    let mut entries = Map::new();
    let mut json = serde_json::Deserializer::from_str(&text);
    // What was read before an error is in `entries`.
    let _ = Entries(&mut entries).deserialize(&mut json);
    Value::Object(entries)
}

struct Entries<'a>(&'a mut Map<String, Value>);

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry()? {
            self.0.insert(key, value);
        }
        Ok(())
    }
}

/// `true`, or XMRig's `{"status":"OK"}`.
pub(super) fn is_accepted(result: &Value) -> bool {
    *result == Value::Bool(true) || text(result, "status") == Some("OK")
}

/// Rule D.
pub(super) fn is_xmrig_job(job: &Value) -> bool {
    job.get("job_id").is_some()
        && is_hex(job, "blob", 100, usize::MAX)
        && is_hex(job, "target", 6, 16)
}

/// Rule E.
pub(super) fn is_xmrig_share(params: &Value) -> bool {
    params.get("job_id").is_some()
        && is_hex(params, "nonce", 8, 16)
        && is_hex(params, "result", 64, 64)
}

/// Header hash, seed hash and boundary, 32 bytes each.
pub(super) fn is_eth_work(result: &Value) -> bool {
    let is_hash = |value: &Value| {
        let hash = value.as_str().and_then(|text| text.strip_prefix("0x"));
        hash.is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    result
        .as_array()
        .is_some_and(|list| (3..=4).contains(&list.len()) && list[..3].iter().all(is_hash))
}

/// A member that is text.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

/// Whether a member is text of so many hexadecimal digits.
pub(super) fn is_hex(value: &Value, key: &str, least: usize, most: usize) -> bool {
    text(value, key).is_some_and(|text| {
        (least..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// A wallet or login as far as it is shown.
pub(super) fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= 2 * SHOWN + 1 {
        return text.to_owned();
    }
    let head: String = text.chars().take(SHOWN).collect();
    let tail: String = text.chars().skip(count - SHOWN).collect();
    format!("{head}…{tail}")
}

/// The name of a program or a pool as far as it is kept.
pub(super) fn name(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}
