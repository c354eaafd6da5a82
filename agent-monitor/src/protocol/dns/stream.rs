//! Messages in a stream: each with its length before it (RFC 1035, 4.2.2).

use super::message::{self, HEADER, Header};
use super::{Refused, fact};
use crate::protocol::{Answer, Fact as AnyFact, Input, Parser, Side, Wants};

/// Bytes of a message that are kept: what exceeds them is a zone's transfer or a
/// tunnel's load, whose question was in the first.
const MAX_KEPT: usize = 4096;
/// Bytes of the length.
const LENGTH: usize = 2;
/// The shortest message: a header, the root's name, a type and a class.
const SHORTEST: usize = HEADER + 5;
/// Messages in a row that make no sense before a stream is let go: what begins as
/// DNS and goes on as something else is not worth every byte.
const MAX_REFUSED: u32 = 16;

/// Follows one flow.
#[derive(Default)]
pub struct OverTcp {
    sides: [Messages; 2],
    found: bool,
    refused: u32,
}

/// One side's stream.
#[derive(Default)]
struct Messages {
    /// The length and the first bytes of the message that is being read.
    kept: Vec<u8>,
    /// Bytes of it that went by unkept.
    unkept: usize,
}

impl Messages {
    /// Length of the message that is being read.
    fn len(&self) -> Option<usize> {
        let (length, _) = self.kept.split_first_chunk::<LENGTH>()?;
        Some(usize::from(u16::from_be_bytes(*length)))
    }

    /// Bytes that are missing of the length, or of the message.
    fn missing(&self) -> usize {
        match self.len() {
            None => LENGTH - self.kept.len(),
            Some(len) => LENGTH + len - self.kept.len() - self.unkept,
        }
    }

    /// Takes bytes; gives each message that they complete: what was kept of it,
    /// and its length.
    fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8], usize)) {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(self.missing().min(bytes.len()));
            bytes = rest;
            // What comes after a hole would be read in the wrong place.
            let room = match self.unkept {
                0 => (LENGTH + MAX_KEPT).saturating_sub(self.kept.len()),
                _ => 0,
            };
            let kept = &part[..part.len().min(room)];
            self.kept.extend_from_slice(kept);
            self.unkept += part.len() - kept.len();
            self.complete(&mut each);
        }
    }

    /// Passes over bytes that were not captured. A length among them, or a
    /// message that begins in them, loses the thread.
    fn skip(&mut self, count: usize, mut each: impl FnMut(&[u8], usize)) -> Result<(), Refused> {
        if self.len().is_none() || count > self.missing() {
            return Err(Refused::Short);
        }
        self.unkept += count;
        self.complete(&mut each);
        Ok(())
    }

    fn complete(&mut self, each: &mut impl FnMut(&[u8], usize)) {
        if let Some(len) = self.len()
            && self.missing() == 0
        {
            each(&self.kept[LENGTH..], len);
            self.kept.clear();
            self.unkept = 0;
        }
    }
}

impl Parser for OverTcp {
    fn held(&self) -> usize {
        self.sides.iter().map(|side| side.kept.capacity()).sum()
    }

    fn feed(&mut self, side: Side, input: Input<'_>, facts: &mut Vec<AnyFact>) -> Answer {
        let messages = &mut self.sides[side as usize];
        let mut count = 0;
        let mut refused = self.refused;
        let each = |kept: &[u8], len: usize| match message::read(kept, kept.len() == len) {
            Ok(messages) => {
                count += 1;
                refused = 0;
                let len = u32::try_from(len).unwrap_or(u32::MAX);
                facts.extend(messages.into_iter().map(|message| fact(side, len, message)));
            }
            Err(_) => refused += 1,
        };
        let followed = match input {
            Input::Bytes(bytes) => {
                messages.take(bytes, each);
                Ok(())
            }
            Input::Skipped(bytes) => {
                messages.skip(usize::try_from(bytes).unwrap_or(usize::MAX), each)
            }
            Input::Gap => Err(Refused::Short),
        };
        self.found |= count > 0;
        self.refused = refused;
        if followed.is_err()
            || refused > MAX_REFUSED
            || (!self.found && (refused > 0 || messages.cannot_be_dns()))
        {
            return Answer::NotThis;
        }
        if self.found {
            Answer::Found
        } else {
            Answer::NeedMore
        }
    }

    fn wants(&self) -> Wants {
        // A resolver asks thousands of questions on one connection.
        if self.found { Wants::All } else { Wants::Bytes }
    }
}

impl Messages {
    /// Whether what has come of the first message rules it out.
    fn cannot_be_dns(&self) -> bool {
        let header = self.kept.get(LENGTH..LENGTH + HEADER);
        self.len().is_some_and(|len| len < SHORTEST)
            || header.is_some_and(|header| Header::read(header).is_err())
    }
}
