//! QUIC: what a client asks for.
//!
//! The keys of a client's first packets follow from what is in clear in them
//! (RFC 9001, 5.2; RFC 9369, 3.3), so that anybody on the way can read its
//! ClientHello. `packet` reads packets, `crypto` puts the pieces of the hello in
//! order, which may be spread over several packets and datagrams.

mod crypto;
mod packet;

#[cfg(test)]
mod tests;

use rustls::Side as Role;
use rustls::quic::{Keys, Suite};

use super::datagram::DatagramParser;
use super::tls::{self, hello::Hello};
use super::{Answer, Fact, Side};
use crypto::Crypto;
use packet::{Initial, Kind, Packet};

/// The protocol's name in `flow` events.
pub const NAME: &str = "quic";

/// Datagrams that may come before the hello is whole: it has two at most in
/// practice, and either may be sent again.
const TRIES_MAX: u32 = 16;

/// Follows one flow.
#[derive(Default)]
pub struct Quic {
    /// Destination id of the packet that the keys are of, and the keys.
    keys: Option<(Vec<u8>, Keys)>,
    crypto: Crypto,
    tries: u32,
    found: bool,
    over: bool,
}

impl DatagramParser for Quic {
    fn held(&self) -> usize {
        self.crypto.held()
    }

    fn datagram(&mut self, side: Side, bytes: &[u8], _len: u32, facts: &mut Vec<Fact>) -> Answer {
        if !self.over {
            self.tries += 1;
            self.read(side, bytes, facts);
            if self.tries == TRIES_MAX {
                self.end();
            }
        }
        match self.found {
            true => Answer::Found,
            false if self.over => Answer::NotThis,
            false => Answer::NeedMore,
        }
    }
}

impl Quic {
    /// Reads the packets of a datagram.
    fn read(&mut self, side: Side, mut rest: &[u8], facts: &mut Vec<Fact>) {
        while let Some((packet, after)) = Packet::read(rest) {
            rest = after;
            let Kind::Initial(initial) = packet.kind else {
                continue;
            };
            let Some(frames) = self.open(&packet, &initial) else {
                continue;
            };
            self.found = true;
            crypto::pieces(&frames, |offset, piece| self.crypto.take(offset, piece));
            match self.crypto.message() {
                Some(Ok(body)) => {
                    if let Some(hello) = Hello::parse(body) {
                        tls::Fact::new(side, 'q', hello).tell(facts);
                    }
                    return self.end();
                }
                Some(Err(_)) => return self.end(),
                None => {}
            }
        }
    }

    /// Decrypts a client's packet with the keys in use, or with those of its own
    /// destination: the first one's, and after a Retry the next one's.
    fn open(&mut self, packet: &Packet<'_>, initial: &Initial) -> Option<Vec<u8>> {
        if let Some((_, keys)) = &self.keys
            && let Some(frames) = initial.open(packet, &keys.remote)
        {
            return Some(frames);
        }
        if self.keys.as_ref().is_some_and(|(id, _)| id == packet.to) {
            return None;
        }
        let keys = suite()?.keys(packet.to, Role::Server, packet.version);
        let frames = initial.open(packet, &keys.remote)?;
        self.keys = Some((packet.to.to_vec(), keys));
        self.crypto = Crypto::default();
        Some(frames)
    }

    fn end(&mut self) {
        self.over = true;
        self.keys = None;
        self.crypto = Crypto::default();
    }
}

/// What Initial packets are protected with (RFC 9001, 5.2).
fn suite() -> Option<Suite> {
    use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    TLS13_AES_128_GCM_SHA256.tls13()?.quic_suite()
}
