//! Two rings, one order.
//!
//! Life-cycle records and payload have a ring each, so that a flood of one
//! cannot displace the other. They share no order but the kernel's clock, and a
//! record is submitted a little after its time was taken: records are held for
//! [`WINDOW`] and handed on by time. Of records with one time, which there are
//! only by chance, those of the life-cycle ring tend to come first: they are
//! taken out first. Where the order matters, the kernel side gives the later one
//! a later time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use bytes::{Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use agent_monitor_common::event::kind;
use agent_monitor_common::limits::{LINGER_NS, PAYLOAD_RING_BYTES};

use crate::decode;

/// How long a record is held for others that are older. A program takes the
/// time at its start and submits microseconds later, unless it is interrupted
/// by packets; two milliseconds cover thousands of those.
pub const WINDOW: Duration = Duration::from_millis(2);

/// Bytes that are allocated at once for records.
const ARENA: usize = 256 << 10;

/// Entries taken from each ring at a time. Agents may fill the rings as fast as
/// they are emptied: what was taken is handed on before more is.
const MOST_AT_A_TIME: usize = 32_768;
/// Entries that may be in a ring: each has 8 bytes of its own and a header.
const MOST_IN_A_RING: usize =
    PAYLOAD_RING_BYTES as usize / (8 + size_of::<agent_monitor_common::event::Header>());
/// Entries taken from one ring before it is the other's turn.
const BATCH: usize = 64;
/// Records that are held; more are handed on early, the oldest first.
const MAX_HELD: usize = 65_536;

/// The rings of a loaded kernel side.
pub struct Rings {
    events: RingBuf<MapData>,
    payload: RingBuf<MapData>,
    held: BinaryHeap<Reverse<Held>>,
    arena: BytesMut,
    taken: u64,
    /// When a record was last taken out of a ring.
    last_taken: u64,
    /// Entries too short to have a header.
    pub refused: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    time: u64,
    /// Order of arrival, among records of one time.
    arrival: u64,
    bytes: Bytes,
}

impl Rings {
    /// Takes over the two rings.
    pub fn new((events, payload): (RingBuf<MapData>, RingBuf<MapData>)) -> Self {
        Self {
            events,
            payload,
            held: BinaryHeap::new(),
            arena: BytesMut::with_capacity(ARENA),
            taken: 0,
            last_taken: 0,
            refused: 0,
        }
    }

