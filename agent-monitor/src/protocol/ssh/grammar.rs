//! What record sizes tell after NEWKEYS.
//!
//! Payload lengths are fixed by RFC 4252 and 4254, so sizes follow from the
//! cipher ([`Layout`]). In payload bytes:
//!
//! | message | payload |
//! |---|---|
//! | USERAUTH_SUCCESS, REQUEST_SUCCESS, REQUEST_FAILURE | 1 |
//! | REQUEST_SUCCESS with the port the server chose | 5 |
//! | CHANNEL_OPEN_CONFIRMATION | 17 |
//! | CHANNEL_OPEN `session` | 24 |
//! | global request `keepalive@openssh.com` | 27 |
//! | global request `tcpip-forward` | 27 + bind address |
//! | global request `streamlocal-forward@openssh.com` | 41 + path |
//! | DISCONNECT of OpenSSH's client | 33 |
//! | global request `no-more-sessions@openssh.com` | 34 |
//! | CHANNEL_OPEN `forwarded-tcpip` | 48 + bind address + origin |
//! | global request `hostkeys-prove-00@openssh.com` | ≥ 90 |
//!
//! On the wire that is (`etm` is aes128-ctr with hmac-sha2-256-etm, `e&m`
//! aes128-ctr with hmac-sha2-256; measured with OpenSSH 9.2p1 at both ends,
//! with asyncssh 2.24.1, ssh2 1.17.0 for Node, dropbear 2022.83, paramiko 2.12.0
//! and PuTTY 0.78 as its clients; what is marked `*` is computed only):
//!
//! | after auth success | chacha20 | gcm | etm | e&m |
//! |---|---|---|---|---|
//! | auth success, answer to a forward | 28 | 36 | 52 | 48 |
//! | `-N -R`, localhost | 68, 60 | 68, 68 | 84, 84 | 80, 80 |
//! | `-N -R '*:…'` | 52, 60 | 52, 68 | 68, 84 | 80, 80* |
//! | `-N -L`, `-N -D` | 60 | 68 | 84 | 80* |
//! | command, shell, sftp | 112, answer 44 | 120, 52 | 152, 68 | 160*, 64 |
//! | `-R` and a command | 68, 112 | 68, 120 | 84, 152 | 80, 160* |
//! | forwarded connection and its confirmation | 92, 44 | 100, 52 | 116, 68 | 112, 64 |
//!
//! Requests alone are ambiguous, so the answer is asked for too: only a global
//! request that wants a reply is answered by a record of the least size. OpenSSH's
//! server sends messages nobody asked for first, in one write or two: DEBUG (its
//! key options), `hostkeys-00@openssh.com`, DEBUG again. The length of the second
//! follows from the host-key types in its KEXINIT; that of DEBUG then from where
//! a segment ends.
//!
//! Segments may hold several records, so sums are compared; where a segment ends
//! is used only to tell the first record.

use super::kexinit::{Algorithms, KexInit};
use super::session::{Session, Told};
use super::sizes::Layout;
use super::{Fact, Side};

/// A segment this long may be one of several that carry one record (the IPv4 minimum MSS).
const MAY_BE_PART: u32 = 536;
/// Longest bind address or socket path asked for: a path fills `sockaddr_un`.
const FORWARD_MAX: u32 = 41 + 107;
/// Most forwards told in one flight: with more, sums of anything begin to fit.
const FORWARDS_MAX: u32 = 4;
/// Most keepalives told in one flight.
const KEEPALIVES_MAX: u32 = 16;
/// Bytes after which a flight that fits nothing is given up.
const FLIGHT_MAX: u32 = 8192;
/// Segment ends of the server's remembered in a flight.
const ENDS_MAX: usize = 16;

/// Follows the sizes of one connection.
pub(super) struct Grammar {
    client: Side,
    to_server: Layout,
    to_client: Layout,
    cipher: String,
    /// Sizes the server's `hostkeys-00@openssh.com` can have.
    hostkeys: Vec<u32>,
    /// Whether this client's keepalives may ask for an answer.
    keepalive_answered: bool,
    stage: Stage,
}

