//! WebSocket frames (RFC 6455, 5.2): what they carry, unmasked.
//!
//! Messages of text are carried as lines, since each is a whole and begins
//! anew; messages of bytes are carried as a stream. Compressed messages (RFC 7692)
//! are put back by `inflate`.

use super::super::{Carried, Side};
use super::inflate::Inflate;

/// Two bytes, eight of length, four of mask.
const HEADER_MAX: usize = 14;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
/// From here on a frame controls the connection and carries no message.
const CONTROL: u8 = 8;

/// One side's frames.
#[derive(Default)]
pub(super) struct Frames {
    /// The header so far.
    header: Vec<u8>,
    /// The frame whose payload is being received.
    frame: Option<Frame>,
    /// The message it is part of is text.
    text: bool,
    compressed: bool,
    inflate: Inflate,
    lost: bool,
}

struct Frame {
    left: u64,
    mask: Option<[u8; 4]>,
    /// Bytes of payload so far.
    at: usize,
    last: bool,
    control: bool,
}

impl Frames {
    /// Takes bytes and hands on what they carry.
    pub fn bytes(&mut self, side: Side, mut rest: &[u8], carried: &mut Vec<Carried>) {
        let mut plain = Vec::new();
        let was_over = self.inflate.is_over();
        while !rest.is_empty() && !self.lost {
            let Some(frame) = &mut self.frame else {
                self.header.push(rest[0]);
                rest = &rest[1..];
                self.begin();
                self.end(&mut plain);
                continue;
            };
            let available = usize::try_from(frame.left).unwrap_or(usize::MAX);
            let (part, after) = rest.split_at(available.min(rest.len()));
            rest = after;
            let unmasked = part.iter().enumerate().map(|(n, byte)| match frame.mask {
                Some(mask) => byte ^ mask[(frame.at + n) % 4],
                None => *byte,
            });
            match self.compressed {
                _ if frame.control => {}
                true => self.inflate.take(unmasked),
                false => plain.extend(unmasked),
            }
            frame.at = (frame.at + part.len()) % 4;
            frame.left -= part.len() as u64;
            self.end(&mut plain);
        }
        if !plain.is_empty() {
            carried.push(Carried::Bytes(side, plain));
        }
        if self.inflate.is_over() && !was_over {
            carried.push(Carried::Gap(side));
        }
    }

    /// Bytes of memory that it takes.
    pub fn held(&self) -> usize {
        self.inflate.held()
    }

    /// Bytes were not captured.
    pub fn missing(&mut self, side: Side, count: Option<u32>, carried: &mut Vec<Carried>) {
        match (&mut self.frame, count) {
            (Some(frame), Some(count)) if u64::from(count) <= frame.left && !self.lost => {
                frame.left -= u64::from(count);
                frame.at = (frame.at + count as usize) % 4;
                if !frame.control {
                    carried.push(Carried::Skipped(side, count));
                    if self.compressed {
                        self.inflate.stop();
                    }
                }
                let mut line_end = Vec::new();
                self.end(&mut line_end);
                if !line_end.is_empty() {
                    carried.push(Carried::Bytes(side, line_end));
                }
            }
            _ => {
                // Where the next frame begins cannot be told.
                self.lost = true;
                self.inflate.stop();
                carried.push(Carried::Gap(side));
            }
        }
    }

    /// Begins a frame once its header is whole.
    fn begin(&mut self) {
        let [first, second, after @ ..] = self.header.as_slice() else {
            return;
        };
        let (length, extended) = match second & 0x7f {
            126 => (
                after
                    .first_chunk()
                    .map(|b| u64::from(u16::from_be_bytes(*b))),
                2,
            ),
            127 => (after.first_chunk().map(|b| u64::from_be_bytes(*b)), 8),
            short => (Some(u64::from(short)), 0),
        };
        let masked = second & 0x80 != 0;
        let (Some(left), true) = (length, after.len() == extended + if masked { 4 } else { 0 })
        else {
            self.lost |= self.header.len() > HEADER_MAX;
            return;
        };
        let opcode = first & 0x0f;
        if opcode != CONTINUATION && opcode < CONTROL {
            self.text = opcode == TEXT;
            self.compressed = first & 0x40 != 0;
        }
        self.frame = Some(Frame {
            left,
            mask: masked.then(|| after[extended..].first_chunk().copied().unwrap_or_default()),
            at: 0,
            last: first & 0x80 != 0,
            control: opcode >= CONTROL,
        });
        self.header.clear();
    }

    /// Ends a frame that is whole, and a message of text with a line end.
    fn end(&mut self, plain: &mut Vec<u8>) {
        if let Some(frame) = self.frame.take_if(|frame| frame.left == 0)
            && frame.last
            && !frame.control
        {
            if self.compressed {
                let Some(said) = self.inflate.end() else {
                    return;
                };
                plain.extend(said);
            }
            if self.text {
                plain.push(b'\n');
            }
        }
    }
}
