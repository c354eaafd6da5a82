//! The stream of `GET /v1/events`: what is stored, then what is in memory, then what
//! happens, each event once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use serde::{Deserialize, Serialize};

use super::hub::{Hub, Subscription, Told};
use super::query::{EventQuery, Filter};
use crate::event::{Event, Timestamp};
use crate::store::recorder::Events;
use crate::store::{Place, Record, Seq, Store, StoreError, Wanted};

/// Events that wait are written together up to about this many bytes.
const CHUNK: usize = 64 * 1024;
/// Stored events that are read together.
const PAGE: u32 = 500;
/// Most past events that can be asked for by number beside a time; more is all of them.
const MOST: usize = 10_000;
/// How long what has left the memory may take to be in the store.
const STUCK: Duration = Duration::from_secs(5);

/// One reader's place in the stream.
pub(super) struct Reading {
    store: Store,
    hub: Hub,
    filter: Filter,
    follow: bool,
    /// Whether lines say the events' numbers.
    numbered: bool,
    position: Position,
    /// To be written before what is at the position.
    first: Option<Arc<Event>>,
    /// The last number that was read from the store: everyone is told of it a little later.
    last: Seq,
}

/// A line that tells the event's number, if it has one.
#[derive(Serialize)]
struct Numbered<'e> {
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<Seq>,
    event: &'e Event,
}

/// What of a stored event says which one it is.
#[derive(Deserialize)]
struct Id {
    id: String,
}

enum Position {
    /// In the store, by time, until what is in memory.
    Since {
        place: Place,
        until: Timestamp,
        /// No more than so many, the last ones; they are few enough to be held together.
        most: Option<usize>,
        /// Ids of what is in memory.
        in_memory: HashSet<Arc<str>>,
        then: Box<Subscription>,
    },
    /// In the store, behind this number; and since when that is the last.
    After(Seq, Option<Instant>),
    /// In memory.
    Live(Box<Subscription>),
    /// Nowhere: a state between two others.
    End,
}

impl Reading {
    /// Begins where the query says; `events` are stored.
    pub(super) fn new(store: Store, hub: Hub, events: Events, query: EventQuery) -> Self {
        let mut reading = Self {
            filter: query.filter.clone(),
            follow: query.follow,
            numbered: query.after.is_some(),
            position: Position::End,
            first: None,
            last: 0,
            store,
            hub,
        };
        let Some(after) = query.after else {
            reading.begin_by_time(events, query);
            return reading;
        };
        let newest = reading.store.latest();
        if after > newest {
            let reason = format!(
                "no event has the number {after} yet, the newest has {newest}: the store was \
                 begun anew; what follows begins at its first event"
            );
            reading.tell_gap(reason, Timestamp(0), Timestamp::now());
        }
        let after = if after > newest { 0 } else { after };
        reading.position = Position::After(after, None);
        reading
    }

    fn begin_by_time(&mut self, events: Events, query: EventQuery) {
        let (since, n) = (query.since, query.n.filter(|n| *n <= MOST));
        let subscription = self.hub.subscribe(query);
        let (Some(since), Some(until)) = (since, subscription.earlier) else {
            self.position = Position::Live(Box::new(subscription));
            return;
        };
        let stored = match events {
            Events::All => None,
            Events::Context => Some("alerts, events that they refer to, agents, losses and gaps"),
            Events::None => Some("alerts"),
        };
        if let Some(stored) = stored.filter(|_| !self.filter.wants_alerts_alone()) {
            self.tell_gap(
                format!("of this time only {stored} are stored"),
                since,
                until,
            );
        }
        let in_memory: HashSet<_> = subscription
            .past()
            .map(|told| told.event.id.clone())
            .collect();
        self.position = Position::Since {
            place: Place::at(since),
            until,
            most: n.map(|n| n.saturating_sub(in_memory.len())),
            in_memory,
            then: Box::new(subscription),
        };
    }

    /// Waits for something and takes what else is there; nothing at the stream's end.
    pub(super) async fn next_chunk(&mut self) -> Option<Bytes> {
        let mut chunk = Vec::new();
        if let Some(gap) = self.first.take() {
            self.write(
                &mut chunk,
                &Told {
                    event: gap,
                    seq: None,
                },
            );
        }
        while chunk.is_empty() {
            match std::mem::replace(&mut self.position, Position::End) {
                Position::Live(mut live) => {
                    let mut next = Some(live.recv().await?);
                    while let Some(told) = next {
                        if told.seq.is_none_or(|seq| seq > self.last) {
                            self.write(&mut chunk, &told);
                        }
                        next = match chunk.len() < CHUNK {
                            true => live.try_recv(),
                            false => None,
                        };
                    }
                    self.position = Position::Live(live);
                }
                Position::Since {
                    place,
                    until,
                    most,
                    in_memory,
                    then,
                } => {
                    let (filter, store) = (self.filter.clone(), self.store.clone());
                    let page = read(move || {
                        let wanted = |record: &Record| filter.matches_json(&record.json);
                        if let Some(most) = most {
                            let last = store.read_last(place, until, most, wanted)?;
                            return Ok((None, last));
                        }
                        let page = store.read_since(place, until, PAGE)?;
                        let next = page.last().map(|(place, _)| *place);
                        let page = page.into_iter().map(|(_, record)| record);
                        Ok((next, page.filter(wanted).collect()))
                    });
                    let (next, records): (_, Vec<_>) = match page.await {
                        Ok(page) => page,
                        Err(error) => {
                            self.cannot_read(&error, until);
                            (None, Vec::new())
                        }
                    };
                    for record in records {
                        let id = serde_json::from_str::<Id>(&record.json);
                        if !id.is_ok_and(|it| in_memory.contains(&*it.id)) {
                            self.write_stored(&mut chunk, record.seq, &record.json);
                        }
                    }
                    self.position = match next {
                        Some(place) => Position::Since {
                            place,
                            until,
                            most,
                            in_memory,
                            then,
                        },
                        None => Position::Live(then),
                    };
                }
                Position::After(after, since) => self.read_after(after, since, &mut chunk).await,
                Position::End => return None,
            }
            if let Some(gap) = self.first.take() {
                self.write(
                    &mut chunk,
                    &Told {
                        event: gap,
                        seq: None,
                    },
                );
            }
        }
        Some(chunk.into())
    }

