//! The task behind each sink: read, deliver, settle, advance.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::filter::Filter;
use super::orders::Slip;
use super::{Sink, SinkError, SinkStatus};
use crate::config::BatchConfig;
use crate::event::Timestamp;
use crate::store::{DeadLetter, Record, Seq, Store, StoreError, Wanted};

/// Wait after the first failure; doubled with each that follows.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest wait, so that a receiver that is back is found within it.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How many complete deliveries of the same alerts may end in a broken
/// connection before they become dead letters. A receiver that closes after each
/// message, or that crashes on one, would otherwise get it for ever.
const MAX_UNSETTLED: u32 = 10;
/// How often a receiver may refuse an alert, alone in its batch, before that goes to
/// the dead letters: a receiver may refuse for a while what it takes once it is mended.
const MAX_REFUSALS: u32 = 5;
/// How many records that the filter keeps back are gone past before the cursor is moved:
/// each move is a sync.
const MAX_SKIPPED: Seq = 10_000;
/// Longest wait that a receiver can ask for.
const BUSY_MAX: Duration = Duration::from_secs(300);
/// How long a sink may go on after the stop to deliver what is already stored.
const DRAIN: Duration = Duration::from_secs(3);

/// Runs until `stop`, then at most [`DRAIN`] longer.
pub(super) async fn run<S: Sink>(
    sink: S,
    options: Options,
    store: Store,
    status: watch::Sender<SinkStatus>,
    slips: mpsc::Receiver<Slip>,
    stop: watch::Receiver<bool>,
) {
    let mut deadline = stop.clone();
    let name = status.borrow().name.clone();
    let driver = Driver {
        newest: store.watch(),
        full: options.batch.records.min(sink.most()).get(),
        limit: options.batch.records.min(sink.most()).get(),
        wanted: options.filter.wanted(),
        options,
        refusals: 0,
        held_since: None,
        not_before: Instant::now(),
        sink,
        store,
        status,
        slips,
        stop,
        name,
        cursor: 0,
        position: 0,
        unsettled: VecDeque::new(),
        failures: 0,
        broken: 0,
    };
    tokio::select! {
        () = driver.drive() => {}
        () = async {
            stopped(&mut deadline).await;
            sleep(DRAIN).await;
        } => {}
    }
}

/// What is delivered, and in what portions.
#[derive(Default)]
pub(super) struct Options {
    pub filter: Filter,
    pub batch: BatchConfig,
}

/// What went wrong in a step.
enum Failure {
    /// The sink: what has not settled has to be delivered again.
    Sink(SinkError),
    /// The store: the same step is tried again, and nothing delivered twice for it.
    Store(String),
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Self {
        Self::Sink(error)
    }
}

/// A delivery that may still be lost.
struct Delivery {
    last: Seq,
    settles: Instant,
}

struct Driver<S> {
    sink: S,
    options: Options,
    wanted: Wanted,
    /// Alerts that fill a delivery.
    full: u32,
    /// Most alerts in the next delivery: fewer while a refused one is looked for.
    limit: u32,
    /// How often the alert after the cursor was refused alone.
    refusals: u32,
    /// Since when there are alerts that wait for more to come.
    held_since: Option<Instant>,
    /// When the rate allows the next delivery.
    not_before: Instant,
    store: Store,
    newest: watch::Receiver<Seq>,
    status: watch::Sender<SinkStatus>,
    slips: mpsc::Receiver<Slip>,
    stop: watch::Receiver<bool>,
    name: String,
    /// As in the store.
    cursor: Seq,
    /// Last alert handed to the sink; back to the cursor on a failure.
    position: Seq,
    /// What lies between the two.
    unsettled: VecDeque<Delivery>,
    /// Failures since the cursor last moved.
    failures: u32,
    /// Those of them that came after a complete delivery.
    broken: u32,
}

impl<S: Sink> Driver<S> {
    async fn drive(mut self) {
        while let Err(error) = self.load_cursor().await {
            if self.fail(error).await {
                return;
            }
        }
        loop {
            let done = match self.step().await {
                Ok(done) => done,
                Err(error) => self.fail(error).await,
            };
            if done {
                return;
            }
        }
    }

    async fn load_cursor(&mut self) -> Result<(), Failure> {
        let name = self.name.clone();
        let (cursor, letters) = self
            .in_store(move |store| Ok((store.cursor(&name)?, store.count_dead_letters(&name)?)))
            .await?;
        self.cursor = cursor;
        self.position = cursor;
        self.status.send_modify(|status| {
            status.cursor = cursor;
            status.dead_letters = letters;
        });
        Ok(())
    }

