//! Sinks: where alerts go, and events where they are wanted. Each is a cursor over the
//! store's sequence.
//!
//! A sink is no channel that fills up. Its driver (see [`Sinks::start`]) reads
//! what comes after the cursor, delivers it, and moves the cursor durably once
//! that has succeeded. A sink that is down falls behind; it loses nothing, holds
//! nothing in memory, and delays neither the pipeline nor another sink.
//!
//! Every alert is delivered **at least once**: a crash between delivery and the
//! cursor's move, or a connection that breaks, delivers some again, with the
//! same `id`. First deliveries are in the order of the sequence.
//!
//! A new kind of sink is a module with a type that implements [`Sink`], a
//! variant of [`SinkConfig`], and an arm in [`Sinks::start`].

mod driver;
mod file;
mod filter;
mod format;
mod http;
mod orders;
pub mod rfc5424;
mod stdout;
mod syslog;
pub mod template;
mod tls;

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};

use crate::config::SinkConfig;
use crate::event::Timestamp;
use crate::store::{Reader, Record, Seq, Store, Wanted};

use filter::Filter;
use orders::Orders;

pub use file::FileSink;
pub use http::{BulkSink, OtlpSink, SplunkSink, WebhookSink};
pub use orders::{Done, Order};
pub use stdout::StdoutSink;
pub use syslog::SyslogSink;

/// Why a delivery failed, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The receiver is not there, busy, or refuses us rather than the records. They
    /// are tried again for as long as it takes.
    #[error("{0}")]
    Unavailable(String),
    /// As [`Self::Unavailable`], and the receiver said that it does not want us: nothing
    /// that it took before counts as taken.
    #[error("{0}")]
    Unwelcome(String),
    /// As [`Self::Unavailable`], and the receiver said how long to wait.
    #[error("{0}")]
    Busy(String, Duration),
    /// The receiver refuses one of the records, or more, for what they are. The batch
    /// is delivered again in ever smaller parts until the record is found; after a few
    /// more tries it goes to the dead letters, and the others on.
    #[error("{0}")]
    Refused(String),
}

/// Takes alerts out of the house.
pub trait Sink: Send + 'static {
    /// Most records in one delivery, whatever is configured.
    fn most(&self) -> NonZeroU32 {
        NonZeroU32::MAX
    }

    /// For how long after [`Sink::deliver`] a record may still be lost at the
    /// receiver without a sign other than a connection that breaks. Zero for a
    /// receiver that acknowledges. The cursor moves only once this has passed and
    /// [`Sink::check`] has succeeded.
    fn settles_after(&self) -> Duration {
        Duration::ZERO
    }

    /// Delivers the records, in order; never empty. On an error some of them may
    /// have arrived, and all will be delivered again.
    ///
    /// # Errors
    /// The receiver cannot be reached or refuses them. Where deliveries settle,
    /// also when earlier records may have been lost.
    fn deliver(&mut self, batch: &[Record]) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Whether what was delivered is still safe.
    ///
    /// # Errors
    /// What has not settled may be lost and has to be delivered again.
    fn check(&mut self) -> impl Future<Output = Result<(), SinkError>> + Send {
        async { Ok(()) }
    }

    /// Lets go of files that may have been renamed, and of certificates that may have been
    /// exchanged: the next delivery takes those that are there then.
    fn reopen(&mut self) {}
}

/// How a sink is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SinkStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Its kind there.
    pub kind: &'static str,
    /// Number of the last alert known to be delivered.
    pub cursor: Seq,
    /// How many alerts have come since; those that have not settled included.
    pub lag: u64,
    /// Age of the oldest of them, in seconds.
    pub lag_seconds: u64,
    /// Deliveries that failed since the daemon started.
    pub retries: u64,
    /// Alerts whose receiver broke off after each of several complete
    /// deliveries, and which are dead letters since.
    pub unconfirmed: u64,
    /// Alerts that the receiver refused time and again, kept apart from the others.
    pub dead_letters: u64,
    /// Why the last delivery failed; absent while all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// The sinks of the configuration, each with its task.
pub struct Sinks {
    store: Store,
    running: Mutex<Vec<Running>>,
    /// What an operator took out of the configuration and is still ending.
    tasks: Mutex<JoinSet<()>>,
    stop: watch::Receiver<bool>,
    runtime: Handle,
}