    async fn read_after(&mut self, after: Seq, since: Option<Instant>, chunk: &mut Vec<u8>) {
        // Seen as read before the read: what comes after it wakes us.
        let mut newest = self.store.watch();
        newest.borrow_and_update();
        let wanted = match self.filter.wants_alerts_alone() {
            true => Wanted::Alerts,
            false => Wanted::Everything,
        };
        let (filter, store) = (self.filter.clone(), self.store.clone());
        let page = read(move || {
            let page = store.read_after(after, PAGE, wanted)?;
            let ends = page.first().zip(page.last());
            let ends = ends.map(|(first, last)| (first.seq, last.seq));
            let wanted = page.into_iter().filter(|it| filter.matches_json(&it.json));
            Ok((ends, wanted.collect()))
        });
        let (ends, records): (Option<(Seq, Seq)>, Vec<_>) = match page.await {
            Ok(page) => page,
            Err(error) => {
                self.cannot_read(&error, Timestamp::now());
                return self.go_on_from_memory();
            }
        };
        if let Some((first, last)) = ends {
            if first > after + 1 && wanted == Wanted::Everything {
                let missing = first - after - 1;
                let reason =
                    format!("{missing} events after number {after} are no longer in the store");
                let gap = self.hub.gap(reason, Timestamp(0), Timestamp::now());
                self.write(
                    chunk,
                    &Told {
                        event: gap,
                        seq: None,
                    },
                );
            }
            for record in records {
                self.write_stored(chunk, record.seq, &record.json);
            }
            self.position = Position::After(last, None);
            return;
        }
        self.last = after;
        if let Some(live) = self.hub.resume(after, self.filter.clone(), self.follow) {
            self.position = Position::Live(Box::new(live));
            return;
        }
        // Of alerts alone there may be none between here and what is in memory.
        let since = since.unwrap_or_else(Instant::now);
        if wanted == Wanted::Alerts && after < self.store.latest() {
            self.position = Position::After(self.store.latest(), Some(since));
        } else if since.elapsed() > STUCK {
            let reason = "what was told is not in the store yet".to_owned();
            self.tell_gap(reason, Timestamp(0), Timestamp::now());
            self.go_on_from_memory();
        } else {
            let _ = tokio::time::timeout(STUCK / 5, newest.changed()).await;
            self.position = Position::After(after, Some(since));
        }
    }

    /// Goes on with all that is in memory.
    fn go_on_from_memory(&mut self) {
        let query = EventQuery {
            follow: self.follow,
            n: Some(usize::MAX),
            since: None,
            after: None,
            filter: self.filter.clone(),
        };
        self.position = Position::Live(Box::new(self.hub.subscribe(query)));
    }

    fn cannot_read(&mut self, error: &str, until: Timestamp) {
        tracing::warn!("a reader of events cannot be served from the store: {error}");
        let reason = format!("the store cannot be read: {error}");
        self.tell_gap(reason, Timestamp(0), until);
    }

    fn tell_gap(&mut self, reason: String, from: Timestamp, to: Timestamp) {
        self.first = Some(self.hub.gap(reason, from, to));
    }

    fn write(&self, chunk: &mut Vec<u8>, told: &Told) {
        let start = chunk.len();
        let event = &*told.event;
        let written = match self.numbered {
            false => serde_json::to_writer(&mut *chunk, event),
            true => {
                let seq = told.seq;
                serde_json::to_writer(&mut *chunk, &Numbered { seq, event })
            }
        };
        match written {
            Ok(()) => chunk.push(b'\n'),
            Err(error) => {
                chunk.truncate(start);
                tracing::error!(id = %event.id, %error, "an event cannot be written as JSON");
            }
        }
    }

    fn write_stored(&self, chunk: &mut Vec<u8>, seq: Seq, json: &str) {
        if self.numbered {
            chunk.extend_from_slice(format!("{{\"seq\":{seq},\"event\":{json}}}\n").as_bytes());
        } else {
            chunk.extend_from_slice(json.as_bytes());
            chunk.push(b'\n');
        }
    }
}

/// Asks the store, on a thread that may wait for the disk.
async fn read<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
