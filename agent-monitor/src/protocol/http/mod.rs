//! HTTP/1: what is asked of whom, and what a connection becomes.
//!
//! `head` reads a request's or a response's head, `body` where its body ends.
//! A CONNECT that is answered with success, and an upgrade, turn the connection
//! into something else, which is carried on as it is, or out of WebSocket's
//! frames (`websocket`). So is what follows when one side no longer speaks HTTP
//! where a message has to begin: an HTTP prefix hides nothing.

mod body;
mod head;
mod inflate;
mod websocket;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::{Answer, Carried, Input, NAME_MAX, Parser, Side, Wants, proxy, stratum, text, tool};
use body::Body;
pub(super) use head::Request;
use head::{Begin, HEAD_MAX, Response};
use websocket::Frames;

/// Requests that wait for their answer on one connection; beyond, it cannot be followed.
const ASKED_MAX: usize = 64;
/// Requests told of on one connection, unless they are for another host.
const TOLD_MAX: u32 = 16;

/// What was noticed on an HTTP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The first request for a host.
    Request {
        /// `GET` and so on.
        method: String,
        /// The host it is for, without its port.
        host: Option<String>,
    },
    /// A proxy was asked to connect.
    Connect {
        /// The host, without its port.
        host: String,
        /// `host:port` as sent.
        target: String,
    },
    /// The connection becomes something else.
    Upgraded {
        /// `websocket` and so on, as the server says.
        to: String,
        /// Path that was asked for.
        path: String,
        /// The client's `Sec-WebSocket-Protocol`.
        subprotocol: Option<String>,
    },
}

impl Fact {
    /// The fact in a few words.
    pub fn in_words(&self) -> String {
        match self {
            Self::Request { method, host } => match host {
                Some(host) => format!("HTTP {method} for {host}"),
                None => format!("HTTP {method}"),
            },
            Self::Connect { target, .. } => format!("HTTP CONNECT to {target}"),
            Self::Upgraded {
                to, subprotocol, ..
            } => match subprotocol {
                Some(name) => format!("upgraded to {to}, {name}"),
                None => format!("upgraded to {to}"),
            },
        }
    }

    /// The host that is asked for.
    pub fn server_name(&self) -> Option<&str> {
        match self {
            Self::Request { host, .. } => host.as_deref(),
            Self::Connect { host, .. } => Some(host),
            Self::Upgraded { .. } => None,
        }
    }
}

/// Whether these may be the first bytes of a request.
pub fn begins(bytes: &[u8]) -> bool {
    head::begin(bytes) == Begin::Request && head::is_first_line(bytes)
}

/// Follows one connection.
#[derive(Default)]
pub struct Http {
    halves: [Half; 2],
    client: Option<Side>,
    asked: VecDeque<Asked>,
    mode: Mode,
    /// Requests told of, and the host of the last one.
    told: u32,
    host: Option<String>,
    mining: stratum::OverHttp,
    carried: Vec<Carried>,
    /// Something was carried, so that it is for others to say what they want.
    has_carried: bool,
}

#[derive(Default)]
enum Mode {
    /// No whole head was seen.
    #[default]
    Unknown,
    Http,
    /// Something else that is carried as it is.
    Other,
    /// WebSocket, by side.
    Frames(Box<[Frames; 2]>),
}

/// One side's stream.
#[derive(Default)]
struct Half {
    state: State,
    /// The head so far, or what a client sent before its tunnel was granted.
    buffer: Vec<u8>,
}

#[derive(Default)]
enum State {
    #[default]
    Head,
    Body(Body),
    /// Bytes are missing: up to what looks like a head at a segment's begin.
    Lost,
}

/// What a request asked for that its answer depends on.
struct Asked {
    head: bool,
    /// The first line of a request to connect.
    connect: Option<Connect>,
    /// Path and subprotocol, if it asked for an upgrade.
    upgrade: Option<(String, Option<String>)>,
}

/// A request to connect.
struct Connect {
    target: String,
    line: Vec<u8>,
}

impl Parser for Http {
    fn feed(&mut self, side: Side, input: Input<'_>, facts: &mut Vec<super::Fact>) -> Answer {
        match input {
            Input::Bytes(bytes) => {
                let lost = matches!(self.halves[side as usize].state, State::Lost);
                if lost && head::is_first_line(bytes) {
                    self.halves[side as usize] = Half::default();
                }
                if !self.bytes(side, bytes, facts) {
                    return Answer::NotThis;
                }
            }
            Input::Skipped(0) => {}
            Input::Skipped(count) => self.missing(side, Some(count)),
            Input::Gap => self.missing(side, None),
        }
        match self.mode {
            Mode::Unknown if self.is_lost() => Answer::NotThis,
            Mode::Unknown => Answer::NeedMore,
            _ => Answer::Found,
        }
    }

