//! One direction of a flow, put in order.
//!
//! The kernel sends pieces by their place in the stream. A piece that is ahead
//! waits, bounded in number, bytes and time, for what is missing; when that does
//! not come, the hole is passed on as bytes that were not captured.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::protocol::Input;

/// Pieces that may wait in one direction.
const MAX_WAITING: usize = 32;
/// Bytes that may wait in one direction.
const MAX_WAITING_BYTES: usize = 16 << 10;
/// Nanoseconds for which a piece waits: twice the 200 ms after which TCP sends
/// again at the soonest (`TCP_RTO_MIN`, include/net/tcp.h), and some. The kernel
/// side sends a few KiB of a flow, so a short session would never fill the
/// other two bounds.
const MAX_WAIT_NS: u64 = 500_000_000;

/// A piece of a stream: a chunk of a segment, or just its size.
#[derive(Clone, Debug)]
struct Piece {
    data: Bytes,
    /// Bytes of the segment from the piece's start on.
    segment_left: u32,
    /// When it came, in nanoseconds since boot.
    since: u64,
}

/// One direction of a flow.
#[derive(Debug, Default)]
pub struct Stream {
    /// Place after the last byte handed on.
    next: u32,
    /// End of the segment that the last piece was cut from.
    segment_end: u32,
    waiting: BTreeMap<u32, Piece>,
    waiting_bytes: usize,
}

