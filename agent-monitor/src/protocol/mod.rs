//! Application protocols, recognised by their bytes.
//!
//! Parsers do no I/O and have no clock. Each is fed both sides of a flow in
//! order and answers "found", "not this" or "need more"; what it notices on the
//! way are [`Fact`]s. A carrier (a proxy's handshake, WebSocket frames) hands on
//! what it carries, which [`layers`] parse again. To add a protocol: a module
//! with a [`Parser`], a line in [`PROTOCOLS`], captures in `tests/data`.

#![forbid(unsafe_code)]

#[cfg(test)]
pub(crate) mod captured;
pub mod datagram;
pub mod dns;
pub mod http;
pub mod http2;
pub mod layers;
pub mod proxy;
pub mod quic;
pub mod shell;
pub mod socks;
pub mod ssh;
pub mod stratum;
pub mod tls;
pub mod tool;

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

/// What a parser that found its protocol can still make use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wants {
    /// It has its answer.
    Nothing,
    /// Bytes of the head, as far as they are captured anyway.
    Head,
    /// Segments' sizes beyond the captured head.
    Segments,
    /// Bytes beyond it.
    Bytes,
    /// Every byte, as long as it lives.
    All,
}

/// Follows one flow.
pub trait Parser: Send {
    /// Takes the next part of one side's stream and adds what it noticed to `facts`.
    fn feed(&mut self, side: Side, input: Input<'_>, facts: &mut Vec<Fact>) -> Answer;

    /// What it can still make use of, once found.
    fn wants(&self) -> Wants {
        Wants::Head
    }

    /// Bytes of memory that an unfinished message takes, if it may take more than a few hundred.
    fn held(&self) -> usize {
        0
    }

    /// Takes out what was carried in the input fed last.
    fn carried(&mut self) -> Vec<Carried> {
        Vec::new()
    }

    /// Whether what it carries is cut in frames, so that segments' sizes tell nothing of it.
    fn is_framed(&self) -> bool {
        false
    }

    /// Told before the first input when it is not the stream's beginning.
    fn after_other(&mut self) {}
}

/// A part of a stream inside another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Bytes, in order.
    Bytes(Side, Vec<u8>),
    /// That many bytes of it were not captured.
    Skipped(Side, u32),
    /// An unknown number of its bytes is missing.
    Gap(Side),
}

/// One entry of the registry.
pub struct Protocol {
    /// Name, as in the `protocol` member of `flow` events.
    pub name: &'static str,
    /// Makes a parser for a new flow.
    pub parser: fn() -> Box<dyn Parser>,
    /// Whether these may be the first bytes of a session. Asked of bytes that
    /// come after something else.
    pub begins: fn(&[u8]) -> bool,
    /// What it looks like can be nothing else, so that others need not be tried
    /// beside it. A miner may send an HTTP request first.
    pub exclusive: bool,
}

/// Every protocol, tried together on each flow; the first found wins. Carriers
/// come first: what they carry is not for the others.
pub static PROTOCOLS: &[Protocol] = &[
    Protocol {
        name: "http",
        parser: || Box::new(http::Http::default()),
        begins: http::begins,
        exclusive: false,
    },
    Protocol {
        name: "http2",
        parser: || Box::new(http2::Http2::default()),
        begins: http2::begins,
        exclusive: true,
    },
    Protocol {
        name: "socks",
        parser: || Box::new(socks::Socks::default()),
        begins: socks::begins,
        exclusive: true,
    },
    Protocol {
        name: dns::NAME,
        parser: || Box::new(dns::OverTcp::default()),
        begins: |_| false,
        exclusive: true,
    },
    Protocol {
        name: "tls",
        parser: || Box::new(tls::Tls::default()),
        begins: tls::begins,
        exclusive: true,
    },
    Protocol {
        name: "ssh",
        parser: || Box::new(ssh::Ssh::default()),
        begins: |bytes| bytes.starts_with(b"SSH-"),
        exclusive: true,
    },
    Protocol {
        name: "stratum",
        parser: || Box::new(stratum::Stratum::default()),
        begins: stratum::begins,
        exclusive: true,
    },
    Protocol {
        name: "stratum-v2",
        parser: || Box::new(stratum::v2::StratumV2::default()),
        begins: |_| false,
        exclusive: true,
    },
    Protocol {
        name: "tunnel-tool",
        parser: || Box::new(tool::Tools::default()),
        begins: |_| false,
        exclusive: true,
    },
    Protocol {
        name: "shell",
        parser: || Box::new(shell::Shell::default()),
        begins: |_| false,
        exclusive: true,
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
    /// See [`http::Fact`].
    Http(http::Fact),
    /// See [`socks::Fact`].
    Socks(socks::Fact),
    /// See [`proxy::Granted`].
    Proxy(proxy::Granted),
    /// See [`shell::Fact`].
    Shell(shell::Fact),
    /// See [`tls::Fact`].
    Tls(tls::Fact),
    /// See [`tool::Fact`].
    Tool(tool::Fact),
}

impl Fact {
    /// What was noticed, for a person.
    pub fn in_words(&self) -> Option<String> {
        match self {
            // It has an event of its own.
            Self::Dns(_) => None,
            Self::Ssh(fact) => Some(fact.in_words()),
            Self::Mining(fact) => Some(fact.in_words()),
            Self::Http(fact) => Some(fact.in_words()),
            Self::Socks(fact) => Some(fact.in_words()),
            Self::Proxy(granted) => Some(granted.in_words()),
            Self::Shell(fact) => fact.in_words(),
            Self::Tls(fact) => Some(fact.in_words()),
            Self::Tool(fact) => Some(fact.in_words()),
        }
    }

    /// The name of the server that is asked for, if this says it.
    pub fn server_name(&self) -> Option<&str> {
        match self {
            Self::Http(fact) => fact.server_name(),
            Self::Socks(fact) => Some(&fact.host),
            Self::Tls(fact) => fact.sni.as_deref(),
            Self::Dns(_)
            | Self::Ssh(_)
            | Self::Mining(_)
            | Self::Proxy(_)
            | Self::Shell(_)
            | Self::Tool(_) => None,
        }
    }
}

/// Longest name of a server kept; a DNS name has at most 253 characters (RFC 1035, 2.3.4).
const NAME_MAX: usize = 255;

/// What the other end sent, as text of at most `max` characters.
fn text(bytes: &[u8], max: usize) -> String {
    let bytes = &bytes[..bytes.len().min(4 * max)];
    String::from_utf8_lossy(bytes).chars().take(max).collect()
}
