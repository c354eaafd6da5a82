//! From the pipeline to everyone who watches.
//!
//! The pipeline publishes from one thread and must not wait for anyone, so each
//! subscriber has a bounded queue. When it is full, events for that subscriber
//! are counted instead of queued until it has read the queue to its end; there it
//! gets one `loss` event in the place of what is missing. Alerts, losses and gaps
//! have room of their own behind the others: a flood does not displace what it means.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::query::{EventQuery, Filter};
use crate::event::{Body, Event, Gap, Loss, Timestamp};
use crate::loss::Stage;
use crate::store::Seq;

/// Events kept for readers who ask for the past.
pub const HISTORY: usize = 4096;
/// Events that wait for one subscriber.
pub const QUEUE: usize = 2048;
/// Room beyond for alerts, losses and gaps.
pub const RESERVED: usize = 256;

/// Hands every event to every subscriber. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    node: Arc<str>,
    /// Makes ids of the hub's own events differ from those of an earlier daemon.
    started: Timestamp,
    own_events: AtomicU64,
    /// Events that readers were too slow for.
    lost: AtomicU64,
    inner: Mutex<Inner>,
}

/// An event, and its number in the store if it is there.
#[derive(Clone, Debug)]
pub struct Told {
    /// The event.
    pub event: Arc<Event>,
    /// Its number; numbers grow from each event that has one to the next.
    pub seq: Option<Seq>,
}

#[derive(Debug, Default)]
struct Inner {
    history: VecDeque<Told>,
    /// The latest time of an event that is no longer in the history.
    forgotten: Option<Timestamp>,
    /// The largest number that is no longer in the history.
    forgotten_seq: Seq,
    subscribers: Vec<Arc<Subscriber>>,
    closed: bool,
}

#[derive(Debug)]
struct Subscriber {
    filter: Filter,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// What is missing after `waiting`. Not empty means: queue no ordinary event
    /// before the reader has been told.
    lost: Kinds,
    closed: bool,
}

/// How many events of each kind are missing.
type Kinds = BTreeMap<&'static str, u64>;

#[derive(Debug)]
enum Waiting {
    Event(Told),
    /// Events are missing here.
    Lost(Kinds),
}

/// What a look into a queue found.
enum Next {
    Event(Told),
    Empty,
    Closed,
}

