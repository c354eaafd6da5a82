//! The thread that stores.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::Context;
use super::queue::{Item, Shared};
use super::{Events, Health, PENDING, RETRY, lock};
use crate::event::{Body, Event, Timestamp};
use crate::store::{Pruned, Seq, Store, StoreError};

/// How often what is too old is deleted.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// How often it looks after the store when nothing happens.
const IDLE: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    store: Store,
    shared: Arc<Shared>,
    context: Context,
    /// What could not be stored and is tried again, in order.
    pending: VecDeque<Arc<Event>>,
    /// When a failing disk is tried again; absent while all is well.
    retry: Option<Instant>,
    last_write: Instant,
    pruned: Option<Instant>,
    health: Health,
}

impl Writer {
    pub(super) fn new(store: Store, shared: Arc<Shared>) -> Self {
        Self {
            store,
            shared,
            context: Context::default(),
            pending: VecDeque::new(),
            retry: None,
            last_write: Instant::now(),
            pruned: None,
            health: Health::default(),
        }
    }

    /// Stores until it is to stop and nothing waits.
    pub(super) fn run(mut self) {
        self.try_again();
        self.shared.queue().tried = true;
        self.shared.tried.notify_all();
        loop {
            let now = Instant::now();
            let idle = self.retry.unwrap_or(now + IDLE);
            let (items, stop) = self.shared.next(self.last_write, idle);
            self.look_after();
            self.take(items);
            if stop {
                return self.end();
            }
        }
    }

    /// Stores what is to be stored of `items`, and tells everyone of all of it.
    fn take(&mut self, items: Vec<Item>) {
        let mut batch: Vec<Arc<Event>> = Vec::new();
        // Of each item its place in the batch.
        let mut places = Vec::with_capacity(items.len());
        for item in &items {
            let event = &item.event;
            if self.shared.events == Events::Context {
                if let Body::Alert(alert) = &event.body {
                    self.refer(&alert.events, event, &mut batch);
                } else {
                    self.context.push(event);
                }
            }
            let keeps = self.shared.events.keeps(&event.body);
            places.push(keeps.then_some(batch.len()));
            batch.extend(keeps.then(|| event.clone()));
        }
        let numbers = self.store(batch);
        for (item, place) in items.into_iter().zip(places) {
            if !item.told {
                let seq = place.and_then(|place| numbers.get(place).copied().flatten());
                (self.shared.tell)(item.event, seq);
            }
        }
    }

    /// Adds to `batch` what an alert refers to.
    fn refer(&mut self, ids: &[Arc<str>], alert: &Event, batch: &mut Vec<Arc<Event>>) {
        for id in ids {
            match self.context.find(id, alert) {
                Some(event) => batch.push(event.clone()),
                // An earlier revision of the incident may have had it stored.
                None => match self.store.has_event(id) {
                    Ok(true) => {}
                    Ok(false) | Err(_) => self.health.context_missing += 1,
                },
            }
        }
    }

    /// Stores `batch`; gives the number of each that is stored.
    fn store(&mut self, batch: Vec<Arc<Event>>) -> Vec<Option<Seq>> {
        let mut numbers = vec![None; batch.len()];
        if batch.is_empty() {
            return numbers;
        }
        if self.retry.is_some() {
            self.put_by(batch);
            return numbers;
        }
        let mut places: Vec<usize> = (0..batch.len()).collect();
        let mut made_room = false;
        loop {
            let events: Vec<&Event> = places.iter().map(|place| &*batch[*place]).collect();
            match self.store.append_all(&events) {
                Ok(given) => {
                    for (place, seq) in places.iter().zip(given) {
                        numbers[*place] = Some(seq);
                    }
                    self.wrote(places.len());
                    return numbers;
                }
                Err(StoreError::IdTaken(id) | StoreError::Json { id, .. }) => {
                    tracing::error!(%id, "an event cannot be stored for what it is");
                    let of_id = |place: &usize| *batch[*place].id == *id;
                    let Some(poison) = places.iter().copied().find(of_id) else {
                        return numbers;
                    };
                    self.shared.queue().lose(&batch[poison]);
                    places.retain(|place| *place != poison);
                }
                Err(_) if !made_room && self.make_room() > 0 => made_room = true,
                Err(error) => {
                    self.failed(&error);
                    self.put_by(batch);
                    return numbers;
                }
            }
        }
    }