    /// One delivery, one advance, or one wait; true when it is time to stop.
    async fn step(&mut self) -> Result<bool, Failure> {
        self.settle().await?;
        // Seen as read before the read: an alert that comes after it wakes us.
        self.newest.borrow_and_update();
        let (position, limit, wanted) = (self.position, self.limit, self.wanted);
        let batch = self
            .in_store(move |store| store.read_after(position, limit, wanted))
            .await?;
        if batch.is_empty() {
            if self.unsettled.is_empty() && self.position > self.cursor {
                self.advance(self.position).await?;
            }
            if self.unsettled.is_empty() {
                self.clear_error();
            }
            return Ok(self.wait(None).await);
        }
        if let Some(until) = self.hold(batch.len()) {
            // Once the stop is given, nothing is held back.
            self.wait(Some(until)).await;
            return Ok(false);
        }
        self.deliver(batch).await?;
        Ok(false)
    }

    /// Until when `alerts` that are there wait: for more to fill a batch, or for the rate.
    fn hold(&mut self, alerts: usize) -> Option<Instant> {
        if *self.stop.borrow() {
            return None;
        }
        let now = Instant::now();
        let mut until = self.not_before;
        if !self.is_full(alerts) {
            let since = *self.held_since.get_or_insert(now);
            until = until.max(since + self.options.batch.age.0);
        }
        (until > now).then_some(until)
    }

    /// Whether so many records may be followed by more.
    fn is_full(&self, records: usize) -> bool {
        u32::try_from(records).is_ok_and(|records| records >= self.limit)
    }

    async fn deliver(&mut self, batch: Vec<Record>) -> Result<(), Failure> {
        let read = batch.len();
        let Some(last) = batch.last().map(|record| record.seq) else {
            return Ok(());
        };
        self.held_since = None;
        let wanted: Vec<Record> = batch
            .into_iter()
            .filter(|record| self.options.filter.wants(record))
            .collect();
        if wanted.is_empty() && self.is_full(read) && last - self.cursor < MAX_SKIPPED {
            self.position = last;
            return Ok(());
        }
        let mut settles = Instant::now();
        if !wanted.is_empty() {
            match self.sink.deliver(&wanted).await {
                Err(SinkError::Refused(error)) => {
                    return self.refused(wanted, read, error).await;
                }
                delivered => delivered?,
            }
            if let Some(rate) = self.options.batch.rate {
                let alerts = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
                self.not_before = Instant::now() + Duration::from_secs(1) * alerts / rate.get();
            }
            settles = Instant::now() + self.sink.settles_after();
        }
        self.refusals = 0;
        self.limit = self.full.min(self.limit.saturating_mul(2));
        self.position = last;
        self.unsettled.push_back(Delivery { last, settles });
        Ok(())
    }

    /// Looks for the refused alert among fewer; one that is alone is tried again, and
    /// in the end put aside.
    async fn refused(
        &mut self,
        mut wanted: Vec<Record>,
        read: usize,
        error: String,
    ) -> Result<(), Failure> {
        if wanted.len() > 1 {
            self.limit = u32::try_from(read / 2).unwrap_or(u32::MAX).max(1);
            return Ok(());
        }
        let Some(record) = wanted.pop() else {
            return Ok(());
        };
        self.refusals += 1;
        if self.refusals < MAX_REFUSALS {
            return Err(Failure::Sink(SinkError::Refused(error)));
        }
        let seq = record.seq;
        tracing::error!(
            sink = %self.name, alert = seq, %error,
            "the receiver refused an alert time and again: it is a dead letter now, and the others go on"
        );
        self.bury(record, error).await?;
        // What was read before it and not wanted is behind the cursor with it.
        self.unsettled.clear();
        self.refusals = 0;
        self.position = seq;
        Ok(())
    }

    /// Puts an alert aside and moves the cursor past it.
    async fn bury(&mut self, record: Record, error: String) -> Result<(), Failure> {
        let seq = record.seq;
        let letter = DeadLetter {
            record,
            time: Timestamp::now(),
            error,
        };
        let name = self.name.clone();
        let dropped = self
            .in_store(move |store| store.bury(&name, &letter))
            .await?;
        if dropped > 0 {
            tracing::error!(sink = %self.name, dropped, "too many dead letters: the oldest were deleted");
        }
        self.failures = 0;
        self.broken = 0;
        self.cursor = seq;
        self.status.send_modify(|status| status.cursor = seq);
        self.count_letters().await;
        Ok(())
    }

    /// Moves the cursor past what has had its time.
    async fn settle(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let due = self
            .unsettled
            .iter()
            .take_while(|delivery| delivery.settles <= now)
            .count();
        let Some(last) = due.checked_sub(1).map(|index| self.unsettled[index].last) else {
            return Ok(());
        };
        self.sink.check().await?;
        self.advance(last).await?;
        self.unsettled.drain(..due);
        self.clear_error();
        Ok(())
    }