impl Hub {
    /// A hub for the node of this name.
    pub fn new(node: Arc<str>) -> Self {
        let started = Timestamp::now();
        Self(Arc::new(Shared {
            node,
            started,
            own_events: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                // What was before is at best in the store.
                forgotten: Some(started),
                ..Inner::default()
            }),
        }))
    }

    /// Hands an event to everyone, with its number in the store if it is there. Never
    /// waits for a reader; the locks taken are held elsewhere only to copy at most
    /// [`HISTORY`] pointers.
    pub fn publish(&self, event: Arc<Event>, seq: Option<Seq>) {
        let told = Told { event, seq };
        let mut inner = lock(&self.0.inner);
        for subscriber in &inner.subscribers {
            if subscriber.filter.matches(&told.event) {
                let lost = u64::from(!subscriber.push(&told));
                self.0.lost.fetch_add(lost, Ordering::Relaxed);
            }
        }
        if inner.history.len() == HISTORY
            && let Some(oldest) = inner.history.pop_front()
        {
            inner.forgotten = inner.forgotten.max(Some(oldest.event.time));
            inner.forgotten_seq = inner.forgotten_seq.max(oldest.seq.unwrap_or_default());
        }
        inner.history.push_back(told);
    }

    /// Events that were lost to readers because they were too slow, of all of them.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Events that wait for the slowest reader.
    pub fn queued(&self) -> usize {
        let inner = lock(&self.0.inner);
        let queues = inner.subscribers.iter();
        let queues = queues.map(|subscriber| lock(&subscriber.queue).waiting.len());
        queues.max().unwrap_or_default()
    }

    /// Begins to read: the past that the query asks for and that is in memory, then, when
    /// it follows, everything published from now on, with nothing between the two missing.
    pub fn subscribe(&self, query: EventQuery) -> Subscription {
        let EventQuery {
            follow,
            n,
            since,
            filter,
            ..
        } = query;
        let (subscriber, mut past, forgotten) = self.join(filter, follow);
        past.retain(|told| {
            since.is_none_or(|since| told.event.time >= since)
                && subscriber.filter.matches(&told.event)
        });
        let wanted = n.unwrap_or(if follow && since.is_none() {
            0
        } else {
            usize::MAX
        });
        let complete = past.len() >= wanted;
        past.drain(..past.len().saturating_sub(wanted));
        let earlier = forgotten
            .time
            .filter(|to| since.is_some_and(|since| since <= *to));
        Subscription {
            hub: self.clone(),
            past,
            subscriber,
            earlier: earlier.filter(|_| !complete),
        }
    }

    /// Begins to read with what was published after the event with the number `after`;
    /// nothing when that has left the memory and is to be read from the store first.
    pub fn resume(&self, after: Seq, filter: Filter, follow: bool) -> Option<Subscription> {
        let (subscriber, mut past, forgotten) = self.join(filter, follow);
        let subscription = |past| Subscription {
            hub: self.clone(),
            past,
            subscriber: subscriber.clone(),
            earlier: None,
        };
        if forgotten.seq > after {
            drop(subscription(VecDeque::new()));
            return None;
        }
        let known = |told: &Told| told.seq.is_some_and(|seq| seq <= after);
        let first = past.iter().rposition(known).map_or(0, |place| place + 1);
        past.drain(..first);
        past.retain(|told| subscriber.filter.matches(&told.event));
        Some(subscription(past))
    }

    /// Adds a subscriber; gives the history, and what is no longer in it.
    fn join(&self, filter: Filter, follow: bool) -> (Arc<Subscriber>, VecDeque<Told>, Forgotten) {
        let subscriber = Arc::new(Subscriber {
            filter,
            queue: Mutex::new(Queue {
                closed: !follow,
                ..Queue::default()
            }),
            wake: Notify::new(),
        });
        let mut inner = lock(&self.0.inner);
        if inner.closed {
            lock(&subscriber.queue).closed = true;
        } else if follow {
            inner.subscribers.push(Arc::clone(&subscriber));
        }
        let forgotten = Forgotten {
            time: inner.forgotten,
            seq: inner.forgotten_seq,
        };
        (subscriber, inner.history.clone(), forgotten)
    }

    /// A gap that concerns one reader.
    pub fn gap(&self, reason: String, from: Timestamp, to: Timestamp) -> Arc<Event> {
        self.own_event(Body::Gap(Gap { reason, from, to }))
    }

    /// Lets every subscription end after what it already has.
    pub fn close(&self) {
        let mut inner = lock(&self.0.inner);
        inner.closed = true;
        for subscriber in inner.subscribers.drain(..) {
            lock(&subscriber.queue).closed = true;
            subscriber.wake.notify_one();
        }
    }

    fn own_event(&self, body: Body) -> Arc<Event> {
        let number = self.0.own_events.fetch_add(1, Ordering::Relaxed);
        Arc::new(Event {
            id: format!("tail-{:x}-{number}", self.0.started.0).into(),
            time: Timestamp::now(),
            node: Arc::clone(&self.0.node),
            agent: None,
            process: None,
            body,
        })
    }
}

/// What is no longer in the history.
struct Forgotten {
    time: Option<Timestamp>,
    seq: Seq,
}

impl Subscriber {
    /// Queues an event; without room it is counted instead and the answer is `false`.
    fn push(&self, told: &Told) -> bool {
        let event = &told.event;
        let mut queue = lock(&self.queue);
        let has_room = queue.lost.is_empty() && queue.waiting.len() < QUEUE;
        // Two places: what is missing before it is told of first.
        let is_kept = || is_vital(&event.body) && queue.waiting.len() + 2 <= QUEUE + RESERVED;
        if !has_room && !is_kept() {
            *queue.lost.entry(event.body.kind()).or_default() += 1;
            return false;
        }
        let lost = std::mem::take(&mut queue.lost);
        if !lost.is_empty() {
            queue.waiting.push_back(Waiting::Lost(lost));
        }
        queue.waiting.push_back(Waiting::Event(told.clone()));
        drop(queue);
        self.wake.notify_one();
        true
    }
}

/// Whether a reader is to learn of it however slow it is.
fn is_vital(body: &Body) -> bool {
    matches!(body, Body::Alert(_) | Body::Loss(_) | Body::Gap(_))
}

/// One reader's view of the hub; dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    hub: Hub,
    past: VecDeque<Told>,
    subscriber: Arc<Subscriber>,
    /// The latest time of an event that may have been asked for and is no longer in memory.
    pub earlier: Option<Timestamp>,
}

impl Subscription {
    /// What it begins with.
    pub fn past(&self) -> impl Iterator<Item = &Told> {
        self.past.iter()
    }

