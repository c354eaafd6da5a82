//! Where a body ends, and what it says if it is a small JSON object.

use super::head::Framing;

/// Longest JSON body kept; a block template can be a megabyte, but the names
/// that tell it come first or the request tells it.
const JSON_MAX: usize = 16 * 1024;
/// Longest line of a chunk's size with its extensions.
const SIZE_LINE_MAX: usize = 256;

/// A body that is being received.
pub(super) struct Body {
    frame: Frame,
    /// Its beginning, while it may be JSON.
    json: Option<Vec<u8>>,
}

enum Frame {
    /// Bytes to come.
    Length(u64),
    Chunked(Chunk),
    UntilClose,
}

enum Chunk {
    /// The line with the chunk's size, so far.
    Size(Vec<u8>),
    /// Bytes to come with the line end behind them.
    Data(u64),
    /// Trailer lines, up to an empty one: bytes on the current line.
    Trailer(usize),
    Over,
}

impl Body {
    pub fn none() -> Self {
        Self::new(Frame::Length(0), false)
    }

    pub fn of_request(framing: &Framing) -> Self {
        let frame = match framing {
            Framing { chunked: true, .. } => Frame::Chunked(Chunk::Size(Vec::new())),
            // Without a length a request has no body (RFC 9112, 6.3).
            Framing { length, .. } => Frame::Length(length.unwrap_or(0)),
        };
        Self::new(frame, framing.plain)
    }

    pub fn of_response(framing: &Framing) -> Self {
        let frame = match *framing {
            Framing { chunked: true, .. } => Frame::Chunked(Chunk::Size(Vec::new())),
            Framing {
                length: Some(length),
                ..
            } => Frame::Length(length),
            Framing { length: None, .. } => Frame::UntilClose,
        };
        Self::new(frame, framing.plain)
    }

    fn new(frame: Frame, plain: bool) -> Self {
        Self {
            frame,
            json: plain.then(Vec::new),
        }
    }

    /// Bytes of memory that its beginning takes.
    pub fn held(&self) -> usize {
        self.json.as_ref().map_or(0, Vec::capacity)
    }

    pub fn is_over(&self) -> bool {
        matches!(self.frame, Frame::Length(0) | Frame::Chunked(Chunk::Over))
    }

    /// What it says, if it may be JSON.
    pub fn take_json(&mut self) -> Vec<u8> {
        self.json.take().unwrap_or_default()
    }

    /// Takes bytes of the body and says how many are its.
    pub fn bytes(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_over() {
            let taken = match &mut self.frame {
                Frame::UntilClose => rest.len(),
                Frame::Length(left) => {
                    let taken = at_most(*left, rest.len());
                    *left -= taken as u64;
                    taken
                }
                Frame::Chunked(chunk) => {
                    let (taken, data) = chunk.bytes(rest);
                    keep(&mut self.json, &rest[..data]);
                    rest = &rest[taken..];
                    continue;
                }
            };
            keep(&mut self.json, &rest[..taken]);
            rest = &rest[taken..];
        }
        bytes.len() - rest.len()
    }

    /// Bytes of it were not captured; false if its end can no longer be told.
    pub fn missing(&mut self, count: u32) -> bool {
        self.json = None;
        match &mut self.frame {
            Frame::UntilClose => true,
            Frame::Length(left) if u64::from(count) <= *left => {
                *left -= u64::from(count);
                true
            }
            // The line end behind a chunk is part of it here.
            Frame::Chunked(Chunk::Data(left)) if u64::from(count) < *left => {
                *left -= u64::from(count);
                true
            }
            _ => false,
        }
    }
}

impl Chunk {
    /// Takes bytes; gives how many were taken, and how many of these are data.
    fn bytes(&mut self, bytes: &[u8]) -> (usize, usize) {
        match self {
            Self::Over => (bytes.len(), 0),
            Self::Data(left) => {
                let taken = at_most(*left, bytes.len());
                // The last two are the line end.
                let data = at_most(left.saturating_sub(2), taken);
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Size(Vec::new());
                }
                (taken, data)
            }
            Self::Size(line) => {
                let end = memchr::memchr(b'\n', bytes);
                let taken = end.map_or(bytes.len(), |at| at + 1);
                line.extend_from_slice(&bytes[..taken.min(SIZE_LINE_MAX)]);
                if end.is_some() || line.len() >= SIZE_LINE_MAX {
                    *self = match chunk_size(line) {
                        Some(0) => Self::Trailer(0),
                        Some(size) => Self::Data(size.saturating_add(2)),
                        None => Self::Over,
                    };
                }
                (taken, 0)
            }
            Self::Trailer(line) => {
                let end = memchr::memchr(b'\n', bytes);
                let taken = end.map_or(bytes.len(), |at| at + 1);
                let text = bytes[..taken].iter().filter(|b| !b"\r\n".contains(b));
                *line = line.saturating_add(text.count());
                if end.is_some() {
                    *self = match *line {
                        0 => Self::Over,
                        _ => Self::Trailer(0),
                    };
                }
                (taken, 0)
            }
        }
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line).ok()?;
    let digits = text.split(';').next()?.trim();
    u64::from_str_radix(digits, 16).ok()
}

fn at_most(left: u64, available: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(available)
}

fn keep(json: &mut Option<Vec<u8>>, bytes: &[u8]) {
    let Some(kept) = json else {
        return;
    };
    let first = || kept.iter().chain(bytes).find(|b| !b.is_ascii_whitespace());
    if kept.len() + bytes.len() > JSON_MAX || first().is_some_and(|b| *b != b'{' && *b != b'[') {
        *json = None;
    } else {
        kept.extend_from_slice(bytes);
    }
}
