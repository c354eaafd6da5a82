//! How bytes of a fuzzer stand for a session: parts, each with a head of three
//! bytes, which say whose it is and what, and how long.

use agent_monitor::protocol::{Input, Side};

/// In a part's first byte: the responder sent it.
const RESPONDER: u8 = 1;
/// It was not captured: its length is known, or not even that.
const SKIPPED: u8 = 2;
const GAP: u8 = 4;

/// The parts that `data` stands for; the last one may be shorter than it says.
pub fn parts(mut data: &[u8]) -> impl Iterator<Item = (Side, Input<'_>)> {
    std::iter::from_fn(move || {
        let (&[control, low, high], rest) = data.split_first_chunk()?;
        let length = u16::from_le_bytes([low, high]);
        let side = match control & RESPONDER {
            0 => Side::Initiator,
            _ => Side::Responder,
        };
        data = rest;
        if control & GAP != 0 {
            return Some((side, Input::Gap));
        }
        if control & SKIPPED != 0 {
            return Some((side, Input::Skipped(u32::from(length) * 64)));
        }
        let (bytes, rest) = rest.split_at(rest.len().min(length.into()));
        data = rest;
        Some((side, Input::Bytes(bytes)))
    })
}

/// Adds a part.
pub fn push(to: &mut Vec<u8>, side: Side, input: Input<'_>) {
    let side = match side {
        Side::Initiator => 0,
        Side::Responder => RESPONDER,
    };
    let (control, length, bytes) = match input {
        Input::Bytes(bytes) => (side, bytes.len(), bytes),
        Input::Skipped(length) => (side | SKIPPED, length as usize / 64, &[][..]),
        Input::Gap => (side | GAP, 0, &[][..]),
    };
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    to.push(control);
    to.extend(length.to_le_bytes());
    to.extend(&bytes[..bytes.len().min(length.into())]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_they_were_written() {
        let all = [
            (Side::Initiator, Input::Bytes(b"hello")),
            (Side::Responder, Input::Skipped(128)),
            (Side::Responder, Input::Gap),
            (Side::Responder, Input::Bytes(b"")),
        ];
        let mut written = Vec::new();
        for (side, input) in all {
            push(&mut written, side, input);
        }
        assert!(parts(&written).eq(all));
    }
}