enum Stage {
    Auth(Auth),
    Flight(Flight),
    Session(Session),
    Forwarding(Forwarding),
    Over,
}

/// Until the server lets the client in.
#[derive(Default)]
struct Auth {
    success: bool,
    part: bool,
    last: Option<Side>,
    client_spoke: bool,
}

/// The client's first requests and the server's answers.
#[derive(Default)]
struct Flight {
    sent: u32,
    first: u32,
    /// What the client had sent before the server said anything.
    prompt: u32,
    received: u32,
    received_first: u32,
    ends: Vec<u32>,
    said: bool,
    proving: bool,
}

/// A forward was asked for, there is no session, and no channel is open.
#[derive(Default)]
struct Forwarding {
    /// Bytes from the server that the client has not answered.
    pending: u32,
    client_spoke: bool,
    proving: bool,
}

impl Grammar {
    /// None if sizes under what was agreed cannot be followed.
    pub fn new(client: Side, agreed: &Algorithms, server: &KexInit, banner: &str) -> Option<Self> {
        // Compressed payloads have no fixed length.
        if agreed.compression_to_server != "none" || agreed.compression_to_client != "none" {
            return None;
        }
        let to_server = Layout::of(&agreed.cipher_to_server, agreed.mac_to_server.as_deref())?;
        let to_client = Layout::of(&agreed.cipher_to_client, agreed.mac_to_client.as_deref())?;
        Some(Self {
            client,
            to_server,
            to_client,
            cipher: agreed.cipher_to_server.clone(),
            hostkeys: hostkeys_payloads(server)
                .map(|n| to_client.size(n))
                .to_vec(),
            // paramiko's say want_reply = false.
            keepalive_answered: !banner.starts_with("SSH-2.0-paramiko"),
            stage: Stage::Auth(Auth::default()),
        })
    }