    /// Waits until there is something to take or to hand on, at most `longest`.
    ///
    /// # Errors
    /// poll() failed.
    pub fn wait(&self, longest: Duration) -> io::Result<()> {
        let now = boot_time();
        let timeout = match self.held.peek() {
            // When it is due, but not for each of many that follow closely.
            Some(Reverse(oldest)) => {
                let due = (oldest.time + nanos(WINDOW)).saturating_sub(now);
                Duration::from_nanos(due).clamp(WINDOW / 2, WINDOW)
            }
            None if now.saturating_sub(self.last_taken) < LINGER_NS => WINDOW,
            None => longest,
        };
        let timeout = timeout.min(longest);
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let mut fds = [
            PollFd::from_borrowed_fd(borrow(&self.events), PollFlags::IN),
            PollFd::from_borrowed_fd(borrow(&self.payload), PollFlags::IN),
        ];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what is in the rings, a bounded part if it is much, and hands on, in
    /// order of time, what is older than [`WINDOW`]; with `all`, everything that
    /// was there at the call.
    pub fn drain(&mut self, all: bool, mut hand_on: impl FnMut(Bytes)) {
        let until = if all {
            self.take_in(MOST_IN_A_RING);
            u64::MAX
        } else {
            let now = boot_time();
            let newest = self.take_in(MOST_AT_A_TIME).unwrap_or(now);
            now.min(newest).saturating_sub(nanos(WINDOW))
        };
        while let Some(Reverse(oldest)) = self.held.peek() {
            if oldest.time > until && self.held.len() <= MAX_HELD {
                break;
            }
            if let Some(Reverse(oldest)) = self.held.pop() {
                hand_on(oldest.bytes);
            }
        }
    }

    /// Takes everything that is in the rings, to be handed on later, and counts by
    /// agent and kind what is held.
    pub fn fill(&mut self) -> HashMap<u64, [u64; kind::MOST]> {
        self.take_in(MOST_IN_A_RING);
        let mut counts = HashMap::new();
        for Reverse(held) in &self.held {
            if let Ok(header) = decode::header(&held.bytes) {
                let of: &mut [u64; kind::MOST] = counts.entry(header.agent).or_default();
                if let Some(count) = of.get_mut(header.kind as usize) {
                    *count += 1;
                }
            }
        }
        counts
    }

    /// Takes at most `most` entries from each ring. If one may hold more, returns
    /// the time of the last that was taken from it, the lower of two: what is
    /// still in there is not much older.
    fn take_in(&mut self, most: usize) -> Option<u64> {
        let before = self.taken;
        let mut last = [0; 2];
        let emptied = take_turns(most, |ring| match self.take_one(ring) {
            Some(time) => {
                last[ring] = time.max(last[ring]);
                true
            }
            None => false,
        });
        if self.taken != before {
            self.last_taken = boot_time();
        }
        let left = last.into_iter().zip(emptied);
        left.filter_map(|(last, emptied)| (!emptied).then_some(last))
            .min()
    }

    /// Takes an entry, if there is one, and returns its time; 0 if it has none.
    fn take_one(&mut self, ring: usize) -> Option<u64> {
        let item = [&mut self.events, &mut self.payload][ring].next()?;
        let Ok(header) = decode::header(&item) else {
            self.refused += 1;
            return Some(0);
        };
        // Ring entries are of the largest size of their kind; what was written is
        // shorter.
        let len = usize::try_from(header.len).map_or(item.len(), |len| len.min(item.len()));
        if self.arena.capacity() < len {
            self.arena = BytesMut::with_capacity(ARENA.max(len));
        }
        self.arena.extend_from_slice(&item[..len]);
        self.held.push(Reverse(Held {
            time: header.time,
            arrival: self.taken,
            bytes: self.arena.split().freeze(),
        }));
        self.taken += 1;
        Some(header.time)
    }
}

/// Takes from two rings in turn, a batch from each, until both are empty or
/// `most` were taken from each. `take` takes one entry from the ring of an index,
/// or tells that there is none. Returns which rings were found empty last.
fn take_turns(most: usize, mut take: impl FnMut(usize) -> bool) -> [bool; 2] {
    let mut left = [most; 2];
    let mut emptied = [false; 2];
    loop {
        let before = left;
        for ring in 0..2 {
            for _ in 0..BATCH.min(left[ring]) {
                emptied[ring] = !take(ring);
                if emptied[ring] {
                    break;
                }
                left[ring] -= 1;
            }
        }
        if left == before {
            return emptied;
        }
    }
}

fn borrow(ring: &RingBuf<MapData>) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as the ring, which outlives the borrow.
    unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) }
}

/// Nanoseconds since boot, on the clock of the records.
pub fn boot_time() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Nanoseconds from the Unix epoch to boot: add it to a record's time.
pub fn boot_epoch() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let real = u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(now.tv_nsec).unwrap_or(0);
    real.saturating_sub(boot_time())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_that_never_empties_ends_and_does_not_keep_the_other_waiting() {
        let mut taken = Vec::new();
        let mut payload = 0;
        let emptied = take_turns(1_000, |ring| {
            taken.push(ring);
            payload += usize::from(ring == 1);
            ring == 0 || payload <= 100
        });
        assert_eq!(emptied, [false, true]);
        assert_eq!(taken.iter().filter(|ring| **ring == 0).count(), 1_000);
        assert_eq!(taken.iter().position(|ring| *ring == 1), Some(BATCH));
    }

    #[test]
    fn rings_are_taken_from_until_both_are_empty() {
        let mut left = [300, 7];
        let emptied = take_turns(1_000, |ring| {
            let some = left[ring] > 0;
            left[ring] -= usize::from(some);
            some
        });
        assert_eq!((left, emptied), ([0, 0], [true, true]));
    }
}
