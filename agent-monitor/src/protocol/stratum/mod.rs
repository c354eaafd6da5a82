//! Mining-pool protocols of JSON lines: Stratum v1, XMRig's, and their kin.
//!
//! `lines` cuts a stream into messages; `message` says what one means. A
//! message is a JSON object at the first byte of the stream or of a line, so
//! that a download which merely contains one is not taken for a pool session.

mod lines;
mod message;

#[cfg(test)]
mod tests;

use super::{Answer, Input, Parser, Side};
use lines::Lines;

/// Bytes of one side that may come before a first message, as a JSON protocol
/// that turns out to be another one.
const PREFIX_MAX: u64 = 64 * 1024;
/// The same where neither side began with JSON: a proxy's handshake or an HTTP
/// exchange may precede a pool session. Rules on the first 8 KiB of a side had
/// no false hit on public captures.
const OTHER_MAX: u64 = 8 * 1024;
/// Bytes of a line kept as evidence.
const BYTES_MAX: usize = 256;

/// How much a message proves by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Seen in honest programs too.
    Weak,
    /// Only miners and pools say this.
    Strong,
    /// The pool hands out work or accepts a share.
    Proof,
}

/// A message of a mining protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Who sent it.
    pub side: Side,
    /// Whether a miner or a pool says this.
    pub from_pool: bool,
    /// How much it proves.
    pub weight: Weight,
    /// `stratum-v1`, `stratum-eth2`, `xmrig` or `eth-proxy`.
    pub dialect: &'static str,
    /// What it is: the method, or `job`, `login result`, `subscribe result`, `share accepted`, `work`.
    pub message: String,
    /// Login, wallet or agent string in it, shortened.
    pub identity: Option<String>,
    /// Its side of the stream began with JSON; otherwise something came before,
    /// such as a proxy's handshake or the head of a download.
    pub plain: bool,
    /// At most 256 bytes of the line, as received.
    pub bytes: Vec<u8>,
}

/// Follows one flow.
#[derive(Default)]
pub struct Stratum {
    initiator: Lines,
    responder: Lines,
    asked: message::Asked,
    /// Which side has said anything of a mining protocol.
    spoke: [bool; 2],
    found: bool,
}

impl Parser for Stratum {
    fn feed(&mut self, side: Side, input: Input<'_>, facts: &mut Vec<super::Fact>) -> Answer {
        let lines = match side {
            Side::Initiator => &mut self.initiator,
            Side::Responder => &mut self.responder,
        };
        let asked = &mut self.asked;
        let mut noticed = Vec::new();
        let mut take = |line: &[u8]| {
            let Some(meaning) = message::meaning(line, side, asked) else {
                return;
            };
            noticed.push(Fact {
                side,
                from_pool: meaning.from_pool,
                weight: meaning.weight,
                dialect: meaning.dialect,
                message: meaning.message,
                identity: meaning.identity,
                plain: true,
                bytes: line[..line.len().min(BYTES_MAX)].to_vec(),
            });
        };
        match input {
            Input::Bytes(bytes) => lines.bytes(bytes, &mut take),
            Input::Skipped(count) => lines.missing(u64::from(count)),
            Input::Gap => lines.missing(0),
        }
        let plain = !lines.cannot_be_json();
        if !noticed.is_empty() {
            self.spoke[side as usize] = true;
            // After something else, one side alone may be a document.
            self.found |= plain || self.spoke == [true; 2];
        }
        facts.extend(
            noticed
                .into_iter()
                .map(|fact| super::Fact::Mining(Fact { plain, ..fact })),
        );
        let seen = self.initiator.seen().max(self.responder.seen());
        let other = self.initiator.cannot_be_json() && self.responder.cannot_be_json();
        if self.found {
            Answer::Found
        } else if seen > if other { OTHER_MAX } else { PREFIX_MAX } {
            Answer::NotThis
        } else {
            Answer::NeedMore
        }
    }
}