    /// The next event, or nothing once the subscription has ended. May be
    /// cancelled without losing an event.
    pub async fn recv(&mut self) -> Option<Told> {
        loop {
            match self.next() {
                Next::Event(told) => return Some(told),
                Next::Closed => return None,
                Next::Empty => self.subscriber.wake.notified().await,
            }
        }
    }

    /// The next event if there is one now.
    pub fn try_recv(&mut self) -> Option<Told> {
        match self.next() {
            Next::Event(told) => Some(told),
            Next::Empty | Next::Closed => None,
        }
    }

    fn next(&mut self) -> Next {
        if let Some(told) = self.past.pop_front() {
            return Next::Event(told);
        }
        let mut queue = lock(&self.subscriber.queue);
        let next = queue.waiting.pop_front().or_else(|| {
            let lost = std::mem::take(&mut queue.lost);
            (!lost.is_empty()).then_some(Waiting::Lost(lost))
        });
        if let Some(next) = next {
            drop(queue);
            Next::Event(match next {
                Waiting::Event(told) => told,
                Waiting::Lost(kinds) => {
                    let loss = Loss {
                        stage: Stage::Tail,
                        records: kinds.values().sum(),
                        kinds: kinds
                            .into_iter()
                            .map(|(kind, n)| (kind.into(), n))
                            .collect(),
                    };
                    Told {
                        event: self.hub.own_event(Body::Loss(loss)),
                        seq: None,
                    }
                }
            })
        } else if queue.closed {
            Next::Closed
        } else {
            Next::Empty
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut inner = lock(&self.hub.0.inner);
        inner
            .subscribers
            .retain(|other| !Arc::ptr_eq(other, &self.subscriber));
    }
}

/// A panic elsewhere leaves these plain queues whole, so poison says nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Cgroup;

    fn hub() -> Hub {
        Hub::new("node".into())
    }

