//! TLS: what a client asks for, in clear before encryption begins.
//!
//! A ClientHello may be cut into any number of records and segments (`hello`
//! reads it whole); `ja4` is its fingerprint.

pub mod hello;
pub mod ja4;

#[cfg(test)]
mod tests;

use super::{Answer, Input, Parser, Side, Wants};
use hello::Hello;

/// Longest ClientHello followed, with its header: a post-quantum one has 2 KiB.
const HELLO_MAX: usize = 16 * 1024;
/// Longest record: 2^14 bytes and what TLS 1.2 lets encryption add (RFC 5246, 6.2.3).
const RECORD_MAX: usize = (1 << 14) + 2048;
/// Type, version, length (RFC 8446, 5.1).
const HEADER: usize = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Who sent it, usually who connected.
    pub side: Side,
    /// The name of the server (RFC 6066, 3).
    pub sni: Option<String>,
    /// Protocols offered inside (RFC 7301).
    pub alpn: Vec<String>,
    /// Fingerprint of the client's library.
    pub ja4: String,
}

impl Fact {
    /// What a hello says; `transport` is `t` over TCP, `q` in QUIC.
    pub fn new(side: Side, transport: char, hello: Hello) -> Self {
        Self {
            side,
            ja4: ja4::ja4(transport, &hello),
            sni: hello.sni,
            alpn: hello.alpn,
        }
    }

    /// Adds it, and what it says of tunnel programs, to `facts`.
    pub(super) fn tell(self, facts: &mut Vec<super::Fact>) {
        facts.extend(super::tool::by_hello(&self).map(super::Fact::Tool));
        facts.push(super::Fact::Tls(self));
    }

    /// The fact in a few words.
    pub fn in_words(&self) -> String {
        let transport = match self.ja4.starts_with('q') {
            true => "QUIC",
            false => "TLS",
        };
        let mut words = vec![transport.to_owned()];
        words.push(match &self.sni {
            Some(name) => format!("to {name}"),
            None => "without a server name".to_owned(),
        });
        if !self.alpn.is_empty() {
            words.push(format!("for {}", self.alpn.join(", ")));
        }
        words.push(format!("(JA4 {})", self.ja4));
        words.join(" ")
    }
}

/// Whether these may be the first bytes of a ClientHello's record.
pub fn begins(bytes: &[u8]) -> bool {
    matches!(bytes, [HANDSHAKE, 3, 0..=4, _, _, CLIENT_HELLO, ..])
}

/// Follows one connection.
#[derive(Default)]
pub struct Tls {
    halves: [Half; 2],
    found: bool,
    told: bool,
}

/// One side's records, as far as its first handshake message.
#[derive(Default)]
struct Half {
    /// The current record's header so far.
    header: Vec<u8>,
    /// Bytes of the current record to come.
    left: usize,
    message: Vec<u8>,
    /// Nothing more is looked at.
    done: bool,
}

/// What a side's bytes are.
enum Seen {
    NeedMore,
    Client(Hello),
    Server,
    NotTls,
}

impl Parser for Tls {
    fn feed(&mut self, side: Side, input: Input<'_>, facts: &mut Vec<super::Fact>) -> Answer {
        let half = &mut self.halves[side as usize];
        match input {
            Input::Bytes(bytes) if !half.done => match half.bytes(bytes) {
                Seen::NeedMore => {}
                Seen::NotTls if !self.found => return Answer::NotThis,
                Seen::NotTls => {}
                Seen::Server => self.found = true,
                Seen::Client(hello) => {
                    self.found = true;
                    self.told = true;
                    Fact::new(side, 't', hello).tell(facts);
                }
            },
            Input::Skipped(0) | Input::Bytes(_) => {}
            Input::Skipped(_) | Input::Gap => half.done = true,
        }
        match self.found {
            true => Answer::Found,
            false if self.halves.iter().all(|half| half.done) => Answer::NotThis,
            false => Answer::NeedMore,
        }
    }

    fn held(&self) -> usize {
        self.halves.iter().map(|half| half.message.capacity()).sum()
    }

    fn wants(&self) -> Wants {
        if self.told {
            Wants::Nothing
        } else {
            Wants::Head
        }
    }
}

impl Half {
    fn bytes(&mut self, mut rest: &[u8]) -> Seen {
        while !rest.is_empty() && !self.done {
            if self.left == 0 {
                self.header.push(rest[0]);
                rest = &rest[1..];
                match *self.header.as_slice() {
                    [HANDSHAKE] | [HANDSHAKE, 3] | [HANDSHAKE, 3, 0..=4] => {}
                    [HANDSHAKE, 3, 0..=4, _] => {}
                    [HANDSHAKE, 3, 0..=4, high, low] => {
                        self.left = usize::from(u16::from_be_bytes([high, low]));
                        self.header.clear();
                        if self.left == 0 || self.left > RECORD_MAX {
                            return self.give_up();
                        }
                    }
                    _ => return self.give_up(),
                }
                continue;
            }
            let (part, after) = rest.split_at(self.left.min(rest.len()));
            rest = after;
            self.left -= part.len();
            let room = HELLO_MAX - self.message.len();
            self.message
                .extend_from_slice(&part[..part.len().min(room)]);
            if part.len() > room {
                return self.give_up();
            }
            match *self.message.as_slice() {
                // The handshake's own header: type and u24 length.
                [CLIENT_HELLO, high, middle, low, ref body @ ..] => {
                    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
                    if length > HELLO_MAX {
                        return self.give_up();
                    }
                    if let Some(body) = body.get(..length) {
                        let hello = Hello::parse(body);
                        self.give_up();
                        return hello.map_or(Seen::NotTls, Seen::Client);
                    }
                }
                [SERVER_HELLO, 0, _, _, 3, ..] => {
                    self.give_up();
                    return Seen::Server;
                }
                [CLIENT_HELLO | SERVER_HELLO, ..] if self.message.len() < HEADER => {}
                _ => return self.give_up(),
            }
        }
        Seen::NeedMore
    }

    fn give_up(&mut self) -> Seen {
        self.done = true;
        self.message = Vec::new();
        Seen::NotTls
    }
}
