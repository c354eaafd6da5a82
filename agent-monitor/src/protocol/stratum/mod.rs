//! Mining-pool protocols.
//!
//! Most are lines of JSON: Stratum v1 and its kin, XMRig's, eth-proxy. `lines`
//! cuts a stream into messages; `message` says what a miner's one means,
//! `answer` what a pool's. A message is a JSON object at the first byte of the
//! stream or of a line, so that a download which merely contains one is not
//! taken for a pool session. `http` knows getwork and its successors, which are
//! asked over HTTP; `v2` knows Stratum V2, which is binary and encrypted.

mod answer;
mod coin;
mod http;
mod lines;
mod message;
mod shape;
pub mod v2;

#[cfg(test)]
mod tests;

use super::{Answer, Input, Parser, Side, Wants};
pub(super) use http::OverHttp;
use lines::Lines;

/// Bytes of one side that may come before a first message, as a JSON protocol
/// that turns out to be another one.
const PREFIX_MAX: u64 = 64 * 1024;
/// The same where neither side began with JSON: a proxy's handshake or an HTTP
/// exchange may precede a pool session. Rules on the first 8 KiB of a side had
/// no false hit on public captures.
const OTHER_MAX: u64 = 8 * 1024;
/// Bytes of one side after which a session has told what it will.
const ENOUGH: u64 = 64 * 1024;
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
    /// `stratum-v1`, `stratum-eth1`, `stratum-eth2`, `stratum-v2`, `xmrig`, `browser`,
    /// `eth-proxy`, `getwork` or `getblocktemplate`.
    pub dialect: &'static str,
    /// What it is: the method, or `job`, `login result`, `subscribe result`, `share accepted`, `work`.
    pub message: String,
    /// Which coins are mined, as far as the message tells.
    pub coin: Option<&'static str>,
    /// Wallet or login, shortened.
    pub identity: Option<String>,
    /// The mining program, by its own words.
    pub agent: Option<String>,
    /// The pool's name, by the miner's words.
    pub pool: Option<String>,
    /// Its side of the stream began with JSON; otherwise something came before,
    /// such as a proxy's handshake or the head of a download.
    pub plain: bool,
    /// At most 256 bytes of the line, as received.
    pub bytes: Vec<u8>,
}

impl Fact {
    /// The fact in a few words.
    pub fn in_words(&self) -> String {
        format!("{} {}", self.dialect, self.message)
    }

    /// Whether it is asked of a node over HTTP, which owners of a node do too.
    pub fn is_asked_of_node(&self) -> bool {
        ["getwork", "getblocktemplate"].contains(&self.dialect)
    }
}

/// What a message means.
struct Meaning {
    from_pool: bool,
    weight: Weight,
    dialect: &'static str,
    message: String,
    coin: Option<&'static str>,
    identity: Option<String>,
    agent: Option<String>,
    pool: Option<String>,
}

impl Meaning {
    fn new(from_pool: bool, weight: Weight, dialect: &'static str, message: &str) -> Self {
        Self {
            from_pool,
            weight,
            dialect,
            message: message.to_owned(),
            coin: coin::of_dialect(dialect),
            identity: None,
            agent: None,
            pool: None,
        }
    }

    /// Says who mines, which often tells what is mined.
    fn identify(&mut self, identity: Option<&str>) {
        let Some(identity) = identity else {
            return;
        };
        self.coin = coin::of_wallet(identity).or(self.coin);
        self.identity = Some(shape::shortened(identity));
    }

    fn into_fact(self, side: Side, plain: bool, line: &[u8]) -> Fact {
        Fact {
            side,
            from_pool: self.from_pool,
            weight: self.weight,
            dialect: self.dialect,
            message: self.message,
            coin: self.coin,
            identity: self.identity,
            agent: self.agent,
            pool: self.pool,
            plain,
            bytes: line[..line.len().min(BYTES_MAX)].to_vec(),
        }
    }
}

/// Whether these may be the first bytes of a session: a JSON object.
pub fn begins(bytes: &[u8]) -> bool {
    match bytes.trim_ascii_start() {
        [b'{', rest @ ..] => rest.trim_ascii_start().first() == Some(&b'"'),
        _ => false,
    }
}

/// Follows one flow of JSON lines.
#[derive(Default)]
pub struct Stratum {
    initiator: Lines,
    responder: Lines,
    asked: message::Asked,
    /// Which side has said anything of a mining protocol.
    spoke: [bool; 2],
    /// The pool has handed out work, or accepted a share.
    proved: bool,
    found: bool,
    /// Something else came before the first input.
    late: bool,
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
            let meaning = message::meaning(line, side, asked);
            noticed.extend(meaning.map(|meaning| meaning.into_fact(side, true, line)));
        };
        match input {
            Input::Bytes(bytes) => lines.bytes(bytes, &mut take),
            Input::Skipped(count) => lines.missing(u64::from(count), &mut take),
            Input::Gap => lines.missing(0, &mut take),
        }
        let plain = !self.late && !lines.cannot_be_json();
        if !noticed.is_empty() {
            self.spoke[side as usize] = true;
            // After something else, one side alone may be a document.
            self.found |= plain || self.spoke == [true; 2];
        }
        self.proved |= noticed.iter().any(|fact| fact.weight == Weight::Proof);
        facts.extend(
            noticed
                .into_iter()
                .map(|fact| super::Fact::Mining(Fact { plain, ..fact })),
        );
        let other =
            self.late || (self.initiator.cannot_be_json() && self.responder.cannot_be_json());
        if self.found {
            Answer::Found
        } else if self.seen() > if other { OTHER_MAX } else { PREFIX_MAX } {
            Answer::NotThis
        } else {
            Answer::NeedMore
        }
    }

    fn held(&self) -> usize {
        self.initiator.held() + self.responder.held()
    }

    fn wants(&self) -> Wants {
        if self.seen() > ENOUGH || (self.proved && self.spoke == [true; 2]) {
            Wants::Nothing
        } else {
            Wants::Bytes
        }
    }

    fn after_other(&mut self) {
        self.late = true;
    }
}

impl Stratum {
    fn seen(&self) -> u64 {
        self.initiator.seen().max(self.responder.seen())
    }
}
