//! The handshake's stream: CRYPTO frames, in any order.

use std::collections::BTreeMap;

use super::packet::Reader;

/// Bytes of the stream that are kept: a post-quantum hello has 2 KiB.
const BYTES_MAX: usize = 8 * 1024;
/// Pieces that are kept. Browsers cut their hello into a dozen.
const PIECES_MAX: usize = 64;
const CLIENT_HELLO: u8 = 1;
/// Of a handshake message: type and u24 length.
const HEADER: usize = 4;

/// Calls `take` with place and bytes of each piece of the handshake in these frames.
pub(super) fn pieces(frames: &[u8], mut take: impl FnMut(usize, &[u8])) {
    let mut rest = Reader(frames);
    while let Some(kind) = rest.number() {
        let piece = match kind {
            // PADDING and PING.
            0 | 1 => continue,
            2 | 3 => ack(&mut rest, kind == 3).map(|()| None),
            6 => piece(&mut rest).map(Some),
            // There is no other frame but CONNECTION_CLOSE (RFC 9000, 17.2.2).
            _ => return,
        };
        match piece {
            Some(Some((offset, bytes))) => take(offset, bytes),
            Some(None) => {}
            None => return,
        }
    }
}

/// Reads past an ACK (RFC 9000, 19.3).
fn ack(rest: &mut Reader<'_>, with_counts: bool) -> Option<()> {
    let (_largest, _delay, ranges, _first) = (
        rest.number()?,
        rest.number()?,
        rest.number()?,
        rest.number()?,
    );
    for _ in 0..ranges {
        let (_gap, _length) = (rest.number()?, rest.number()?);
    }
    if with_counts {
        let (_ect0, _ect1, _ce) = (rest.number()?, rest.number()?, rest.number()?);
    }
    Some(())
}

fn piece<'a>(rest: &mut Reader<'a>) -> Option<(usize, &'a [u8])> {
    let (offset, length) = (rest.number()?, rest.number()?);
    Some((offset, rest.take(length)?))
}

/// What came of the stream.
#[derive(Default)]
pub(super) struct Crypto {
    /// From its begin, without a hole.
    bytes: Vec<u8>,
    /// By place, what is ahead.
    ahead: BTreeMap<usize, Vec<u8>>,
    /// Bytes in `ahead`.
    waiting: usize,
    /// There was too much of it.
    lost: bool,
}

impl Crypto {
    /// Bytes of memory that it takes.
    pub fn held(&self) -> usize {
        self.bytes.capacity() + self.waiting
    }

    pub fn take(&mut self, offset: usize, piece: &[u8]) {
        let fits = (offset.checked_add(piece.len())).is_some_and(|end| end <= BYTES_MAX);
        if !fits {
            self.lost = true;
            return;
        }
        if offset > self.bytes.len() {
            let known = self.ahead.get(&offset).map_or(0, Vec::len);
            if known >= piece.len() {
                return;
            }
            self.waiting += piece.len() - known;
            self.lost |= self.waiting > BYTES_MAX || (known == 0 && self.ahead.len() == PIECES_MAX);
            if !self.lost {
                self.ahead.insert(offset, piece.to_vec());
            }
            return;
        }
        self.append(offset, piece);
        while let Some(entry) = self.ahead.first_entry()
            && *entry.key() <= self.bytes.len()
        {
            let (offset, piece) = entry.remove_entry();
            self.waiting -= piece.len();
            self.append(offset, &piece);
        }
    }

    /// Adds what is new of a piece at or before the end.
    fn append(&mut self, offset: usize, piece: &[u8]) {
        let known = self.bytes.len() - offset;
        self.bytes.extend(piece.get(known..).unwrap_or_default());
    }

    /// The body of the ClientHello, once it is there.
    ///
    /// # Errors
    /// It is none, or cannot be put together.
    pub fn message(&self) -> Option<Result<&[u8], ()>> {
        match self.bytes.as_slice() {
            [CLIENT_HELLO, high, middle, low, body @ ..] => {
                let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
                match body.get(..length) {
                    Some(body) => Some(Ok(body)),
                    None if self.lost || length > BYTES_MAX - HEADER => Some(Err(())),
                    None => None,
                }
            }
            [CLIENT_HELLO, ..] | [] if !self.lost => None,
            _ => Some(Err(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &[u8] = b"\x01\x00\x00\x06abcdef";

    fn message(pieces: &[(usize, usize)]) -> Option<Result<Vec<u8>, ()>> {
        let mut crypto = Crypto::default();
        for (from, to) in pieces {
            crypto.take(*from, &HELLO[*from..*to]);
        }
        let message = crypto.message();
        message.map(|message| message.map(<[u8]>::to_vec))
    }

    #[test]
    fn pieces_in_any_order_and_overlap_give_the_message() {
        let whole = Some(Ok(b"abcdef".to_vec()));
        assert_eq!(message(&[(0, 10)]), whole);
        assert_eq!(message(&[(7, 10), (2, 5), (0, 3), (4, 8)]), whole);
        assert_eq!(message(&[(5, 6), (5, 10), (5, 7), (0, 10)]), whole);
        assert_eq!(message(&[(7, 10), (0, 3), (4, 8)]), None);
        assert_eq!(message(&[]), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut crypto = Crypto::default();
        for at in 0..=PIECES_MAX {
            assert_eq!(crypto.message(), None);
            crypto.take(2 + 2 * at, b"x");
        }
        assert_eq!(
            (crypto.message(), crypto.ahead.len()),
            (Some(Err(())), PIECES_MAX)
        );
        let mut crypto = Crypto::default();
        crypto.take(BYTES_MAX, b"x");
        assert_eq!(crypto.message(), Some(Err(())));
        let mut crypto = Crypto::default();
        crypto.take(usize::MAX, b"x");
        assert_eq!(crypto.message(), Some(Err(())));
    }

    #[test]
    fn frames_beside_the_handshakes_are_passed_over() {
        let frames = b"\x01\x02\x05\x00\x01\x00\x01\x01\x00\x06\x00\x02hi\x03\x05\x00\x00\x00\x01\x01\x01\x06\x40\x02\x01!\x1c\x06\x00\x01?";
        let mut told = Vec::new();
        pieces(frames, |offset, piece| told.push((offset, piece.to_vec())));
        assert_eq!(told, [(0, b"hi".to_vec()), (2, b"!".to_vec())]);
    }
}
