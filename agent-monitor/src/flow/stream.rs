//! One direction of a flow, put in order.
//!
//! The kernel sends pieces by their place in the stream. A piece that is ahead
//! waits, bounded in number, bytes and time, for what is missing; when that does
//! not come, the hole is passed on as bytes that were not captured. Of bytes that
//! come twice the first version is handed on; that the second differs is told,
//! as only the receiver knows which one it took.

use std::collections::BTreeMap;

use agent_monitor_common::limits::HEAD_CAP;
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
/// Bytes from the stream's begin that are kept to compare with what comes again.
const MAX_KEPT: usize = HEAD_CAP as usize;

/// A piece of a stream: a chunk of a segment, or just its size.
#[derive(Clone, Debug)]
struct Piece {
    data: Bytes,
    /// Bytes of the segment from the piece's start on.
    segment_left: u32,
    /// When it came, in nanoseconds since boot.
    since: u64,
}

/// What a stream hands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// The next part.
    Input(Input<'a>),
    /// Other bytes came than were handed on before: this is the stream's begin by the
    /// last version of each.
    Differs(&'a [u8]),
}

/// One direction of a flow.
#[derive(Debug, Default)]
pub struct Stream {
    /// Place after the last byte handed on.
    next: u32,
    /// End of the segment that the last piece was cut from.
    segment_end: u32,
    /// By place, then in order of their coming.
    waiting: BTreeMap<(u32, u32), Piece>,
    waiting_bytes: usize,
    arrivals: u32,
    /// The stream's first bytes as handed on, as far as they have no hole.
    kept: Vec<u8>,
    /// The same by the last version of each byte, once some byte came in two.
    last: Option<Vec<u8>>,
    /// Nothing more is kept.
    forgetful: bool,
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
        mut hand_on: impl FnMut(Next<'_>),
    ) {
        // A record is a slice of memory shared with hundreds of others, all of
        // which it would keep for as long as it waits.
        let data = if offset > self.next {
            Bytes::copy_from_slice(&data)
        } else {
            data
        };
        let piece = Piece {
            data,
            segment_left,
            since: now,
        };
        let same = |other: &Piece| other.data == piece.data && other.segment_left == segment_left;
        let mut there = self.waiting.range((offset, 0)..=(offset, u32::MAX));
        if !there.any(|(_, other)| same(other)) {
            self.waiting_bytes += piece.data.len();
            self.arrivals = self.arrivals.wrapping_add(1);
            self.waiting.insert((offset, self.arrivals), piece);
        }
        self.advance(now, false, &mut hand_on);
    }

    /// Takes a segment of which only the size is known.
    pub fn size(&mut self, now: u64, offset: u32, bytes: u32, hand_on: impl FnMut(Next<'_>)) {
        self.bytes(now, offset, Bytes::new(), bytes, hand_on);
    }

    /// Hands on what still waits: nothing more will come, or not in time.
    pub fn flush(&mut self, mut hand_on: impl FnMut(Next<'_>)) {
        self.advance(0, true, &mut hand_on);
    }

    /// Goes on at `offset`; what is before it is not waited for.
    pub fn jump(&mut self, offset: u32) {
        self.forget_kept();
        self.next = self.next.max(offset);
    }

    /// Place after the last byte handed on.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// The stream's first bytes, as far as they are kept.
    pub fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// The same by the last version of each byte.
    pub fn last(&self) -> &[u8] {
        self.last.as_deref().unwrap_or(&self.kept)
    }

    /// Keeps no bytes to compare with any more.
    pub fn forget_kept(&mut self) {
        self.forgetful = true;
        self.kept = Vec::new();
        self.last = None;
    }

    /// Whether a piece waits for what is missing before it.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Bytes of memory that wait or are kept.
    pub fn held(&self) -> usize {
        let last = self.last.as_ref().map_or(0, Vec::capacity);
        self.waiting_bytes + self.kept.capacity() + last
    }

    fn advance(&mut self, now: u64, all: bool, hand_on: &mut impl FnMut(Next<'_>)) {
        while let Some((&(offset, _), _)) = self.waiting.first_key_value() {
            if offset > self.next {
                let cut = self.segment_end > self.next && offset == self.segment_end;
                let full =
                    self.waiting.len() > MAX_WAITING || self.waiting_bytes > MAX_WAITING_BYTES;
                let old = || {
                    let since = self.waiting.values().map(|piece| piece.since).min();
                    since.is_some_and(|since| now.saturating_sub(since) > MAX_WAIT_NS)
                };
                if !all && !cut && !full && !old() {
                    return;
                }
                hand_on(Next::Input(Input::Skipped(offset - self.next)));
                self.next = offset;
            }
            let Some((_, piece)) = self.waiting.pop_first() else {
                return;
            };
            self.waiting_bytes -= piece.data.len();
            self.hand_on(offset, &piece, hand_on);
        }
    }

    fn hand_on(&mut self, offset: u32, piece: &Piece, hand_on: &mut impl FnMut(Next<'_>)) {
        self.segment_end = self
            .segment_end
            .max(offset.saturating_add(piece.segment_left));
        if piece.data.is_empty() {
            let end = offset.saturating_add(piece.segment_left);
            if end > self.next {
                hand_on(Next::Input(Input::Skipped(end - self.next)));
                self.next = end;
            }
            return;
        }
        if let Some(before) = self.kept.get(offset as usize..) {
            let both = before.len().min(piece.data.len());
            let at = offset as usize;
            // What is sent again as it came last is no other version, and one that was
            // there before is.
            if self.last()[at..at + both] != piece.data[..both] {
                let last = self.last.get_or_insert_with(|| self.kept.clone());
                last[at..at + both].copy_from_slice(&piece.data[..both]);
                hand_on(Next::Differs(last));
            }
        }
        // Bytes that were handed on before are a retransmission.
        let known = (self.next - offset) as usize;
        if let Some(new) = piece.data.get(known..).filter(|new| !new.is_empty()) {
            self.keep(new);
            hand_on(Next::Input(Input::Bytes(new)));
            self.next = self
                .next
                .saturating_add(u32::try_from(new.len()).unwrap_or(u32::MAX));
        }
    }

    /// Keeps bytes at `next`, if there is no hole before them.
    fn keep(&mut self, new: &[u8]) {
        if !self.forgetful && self.kept.len() == self.next as usize {
            let room = MAX_KEPT - self.kept.len();
            let new = &new[..new.len().min(room)];
            self.kept.extend_from_slice(new);
            if let Some(last) = &mut self.last {
                last.extend_from_slice(new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq)]
    enum Out {
        Bytes(Vec<u8>),
        Skipped(u32),
        Differs(Vec<u8>),
    }

    fn told(next: Next<'_>) -> Out {
        match next {
            Next::Input(Input::Bytes(bytes)) => Out::Bytes(bytes.to_vec()),
            Next::Input(Input::Skipped(bytes)) => Out::Skipped(bytes),
            Next::Input(Input::Gap) => unreachable!("streams know the size of every hole"),
            Next::Differs(last) => Out::Differs(last.to_vec()),
        }
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
            stream.bytes(at * 1_000_000, offset, data, left, |next| {
                out.push(told(next))
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

    #[test]
    fn other_bytes_at_a_place_that_was_handed_on_are_told() {
        assert_eq!(
            run(&[(0, b"abc", 3), (1, b"bX", 2), (1, b"bYd", 3)]),
            [
                Out::Bytes(b"abc".into()),
                Out::Differs(b"abX".into()),
                Out::Differs(b"abY".into()),
                Out::Bytes(b"d".into()),
            ]
        );
    }

    #[test]
    fn other_bytes_among_those_that_wait_are_told() {
        assert_eq!(
            run(&[(1, b"bc", 2), (1, b"XX", 2), (1, b"bc", 2), (0, b"a", 1)]),
            [
                Out::Bytes(b"a".into()),
                Out::Bytes(b"bc".into()),
                Out::Differs(b"aXX".into()),
            ]
        );
    }

    #[test]
    fn another_version_is_told_once_and_so_is_the_first_when_it_comes_again() {
        assert_eq!(
            run(&[
                (0, b"abc", 3),
                (1, b"X", 1),
                (1, b"X", 1),
                (2, b"Y", 1),
                (1, b"b", 1)
            ]),
            [
                Out::Bytes(b"abc".into()),
                Out::Differs(b"aXc".into()),
                Out::Differs(b"aXY".into()),
                Out::Differs(b"abY".into()),
            ]
        );
    }

    #[test]
    fn the_last_version_of_every_byte_is_put_together_from_pieces_that_overlap() {
        let mut stream = Stream::default();
        // What a receiver that believes the last, or one that believes the first, has.
        for (offset, data) in [
            (0, b"aXX"),
            (0, b"abc"),
            (2, b"XXX"),
            (2, b"cde"),
            (4, b"efg"),
        ] {
            stream.bytes(0, offset, Bytes::from_static(data), 3, |_| ());
        }
        assert_eq!(stream.kept(), b"aXXXXfg");
        assert_eq!(stream.last(), b"abcdefg");
        stream.forget_kept();
        assert_eq!((stream.last(), stream.held()), (&b""[..], 0));
    }

    #[test]
    fn at_the_end_what_waits_is_handed_on_with_its_holes() {
        let mut stream = Stream::default();
        for (offset, data) in [(2, &b"c"[..]), (5, b"f")] {
            stream.bytes(0, offset, Bytes::from_static(data), 1, |_| panic!("waits"));
        }
        let mut out = Vec::new();
        stream.flush(|next| out.push(told(next)));
        let bytes = |byte: &[u8]| Out::Bytes(byte.into());
        let skipped = [Out::Skipped(2), bytes(b"c"), Out::Skipped(2), bytes(b"f")];
        assert_eq!(out, skipped);
        assert_eq!(stream.held(), stream.kept.capacity());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn pieces_in_any_order_and_overlap_give_the_stream(
            mut cuts in vec((0..200usize, 1..40usize), 1..60),
            length in 1..240usize,
        ) {
            let all: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let mut stream = Stream::default();
            let mut out = Vec::new();
            // Whatever is missing comes at last.
            cuts.extend((0..length).step_by(30).map(|at| (at, 40)));
            for (offset, size) in cuts {
                let end = (offset + size).min(length);
                let Some(data) = all.get(offset..end) else { continue };
                let data = Bytes::copy_from_slice(data);
                let size = data.len() as u32;
                stream.bytes(0, offset as u32, data, size, |next| match next {
                    Next::Input(Input::Bytes(bytes)) => out.extend_from_slice(bytes),
                    Next::Input(Input::Skipped(bytes)) => out.resize(out.len() + bytes as usize, 0),
                    other => panic!("{other:?}"),
                });
            }
            prop_assert_eq!(out.len(), length);
            prop_assert!(stream.held() <= 4 * MAX_KEPT + MAX_WAITING_BYTES);
        }

        #[test]
        fn no_input_panics_or_holds_more_than_the_bound(
            pieces in vec((any::<u32>(), vec(any::<u8>(), 0..600), any::<u32>(), any::<u64>()), 0..200),
        ) {
            let mut stream = Stream::default();
            for (offset, data, left, now) in pieces {
                stream.bytes(now, offset % 5000, data.into(), left, |_| ());
                prop_assert!(stream.held() <= 4 * MAX_KEPT + MAX_WAITING_BYTES);
            }
        }
    }
}
