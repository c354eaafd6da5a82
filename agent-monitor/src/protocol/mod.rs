//! Application protocols, recognised by their bytes.
//!
//! Parsers do no I/O and have no clock. Each is fed both sides of a flow in
//! order and answers "found", "not this" or "need more"; what it notices on the
//! way are [`Fact`]s. To add a protocol: a module with a [`Parser`], a line in
//! [`PROTOCOLS`], captures in `tests/data`.

#![forbid(unsafe_code)]

pub mod datagram;
pub mod dns;
pub mod ssh;
pub mod stratum;

/// An end of a flow, by who began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who connected.
    Initiator,
    /// Who accepted.
    Responder,
}

impl Side {
    /// The opposite end.
    pub fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

/// What a parser is fed: the next part of one side's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// Bytes, in order. One call is at most one segment.
    Bytes(&'a [u8]),
    /// A segment of this many bytes that were not captured.
    Skipped(u32),
    /// An unknown number of bytes is missing: captured out of order or lost.
    Gap,
}

/// Where a parser stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is this protocol; feed on.
    Found,
    /// It is not, or can no longer be followed; stop feeding.
    NotThis,
    /// It may be; feed on.
    NeedMore,
}

/// Follows one flow.
pub trait Parser: Send {
    /// Takes the next part of one side's stream and adds what it noticed to `facts`.
    fn feed(&mut self, side: Side, input: Input<'_>, facts: &mut Vec<Fact>) -> Answer;

    /// Whether segment sizes matter to it beyond the captured head.
    fn wants_segments(&self) -> bool {
        false
    }
}

/// One entry of the registry.
pub struct Protocol {
    /// Name, as in the `protocol` member of `flow` events.
    pub name: &'static str,
    /// Makes a parser for a new flow.
    pub parser: fn() -> Box<dyn Parser>,
}

/// Every protocol, tried together on each flow; the first found wins.
pub static PROTOCOLS: &[Protocol] = &[
    Protocol {
        name: dns::NAME,
        parser: || Box::new(dns::OverTcp::default()),
    },
    Protocol {
        name: "ssh",
        parser: || Box::new(ssh::Ssh::default()),
    },
    Protocol {
        name: "stratum",
        parser: || Box::new(stratum::Stratum::default()),
    },
];

/// What a parser noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// See [`dns::Fact`].
    Dns(dns::Fact),
    /// See [`ssh::Fact`].
    Ssh(ssh::Fact),
    /// See [`stratum::Fact`].
    Mining(stratum::Fact),
}

impl Fact {
    /// What was noticed, for a person.
    pub fn in_words(&self) -> Option<String> {
        match self {
            // It has an event of its own.
            Self::Dns(_) => None,
            Self::Ssh(fact) => Some(fact.in_words()),
            Self::Mining(fact) => Some(format!("{} {}", fact.dialect, fact.message)),
        }
    }
}