    fn publish(hub: &Hub, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let body = Body::Cgroup(Cgroup {
                action: "created",
                path: "/a".into(),
            });
            let (id, node) = (number.to_string().into(), "node".into());
            let time = Timestamp(number);
            let event = Event {
                id,
                time,
                node,
                agent: None,
                process: None,
                body,
            };
            hub.publish(Arc::new(event), None);
        }
    }

    fn subscribe(hub: &Hub, query: &str) -> Subscription {
        hub.subscribe(EventQuery::parse(query).expect("the test's query is right"))
    }

    /// Ids of what is there now; losses and gaps in words.
    fn read(subscription: &mut Subscription) -> Vec<String> {
        std::iter::from_fn(|| subscription.try_recv())
            .map(|told| match &told.event.body {
                Body::Loss(loss) => format!("{} lost at {}", loss.records, loss.stage.name()),
                Body::Gap(gap) => format!("gap to {}", gap.to.0),
                _ => told.event.id.to_string(),
            })
            .collect()
    }

    #[test]
    fn a_slow_subscriber_is_told_once_how_much_it_missed_and_where() {
        let hub = hub();
        let mut slow = subscribe(&hub, "");
        let queue = QUEUE as u64;
        publish(&hub, 0..queue + 1000);
        for number in 0..queue / 2 {
            assert_eq!(
                slow.try_recv().map(|told| told.event.id.to_string()),
                Some(number.to_string())
            );
        }
        publish(&hub, 90_000..90_234);
        let rest = read(&mut slow);
        assert_eq!(rest.len() as u64, queue / 2 + 1);
        assert_eq!(rest.last().map(String::as_str), Some("1234 lost at tail"));
        assert_eq!(hub.lost(), 1234);
        publish(&hub, 100_000..100_001);
        assert_eq!(read(&mut slow), ["100000"]);
    }

    #[test]
    fn a_reader_of_a_full_queue_still_learns_of_losses_each_in_its_place() {
        let hub = hub();
        let mut slow = subscribe(&hub, "");
        let queue = QUEUE as u64;
        let lose = |number: u64| {
            let loss = Loss {
                stage: Stage::Ring,
                records: number,
                kinds: [("exec".into(), number)].into(),
            };
            hub.publish(hub.own_event(Body::Loss(loss)), None);
        };
        publish(&hub, 0..queue + 10);
        lose(1);
        lose(2);
        publish(&hub, 0..20);
        lose(3);
        let read = read(&mut slow);
        let expected = [
            "10 lost at tail",
            "1 lost at ring",
            "2 lost at ring",
            "20 lost at tail",
            "3 lost at ring",
        ];
        assert_eq!(read[QUEUE..], expected);
        assert_eq!(hub.lost(), 30);
    }

    #[test]
    fn the_room_for_losses_is_bounded_too() {
        let hub = hub();
        let mut slow = subscribe(&hub, "");
        publish(&hub, 0..QUEUE as u64);
        for number in 0..1_000 {
            let gap = hub.gap(String::new(), Timestamp(0), Timestamp(number));
            hub.publish(gap, None);
        }
        let read = read(&mut slow);
        assert!(read.len() <= QUEUE + RESERVED + 1, "{}", read.len());
        let told = (read.len() - QUEUE - 1) as u64;
        let last = format!("{} lost at tail", 1_000 - told);
        assert_eq!(read.last(), Some(&last));
    }

    #[test]
    fn a_stalled_subscriber_takes_nothing_from_another_nor_from_the_publisher() {
        let hub = hub();
        let _stalled = subscribe(&hub, "");
        let mut quick = subscribe(&hub, "");
        for round in 0..10 {
            let numbers = round * 1000..(round + 1) * 1000;
            publish(&hub, numbers.clone());
            let expected: Vec<_> = numbers.map(|number| number.to_string()).collect();
            assert_eq!(read(&mut quick), expected);
        }
    }

    #[test]
    fn the_past_and_the_present_meet_without_a_hole() {
        let hub = hub();
        publish(&hub, 0..10);
        let mut last_two = subscribe(&hub, "n=2");
        let mut since = subscribe(&hub, "since=1970-01-01T00:00:00.000000007Z");
        let mut from_now = subscribe(&hub, "");
        publish(&hub, 10..11);
        assert_eq!(read(&mut last_two), ["8", "9", "10"]);
        assert_eq!(read(&mut since), ["7", "8", "9", "10"]);
        assert_eq!(read(&mut from_now), ["10"]);
    }

    #[tokio::test]
    async fn without_follow_the_stream_ends_with_the_past() {
        let hub = hub();
        publish(&hub, 0..3);
        let mut past = subscribe(&hub, "follow=false");
        publish(&hub, 3..4);
        assert_eq!(read(&mut past), ["0", "1", "2"]);
        assert!(past.recv().await.is_none());
    }

    #[test]
    fn a_past_that_is_not_in_memory_is_named() {
        let hub = hub();
        let started = hub.0.started.0;
        let since = |time: u64| format!("since={}", Timestamp(time));
        assert_eq!(
            subscribe(&hub, &since(started)).earlier,
            Some(Timestamp(started)),
            "an earlier daemon may know"
        );
        assert_eq!(subscribe(&hub, &since(started + 1)).earlier, None);
        publish(&hub, started + 1..started + HISTORY as u64 + 6);
        let mut whole = subscribe(&hub, &since(started + 3));
        assert_eq!(whole.earlier, Some(Timestamp(started + 5)));
        assert_eq!(read(&mut whole)[0], (started + 6).to_string());
        let last = subscribe(&hub, &format!("{}&n=1", since(started + 3)));
        assert_eq!(last.earlier, None, "one is there");
        let kept = subscribe(&hub, &since(started + 6));
        assert_eq!((kept.earlier, kept.past.len()), (None, HISTORY));
    }

    #[test]
    fn a_reader_resumes_after_a_number_with_what_came_since_numbered_or_not() {
        let hub = hub();
        let tell = |id: u64, seq| {
            let gap = hub.gap(String::new(), Timestamp(0), Timestamp(id));
            hub.publish(gap, seq);
        };
        tell(1, Some(10));
        tell(2, None);
        tell(3, Some(12));
        tell(4, None);
        let resume = |after| hub.resume(after, Filter::default(), true);
        let mut resumed = resume(10).unwrap();
        assert_eq!(read(&mut resumed), ["gap to 2", "gap to 3", "gap to 4"]);
        assert_eq!(read(&mut resume(11).unwrap()).len(), 3);
        assert_eq!(read(&mut resume(12).unwrap()), ["gap to 4"]);
        tell(5, Some(13));
        assert_eq!(read(&mut resumed), ["gap to 5"]);
        publish(&hub, 0..HISTORY as u64);
        assert!(resume(12).is_none(), "13 is no longer in memory");
        assert_eq!(read(&mut resume(13).unwrap()).len(), HISTORY);
        assert_eq!(lock(&hub.0.inner).subscribers.len(), 1, "only `resumed`");
    }
}
