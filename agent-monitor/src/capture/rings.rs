//! Two rings, one order.
//!
//! Life-cycle records and payload have a ring each, so that a flood of one
//! cannot displace the other. They share no order but the kernel's clock, and a
//! record is submitted a little after its time was taken: records are held for
//! [`WINDOW`] and handed on by time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use bytes::{Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use agent_monitor_common::limits::LINGER_NS;

use crate::decode;

/// How long a record is held for others that are older. A program takes the
/// time at its start and submits microseconds later, unless it is interrupted
/// by packets; two milliseconds cover thousands of those.
pub const WINDOW: Duration = Duration::from_millis(2);

/// Bytes that are allocated at once for records.
const ARENA: usize = 256 << 10;

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
        let lingering = boot_time().saturating_sub(self.last_taken) < LINGER_NS;
        let timeout = if self.held.is_empty() && !lingering {
            longest
        } else {
            WINDOW.min(longest)
        };
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

    /// Takes what is in the rings and hands on, in order of time, what is older
    /// than [`WINDOW`]; with `all`, everything.
    pub fn drain(&mut self, all: bool, mut hand_on: impl FnMut(Bytes)) {
        let until = if all {
            u64::MAX
        } else {
            boot_time().saturating_sub(nanos(WINDOW))
        };
        self.take_in();
        while let Some(Reverse(oldest)) = self.held.peek() {
            if oldest.time > until {
                break;
            }
            if let Some(Reverse(oldest)) = self.held.pop() {
                hand_on(oldest.bytes);
            }
        }
    }

    fn take_in(&mut self) {
        let now = boot_time();
        for ring in [&mut self.events, &mut self.payload] {
            while let Some(item) = ring.next() {
                let Ok(header) = decode::header(&item) else {
                    self.refused += 1;
                    continue;
                };
                // Ring entries are of the largest size of their kind; what was
                // written is shorter.
                let len = usize::try_from(header.len).map_or(item.len(), |len| len.min(item.len()));
                if self.arena.capacity() < len {
                    self.arena = BytesMut::with_capacity(ARENA.max(len));
                }
                self.arena.extend_from_slice(&item[..len]);
                let bytes = self.arena.split().freeze();
                self.held.push(Reverse(Held {
                    time: header.time,
                    arrival: self.taken,
                    bytes,
                }));
                self.taken += 1;
                self.last_taken = now;
            }
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
