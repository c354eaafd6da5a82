//! Sinks: where alerts go. Each is a cursor over the store's sequence.
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
mod rfc5424;
mod syslog;

use std::future::Future;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::config::SinkConfig;
use crate::event::Timestamp;
use crate::store::{Record, Seq, Store};

use filter::Filter;

pub use file::FileSink;
pub use http::{BulkSink, OtlpSink, SplunkSink, WebhookSink};
pub use syslog::SyslogSink;

/// How often the store is pruned.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

/// Why a delivery failed, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The receiver is not there, busy, or refuses us rather than the records. They
    /// are tried again for as long as it takes.
    #[error("{0}")]
    Unavailable(String),
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
    /// For how long after [`Sink::deliver`] a record may still be lost at the
    /// receiver without a sign other than a connection that breaks. Zero for a
    /// receiver that acknowledges. The cursor moves only once this has passed and
    /// [`Sink::check`] has succeeded.
    const SETTLE: Duration = Duration::ZERO;

    /// Delivers the records, in order; never empty. On an error some of them may
    /// have arrived, and all will be delivered again.
    ///
    /// # Errors
    /// The receiver cannot be reached or refuses them. With a [`Sink::SETTLE`],
    /// also when earlier records may have been lost.
    fn deliver(&mut self, batch: &[Record]) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Whether what was delivered is still safe.
    ///
    /// # Errors
    /// What has not settled may be lost and has to be delivered again.
    fn check(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// How a sink is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SinkStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Number of the last alert known to be delivered.
    pub cursor: Seq,
    /// How many alerts have come since; those that have not settled included.
    pub lag: u64,
    /// Deliveries that failed since the daemon started.
    pub retries: u64,
    /// Alerts whose receiver broke off after each of several complete
    /// deliveries, and which were then counted as delivered.
    pub unconfirmed: u64,
    /// Alerts that the receiver refused time and again, kept apart from the others.
    pub dead_letters: u64,
    /// Why the last delivery failed; absent while all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// The running sinks.
pub struct Sinks {
    statuses: SinkStatuses,
    tasks: JoinSet<()>,
}

/// Reads how the sinks are doing; cheap to clone.
#[derive(Clone)]
pub struct SinkStatuses {
    store: Store,
    statuses: Vec<watch::Receiver<SinkStatus>>,
}

impl SinkStatuses {
    /// One status a sink, in the order of the configuration.
    pub fn read(&self) -> Vec<SinkStatus> {
        let latest = self.store.latest();
        self.statuses
            .iter()
            .map(|status| {
                let mut status = status.borrow().clone();
                status.lag = u64::try_from(latest - status.cursor).unwrap_or(0);
                status
            })
            .collect()
    }
}

impl Sinks {
    /// Starts a task for each sink and one that prunes the store. They stop when
    /// `stop` becomes true or its sender is gone. Must be called in a tokio runtime.
    pub fn start(configs: &[SinkConfig], store: &Store, stop: &watch::Receiver<bool>) -> Self {
        let mut sinks = Self {
            statuses: SinkStatuses {
                store: store.clone(),
                statuses: Vec::new(),
            },
            tasks: JoinSet::new(),
        };
        for config in configs {
            match config {
                SinkConfig::File(file) => sinks.add(config, FileSink::new(file), stop),
                SinkConfig::Syslog(syslog) => sinks.add(config, SyslogSink::new(syslog), stop),
                SinkConfig::Splunk(splunk) => sinks.add(config, SplunkSink::new(splunk), stop),
                SinkConfig::Elasticsearch(bulk) => sinks.add(config, BulkSink::new(bulk), stop),
                SinkConfig::Otlp(otlp) => sinks.add(config, OtlpSink::new(otlp), stop),
                SinkConfig::Webhook(hook) => sinks.add(config, WebhookSink::new(hook), stop),
            }
        }
        let names = configs
            .iter()
            .map(|config| config.name().to_owned())
            .collect();
        sinks.tasks.spawn(prune(store.clone(), names, stop.clone()));
        sinks
    }

    /// To read how they are doing.
    pub fn statuses(&self) -> SinkStatuses {
        self.statuses.clone()
    }

    /// Waits for all to have stopped.
    ///
    /// # Errors
    /// A task panicked; the others have stopped all the same.
    pub async fn join(mut self) -> Result<(), JoinError> {
        let mut result = Ok(());
        while let Some(task) = self.tasks.join_next().await {
            result = result.and(task);
        }
        result
    }

    fn add(&mut self, config: &SinkConfig, sink: impl Sink, stop: &watch::Receiver<bool>) {
        let (filter, batch) = config.delivery();
        let options = driver::Options {
            filter: Filter::new(filter),
            batch,
        };
        let status = SinkStatus {
            name: config.name().to_owned(),
            ..SinkStatus::default()
        };
        let (sender, receiver) = watch::channel(status);
        self.statuses.statuses.push(receiver);
        let store = self.statuses.store.clone();
        self.tasks
            .spawn(driver::run(sink, options, store, sender, stop.clone()));
    }
}

async fn prune(store: Store, names: Vec<String>, mut stop: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(PRUNE_EVERY);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = interval.tick() => {}
        }
        let (store, names) = (store.clone(), names.clone());
        let pruned = tokio::task::spawn_blocking(move || store.prune(&names, now())).await;
        if let Ok(Err(error)) = pruned {
            tracing::warn!(%error, "cannot delete old alerts from the store; will try again");
        }
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