    fn clear_error(&mut self) {
        if self.status.borrow().last_error.is_some() {
            tracing::info!(sink = %self.name, "the sink is well again");
            self.status.send_modify(|status| status.last_error = None);
        }
    }

    async fn advance(&mut self, to: Seq) -> Result<(), Failure> {
        let name = self.name.clone();
        self.in_store(move |store| store.advance(&name, to)).await?;
        self.cursor = to;
        self.failures = 0;
        self.broken = 0;
        self.status.send_modify(|status| status.cursor = to);
        Ok(())
    }

    /// Until there is an alert, something settles or `held` has come; true on stop. What has not
    /// settled by the stop is delivered again at the next start.
    async fn wait(&mut self, held: Option<Instant>) -> bool {
        let settles = self.unsettled.front().map(|delivery| delivery.settles);
        let until = held.into_iter().chain(settles).min();
        tokio::select! {
            biased;
            Some(slip) = self.slips.recv() => {
                self.obey(slip).await;
                false
            }
            _ = self.newest.changed() => false,
            () = stopped(&mut self.stop) => true,
            () = async {
                match until {
                    Some(time) => sleep_until(time).await,
                    None => std::future::pending().await,
                }
            } => false,
        }
    }

    /// Waits, and after a failure of the sink goes back to the cursor; true when
    /// it is time to stop.
    async fn fail(&mut self, failure: Failure) -> bool {
        let mut wait = backoff(self.failures);
        let error = match failure {
            Failure::Sink(error) => {
                if !matches!(error, SinkError::Unwelcome(_)) {
                    self.give_up_on_unsettled(&error).await;
                }
                self.unsettled.clear();
                self.position = self.cursor;
                if let SinkError::Busy(_, after) = error {
                    wait = wait.max(after.min(BUSY_MAX));
                }
                error.to_string()
            }
            Failure::Store(error) => error,
        };
        if self.status.borrow().last_error.is_none() {
            tracing::warn!(sink = %self.name, %error, "the sink failed; alerts are kept and will be delivered");
        }
        self.status.send_modify(|status| {
            status.retries += 1;
            status.last_error = Some(error);
        });
        self.failures = self.failures.saturating_add(1);
        tokio::select! {
            () = stopped(&mut self.stop) => true,
            () = sleep(wait) => false,
            Some(slip) = self.slips.recv() => {
                self.obey(slip).await;
                false
            }
        }
    }

    /// See [`MAX_UNSETTLED`]. Counts only failures that a complete delivery came before.
    async fn give_up_on_unsettled(&mut self, error: &SinkError) {
        let Some(first) = self.unsettled.front().map(|delivery| delivery.last) else {
            return;
        };
        self.broken += 1;
        if self.broken < MAX_UNSETTLED {
            return;
        }
        let error = format!("taken and broken off {MAX_UNSETTLED} times: {error}");
        // If the store fails here, the cursor stays and the next failure tries again.
        while self.cursor < first
            && let Ok(true) = self.bury_next(first, &error).await
        {}
    }

    /// Makes the alert after the cursor a dead letter, at most number `last`; false
    /// when there is none. What the sink does not want, it only goes past.
    async fn bury_next(&mut self, last: Seq, error: &str) -> Result<bool, Failure> {
        let cursor = self.cursor;
        let wanted = self.wanted;
        let next = self.in_store(move |store| store.read_after(cursor, 1, wanted));
        let Some(record) = next.await?.pop().filter(|record| record.seq <= last) else {
            self.advance(last).await?;
            return Ok(false);
        };
        if !self.options.filter.wants(&record) {
            self.advance(record.seq).await?;
            return Ok(true);
        }
        tracing::error!(
            sink = %self.name, alert = record.seq, %error,
            "the receiver took an alert and broke off each time: it is a dead letter now"
        );
        self.bury(record, error.to_owned()).await?;
        self.status.send_modify(|status| status.unconfirmed += 1);
        Ok(true)
    }

    async fn in_store<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failure> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .map_err(|error| Failure::Store(format!("the store could not be asked: {error}")))?
            .map_err(|error| Failure::Store(error.to_string()))
    }
}

/// When the stop is given, or nobody is left to give it.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The wait after `failures` failures before this one: between half and all of
/// the doubled minimum, so that many nodes do not come back in step.
fn backoff(failures: u32) -> Duration {
    let full = BACKOFF_MIN
        .saturating_mul(1 << failures.min(16))
        .min(BACKOFF_MAX);
    full.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
}

mod letters;

#[cfg(test)]
mod tests;
