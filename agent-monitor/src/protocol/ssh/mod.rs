//! SSH on the wire (RFC 4253), and what its record sizes tell once encrypted.
//!
//! `stream` reads the part in clear: identification strings, KEXINIT, who
//! sends which key-exchange message. `sizes` knows how long a record of a
//! given payload is under each cipher. `grammar` follows those lengths after
//! NEWKEYS: authentication, a session, a forward asked for, a connection
//! through it.
//!
//! The SSH client is whoever behaves as one, which can be the side that
//! accepted the TCP connection. When sizes cannot be followed (bytes missing,
//! compression, an unknown cipher) the size grammar stops and says nothing more.

mod grammar;
mod kexinit;
mod session;
mod sizes;
mod stream;
mod words;

#[cfg(test)]
mod tests;

pub use kexinit::Algorithms;

use super::{Answer, Input, Parser, Side, Wants};
use grammar::Grammar;
use kexinit::KexInit;
use stream::{Piece, Stream};

/// What was noticed on an SSH flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// An identification string (RFC 4253, 4.2), without its line end.
    Banner {
        /// Who sent it.
        side: Side,
        /// `SSH-2.0-…`, control characters as received.
        text: String,
    },
    /// Both sides agreed on algorithms.
    Kex {
        /// Which side is the SSH client, by the key-exchange messages it sends.
        client: Side,
        /// What they agreed on.
        algorithms: Box<Algorithms>,
        /// HASSH of the client: which program it is, more or less.
        hassh: String,
        /// The same of the server.
        hassh_server: String,
    },
    /// A record size says that the server let the client in.
    Authenticated {
        /// Which side is the SSH client.
        client: Side,
    },
    /// Record sizes say that the client opened a session.
    Session {
        /// Which side is the SSH client.
        client: Side,
        /// It asked for a terminal, as for a shell; not so for a command.
        terminal: bool,
        /// The sizes that show it, in words.
        shown_by: String,
    },
    /// Record sizes say that the client asked the server to forward a port back.
    ForwardRequested {
        /// Which side is the SSH client.
        client: Side,
        /// The sizes that show it, in words.
        shown_by: String,
    },
    /// Record sizes say that a connection came in through such a forward and was taken.
    ForwardedOpen {
        /// Which side is the SSH client.
        client: Side,
        /// The sizes that show it, in words.
        shown_by: String,
    },
}

/// Follows one SSH flow.
#[derive(Default)]
pub struct Ssh {
    initiator: Stream,
    responder: Stream,
    initiator_kexinit: Option<Box<KexInit>>,
    responder_kexinit: Option<Box<KexInit>>,
    found: bool,
    sizes: Sizes,
}

/// Whether record sizes are followed.
#[derive(Default)]
enum Sizes {
    /// The part in clear is not over.
    #[default]
    NotYet,
    Followed(Grammar),
    /// There is nothing more to learn from them, or they cannot be followed.
    Over,
}

impl Parser for Ssh {
    fn feed(&mut self, side: Side, input: Input<'_>, facts: &mut Vec<super::Fact>) -> Answer {
        let stream = match side {
            Side::Initiator => &mut self.initiator,
            Side::Responder => &mut self.responder,
        };
        let mut pieces = Vec::new();
        stream.feed(input, &mut pieces);
        for piece in pieces {
            self.take(side, piece, facts);
        }
        match (self.initiator.hopeless(), self.responder.hopeless()) {
            _ if self.found => Answer::Found,
            (false, false) if self.initiator.speaks_other() && self.responder.speaks_other() => {
                Answer::NotThis
            }
            (false, false) => Answer::NeedMore,
            _ => Answer::NotThis,
        }
    }

    fn held(&self) -> usize {
        let kexinits = [&self.initiator_kexinit, &self.responder_kexinit];
        let kexinits = kexinits.into_iter().flatten().map(|kexinit| kexinit.held());
        self.initiator.held() + self.responder.held() + kexinits.sum::<usize>()
    }

    fn wants(&self) -> Wants {
        match self.sizes {
            Sizes::Over => Wants::Nothing,
            Sizes::Followed(_) | Sizes::NotYet => Wants::Segments,
        }
    }
}

impl Ssh {
    fn take(&mut self, side: Side, piece: Piece, facts: &mut Vec<super::Fact>) {
        match piece {
            Piece::Banner(text) => {
                self.found = true;
                facts.extend(super::tool::by_banner(&text).map(super::Fact::Tool));
                facts.push(super::Fact::Ssh(Fact::Banner { side, text }));
            }
            Piece::KexInit(kexinit) => match side {
                Side::Initiator => self.initiator_kexinit = Some(kexinit),
                Side::Responder => self.responder_kexinit = Some(kexinit),
            },
            Piece::Message(number) => {
                if let Some(client) = client_by_message(side, number) {
                    self.role_known(client, facts);
                }
            }
            Piece::Segment { bytes, of } => {
                if let Sizes::Followed(grammar) = &mut self.sizes {
                    let mut found = Vec::new();
                    if !grammar.segment(side, bytes, of, &mut found) {
                        self.sizes = Sizes::Over;
                    }
                    facts.extend(found.into_iter().map(super::Fact::Ssh));
                }
            }
            Piece::Lost => self.sizes = Sizes::Over,
        }
    }

    fn role_known(&mut self, client: Side, facts: &mut Vec<super::Fact>) {
        if !matches!(self.sizes, Sizes::NotYet) {
            return;
        }
        let kexinits = (self.initiator_kexinit.take(), self.responder_kexinit.take());
        let (Some(initiator), Some(responder)) = kexinits else {
            (self.initiator_kexinit, self.responder_kexinit) = kexinits;
            return;
        };
        let (client_kexinit, server_kexinit, banner) = match client {
            Side::Initiator => (initiator, responder, self.initiator.banner()),
            Side::Responder => (responder, initiator, self.responder.banner()),
        };
        let Some(algorithms) = kexinit::negotiate(&client_kexinit, &server_kexinit) else {
            self.sizes = Sizes::Over;
            return;
        };
        self.sizes = match Grammar::new(client, &algorithms, &server_kexinit, banner) {
            Some(grammar) => Sizes::Followed(grammar),
            None => Sizes::Over,
        };
        facts.push(super::Fact::Ssh(Fact::Kex {
            client,
            algorithms: Box::new(algorithms),
            hassh: client_kexinit.hassh,
            hassh_server: server_kexinit.hassh_server,
        }));
    }
}

/// Key-exchange messages that only one role sends: 30 KEXDH/ECDH_INIT, 31 its
/// reply or GEX_GROUP, 32 GEX_INIT, 33 GEX_REPLY, 34 GEX_REQUEST (RFC 4253,
/// 4419, 5656).
fn client_by_message(sender: Side, number: u8) -> Option<Side> {
    match number {
        30 | 32 | 34 => Some(sender),
        31 | 33 => Some(sender.other()),
        _ => None,
    }
}
