//! One side's stream in clear: identification string, then packets until NEWKEYS.

use super::kexinit::KexInit;
use crate::protocol::Input;

/// Longest identification line with its line end (RFC 4253, 4.2).
const BANNER_MAX: usize = 255;
/// Bytes of other lines a side may send before its identification string; OpenSSH's client stops at 8 KiB too.
const BEFORE_BANNER_MAX: usize = 8192;
/// Longest packet looked at; the length every implementation must accept (RFC 4253, 6.1).
const PACKET_MAX: usize = 35_000;

const KEXINIT: u8 = 20;
const NEWKEYS: u8 = 21;

/// What one side's stream yields.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Its identification string.
    Banner(String),
    /// Its KEXINIT.
    KexInit(Box<KexInit>),
    /// Another packet in clear, by its message number.
    Message(u8),
    /// What is after NEWKEYS in a segment.
    Segment {
        /// Bytes after NEWKEYS.
        bytes: u32,
        /// Bytes of the segment, which may begin before it.
        of: u32,
    },
    /// From here on the stream cannot be followed.
    Lost,
}

/// Reads one side.
#[derive(Default)]
pub(super) struct Stream {
    phase: Phase,
    /// The current line, or the current packet as far as it is kept.
    buffer: Vec<u8>,
    /// Bytes of finished lines before the identification string.
    lines: usize,
    /// Bytes of the current packet still to come that are not kept.
    skip: usize,
    banner: String,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Lines,
    Packets,
    Encrypted,
    Lost,
}

impl Stream {
    /// The identification string, empty until seen.
    pub fn banner(&self) -> &str {
        &self.banner
    }

    /// Whether this side can no longer turn out to be SSH.
    pub fn hopeless(&self) -> bool {
        self.phase == Phase::Lost && self.banner.is_empty()
    }

    /// Whether it began with something else than an identification string, which only a server may.
    pub fn speaks_other(&self) -> bool {
        self.phase == Phase::Lines
            && (self.lines > 0 || !b"SSH-".starts_with(&self.buffer[..self.buffer.len().min(4)]))
    }

    /// Bytes of memory that an unfinished line or packet takes.
    pub fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// Takes the next part and adds what it yields.
    pub fn feed(&mut self, input: Input<'_>, pieces: &mut Vec<Piece>) {
        match (input, self.phase) {
            (_, Phase::Lost) => {}
            (Input::Bytes(bytes), _) => self.bytes(bytes, pieces),
            (Input::Skipped(bytes), Phase::Encrypted) => {
                pieces.push(Piece::Segment { bytes, of: bytes })
            }
            (Input::Skipped(bytes), Phase::Packets) if bytes as usize <= self.skip => {
                self.skip -= bytes as usize;
            }
            (Input::Skipped(0), _) => {}
            (Input::Skipped(_) | Input::Gap, _) => self.lose(pieces),
        }
    }

    fn bytes(&mut self, segment: &[u8], pieces: &mut Vec<Piece>) {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut rest = segment;
        while !rest.is_empty() {
            rest = match self.phase {
                Phase::Lines => self.line(rest, pieces),
                Phase::Packets => self.packet(rest, pieces),
                Phase::Encrypted => {
                    pieces.push(Piece::Segment {
                        bytes: length(rest),
                        of: length(segment),
                    });
                    return;
                }
                Phase::Lost => return,
            };
        }
    }

    /// Takes bytes up to the end of the line, and gives back what follows.
    fn line<'a>(&mut self, input: &'a [u8], pieces: &mut Vec<Piece>) -> &'a [u8] {
        let end = memchr::memchr(b'\n', input);
        let (part, rest) = input.split_at(end.map_or(input.len(), |at| at + 1));
        let room = BEFORE_BANNER_MAX - self.lines - self.buffer.len();
        self.buffer.extend_from_slice(&part[..part.len().min(room)]);
        let is_banner = self.buffer.starts_with(b"SSH-");
        let too_long = part.len() > room || (is_banner && self.buffer.len() > BANNER_MAX);
        // Other lines are text; a NUL is a binary protocol.
        if too_long || memchr::memchr(0, part).is_some() {
            self.lose(pieces);
        } else if end.is_some() {
            let text = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if is_banner {
                self.banner = String::from_utf8_lossy(text).into_owned();
                pieces.push(Piece::Banner(self.banner.clone()));
                self.phase = Phase::Packets;
            } else {
                self.lines += self.buffer.len();
            }
            self.buffer.clear();
        }
        rest
    }

    /// Takes bytes of one packet, and gives back what follows it.
    fn packet<'a>(&mut self, input: &'a [u8], pieces: &mut Vec<Piece>) -> &'a [u8] {
        if self.skip > 0 {
            let (skipped, rest) = input.split_at(self.skip.min(input.len()));
            self.skip -= skipped.len();
            return rest;
        }
        // u32 length of what follows, u8 length of padding, u8 message number.
        const HEAD: usize = 6;
        let wanted = match self.buffer.first_chunk::<HEAD>() {
            None => HEAD,
            Some(head) => 4 + length(head),
        };
        let (part, rest) = input.split_at((wanted - self.buffer.len()).min(input.len()));
        self.buffer.extend_from_slice(part);
        let Some(head) = self.buffer.first_chunk::<HEAD>() else {
            return rest;
        };
        let (length, padding, number) = (length(head), usize::from(head[4]), head[5]);
        if length > PACKET_MAX || length < padding + 2 {
            self.lose(pieces);
        } else if number != KEXINIT && number != NEWKEYS {
            self.skip = 4 + length - HEAD;
            self.buffer.clear();
            pieces.push(Piece::Message(number));
        } else if self.buffer.len() == 4 + length {
            if number == NEWKEYS {
                self.phase = Phase::Encrypted;
            } else {
                match KexInit::parse(&self.buffer[5..4 + length - padding]) {
                    Some(kexinit) => pieces.push(Piece::KexInit(Box::new(kexinit))),
                    None => self.lose(pieces),
                }
            }
            self.buffer = Vec::new();
        }
        rest
    }

    fn lose(&mut self, pieces: &mut Vec<Piece>) {
        self.phase = Phase::Lost;
        self.buffer = Vec::new();
        pieces.push(Piece::Lost);
    }
}

fn length(head: &[u8; 6]) -> usize {
    u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize
}