    /// Keeps for later what must not be lost, to a bound.
    fn put_by(&mut self, events: Vec<Arc<Event>>) {
        let mut queue = self.shared.queue();
        for event in events {
            let room = match event.body {
                Body::Alert(_) => PENDING,
                Body::Gap(_) => PENDING / 2,
                _ if self.shared.events == Events::All => 0,
                // Half is for alerts alone.
                _ => PENDING / 2,
            };
            if self.pending.len() < room {
                self.pending.push_back(event);
            } else {
                queue.lose(&event);
            }
        }
        drop(queue);
        self.health.pending = self.pending.len();
        self.publish_health();
    }

    /// Looks whether the disk is well again, and stores what was kept for that.
    fn try_again(&mut self) {
        if self.store.needs_reopening()
            && let Err(error) = self.store.reopen()
        {
            return self.failed(&error);
        }
        let pending = std::mem::take(&mut self.pending);
        self.health.pending = 0;
        self.retry = None;
        let pending: Vec<_> = pending.into();
        if pending.is_empty()
            && let Err(error) = self.store.probe()
        {
            return self.failed(&error);
        }
        self.store(pending);
        if self.retry.is_none() {
            self.is_well();
        }
    }

    /// A write succeeded.
    fn wrote(&mut self, events: usize) {
        self.last_write = Instant::now();
        self.health.stored += u64::try_from(events).unwrap_or(0);
        self.make_room();
        self.publish_health();
    }

    /// Deletes what may go if there is little room; gives how much that was.
    fn make_room(&mut self) -> u64 {
        match self.store.make_room() {
            Ok(pruned) => {
                self.count(pruned);
                pruned.alerts + pruned.events
            }
            Err(error) => {
                tracing::warn!(%error, "cannot make room in the store");
                0
            }
        }
    }

    fn is_well(&mut self) {
        if self.health.error.take().is_some() {
            tracing::info!("the store is well again");
        }
        self.retry = None;
        self.health.is_well = true;
        self.shared.queue().failing = false;
        self.publish_health();
    }

    /// The store could not be written: everyone is told without it until it can be.
    fn failed(&mut self, error: &StoreError) {
        let error = error.to_string();
        if self.health.error.is_none() {
            tracing::error!(
                "{error}; detection goes on, alerts are kept in memory, {PENDING} at most, until \
                 the store can be written"
            );
        }
        self.health.is_well = false;
        self.health.error = Some(error);
        self.retry = Some(Instant::now() + RETRY);
        self.shared.queue().failing = true;
        self.publish_health();
    }

    /// What is to be done from time to time.
    fn look_after(&mut self) {
        let due = |retry: Instant| retry <= Instant::now();
        if self.retry.is_some_and(due) || self.retry.is_none() && self.store.needs_reopening() {
            self.try_again();
        }
        if self.retry.is_some() {
            return;
        }
        if self
            .pruned
            .is_none_or(|pruned| pruned.elapsed() >= PRUNE_EVERY)
        {
            self.pruned = Some(Instant::now());
            match self.store.prune(Timestamp::now()) {
                Ok(pruned) => self.count(pruned),
                Err(error) => tracing::warn!(%error, "cannot delete what is old from the store"),
            }
        }
    }

    fn count(&self, pruned: Pruned) {
        if pruned.undelivered > 0 {
            let mut queue = self.shared.queue();
            *queue.losses.entry((0, "undelivered")).or_default() += pruned.undelivered;
        }
    }

    /// Stores what can be; what cannot be is lost with the daemon, and said.
    fn end(mut self) {
        if self.retry.is_some() {
            self.try_again();
        }
        if !self.pending.is_empty() {
            tracing::error!(
                lost = self.pending.len(),
                "alerts and events could not be stored before the end"
            );
        }
    }

    fn publish_health(&mut self) {
        self.health.bytes = self.store.bytes().unwrap_or(self.health.bytes);
        *lock(&self.shared.health) = self.health.clone();
    }
}
