//! Storing off the hot path: the pipeline hands every event to a queue, a thread
//! stores what is to be stored and then tells everyone of all of it, in order.
//!
//! So a number on a line says that it is on the disk, numbers on a stream only grow,
//! and an alert is durable before anyone hears of it. What waits is bounded, and the
//! pipeline never waits: while the disk is stuck or failing, it tells everyone itself,
//! without numbers. Alerts then wait for room on the disk, to a bound; what the store
//! loses is counted by agent and kind.

mod context;
mod queue;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Seq, Store};
use crate::event::{Body, Event};
use queue::{Queue, Shared};

/// Events that wait to be stored.
pub const QUEUE: usize = 16_384;
/// Room beyond for alerts, losses and gaps.
pub const RESERVED: usize = 4_096;
/// What is kept for a disk that is failing, until it can be stored.
pub const PENDING: usize = 4_096;
/// A write that takes longer than this is no longer waited for with telling.
const STUCK: Duration = Duration::from_secs(1);
/// How often a disk that is failing is tried.
const RETRY: Duration = Duration::from_secs(1);
/// Events without alerts are not written sooner after the write before: each is a sync.
const EVENTS_EVERY: Duration = Duration::from_millis(50);
/// Most events that are written together.
const BATCH: usize = 4_096;

/// Which events are stored, besides alerts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Events {
    /// All of them.
    All,
    /// Those that an alert refers to, and `agent`, `loss` and `gap`.
    #[default]
    Context,
    /// None.
    None,
}

impl Events {
    /// Whether an event of this kind is stored whatever comes after it.
    fn keeps(self, body: &Body) -> bool {
        match body {
            Body::Alert(_) => true,
            Body::Agent(_) | Body::Loss(_) | Body::Gap(_) => self != Self::None,
            _ => self == Self::All,
        }
    }
}

/// Tells everyone of an event, with its number in the store, if it is there.
pub type Tell = dyn Fn(Arc<Event>, Option<Seq>) + Send + Sync;

/// How the store is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether the last write succeeded.
    pub is_well: bool,
    /// Why it did not.
    pub error: Option<String>,
    /// Bytes of the database in use.
    pub bytes: u64,
    /// Alerts and events stored since the start.
    pub stored: u64,
    /// Events that alerts referred to and that were no longer known.
    pub context_missing: u64,
    /// Alerts and events that wait for a disk that is failing.
    pub pending: usize,
}

/// Hands events to the thread that stores them. When it is dropped, what waits is
/// stored first, if that is possible.
pub struct Recorder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Starts the thread, which opens the store.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn start(store: Store, events: Events, tell: Box<Tell>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::new(events, tell));
        let writer = writer::Writer::new(store, shared.clone());
        let thread = std::thread::Builder::new().name("store".to_owned());
        Ok(Self {
            thread: Some(thread.spawn(move || writer.run())?),
            shared,
        })
    }

    /// Takes all of `events`. Never waits for the disk.
    pub fn take(&self, events: &mut Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut told = Vec::new();
        {
            let mut queue = self.shared.queue();
            let late = queue.is_late();
            if late {
                queue.tell_waiting(&mut told);
            }
            for event in events.drain(..) {
                let event = Arc::new(event);
                let queued = queue.push(&event, late, self.shared.events);
                if !queued && self.shared.events.keeps(&event.body) {
                    queue.lose(&event);
                }
                if late || !queued {
                    told.push(event);
                }
            }
        }
        self.shared.wake.notify_one();
        for event in told {
            (self.shared.tell)(event, None);
        }
    }

    /// What was lost since the last call, by the cgroup id of its agent (0: none) and kind.
    pub fn take_losses(&self) -> Vec<(u64, &'static str, u64)> {
        let losses = std::mem::take(&mut self.shared.queue().losses);
        let each = losses.into_iter();
        each.map(|((agent, kind), records)| (agent, kind, records))
            .collect()
    }

    /// How the store is doing.
    pub fn health(&self) -> Health {
        lock(&self.shared.health).clone()
    }

    /// Events that wait.
    pub fn queued(&self) -> usize {
        self.shared.queue().waiting.len()
    }

    /// Waits until the store was opened, or could not be, at most for `limit`.
    pub fn wait_until_opened(&self, limit: Duration) {
        let queue = self.shared.queue();
        let waiting = |queue: &mut Queue| !queue.tried;
        let _ = self.shared.tried.wait_timeout_while(queue, limit, waiting);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.queue().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that stores events ended badly");
        }
    }
}

/// What is behind these locks is whole after every statement: poison says nothing.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
