//! Mining-pool protocols of JSON lines: Stratum v1 and XMRig's.

use super::{Answer, Input, Parser, Side};

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
    /// `stratum-v1` or `xmrig`.
    pub dialect: &'static str,
    /// What it is: the method, or `job`, `login result`.
    pub message: String,
    /// Login, wallet or agent string in it, shortened.
    pub identity: Option<String>,
    /// At most 256 bytes of the line, as received.
    pub bytes: Vec<u8>,
}

/// Follows one flow.
#[derive(Default)]
pub struct Stratum {}

impl Parser for Stratum {
    fn feed(&mut self, _side: Side, _input: Input<'_>, _facts: &mut Vec<super::Fact>) -> Answer {
        Answer::NotThis
    }
}
