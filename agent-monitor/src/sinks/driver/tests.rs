//! The driver in paused time: hours of backoff pass at once.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::orders::{Done, Order, Orders};
use super::*;
use crate::config::Span;
use crate::event::{Alert, Body, Confidence, Event, Severity, Timestamp};

/// A receiver under a test's control, with a settling time of `SECONDS`.
#[derive(Clone, Default)]
struct Fake<const SECONDS: u64> {
    /// It refuses deliveries.
    down: Arc<AtomicBool>,
    /// It takes deliveries, and then its connection ends.
    breaks: Arc<AtomicBool>,
    /// And says that it is for our certificate.
    unwelcome: Arc<AtomicBool>,
    /// It refuses every batch that holds this alert.
    poison: Arc<Mutex<Seq>>,
    attempts: Arc<Mutex<Vec<Instant>>>,
    received: Arc<Mutex<Vec<Seq>>>,
}

impl<const SECONDS: u64> Sink for Fake<SECONDS> {
    fn settles_after(&self) -> Duration {
        Duration::from_secs(SECONDS)
    }

    async fn deliver(&mut self, batch: &[Record]) -> Result<(), SinkError> {
        self.attempts.lock().unwrap().push(Instant::now());
        if self.down.load(Ordering::SeqCst) {
            return Err(SinkError::Unavailable("it is down".into()));
        }
        if batch
            .iter()
            .any(|record| record.seq == *self.poison.lock().unwrap())
        {
            return Err(SinkError::Refused("not this one".into()));
        }
        self.received
            .lock()
            .unwrap()
            .extend(batch.iter().map(|record| record.seq));
        Ok(())
    }

    async fn check(&mut self) -> Result<(), SinkError> {
        if self.breaks.load(Ordering::SeqCst) && self.unwelcome.load(Ordering::SeqCst) {
            Err(SinkError::Unwelcome("not you".into()))
        } else if self.breaks.load(Ordering::SeqCst) {
            Err(SinkError::Unavailable("it broke".into()))
        } else {
            Ok(())
        }
    }
}

struct Running<const SECONDS: u64> {
    _folder: TempDir,
    fake: Fake<SECONDS>,
    store: Store,
    status: watch::Receiver<SinkStatus>,
    stop: watch::Sender<bool>,
    orders: Orders,
    task: JoinHandle<()>,
}

impl<const SECONDS: u64> Running<SECONDS> {
    fn start(fake: Fake<SECONDS>, alerts: u64) -> Self {
        Self::start_with(fake, BatchConfig::default(), alerts)
    }

    fn start_with(fake: Fake<SECONDS>, batch: BatchConfig, alerts: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        for n in 1..=alerts {
            store.append(&alert(n)).unwrap();
        }
        let (sender, status) = watch::channel(SinkStatus {
            name: "fake".into(),
            ..SinkStatus::default()
        });
        let (stop, stopped) = watch::channel(false);
        let options = Options {
            batch,
            ..Options::default()
        };
        let (orders, slips) = Orders::channel();
        let task = tokio::spawn(run(
            fake.clone(),
            options,
            store.clone(),
            sender,
            slips,
            stopped,
        ));
        Self {
            _folder: folder,
            fake,
            store,
            status,
            stop,
            orders,
            task,
        }
    }

    async fn until(&mut self, what: impl FnMut(&SinkStatus) -> bool) -> SinkStatus {
        let waited = timeout(Duration::from_secs(3600), self.status.wait_for(what)).await;
        waited.expect("within an hour").unwrap().clone()
    }

    async fn finish(self) -> Duration {
        let start = Instant::now();
        self.stop.send_replace(true);
        self.task.await.unwrap();
        start.elapsed()
    }

    fn received(&self) -> Vec<Seq> {
        self.fake.received.lock().unwrap().clone()
    }
}

fn alert(n: u64) -> Event {
    Event {
        id: format!("alert-{n}").into(),
        time: Timestamp(n),
        node: "node".into(),
        agent: None,
        process: None,
        body: Body::Alert(Arc::new(Alert {
            incident: "i".into(),
            revision: 1,
            rule: "r".into(),
            title: "t".into(),
            severity: Severity::Low,
            confidence: Confidence::Low,
            attack: [].into(),
            summary: String::new(),
            evidence: Vec::new(),
            events: Vec::new(),
            count: 1,
            first_seen: Timestamp(n),
            last_seen: Timestamp(n),
            coverage: "complete".into(),
        })),
    }
}