    /// Takes what a segment of `of` bytes has after NEWKEYS; false once there is
    /// nothing more to learn.
    pub fn segment(&mut self, side: Side, bytes: u32, of: u32, facts: &mut Vec<Fact>) -> bool {
        if bytes == 0 {
            return true;
        }
        if matches!(&self.stage, Stage::Auth(_)) {
            self.auth(side, bytes, of);
            if !matches!(&self.stage, Stage::Flight(_)) {
                return !matches!(self.stage, Stage::Over);
            }
            facts.push(Fact::Authenticated {
                client: self.client,
            });
        }
        self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Flight(flight) => self.flight(flight, side, bytes, facts),
            Stage::Session(session) => self.session(session, side, bytes, facts),
            Stage::Forwarding(state) => self.forwarding(state, side, bytes, facts),
            Stage::Auth(_) | Stage::Over => Stage::Over,
        };
        !matches!(self.stage, Stage::Over)
    }

    fn layout(&self, side: Side) -> Layout {
        if side == self.client {
            self.to_server
        } else {
            self.to_client
        }
    }

    /// Waits for a segment that is USERAUTH_SUCCESS: no other message before it is as short.
    fn auth(&mut self, side: Side, bytes: u32, of: u32) {
        let whole = self.layout(side).is_whole(bytes);
        let Stage::Auth(auth) = &mut self.stage else {
            return;
        };
        if auth.last != Some(side) {
            auth.part = false;
        }
        auth.last = Some(side);
        if !whole && !auth.part && of < MAY_BE_PART {
            self.stage = Stage::Over;
        } else if auth.success {
            // The segment after it is whole records too, so it was no cut one.
            self.stage = Stage::Flight(Flight::default());
        } else if side == self.client {
            auth.client_spoke = true;
            auth.part |= of >= MAY_BE_PART;
        } else {
            auth.success = auth.client_spoke && !auth.part && bytes == self.to_client.size(1);
            auth.part |= of >= MAY_BE_PART;
        }
    }

    fn flight(&self, mut flight: Flight, side: Side, bytes: u32, facts: &mut Vec<Fact>) -> Stage {
        if !self.layout(side).is_whole(bytes) {
            return Stage::Over;
        }
        if side == self.client {
            if self.is_ignore(bytes) {
                return Stage::Flight(flight);
            }
            if flight.sent > 0 && self.is_prove(bytes) {
                flight.proving = true;
                return Stage::Flight(flight);
            }
            flight.sent = flight.sent.saturating_add(bytes);
            if flight.first == 0 {
                flight.first = bytes;
            } else if flight.sent == flight.first + bytes {
                self.two_segments(&mut flight, bytes, facts);
            }
            if flight.received == 0 {
                flight.prompt = flight.sent;
            }
        } else {
            if flight.received == 0 {
                flight.received_first = bytes;
            }
            flight.received = flight.received.saturating_add(bytes);
            if flight.ends.len() < ENDS_MAX {
                flight.ends.push(flight.received);
            }
        }
        if flight.sent > FLIGHT_MAX || flight.received > FLIGHT_MAX {
            return Stage::Over;
        }
        // An answer explains what was asked before it; only no-more-sessions, which
        // nobody answers, can still tell a forward from a keepalive.
        if side == self.client && bytes != self.to_server.size(34) {
            return Stage::Flight(flight);
        }
        match self.explain(&flight) {
            Explained::NotYet => Stage::Flight(flight),
            Explained::NoForward if self.opened_session(&flight) => {
                Stage::Session(Session::default())
            }
            Explained::NoForward => Stage::Over,
            Explained::Forward { answer, session } => {
                if !flight.said {
                    facts.push(Fact::ForwardRequested {
                        client: self.client,
                        shown_by: format!(
                            "after auth success the client sent {} bytes of requests and the server answered with {answer} ({})",
                            flight.sent, self.cipher
                        ),
                    });
                }
                if session {
                    // What follows the first requests is data of any size.
                    Stage::Session(Session::default())
                } else {
                    Stage::Forwarding(Forwarding {
                        proving: flight.proving,
                        ..Default::default()
                    })
                }
            }
        }
    }

    /// With chacha20's small blocks, a forward to `localhost` or an IPv4 address
    /// and OpenSSH's next write are told by their sizes, whatever the server says.
    fn two_segments(&self, flight: &mut Flight, second: u32, facts: &mut Vec<Fact>) {
        let size = |n| self.to_server.size(n);
        let (session, last) = (size(24), size(34));
        // No session, keepalive, no-more-sessions or CHANNEL_OPEN direct-tcpip
        // (≥ 46) may share the size; with larger blocks they do.
        let alone = [session, size(27), last, size(46)]
            .iter()
            .all(|&other| other != size(36));
        if alone && flight.first == size(36) && [last, session + last].contains(&second) {
            flight.said = true;
            facts.push(Fact::ForwardRequested {
                client: self.client,
                shown_by: format!(
                    "after auth success the client sent {} bytes, the size of a request to forward, then {second} ({})",
                    flight.first, self.cipher
                ),
            });
        }
    }

    /// What the sums of a flight mean.
    fn explain(&self, flight: &Flight) -> Explained {
        let size = |n| self.to_client.size(n);
        let (yes, confirmation) = (size(1), size(17));
        let mut other = false;
        for answer in self.answers(flight) {
            // With a session first: taking a session for none would let its data
            // pass for a forwarded connection.
            let session = if self
                .fits(flight, answer.checked_sub(confirmation), &[true])
                .is_some()
            {
                Some(true)
            } else {
                self.fits(flight, Some(answer), &[false, true])
            };
            match session {
                Some(session) if !self.keepalives(flight, answer) => {
                    return Explained::Forward { answer, session };
                }
                // Keepalives after no-more-sessions: that client cannot forward later.
                Some(_) => other |= flight.first == self.to_server.size(34),
                // A channel was opened or refused.
                None => other |= answer <= confirmation + yes,
            }
        }
        if other {
            Explained::NoForward
        } else {
            Explained::NotYet
        }
    }

    /// Whether the client opened a session, and nothing else.
    fn opened_session(&self, flight: &Flight) -> bool {
        let size = |n| self.to_server.size(n);
        [size(24), size(24) + size(34)].contains(&flight.sent)
            && self.answers(flight).contains(&self.to_client.size(17))
    }

    /// Waits for the answers to what is asked in a session.
    fn session(
        &self,
        mut session: Session,
        side: Side,
        bytes: u32,
        facts: &mut Vec<Fact>,
    ) -> Stage {
        if !self.layout(side).is_whole(bytes) {
            return Stage::Over;
        }
        match session.segment(self.client, side, bytes, self.to_client) {
            Told::NotYet => return Stage::Session(session),
            Told::Terminal(terminal, answer) => facts.push(Fact::Session {
                client: self.client,
                terminal,
                shown_by: format!(
                    "the server answered what was asked in it with {answer} bytes ({})",
                    self.cipher
                ),
            }),
            Told::Never => {}
        }
        Stage::Over
    }

    /// If `answer` is answers to one or more forwards, whether there is a
    /// session beside them, tried in the order given.
    fn fits(&self, flight: &Flight, answer: Option<u32>, sessions: &[bool]) -> Option<bool> {
        let answer = answer.filter(|&answer| answer > 0)?;
        let (yes, port) = (self.to_client.size(1), self.to_client.size(5));
        let answered = if answer == port {
            1
        } else {
            (1..=FORWARDS_MAX).find(|n| answer == n * yes)?
        };
        sessions
            .iter()
            .copied()
            .find(|&session| self.asks(flight, answered, session))
    }

    /// Whether the client's sum can be at least `answered` forwards, with or without a session.
    fn asks(&self, flight: &Flight, answered: u32, session: bool) -> bool {
        let size = |n| self.to_server.size(n);
        let session = if session { size(24) } else { 0 };
        // OpenSSH ends with no-more-sessions, unless it shares its connection.
        [size(34), 0].into_iter().any(|last| {
            flight.sent.checked_sub(session + last).is_some_and(|sum| {
                (answered..=FORWARDS_MAX).any(|n| {
                    self.to_server.can_be(sum, n, size(27)) && sum <= n * size(FORWARD_MAX)
                })
            })
        })
    }

    /// Lengths that the server's answers can have in all, without what it says unasked.
    fn answers(&self, flight: &Flight) -> Vec<u32> {
        let is_debug = |bytes| bytes >= self.to_client.size(40) && self.to_client.is_record(bytes);
        let mut answers = Vec::new();
        let mut add = |unasked: u32| answers.extend(flight.received.checked_sub(unasked));
        if flight.received_first <= self.to_client.size(40) {
            add(0);
        }
        for &hostkeys in &self.hostkeys {
            add(hostkeys);
            for end in &flight.ends {
                let Some(debug) = end.checked_sub(hostkeys) else {
                    continue;
                };
                if is_debug(debug) {
                    add(*end);
                    add(end + debug);
                } else if debug.is_multiple_of(2) && is_debug(debug / 2) {
                    add(*end);
                }
            }
        }
        answers.retain(|&answer| self.to_client.is_whole(answer));
        answers
    }

    /// Whether the same sums can be keepalives, after no-more-sessions or not.
    fn keepalives(&self, flight: &Flight, answer: u32) -> bool {
        let size = |n| self.to_server.size(n);
        let (keepalive, last, disconnect) = (size(27), size(34), size(33));
        // Nobody sends one before the server's first word after letting it in, unless
        // that says nothing unasked: then the order tells, as OpenSSH asks for forwards
        // before it says no-more-sessions.
        let unprompted = flight.sent == flight.prompt;
        let silent = flight.received == answer;
        let in_order = silent && flight.first == last && keepalive != last;
        if !self.keepalive_answered || (unprompted && !in_order) {
            return false;
        }
        // Who has no answer yet does not leave.
        let ends = match unprompted {
            true => &[0][..],
            false => &[0, disconnect],
        };
        // A first segment that is neither is a cut one, and tells nothing.
        let after_last = flight.first == last || (flight.first < last && flight.first != size(27));
        let from_start = flight.prompt == 0;
        (1..=KEEPALIVES_MAX).any(|n| {
            let sum = n * keepalive;
            (1..=n).any(|answered| answer == answered * self.to_client.size(1))
                && ends.iter().any(|end| {
                    let sum = sum + end;
                    (after_last && flight.sent == last + sum) || (from_start && flight.sent == sum)
                })
        })
    }

    /// Waits for a connection the server opens and the client takes.
    fn forwarding(
        &self,
        mut state: Forwarding,
        side: Side,
        bytes: u32,
        facts: &mut Vec<Fact>,
    ) -> Stage {
        let size = |n| self.layout(side).size(n);
        if !self.layout(side).is_whole(bytes) {
            return Stage::Over;
        }
        // forwarded-tcpip with no bind address and the shortest origin, `::1`.
        let open = self.to_client.size(48 + 3);
        if side != self.client {
            if state.proving && bytes >= size(88) {
                state.proving = false;
            } else if bytes == size(17) && (state.client_spoke || bytes != size(27)) {
                // The client opened a channel of its own.
                return Stage::Over;
            } else if bytes != size(1) && bytes != size(5) {
                state.pending = state.pending.saturating_add(bytes);
            }
            state.client_spoke = false;
        } else if self.is_ignore(bytes) {
            return Stage::Forwarding(state);
        } else if state.pending >= open {
            let taken = (1..=4).any(|n| bytes == n * size(17) && state.pending >= n * open);
            if taken {
                facts.push(Fact::ForwardedOpen {
                    client: self.client,
                    shown_by: format!(
                        "with no session, the server sent {} bytes and the client answered with {bytes} ({})",
                        state.pending, self.cipher
                    ),
                });
                return Stage::Over;
            }
            // CHANNEL_OPEN_FAILURE and its reason: nothing listens inside.
            if !self.to_server.is_record(bytes) || bytes > size(80) {
                return Stage::Over;
            }
            state.pending = 0;
        } else if self.is_prove(bytes) {
            state.proving = true;
        } else if bytes == size(1) {
            state.pending = 0;
        } else if bytes == size(34) || bytes == size(27) {
            state.client_spoke = true;
        } else {
            return Stage::Over;
        }
        Stage::Forwarding(state)
    }

    /// asyncssh sends records of this size between its requests, taken for IGNORE.
    fn is_ignore(&self, bytes: u32) -> bool {
        bytes == self.to_server.size(5)
    }

    /// A question about the server's host keys, one ed25519 key at the least.
    fn is_prove(&self, bytes: u32) -> bool {
        bytes >= self.to_server.size(90) && self.to_server.is_record(bytes)
    }
}

/// What a flight's sums mean.
enum Explained {
    NotYet,
    NoForward,
    Forward {
        /// Bytes of the server's answers.
        answer: u32,
        session: bool,
    },
}

/// Payload lengths of `hostkeys-00@openssh.com` for the host keys a server
/// offers, with an RSA key of 2048, 3072 or 4096 bits.
fn hostkeys_payloads(server: &KexInit) -> [u32; 3] {
    let has = |name: &str| server.host_key.iter().any(|n| n == name);
    let rsa = has("rsa-sha2-256") || has("rsa-sha2-512") || has("ssh-rsa");
    [279, 407, 535].map(|rsa_blob| {
        let blobs = [
            (has("ssh-ed25519"), 51),
            (has("ecdsa-sha2-nistp256"), 104),
            (has("ecdsa-sha2-nistp384"), 136),
            (has("ecdsa-sha2-nistp521"), 172),
            (rsa, rsa_blob),
        ];
        29 + blobs
            .iter()
            .filter(|(has, _)| *has)
            .map(|(_, blob)| 4 + blob)
            .sum::<u32>()
    })
}
