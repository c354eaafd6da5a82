//! The task behind each sink: read, deliver, settle, advance.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Sink, SinkError, SinkStatus};
use crate::store::{Record, Seq, Store, StoreError};

/// Most alerts in one delivery.
const BATCH: u32 = 256;
/// Wait after the first failure; doubled with each that follows.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest wait, so that a receiver that is back is found within it.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How many complete deliveries of the same alerts may end in a broken
/// connection before they count as delivered. A receiver that closes after each
/// message, or that crashes on one, would otherwise get it for ever.
const MAX_UNSETTLED: u32 = 10;
/// How long a sink may go on after the stop to deliver what is already stored.
const DRAIN: Duration = Duration::from_secs(3);

/// Runs until `stop`, then at most [`DRAIN`] longer.
pub(super) async fn run<S: Sink>(
    sink: S,
    store: Store,
    status: watch::Sender<SinkStatus>,
    stop: watch::Receiver<bool>,
) {
    let mut deadline = stop.clone();
    let name = status.borrow().name.clone();
    let driver = Driver {
        newest: store.watch(),
        sink,
        store,
        status,
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
    store: Store,
    newest: watch::Receiver<Seq>,
    status: watch::Sender<SinkStatus>,
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
        self.cursor = self.in_store(move |store| store.cursor(&name)).await?;
        self.position = self.cursor;
        self.status
            .send_modify(|status| status.cursor = self.cursor);
        Ok(())
    }

    /// One delivery, one advance, or one wait; true when it is time to stop.
    async fn step(&mut self) -> Result<bool, Failure> {
        self.settle().await?;
        // Seen as read before the read: an alert that comes after it wakes us.
        self.newest.borrow_and_update();
        let position = self.position;
        let batch = self
            .in_store(move |store| store.read_after(position, BATCH))
            .await?;
        if batch.is_empty() {
            if self.unsettled.is_empty() {
                self.clear_error();
            }
            return Ok(self.wait().await);
        }
        self.deliver(&batch).await?;
        Ok(false)
    }

    async fn deliver(&mut self, batch: &[Record]) -> Result<(), Failure> {
        self.sink.deliver(batch).await?;
        if let Some(last) = batch.last() {
            self.position = last.seq;
            let settles = Instant::now() + S::SETTLE;
            self.unsettled.push_back(Delivery {
                last: last.seq,
                settles,
            });
        }
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
        self.sink.check()?;
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

    /// Until there is an alert or something settles; true on stop. What has not
    /// settled by the stop is delivered again at the next start.
    async fn wait(&mut self) -> bool {
        let settles = self.unsettled.front().map(|delivery| delivery.settles);
        tokio::select! {
            biased;
            _ = self.newest.changed() => false,
            () = stopped(&mut self.stop) => true,
            () = async {
                match settles {
                    Some(time) => sleep_until(time).await,
                    None => std::future::pending().await,
                }
            } => false,
        }
    }

    /// Waits, and after a failure of the sink goes back to the cursor; true when
    /// it is time to stop.
    async fn fail(&mut self, failure: Failure) -> bool {
        let error = match failure {
            Failure::Sink(SinkError(error)) => {
                self.give_up_on_unsettled().await;
                self.unsettled.clear();
                self.position = self.cursor;
                error
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
        let wait = backoff(self.failures);
        self.failures = self.failures.saturating_add(1);
        tokio::select! {
            () = stopped(&mut self.stop) => true,
            () = sleep(wait) => false,
        }
    }

    /// See [`MAX_UNSETTLED`]. Counts only failures that a complete delivery came before.
    async fn give_up_on_unsettled(&mut self) {
        let Some(first) = self.unsettled.front().map(|delivery| delivery.last) else {
            return;
        };
        self.broken += 1;
        if self.broken < MAX_UNSETTLED {
            return;
        }
        let alerts = u64::try_from(first - self.cursor).unwrap_or(0);
        // If the store fails here, the cursor stays and the next failure tries again.
        if self.advance(first).await.is_ok() {
            tracing::error!(
                sink = %self.name, alerts, times = MAX_UNSETTLED,
                "the receiver took these alerts and broke off each time; they count as delivered"
            );
            self.status
                .send_modify(|status| status.unconfirmed += alerts);
        }
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

#[cfg(test)]
mod tests;
