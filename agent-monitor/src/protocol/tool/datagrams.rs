//! Tunnel programs that speak over UDP: WireGuard and Tailscale.
//!
//! WireGuard's messages (<https://www.wireguard.com/protocol/>) have a type, three
//! zero bytes, and sizes that do not vary; an answer names the question by its
//! index. Tailscale adds messages of its own to find ways between peers
//! (disco/disco.go of its source).

use super::super::datagram::DatagramParser;
use super::super::{Answer, Fact as AnyFact, Side};
use super::{BYTES_MAX, Fact, is_digest};

/// A handshake's initiation and its response.
const INITIATION: usize = 148;
const RESPONSE: usize = 92;
/// Ephemeral key in an initiation.
const EPHEMERAL: std::ops::Range<usize> = 8..40;
/// Initiations remembered until one is answered.
const ASKED_MAX: usize = 4;
/// What Tailscale's own messages begin with: `TS💬`.
const DISCO: &[u8] = b"TS\xf0\x9f\x92\xac";
/// They are that, the sender's key, a nonce, and a box with a tag.
const DISCO_MIN: usize = 6 + 32 + 24 + 16;
/// Datagrams looked at.
const LOOKED_AT: u32 = 16;

/// Looks at the first datagrams of one flow.
#[derive(Default)]
pub struct OverDatagrams {
    asked: Vec<Asked>,
    seen: u32,
    told: Vec<&'static str>,
}

struct Asked {
    side: Side,
    index: [u8; 4],
    bytes: Vec<u8>,
}

impl DatagramParser for OverDatagrams {
    fn datagram(&mut self, side: Side, bytes: &[u8], len: u32, facts: &mut Vec<AnyFact>) -> Answer {
        self.seen += 1;
        let is_whole = u32::try_from(bytes.len()) == Ok(len);
        let found = match disco(bytes) {
            Some(fact) => Some(fact),
            None if is_whole => self.wireguard(side, bytes),
            None => None,
        };
        if let Some(fact) = found.filter(|fact| !self.told.contains(&fact.tool)) {
            self.told.push(fact.tool);
            facts.push(AnyFact::Tool(fact));
        }
        match self.told.is_empty() {
            false => Answer::Found,
            true if self.seen < LOOKED_AT => Answer::NeedMore,
            true => Answer::NotThis,
        }
    }
}

impl OverDatagrams {
    fn wireguard(&mut self, side: Side, bytes: &[u8]) -> Option<Fact> {
        match (bytes, bytes.len()) {
            ([1, 0, 0, 0, index @ ..], INITIATION) if is_digest(&bytes[EPHEMERAL]) => {
                let index = *index.first_chunk()?;
                // Without an answer it asks again, with new keys.
                let again = |asked: &Asked| {
                    asked.side == side && asked.bytes[EPHEMERAL] != bytes[EPHEMERAL]
                };
                if self.asked.iter().any(again) {
                    let words = "two handshakes of 148 bytes without an answer";
                    return Some(Fact::new("WireGuard", words, bytes));
                }
                if self.asked.len() < ASKED_MAX {
                    let bytes = bytes[..BYTES_MAX].to_vec();
                    self.asked.push(Asked { side, index, bytes });
                }
                None
            }
            ([2, 0, 0, 0, _, _, _, _, index @ ..], RESPONSE) => {
                let index = index.first_chunk::<4>()?;
                let mut asked = self.asked.iter();
                let asked = asked.find(|asked| asked.side != side && asked.index == *index)?;
                let words = "a handshake of 148 bytes and its answer of 92";
                Some(Fact::new("WireGuard", words, &asked.bytes))
            }
            _ => None,
        }
    }
}

fn disco(bytes: &[u8]) -> Option<Fact> {
    let is_disco = bytes.len() >= DISCO_MIN && bytes.starts_with(DISCO);
    is_disco.then(|| {
        Fact::new(
            "Tailscale",
            "a message that looks for a way to a peer",
            bytes,
        )
    })
}
