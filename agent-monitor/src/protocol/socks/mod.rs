//! SOCKS 4, 4a and 5 (RFC 1928, 1929): what a proxy is asked to connect to,
//! and what is carried once it has.

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Answer, Carried, Input, NAME_MAX, Parser, Side, Wants, proxy, text};

/// Longest handshake of one side: 257 bytes of methods, 513 of a password, 262 of a request.
const HANDSHAKE_MAX: usize = 2048;

/// A proxy was asked to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// `4`, `4a` or `5`.
    pub version: &'static str,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Fact {
    /// The fact in a few words.
    pub fn in_words(&self) -> String {
        format!("SOCKS{} to {}", self.version, self.target())
    }

    fn target(&self) -> String {
        let Self { host, port, .. } = self;
        match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        }
    }
}

/// Whether these may be a client's first bytes. Few, so the whole message has to fit.
pub fn begins(bytes: &[u8]) -> bool {
    match bytes {
        [5, methods, rest @ ..] => *methods > 0 && rest.len() == usize::from(*methods),
        [4, 1, rest @ ..] => rest.len() >= 7 && rest.last() == Some(&0),
        _ => false,
    }
}

/// Follows one connection to a proxy.
#[derive(Default)]
pub struct Socks {
    step: Step,
    /// What each side sent of its handshake and was not taken yet.
    buffers: [Vec<u8>; 2],
    carried: Vec<Carried>,
    /// What was asked for, and the bytes that said it.
    asked: Option<(Fact, Vec<u8>)>,
    /// Something was carried, so that it is for others to say what they want.
    has_carried: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Greeting,
    Method,
    Password,
    Admission,
    Request,
    Reply4,
    Reply5,
    Granted,
}

/// What became of a step.
enum Outcome {
    /// Bytes taken, and the next step.
    Next(usize, Step),
    /// The same of a request.
    Asked(usize, Step, Fact),
    NeedMore,
    NotThis,
}

impl Parser for Socks {
    fn feed(&mut self, side: Side, input: Input<'_>, facts: &mut Vec<super::Fact>) -> Answer {
        match (self.step, input) {
            (Step::Granted, Input::Bytes(bytes)) => {
                self.carried.push(Carried::Bytes(side, bytes.to_vec()));
            }
            (Step::Granted, Input::Skipped(count)) => {
                self.carried.push(Carried::Skipped(side, count));
            }
            (Step::Granted, Input::Gap) => self.carried.push(Carried::Gap(side)),
            (_, Input::Bytes(bytes)) => {
                self.buffers[side as usize].extend_from_slice(bytes);
                if !self.advance(facts) {
                    return Answer::NotThis;
                }
            }
            (_, Input::Skipped(0)) => {}
            (_, Input::Skipped(_) | Input::Gap) => return Answer::NotThis,
        }
        if self.asked.is_some() || self.step == Step::Granted {
            Answer::Found
        } else {
            Answer::NeedMore
        }
    }

    fn wants(&self) -> Wants {
        match self.step {
            Step::Granted if self.has_carried => Wants::Nothing,
            _ => Wants::Bytes,
        }
    }

    fn carried(&mut self) -> Vec<Carried> {
        self.has_carried |= !self.carried.is_empty();
        std::mem::take(&mut self.carried)
    }
}

impl Socks {
    /// Takes whole messages; false if this is not SOCKS.
    fn advance(&mut self, facts: &mut Vec<super::Fact>) -> bool {
        loop {
            let side = match self.step {
                Step::Greeting | Step::Password | Step::Request => Side::Initiator,
                Step::Method | Step::Admission | Step::Reply4 | Step::Reply5 => Side::Responder,
                Step::Granted => {
                    self.hand_on();
                    return true;
                }
            };
            // A server never speaks first.
            if self.step == Step::Greeting && !self.buffers[Side::Responder as usize].is_empty() {
                return false;
            }
            let buffer = &self.buffers[side as usize];
            match take(self.step, buffer) {
                Outcome::Asked(taken, step, fact) => {
                    let request = self.buffers[side as usize].drain(..taken).collect();
                    facts.push(super::Fact::Socks(fact.clone()));
                    self.asked = Some((fact, request));
                    self.step = step;
                }
                Outcome::Next(taken, step) => {
                    let message = self.buffers[side as usize].drain(..taken).collect();
                    if step == Step::Granted
                        && let Some((fact, request)) = self.asked.take()
                    {
                        facts.push(super::Fact::Proxy(proxy::Granted {
                            by: format!("SOCKS{}", fact.version),
                            target: fact.target(),
                            request,
                            reply: message,
                        }));
                    }
                    self.step = step;
                }
                Outcome::NeedMore => {
                    return self
                        .buffers
                        .iter()
                        .all(|buffer| buffer.len() <= HANDSHAKE_MAX);
                }
                Outcome::NotThis => return false,
            }
        }
    }

    /// What was sent before the tunnel was known to be granted.
    fn hand_on(&mut self) {
        for side in [Side::Initiator, Side::Responder] {
            let waiting = std::mem::take(&mut self.buffers[side as usize]);
            if !waiting.is_empty() {
                self.carried.push(Carried::Bytes(side, waiting));
            }
        }
    }
}