#[tokio::test(start_paused = true)]
async fn delivers_the_backlog_and_what_comes_later_once_and_in_order() {
    let mut running = Running::start(Fake::<0>::default(), 600);
    running.until(|status| status.cursor == 600).await;
    let store = running.store.clone();
    tokio::task::spawn_blocking(move || store.append(&alert(601)))
        .await
        .unwrap()
        .unwrap();
    let status = running.until(|status| status.cursor == 601).await;
    assert_eq!((status.retries, status.last_error), (0, None));
    assert_eq!(running.received(), (1..=601).collect::<Vec<_>>());
    assert_eq!(running.store.cursor("fake").unwrap(), 601);
    running.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_down_is_tried_ever_less_often_and_then_gets_everything() {
    let fake = Fake::<0>::default();
    fake.down.store(true, Ordering::SeqCst);
    let mut running = Running::start(fake, 10);
    let status = running.until(|status| status.retries == 15).await;
    assert_eq!(status.last_error.as_deref(), Some("it is down"));
    assert_eq!(running.store.cursor("fake").unwrap(), 0);
    running.fake.down.store(false, Ordering::SeqCst);
    let status = running.until(|status| status.cursor == 10).await;
    running.until(|status| status.last_error.is_none()).await;
    assert_eq!(status.retries, 15);
    assert_eq!(running.received(), (1..=10).collect::<Vec<_>>());
    let attempts = running.fake.attempts.lock().unwrap().clone();
    for (failures, pair) in (0..).zip(attempts.windows(2)) {
        let full = (BACKOFF_MIN * 2_u32.pow(failures)).min(BACKOFF_MAX);
        let wait = pair[1] - pair[0];
        // The timer's grain is a millisecond.
        let longest = full + Duration::from_millis(2);
        assert!(
            wait >= full / 2 && wait <= longest,
            "{failures}: {wait:?} of {full:?}"
        );
    }
    running.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_cursor_waits_for_deliveries_to_settle() {
    let mut running = Running::start(Fake::<5>::default(), 3);
    let start = Instant::now();
    running.until(|status| status.cursor == 3).await;
    assert!(
        start.elapsed() >= Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(running.received(), [1, 2, 3]);
    running.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_had_not_settled_when_a_connection_ended_is_delivered_again() {
    let fake = Fake::<5>::default();
    fake.breaks.store(true, Ordering::SeqCst);
    let mut running = Running::start(fake, 3);
    running.until(|status| status.retries == 2).await;
    running.fake.breaks.store(false, Ordering::SeqCst);
    let status = running.until(|status| status.cursor == 3).await;
    assert_eq!(running.received(), [1, 2, 3, 1, 2, 3, 1, 2, 3]);
    assert_eq!(status.unconfirmed, 0);
    running.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_receiver_takes_and_always_breaks_off_after_becomes_dead_letters() {
    let fake = Fake::<5>::default();
    fake.breaks.store(true, Ordering::SeqCst);
    let mut running = Running::start(fake, 3);
    let status = running.until(|status| status.unconfirmed == 3).await;
    assert_eq!((status.dead_letters, status.cursor), (3, 3));
    assert_eq!(running.received().len(), 3 * MAX_UNSETTLED as usize);
    let letters = running.store.dead_letters("fake", 0, 10).unwrap();
    assert!(
        letters[0].error.ends_with("it broke"),
        "{}",
        letters[0].error
    );
    running.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_says_it_does_not_want_us_is_tried_for_ever() {
    let fake = Fake::<5>::default();
    fake.breaks.store(true, Ordering::SeqCst);
    fake.unwelcome.store(true, Ordering::SeqCst);
    let mut running = Running::start(fake, 3);
    let status = running
        .until(|status| status.retries == 3 * u64::from(MAX_UNSETTLED))
        .await;
    assert_eq!((status.unconfirmed, status.dead_letters), (0, 0));
    running.fake.breaks.store(false, Ordering::SeqCst);
    running.until(|status| status.cursor == 3).await;
    running.finish().await;
}

#[tokio::test(start_paused = true)]
async fn failures_before_a_delivery_do_not_count_toward_giving_up() {
    let fake = Fake::<5>::default();
    fake.down.store(true, Ordering::SeqCst);
    let mut running = Running::start(fake, 3);
    let status = running
        .until(|status| status.retries == 3 * u64::from(MAX_UNSETTLED))
        .await;
    assert_eq!((status.unconfirmed, status.cursor), (0, 0));
    assert!(running.finish().await <= DRAIN);
}

#[tokio::test(start_paused = true)]
async fn stops_at_once_when_idle_or_failing_and_after_delivering_what_is_stored() {
    let running = Running::start(Fake::<0>::default(), 1_000);
    let (fake, store) = (running.fake.clone(), running.store.clone());
    assert!(running.finish().await < DRAIN);
    assert_eq!(fake.received.lock().unwrap().len(), 1_000);
    assert_eq!(store.cursor("fake").unwrap(), 1_000);
}

/// Takes a delivery and never answers.
struct Stuck;

impl Sink for Stuck {
    async fn deliver(&mut self, _: &[Record]) -> Result<(), SinkError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_hangs_does_not_hold_up_the_stop_for_long() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store.db")).unwrap();
    store.append(&alert(1)).unwrap();
    let (status, _) = watch::channel(SinkStatus::default());
    let (stop, stopped) = watch::channel(false);
    let (_orders, slips) = Orders::channel();
    let task = tokio::spawn(run(
        Stuck,
        Options::default(),
        store,
        status,
        slips,
        stopped,
    ));
    drop(stop);
    timeout(DRAIN * 2, task).await.expect("it stops").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refused_alert_is_found_tried_again_and_put_aside_and_the_others_go_on() {
    let fake = Fake::<0> {
        poison: Arc::new(Mutex::new(700)),
        ..Fake::default()
    };
    let mut running = Running::start(fake, 1000);
    let status = running.until(|status| status.cursor == 1000).await;
    assert_eq!(status.dead_letters, 1);
    assert_eq!(u64::from(MAX_REFUSALS) - 1, status.retries);
    let letters = running.store.dead_letters("fake", 0, 10).unwrap();
    assert_eq!(
        letters.iter().map(|it| it.record.seq).collect::<Vec<_>>(),
        [700]
    );
    assert_eq!(letters[0].error, "not this one");
    let expected: Vec<Seq> = (1..=1000).filter(|seq| *seq != 700).collect();
    assert_eq!(running.received(), expected);
    running.finish().await;
}

#[tokio::test(start_paused = true)]
async fn alerts_wait_to_fill_a_batch_but_not_longer_than_told() {
    let batch = BatchConfig {
        records: NonZeroU32::new(10).unwrap(),
        age: Span(Duration::from_secs(60)),
        rate: None,
    };
    let mut running = Running::start_with(Fake::<0>::default(), batch, 25);
    let start = Instant::now();
    running.until(|status| status.cursor == 20).await;
    assert!(start.elapsed() < Duration::from_secs(1));
    running.until(|status| status.cursor == 25).await;
    assert_eq!(start.elapsed().as_secs(), 60);
    assert_eq!(running.fake.attempts.lock().unwrap().len(), 3);
    running.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_and_nothing_waits_for_it_at_the_stop() {
    let batch = BatchConfig {
        records: NonZeroU32::new(10).unwrap(),
        age: Span::default(),
        rate: NonZeroU32::new(5),
    };
    let mut running = Running::start_with(Fake::<0>::default(), batch, 1000);
    let start = Instant::now();
    running.until(|status| status.cursor >= 100).await;
    // Ten batches of ten at five a second: the tenth goes after nine times two seconds.
    assert_eq!(start.elapsed().as_secs(), 18);
    let store = running.store.clone();
    assert!(running.finish().await < Duration::from_secs(1));
    assert_eq!(store.cursor("fake").unwrap(), 1000);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_delivered_or_deleted_when_a_person_says_so() {
    let fake = Fake::<0> {
        poison: Arc::new(Mutex::new(2)),
        ..Fake::default()
    };
    let mut running = Running::start(fake.clone(), 3);
    running.until(|status| status.dead_letters == 1).await;
    running.until(|status| status.cursor == 3).await;
    let retry = running.orders.give(Order::Retry).await;
    let refused = Done {
        refused: 1,
        ..Done::default()
    };
    assert_eq!(retry, Ok(refused), "it is still refused, and stays");

    fake.down.store(true, Ordering::SeqCst);
    let retry = running.orders.give(Order::Retry).await;
    assert_eq!(retry, Err("it is down".to_owned()));
    fake.down.store(false, Ordering::SeqCst);

    *fake.poison.lock().unwrap() = 0;
    let retry = running.orders.give(Order::Retry).await;
    let delivered = Done {
        delivered: 1,
        ..Done::default()
    };
    assert_eq!(retry, Ok(delivered));
    assert_eq!(running.received(), [1, 3, 2]);
    assert_eq!(running.status.borrow().dead_letters, 0);

    *fake.poison.lock().unwrap() = 4;
    running.store.append(&alert(4)).unwrap();
    running.until(|status| status.dead_letters == 1).await;
    let dropped = Done {
        dropped: 1,
        ..Done::default()
    };
    assert_eq!(running.orders.give(Order::Drop).await, Ok(dropped));
    assert_eq!(running.store.count_dead_letters("fake").unwrap(), 0);
    running.finish().await;
}