impl Stream {
    /// Takes bytes that came at `now`, in nanoseconds since boot: those at
    /// `offset`, the first of `segment_left` bytes of a segment. Hands on what is
    /// now in order.
    pub fn bytes(
        &mut self,
        now: u64,
        offset: u32,
        data: Bytes,
        segment_left: u32,
        mut hand_on: impl FnMut(Input<'_>),
    ) {
        // A record is a slice of memory shared with hundreds of others, all of
        // which it would keep for as long as it waits.
        let data = if offset > self.next {
            Bytes::copy_from_slice(&data)
        } else {
            data
        };
        self.waiting_bytes += data.len();
        let piece = Piece {
            data,
            segment_left,
            since: now,
        };
        if let Some(old) = self.waiting.insert(offset, piece) {
            self.waiting_bytes -= old.data.len();
        }
        self.advance(now, &mut hand_on);
    }

    /// Takes a segment of which only the size is known.
    pub fn size(&mut self, now: u64, offset: u32, bytes: u32, hand_on: impl FnMut(Input<'_>)) {
        self.bytes(now, offset, Bytes::new(), bytes, hand_on);
    }

    fn advance(&mut self, now: u64, hand_on: &mut impl FnMut(Input<'_>)) {
        while let Some((&offset, _)) = self.waiting.first_key_value() {
            if offset > self.next {
                let cut = self.segment_end > self.next && offset == self.segment_end;
                let full =
                    self.waiting.len() > MAX_WAITING || self.waiting_bytes > MAX_WAITING_BYTES;
                let old = || {
                    let since = self.waiting.values().map(|piece| piece.since).min();
                    since.is_some_and(|since| now.saturating_sub(since) > MAX_WAIT_NS)
                };
                if !cut && !full && !old() {
                    return;
                }
                hand_on(Input::Skipped(offset - self.next));
                self.next = offset;
            }
            let Some((_, piece)) = self.waiting.pop_first() else {
                return;
            };
            self.waiting_bytes -= piece.data.len();
            self.hand_on(offset, &piece, hand_on);
        }
    }

    fn hand_on(&mut self, offset: u32, piece: &Piece, hand_on: &mut impl FnMut(Input<'_>)) {
        self.segment_end = self
            .segment_end
            .max(offset.saturating_add(piece.segment_left));
        if piece.data.is_empty() {
            let end = offset.saturating_add(piece.segment_left);
            if end > self.next {
                hand_on(Input::Skipped(end - self.next));
                self.next = end;
            }
            return;
        }
        // Bytes that were handed on before are a retransmission.
        let known = (self.next - offset) as usize;
        if let Some(new) = piece.data.get(known..).filter(|new| !new.is_empty()) {
            hand_on(Input::Bytes(new));
            self.next = self
                .next
                .saturating_add(u32::try_from(new.len()).unwrap_or(u32::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Out {
        Bytes(Vec<u8>),
        Skipped(u32),
    }

    /// Offset, bytes, bytes of the segment from there on.
    type Sent = (u32, &'static [u8], u32);

    fn run(pieces: &[Sent]) -> Vec<Out> {
        let at_once: Vec<_> = pieces.iter().map(|piece| (0, *piece)).collect();
        run_at(&at_once)
    }

    /// Pieces, each with the millisecond it comes at.
    fn run_at(pieces: &[(u64, Sent)]) -> Vec<Out> {
        let mut stream = Stream::default();
        let mut out = Vec::new();
        for &(at, (offset, data, left)) in pieces {
            let data = Bytes::from_static(data);
            stream.bytes(at * 1_000_000, offset, data, left, |input| {
                out.push(match input {
                    Input::Bytes(bytes) => Out::Bytes(bytes.to_vec()),
                    Input::Skipped(bytes) => Out::Skipped(bytes),
                    Input::Gap => unreachable!("streams know the size of every hole"),
                });
            });
        }
        out
    }

    #[test]
    fn hands_on_what_comes_in_order() {
        assert_eq!(
            run(&[(0, b"ab", 2), (2, b"c", 1)]),
            [Out::Bytes(b"ab".into()), Out::Bytes(b"c".into())]
        );
    }

    #[test]
    fn puts_pieces_in_order() {
        assert_eq!(
            run(&[(2, b"c", 1), (0, b"ab", 2)]),
            [Out::Bytes(b"ab".into()), Out::Bytes(b"c".into())]
        );
    }

    #[test]
    fn drops_what_was_sent_before() {
        assert_eq!(
            run(&[(0, b"abc", 3), (1, b"bcd", 3), (0, b"abc", 3)]),
            [Out::Bytes(b"abc".into()), Out::Bytes(b"d".into())]
        );
    }

    #[test]
    fn skips_the_rest_of_a_segment_that_was_cut() {
        assert_eq!(
            run(&[(0, b"ab", 10), (10, b"", 44)]),
            [Out::Bytes(b"ab".into()), Out::Skipped(8), Out::Skipped(44)]
        );
    }

    #[test]
    fn gives_up_on_a_hole_when_too_much_waits() {
        let pieces: Vec<_> = (0..40u32).map(|n| (10 + n, &b"x"[..], 1)).collect();
        let out = run(&pieces);
        assert_eq!(out[0], Out::Skipped(10));
        assert_eq!(out.len(), 41);
    }

    #[test]
    fn gives_up_on_a_hole_after_half_a_second() {
        let ahead = [(0, (4, &b"b"[..], 1)), (500, (6, b"d", 1))];
        assert_eq!(run_at(&ahead), []);
        let late = [ahead[0], ahead[1], (501, (5, b"c", 1))];
        assert_eq!(
            run_at(&late),
            [
                Out::Skipped(4),
                Out::Bytes(b"b".into()),
                Out::Bytes(b"c".into()),
                Out::Bytes(b"d".into())
            ]
        );
    }

    #[test]
    fn a_newer_hole_is_waited_for_after_an_older_one_was_given_up() {
        let pieces = [
            (0, (1, &b"a"[..], 1)),
            (600, (5, b"b", 1)),
            (700, (2, b"xyz", 3)),
        ];
        assert_eq!(
            run_at(&pieces[..2]),
            [Out::Skipped(1), Out::Bytes(b"a".into())]
        );
        assert_eq!(
            run_at(&pieces)[2..],
            [Out::Bytes(b"xyz".into()), Out::Bytes(b"b".into())]
        );
    }

    #[test]
    fn what_fills_a_hole_late_is_not_given_up() {
        assert_eq!(
            run_at(&[(0, (1, b"b", 1)), (900, (0, b"a", 1))]),
            [Out::Bytes(b"a".into()), Out::Bytes(b"b".into())]
        );
    }

    #[test]
    fn a_piece_that_waits_does_not_keep_the_memory_it_came_in() {
        let arena = Bytes::from(vec![b'x'; 256 << 10]);
        let mut stream = Stream::default();
        stream.bytes(0, 8, arena.slice(8..9), 1, |_| ());
        assert_eq!(stream.waiting.len(), 1);
        assert!(arena.is_unique());
    }
}