/// One sink at work.
struct Running {
    config: SinkConfig,
    wanted: Wanted,
    status: watch::Receiver<SinkStatus>,
    orders: Orders,
    /// Gone: the sink ends.
    _wanted: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Sinks {
    /// Starts a task for each sink. They stop when `stop` becomes true or its sender is
    /// gone. Must be called in a tokio runtime.
    pub fn start(configs: &[SinkConfig], store: &Store, stop: &watch::Receiver<bool>) -> Arc<Self> {
        let sinks = Arc::new(Self {
            store: store.clone(),
            running: Mutex::default(),
            tasks: Mutex::default(),
            stop: stop.clone(),
            runtime: Handle::current(),
        });
        sinks.replace(configs);
        sinks
    }

    /// Runs these sinks from now on: one that is as it was goes on, one that differs
    /// begins again at its cursor once it has ended, and one that is not there ends.
    pub fn replace(&self, configs: &[SinkConfig]) {
        let reader = |config: &SinkConfig| Reader {
            name: config.name().to_owned(),
            wanted: Filter::new(config.delivery().0).wanted(),
        };
        self.store.set_sinks(configs.iter().map(reader).collect());
        let mut running = lock(&self.running);
        let mut before = std::mem::take(&mut *running);
        for config in configs {
            let place = before
                .iter()
                .position(|it| it.config.name() == config.name());
            let earlier = place.map(|place| before.swap_remove(place));
            running.push(match earlier {
                Some(same) if same.config == *config => same,
                earlier => self.run(config, earlier.map(|it| it.task)),
            });
        }
        for ended in before {
            lock(&self.tasks).spawn_on(
                async move {
                    let _ = ended.task.await;
                },
                &self.runtime,
            );
        }
    }

    /// One status a sink, in the order of the configuration.
    pub fn statuses(&self) -> Vec<SinkStatus> {
        lock(&self.running)
            .iter()
            .map(|running| {
                let mut status = running.status.borrow().clone();
                if let Ok(behind) = self.store.behind(status.cursor, running.wanted) {
                    status.lag = behind.records;
                    let age = behind.oldest.map(|time| now().0.saturating_sub(time.0));
                    status.lag_seconds = age.unwrap_or_default() / 1_000_000_000;
                }
                status
            })
            .collect()
    }

    /// Has a sink do something about its dead letters; `None` when there is no such
    /// sink. Takes as long as the delivery that is going on.
    ///
    /// # Errors
    /// The receiver is not there, or the store is failing.
    pub async fn order(&self, name: &str, order: Order) -> Option<Result<Done, String>> {
        let orders = {
            let running = lock(&self.running);
            let found = running.iter().find(|it| it.config.name() == name)?;
            found.orders.clone()
        };
        Some(orders.give(order).await)
    }

    /// Has every sink let go of files and certificates, for those that are there now.
    pub fn reopen(&self) {
        for running in lock(&self.running).iter() {
            running.orders.reopen();
        }
    }

    /// Waits for all to have stopped.
    ///
    /// # Errors
    /// A task panicked; the others have stopped all the same.
    pub async fn join(&self) -> Result<(), JoinError> {
        let mut result = Ok(());
        let running = std::mem::take(&mut *lock(&self.running));
        for ended in running {
            result = result.and(ended.task.await);
        }
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        while let Some(task) = tasks.join_next().await {
            result = result.and(task);
        }
        result
    }

    fn run(&self, config: &SinkConfig, after: Option<JoinHandle<()>>) -> Running {
        match config {
            SinkConfig::File(file) => self.drive(config, FileSink::new(file), after),
            SinkConfig::Stdout(stdout) => self.drive(config, StdoutSink::new(stdout), after),
            SinkConfig::Syslog(syslog) => self.drive(config, SyslogSink::new(syslog), after),
            SinkConfig::Splunk(splunk) => self.drive(config, SplunkSink::new(splunk), after),
            SinkConfig::Elasticsearch(bulk) => self.drive(config, BulkSink::new(bulk), after),
            SinkConfig::Otlp(otlp) => self.drive(config, OtlpSink::new(otlp), after),
            SinkConfig::Webhook(hook) => self.drive(config, WebhookSink::new(hook), after),
        }
    }

    fn drive(
        &self,
        config: &SinkConfig,
        sink: impl Sink,
        after: Option<JoinHandle<()>>,
    ) -> Running {
        let (filter, batch) = config.delivery();
        let filter = Filter::new(filter);
        let reads = filter.wanted();
        let options = driver::Options { filter, batch };
        let (sender, status) = watch::channel(SinkStatus {
            name: config.name().to_owned(),
            kind: config.kind(),
            ..SinkStatus::default()
        });
        let (wanted, unwanted) = watch::channel(false);
        let (store, stop) = (self.store.clone(), self.stop.clone());
        let (orders, slips) = Orders::channel();
        let task = async move {
            if let Some(after) = after {
                let _ = after.await;
            }
            driver::run(sink, options, store, sender, slips, either(stop, unwanted)).await;
        };
        Running {
            config: config.clone(),
            wanted: reads,
            status,
            orders,
            _wanted: wanted,
            task: self.runtime.spawn(task),
        }
    }
}

/// Becomes true when one of them does, or its sender is gone.
fn either(
    mut one: watch::Receiver<bool>,
    mut other: watch::Receiver<bool>,
) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = one.wait_for(|stop| *stop) => {}
            _ = other.wait_for(|stop| *stop) => {}
            () = sender.closed() => {}
        }
        sender.send_replace(true);
    });
    receiver
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after every assignment, so what a panic left is still good.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
