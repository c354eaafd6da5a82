//! Heads of requests and responses (RFC 9112).

use super::{NAME_MAX, text};

/// Longest head followed; servers commonly refuse more than 8 to 16 KiB.
pub(super) const HEAD_MAX: usize = 16 * 1024;
/// Bytes of a first line that are kept: a host's name and a port fit.
const LINE_MAX: usize = 2 * NAME_MAX;
/// Most header fields; more and the head is not understood.
const FIELDS_MAX: usize = 128;
/// Longest method: `VERSION-CONTROL` has 15 characters, `UPDATEREDIRECTREF` 17.
const METHOD_MAX: usize = 20;

/// What a message may be, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Or too short to tell.
    Request,
    Response,
    Neither,
}

/// Tells what these first bytes of a message may be.
pub(super) fn begin(bytes: &[u8]) -> Begin {
    const VERSION: &[u8] = b"HTTP/1.";
    if bytes.starts_with(VERSION) {
        return Begin::Response;
    }
    let word = bytes
        .iter()
        .position(|byte| !byte.is_ascii_uppercase() && *byte != b'-')
        .unwrap_or(bytes.len());
    match bytes.get(word) {
        _ if word > METHOD_MAX => Begin::Neither,
        None => Begin::Request,
        Some(b' ') if word > 1 => Begin::Request,
        Some(_) if VERSION.starts_with(bytes) => Begin::Request,
        Some(_) => Begin::Neither,
    }
}

/// Whether these begin a message in the middle of a stream, where nothing else tells.
pub(super) fn is_first_line(bytes: &[u8]) -> bool {
    match begin(bytes) {
        Begin::Response => true,
        Begin::Request => memchr::memchr(b' ', bytes).is_some(),
        Begin::Neither => false,
    }
}

/// The first line, without its end.
pub(super) fn first_line(head: &[u8]) -> &[u8] {
    let end = memchr::memchr2(b'\r', b'\n', head).unwrap_or(head.len());
    &head[..end.min(LINE_MAX)]
}

/// Where the head ends, behind its empty line. `seen` bytes were looked at before.
pub(super) fn end(bytes: &[u8], seen: usize) -> Option<usize> {
    let from = seen.saturating_sub(3);
    memchr::memchr_iter(b'\n', bytes.get(from..)?).find_map(|at| {
        let rest = &bytes[from + at + 1..];
        match rest {
            [b'\n', ..] => Some(from + at + 2),
            [b'\r', b'\n', ..] => Some(from + at + 3),
            _ => None,
        }
    })
}

/// How long a body is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Framing {
    pub chunked: bool,
    pub length: Option<u64>,
    /// It is JSON as far as its head says: not compressed.
    pub plain: bool,
}

/// What matters of a request's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::protocol) struct Request {
    pub method: String,
    pub target: String,
    pub host: Option<String>,
    pub agent: Option<String>,
    pub mining_extensions: bool,
    pub upgrade: bool,
    pub subprotocol: Option<String>,
    pub(super) framing: Framing,
}

/// What matters of a response's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Response {
    pub status: u16,
    pub upgrade: String,
    /// It says what the content is.
    pub has_type: bool,
    pub framing: Framing,
}

impl Framing {
    fn new() -> Self {
        Self {
            plain: true,
            ..Self::default()
        }
    }

    fn field(&mut self, name: &str, value: &[u8]) {
        if name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(value).unwrap_or_default();
            self.length = text.trim().parse().ok();
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            self.chunked |= has_token(value, "chunked");
        } else if name.eq_ignore_ascii_case("content-encoding") {
            self.plain = has_token(value, "identity");
        }
    }
}

impl Request {
    /// Reads a whole head.
    pub fn parse(head: &[u8]) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut fields);
        if !parsed.parse(head).ok()?.is_complete() {
            return None;
        }
        let mut request = Self {
            method: parsed.method?.to_owned(),
            target: parsed.path?.to_owned(),
            framing: Framing::new(),
            ..Self::default()
        };
        let mut host = None;
        for field in parsed.headers.iter() {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("host") {
                host = Some(text(field.value, NAME_MAX));
            } else if is("user-agent") {
                request.agent = Some(text(field.value, NAME_MAX));
            } else if is("upgrade") {
                request.upgrade = true;
            } else if is("sec-websocket-protocol") {
                request.subprotocol = Some(text(field.value, NAME_MAX));
            } else if is("x-mining-extensions") {
                request.mining_extensions = true;
            } else {
                request.framing.field(field.name, field.value);
            }
        }
        // A proxy is asked for the whole address; its host is the one meant.
        let authority = match request.target.split_once("://") {
            _ if request.method == "CONNECT" => Some(request.target.as_str()),
            Some((_, rest)) => rest.split(['/', '?']).next(),
            None => host.as_deref(),
        };
        request.host = authority.map(without_port).filter(|host| !host.is_empty());
        Some(request)
    }

    /// The target without a query, which may hold secrets.
    pub fn path(&self) -> &[u8] {
        let path = self.target.split('?').next();
        path.unwrap_or_default().as_bytes()
    }
}

impl Response {
    /// Reads a whole head.
    pub fn parse(head: &[u8]) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut fields);
        if !parsed.parse(head).ok()?.is_complete() {
            return None;
        }
        let mut response = Self {
            status: parsed.code?,
            upgrade: String::new(),
            has_type: false,
            framing: Framing::new(),
        };
        for field in parsed.headers.iter() {
            if field.name.eq_ignore_ascii_case("upgrade") {
                response.upgrade = text(field.value, NAME_MAX);
            } else {
                response.has_type |= field.name.eq_ignore_ascii_case("content-type");
                response.framing.field(field.name, field.value);
            }
        }
        Some(response)
    }
}

/// A host without its port, and an IPv6 address without its brackets.
fn without_port(authority: &str) -> String {
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(':').next(),
    };
    text(host.unwrap_or_default().as_bytes(), NAME_MAX)
}

fn has_token(value: &[u8], token: &str) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}
