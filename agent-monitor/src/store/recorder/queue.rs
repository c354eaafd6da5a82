//! What waits between the pipeline and the store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use super::{BATCH, EVENTS_EVERY, Events, Health, QUEUE, RESERVED, STUCK, Tell, lock};
use crate::event::{Body, Event};

/// What pipeline and writer share.
pub(super) struct Shared {
    pub events: Events,
    pub tell: Box<Tell>,
    queue: Mutex<Queue>,
    /// There is something in the queue, or it is time to stop.
    pub wake: Condvar,
    /// The store was opened, or could not be.
    pub tried: Condvar,
    pub health: Mutex<Health>,
}

impl Shared {
    pub(super) fn new(events: Events, tell: Box<Tell>) -> Self {
        Self {
            events,
            tell,
            queue: Mutex::default(),
            wake: Condvar::new(),
            tried: Condvar::new(),
            health: Mutex::default(),
        }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    /// Waits until there is something to do, at most until `idle`: takes a batch, and
    /// says whether it is time to stop.
    pub(super) fn next(&self, last_write: Instant, idle: Instant) -> (Vec<Item>, bool) {
        let mut queue = self.queue();
        queue.busy_since = None;
        loop {
            let now = Instant::now();
            let due = match queue.waiting.is_empty() {
                true => idle,
                false if queue.is_urgent() => now,
                // Not before the disk has had its rest.
                false => last_write + EVENTS_EVERY,
            };
            if queue.stop || due <= now {
                break;
            }
            let waited = self.wake.wait_timeout(queue, due - now);
            queue = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        let batch = queue.waiting.len().min(BATCH);
        let items: Vec<Item> = queue.waiting.drain(..batch).collect();
        if queue.waiting.is_empty() {
            (queue.to_store, queue.alerts) = (false, false);
        }
        queue.busy_since = (!items.is_empty()).then(Instant::now);
        let stop = queue.stop && queue.waiting.is_empty();
        (items, stop)
    }
}

/// An event that waits.
pub(super) struct Item {
    pub event: Arc<Event>,
    /// Everyone was told of it.
    pub told: bool,
}

#[derive(Default)]
pub(super) struct Queue {
    pub waiting: VecDeque<Item>,
    /// Whether any of it is to be stored, and whether that is an alert.
    to_store: bool,
    alerts: bool,
    /// Since when the writer is at what it took last.
    pub busy_since: Option<Instant>,
    /// The last write failed.
    pub failing: bool,
    /// Whether opening was tried.
    pub tried: bool,
    pub stop: bool,
    pub losses: BTreeMap<(u64, &'static str), u64>,
}

impl Queue {
    /// Whether everyone is to be told without waiting for the store.
    pub(super) fn is_late(&self) -> bool {
        let stuck = |since: Instant| since.elapsed() > STUCK;
        self.failing || self.busy_since.is_some_and(stuck)
    }

    /// Whether there is something that should not wait.
    fn is_urgent(&self) -> bool {
        self.alerts || !self.to_store || self.waiting.len() >= BATCH
    }

    /// Marks what waits as told, and gives what was not.
    pub(super) fn tell_waiting(&mut self, told: &mut Vec<Arc<Event>>) {
        for item in self.waiting.iter_mut().filter(|item| !item.told) {
            item.told = true;
            told.push(item.event.clone());
        }
    }

    /// Queues an event; `false` without room.
    pub(super) fn push(&mut self, event: &Arc<Event>, told: bool, events: Events) -> bool {
        let vital = matches!(event.body, Body::Alert(_) | Body::Loss(_) | Body::Gap(_));
        let room = QUEUE + if vital { RESERVED } else { 0 };
        if self.waiting.len() >= room {
            return false;
        }
        self.to_store |= events.keeps(&event.body);
        self.alerts |= matches!(event.body, Body::Alert(_));
        self.waiting.push_back(Item {
            event: event.clone(),
            told,
        });
        true
    }

    /// Counts an event that will not be stored. A `loss` is not counted: what it says
    /// stays in the daemon's counters, and one of a loss would make the next.
    pub(super) fn lose(&mut self, event: &Event) {
        if !matches!(event.body, Body::Loss(_)) {
            let agent = event.agent.as_ref().map_or(0, |agent| agent.cgroup_id);
            *self.losses.entry((agent, event.body.kind())).or_default() += 1;
        }
    }
}