    fn held(&self) -> usize {
        let held = |half: &Half| {
            let body = match &half.state {
                State::Body(body) => body.held(),
                State::Head | State::Lost => 0,
            };
            half.buffer.capacity() + body
        };
        let frames = match &self.mode {
            Mode::Frames(frames) => frames.iter().map(Frames::held).sum(),
            _ => 0,
        };
        self.halves.iter().map(held).sum::<usize>() + frames
    }

    fn wants(&self) -> Wants {
        match self.mode {
            Mode::Other if self.has_carried => Wants::Nothing,
            Mode::Other | Mode::Unknown => Wants::Bytes,
            Mode::Http | Mode::Frames(_) => Wants::Head,
        }
    }

    fn carried(&mut self) -> Vec<Carried> {
        self.has_carried |= !self.carried.is_empty();
        std::mem::take(&mut self.carried)
    }

    fn is_framed(&self) -> bool {
        matches!(self.mode, Mode::Frames(_))
    }
}

impl Http {
    fn is_lost(&self) -> bool {
        let lost = |half: &Half| matches!(half.state, State::Lost);
        self.halves.iter().all(lost)
    }

    /// Takes bytes; false if this is not HTTP.
    fn bytes(&mut self, side: Side, mut rest: &[u8], facts: &mut Vec<super::Fact>) -> bool {
        while !rest.is_empty() {
            match &mut self.mode {
                Mode::Other => {
                    self.carried.push(Carried::Bytes(side, rest.to_vec()));
                    return true;
                }
                Mode::Frames(frames) => {
                    frames[side as usize].bytes(side, rest, &mut self.carried);
                    return true;
                }
                Mode::Unknown | Mode::Http => {}
            }
            let half = &mut self.halves[side as usize];
            match &mut half.state {
                State::Lost => return true,
                State::Body(body) => {
                    let taken = body.bytes(rest);
                    rest = &rest[taken..];
                    if body.is_over() {
                        let json = body.take_json();
                        half.state = State::Head;
                        self.body(side, &json, facts);
                    }
                }
                State::Head => {
                    // Between messages a line end too many is overlooked (RFC 9112, 2.2).
                    if half.buffer.is_empty() && (rest[0] == b'\r' || rest[0] == b'\n') {
                        rest = &rest[1..];
                        continue;
                    }
                    let waits = Some(side) == self.client
                        && (self.asked.iter())
                            .any(|asked| asked.connect.is_some() || asked.upgrade.is_some());
                    if waits {
                        // What comes before the answer is the tunnel's, if it is granted.
                        let room = HEAD_MAX.saturating_sub(half.buffer.len());
                        half.buffer.extend_from_slice(&rest[..rest.len().min(room)]);
                        return true;
                    }
                    let seen = half.buffer.len();
                    half.buffer.extend_from_slice(rest);
                    let end = head::end(&half.buffer, seen);
                    if head::begin(&half.buffer) == Begin::Neither
                        || (end.is_none() && half.buffer.len() > HEAD_MAX)
                    {
                        if matches!(self.mode, Mode::Unknown) {
                            return false;
                        }
                        // It is no longer HTTP; what it is now begins here.
                        self.become_other(side, Mode::Other);
                        return true;
                    }
                    let Some(end) = end else {
                        return true;
                    };
                    let head = std::mem::take(&mut half.buffer);
                    rest = &rest[end - seen..];
                    if !self.head(side, &head[..end], facts) {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Takes a whole head; false if it is none.
    fn head(&mut self, side: Side, head: &[u8], facts: &mut Vec<super::Fact>) -> bool {
        let understood = match head::begin(head) {
            Begin::Response => Response::parse(head).map(|response| {
                self.response(side, &response, head, facts);
            }),
            _ => Request::parse(head).map(|request| {
                self.client = Some(side);
                self.request(side, &request, head, facts);
            }),
        };
        if understood.is_none() {
            self.halves[side as usize].state = State::Lost;
            return !matches!(self.mode, Mode::Unknown);
        }
        true
    }

    fn request(
        &mut self,
        side: Side,
        request: &Request,
        head: &[u8],
        facts: &mut Vec<super::Fact>,
    ) {
        if matches!(self.mode, Mode::Unknown) {
            self.mode = Mode::Http;
        }
        let connect = request.method == "CONNECT";
        if self.told < TOLD_MAX && (connect || self.told == 0 || self.host != request.host) {
            self.told += 1;
            self.host.clone_from(&request.host);
            facts.push(super::Fact::Http(match (connect, &request.host) {
                (true, Some(host)) => Fact::Connect {
                    host: host.clone(),
                    target: text(request.target.as_bytes(), NAME_MAX),
                },
                _ => Fact::Request {
                    method: request.method.clone(),
                    host: request.host.clone(),
                },
            }));
        }
        facts.extend(self.mining.request(side, request, head));
        facts.extend(tool::by_upgrade(request).map(super::Fact::Tool));
        if self.asked.len() == ASKED_MAX {
            self.halves[side as usize].state = State::Lost;
            return;
        }
        self.asked.push_back(Asked {
            head: request.method == "HEAD",
            connect: connect.then(|| Connect {
                target: text(request.target.as_bytes(), NAME_MAX),
                line: head::first_line(head).to_vec(),
            }),
            upgrade: request
                .upgrade
                .then(|| (text(request.path(), NAME_MAX), request.subprotocol.clone())),
        });
        let body = match connect {
            true => Body::none(),
            false => Body::of_request(&request.framing),
        };
        self.begin_body(side, body, facts);
    }

    fn response(
        &mut self,
        side: Side,
        response: &Response,
        head: &[u8],
        facts: &mut Vec<super::Fact>,
    ) {
        if matches!(self.mode, Mode::Unknown) {
            self.mode = Mode::Http;
        }
        self.client = Some(side.other());
        if response.status < 200 && response.status != 101 {
            return;
        }
        let asked = self.asked.pop_front();
        let is = |test: fn(&Asked) -> bool| asked.as_ref().is_some_and(test);
        if is(|asked| asked.connect.is_some()) && response.status < 300 {
            // Content is no tunnel's (RFC 9110, 9.3.6): a web server answers so that
            // takes any method for a page, of any framing. Framing alone says nothing: clients
            // have to ignore it, and libraries for servers add `chunked` unasked.
            let has_body = response.has_type || response.framing.length > Some(0);
            let connect = asked.and_then(|asked| asked.connect);
            facts.extend(
                connect
                    .filter(|_| !has_body)
                    .map(|Connect { target, line }| {
                        super::Fact::Proxy(proxy::Granted {
                            by: "HTTP CONNECT".to_owned(),
                            target,
                            request: line,
                            reply: head::first_line(head).to_vec(),
                        })
                    }),
            );
            self.become_other(side, Mode::Other);
            return;
        }
        if response.status == 101 {
            let (path, subprotocol) = asked.and_then(|asked| asked.upgrade).unwrap_or_default();
            let frames = response.upgrade.eq_ignore_ascii_case("websocket");
            facts.push(super::Fact::Http(Fact::Upgraded {
                to: text(response.upgrade.as_bytes(), NAME_MAX),
                path,
                subprotocol,
            }));
            let mode = match frames {
                true => Mode::Frames(Box::default()),
                false => Mode::Other,
            };
            self.become_other(side, mode);
            return;
        }
        let body = match response.status {
            204 | 304 => Body::none(),
            _ if is(|asked| asked.head) => Body::none(),
            _ => Body::of_response(&response.framing),
        };
        self.begin_body(side, body, facts);
        // What the client sent in hope of a tunnel is another request.
        self.resume(side.other(), facts);
    }

    fn begin_body(&mut self, side: Side, body: Body, facts: &mut Vec<super::Fact>) {
        if body.is_over() {
            self.body(side, &[], facts);
        } else {
            self.halves[side as usize].state = State::Body(body);
        }
    }

    /// A message is over; `json` is its body if it looks like JSON.
    fn body(&mut self, side: Side, json: &[u8], facts: &mut Vec<super::Fact>) {
        let from_client = self.client == Some(side);
        facts.extend(self.mining.body(side, from_client, json));
    }

    /// The connection is something else from here on: first what waits.
    fn become_other(&mut self, side: Side, mode: Mode) {
        self.mode = mode;
        // A client speaks first after its tunnel is granted.
        for side in [side.other(), side] {
            let waiting = std::mem::take(&mut self.halves[side as usize].buffer);
            if waiting.is_empty() {
                continue;
            }
            match &mut self.mode {
                Mode::Frames(frames) => {
                    frames[side as usize].bytes(side, &waiting, &mut self.carried);
                }
                _ => self.carried.push(Carried::Bytes(side, waiting)),
            }
        }
    }

    fn resume(&mut self, side: Side, facts: &mut Vec<super::Fact>) {
        let half = &mut self.halves[side as usize];
        if matches!(half.state, State::Head) && !half.buffer.is_empty() {
            let waiting = std::mem::take(&mut half.buffer);
            self.bytes(side, &waiting, facts);
        }
    }

    fn missing(&mut self, side: Side, count: Option<u32>) {
        let half = &mut self.halves[side as usize];
        match &mut self.mode {
            Mode::Other => self.carried.push(match count {
                Some(count) => Carried::Skipped(side, count),
                None => Carried::Gap(side),
            }),
            Mode::Frames(frames) => {
                frames[side as usize].missing(side, count, &mut self.carried);
            }
            Mode::Unknown | Mode::Http => {
                let in_body = match (&mut half.state, count) {
                    (State::Body(body), Some(count)) => body.missing(count),
                    _ => false,
                };
                if !in_body {
                    half.state = State::Lost;
                    half.buffer = Vec::new();
                } else if matches!(&half.state, State::Body(body) if body.is_over()) {
                    half.state = State::Head;
                }
            }
        }
    }
}