/// Takes the message of a step from the first bytes of its side.
fn take(step: Step, bytes: &[u8]) -> Outcome {
    match (step, bytes) {
        (_, []) => Outcome::NeedMore,
        (Step::Greeting, [4, ..]) => request4(bytes),
        (Step::Greeting, [5, 0, ..]) => Outcome::NotThis,
        (Step::Greeting, [5, methods, rest @ ..]) if rest.len() >= usize::from(*methods) => {
            Outcome::Next(2 + usize::from(*methods), Step::Method)
        }
        (Step::Greeting, [5] | [5, _, ..]) => Outcome::NeedMore,
        (Step::Method, [5, 0, ..]) => Outcome::Next(2, Step::Request),
        (Step::Method, [5, 2, ..]) => Outcome::Next(2, Step::Password),
        (Step::Method, [5]) => Outcome::NeedMore,
        (Step::Password, [1, rest @ ..]) => {
            let after_name = rest
                .split_first()
                .and_then(|(n, rest)| rest.get(usize::from(*n)..));
            let after = after_name
                .and_then(|rest| rest.split_first())
                .and_then(|(n, rest)| rest.get(usize::from(*n)..));
            match after {
                Some(after) => Outcome::Next(bytes.len() - after.len(), Step::Admission),
                None => Outcome::NeedMore,
            }
        }
        (Step::Admission, [1, 0, ..]) => Outcome::Next(2, Step::Request),
        (Step::Admission, [1]) => Outcome::NeedMore,
        (Step::Request, _) => request5(bytes),
        (Step::Reply4, [0, 90, ..]) if bytes.len() >= 8 => Outcome::Next(8, Step::Granted),
        (Step::Reply4, [0] | [0, 90, ..]) => Outcome::NeedMore,
        (Step::Reply5, [5] | [5, 0] | [5, 0, _]) => Outcome::NeedMore,
        (Step::Reply5, [5, 0, _, ..]) => match address(&bytes[3..]) {
            Some(Ok((_, _, length))) => Outcome::Next(3 + length, Step::Granted),
            Some(Err(())) => Outcome::NotThis,
            None => Outcome::NeedMore,
        },
        _ => Outcome::NotThis,
    }
}

/// A request of SOCKS 4: command, port, address, user, and in 4a a name.
fn request4(bytes: &[u8]) -> Outcome {
    let [_, command, high, low, a, b, c, d, rest @ ..] = bytes else {
        return match bytes {
            [4, command, ..] if *command != 1 => Outcome::NotThis,
            _ => Outcome::NeedMore,
        };
    };
    if *command != 1 {
        return Outcome::NotThis;
    }
    let Some(user) = memchr::memchr(0, rest) else {
        return if rest.len() > NAME_MAX {
            Outcome::NotThis
        } else {
            Outcome::NeedMore
        };
    };
    let port = u16::from_be_bytes([*high, *low]);
    let named = [*a, *b, *c] == [0; 3] && *d != 0;
    let (version, host, length) = if named {
        let name = &rest[user + 1..];
        match memchr::memchr(0, name) {
            Some(end) => ("4a", text(&name[..end], NAME_MAX), user + 1 + end + 1),
            None if name.len() > NAME_MAX => return Outcome::NotThis,
            None => return Outcome::NeedMore,
        }
    } else {
        ("4", Ipv4Addr::new(*a, *b, *c, *d).to_string(), user + 1)
    };
    let fact = Fact {
        version,
        host,
        port,
    };
    Outcome::Asked(8 + length, Step::Reply4, fact)
}

fn request5(bytes: &[u8]) -> Outcome {
    match bytes {
        [5] | [5, 1] | [5, 1, 0] => return Outcome::NeedMore,
        [5, 1, 0, ..] => {}
        _ => return Outcome::NotThis,
    }
    match address(&bytes[3..]) {
        Some(Ok((host, port, length))) => {
            let version = "5";
            let fact = Fact {
                version,
                host,
                port,
            };
            Outcome::Asked(3 + length, Step::Reply5, fact)
        }
        Some(Err(())) => Outcome::NotThis,
        None => Outcome::NeedMore,
    }
}

/// Host, port and length of an address with its type in front; nothing if it is not whole.
fn address(bytes: &[u8]) -> Option<Result<(String, u16, usize), ()>> {
    let (kind, rest) = bytes.split_first()?;
    let (host, after, length) = match kind {
        1 => {
            let (ip, after) = rest.split_first_chunk::<4>()?;
            (Ipv4Addr::from(*ip).to_string(), after, 4)
        }
        4 => {
            let (ip, after) = rest.split_first_chunk::<16>()?;
            (Ipv6Addr::from(*ip).to_string(), after, 16)
        }
        3 => {
            let (length, rest) = rest.split_first()?;
            let (name, after) = rest.split_at_checked(usize::from(*length))?;
            (text(name, NAME_MAX), after, 1 + name.len())
        }
        _ => return Some(Err(())),
    };
    let port = after.first_chunk().map(|port| u16::from_be_bytes(*port))?;
    Some(Ok((host, port, 1 + length + 2)))
}
