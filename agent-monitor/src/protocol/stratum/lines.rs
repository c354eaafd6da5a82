//! Cuts a stream into JSON objects that begin at the start of a line.
//!
//! An object ends where its braces close, so it is told before its line end
//! comes, and at a cost linear in its bytes however they are cut.

/// Longest object followed; an Equihash share, the longest message, is 3 KiB.
const LINE_MAX: usize = 16 * 1024;

/// One side's stream.
#[derive(Default)]
pub(super) struct Lines {
    state: State,
    object: Vec<u8>,
    depth: u32,
    in_string: bool,
    escaped: bool,
    seen: u64,
    first: Option<u8>,
}

#[derive(Default, PartialEq, Eq)]
enum State {
    /// Nothing but blanks since the start of the line, or since an object that
    /// began it. A list of objects (JSON-RPC 2.0, 6) is taken apart.
    #[default]
    Start,
    Object,
    /// Bytes are missing: what follows is a segment's begin, where a message may begin.
    Hole,
    /// Not an object: up to the line's end.
    Skip,
}

impl Lines {
    /// Bytes seen or known to be missing.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Bytes of memory that an unfinished object takes.
    pub fn held(&self) -> usize {
        self.object.capacity()
    }

    /// Whether the stream began with neither an object nor a list.
    pub fn cannot_be_json(&self) -> bool {
        self.first.is_some_and(|byte| byte != b'{' && byte != b'[')
    }

    /// Takes bytes and hands over every object that ends in them.
    pub fn bytes(&mut self, mut rest: &[u8], take: &mut impl FnMut(&[u8])) {
        self.seen += rest.len() as u64;
        if self.first.is_none() {
            self.first = rest
                .iter()
                .copied()
                .find(|byte| !byte.is_ascii_whitespace());
        }
        while let Some((&byte, after)) = rest.split_first() {
            match self.state {
                State::Start => {
                    rest = after;
                    if byte == b'{' {
                        self.state = State::Object;
                        (self.depth, self.in_string, self.escaped) = (1, false, false);
                        self.object.push(byte);
                    } else if !byte.is_ascii_whitespace() && !b"[,]".contains(&byte) {
                        self.state = State::Skip;
                    }
                }
                State::Object => {
                    let room = LINE_MAX - self.object.len();
                    let window = &rest[..rest.len().min(room)];
                    let (length, ended) = self.scan(window);
                    self.object.extend_from_slice(&window[..length]);
                    rest = &rest[length..];
                    match ended {
                        Some(End::Closed) => {
                            take(&self.object);
                            self.object.clear();
                            self.state = State::Start;
                        }
                        // No message spans lines.
                        Some(End::Line) => self.abandon(State::Start),
                        None if self.object.len() == LINE_MAX => self.abandon(State::Skip),
                        None => {}
                    }
                }
                State::Hole => {
                    self.state = match byte {
                        b'{' => State::Start,
                        _ => State::Skip,
                    };
                }
                State::Skip => match memchr::memchr(b'\n', rest) {
                    Some(at) => {
                        rest = &rest[at + 1..];
                        self.state = State::Start;
                    }
                    None => return,
                },
            }
        }
    }

    /// Takes note of bytes that are missing: what follows counts if it is an object,
    /// else from the next line on. An object that they cut is handed over as far as it goes.
    pub fn missing(&mut self, count: u64, take: &mut impl FnMut(&[u8])) {
        self.seen += count;
        if self.state == State::Object {
            take(&self.object);
        }
        self.first = self.first.or(Some(b'{'));
        self.abandon(State::Hole);
    }

    fn abandon(&mut self, state: State) {
        self.object.clear();
        self.state = state;
    }

    /// How many of these bytes belong to the object, and how it ended if it did.
    fn scan(&mut self, bytes: &[u8]) -> (usize, Option<End>) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            if self.in_string {
                if self.escaped {
                    self.escaped = false;
                    if byte != b'\n' {
                        continue;
                    }
                }
                // Most of a message is in strings, where three bytes count.
                let Some(next) = memchr::memchr3(b'"', b'\\', b'\n', &bytes[at - 1..]) else {
                    break;
                };
                at += next;
                match bytes[at - 1] {
                    b'\n' => return (at, Some(End::Line)),
                    b'"' => self.in_string = false,
                    _ => self.escaped = true,
                }
                continue;
            }
            match byte {
                b'\n' => return (at, Some(End::Line)),
                b'"' => self.in_string = true,
                b'{' => self.depth += 1,
                b'}' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return (at, Some(End::Closed));
                    }
                }
                _ => {}
            }
        }
        (bytes.len(), None)
    }
}

/// How an object ended.
enum End {
    Closed,
    Line,
}
