//! The store: alerts, and events as configured, numbered, on disk.
//!
//! One SQLite database in WAL mode with `synchronous=FULL`: when
//! [`Store::append`] returns, the event is synced to disk. Alerts and events share
//! one sequence of numbers that only grows and is never reused, and every sink is a
//! cursor on that sequence, so a sink that is down falls behind and loses nothing.
//!
//! A [`Store`] is a handle that is cheap to clone and may be used from any
//! thread. All clones share two connections: one for writing, one for reading,
//! so a sink that reads a long backlog does not hold up who writes. Calls
//! block on the disk; async callers go through `spawn_blocking`, and the pipeline
//! leaves writing to the thread of a [`Recorder`].
//!
//! What can go wrong, and what happens then:
//! - The file is corrupt, or a newer agent-monitor wrote it: it is moved aside as `PATH.corrupt-TIME`
//!   or `PATH.newer-TIME`, reported, and a new one begun whose numbers go on.
//! - Another agent-monitor has it open: refused. Two would move the same cursors.
//! - The disk cannot be read or written: every call fails until [`Store::reopen`] succeeds.
//! - The disk is full: [`Store::append`] fails, and the next one is tried anew.
//! - A sink stays down: alerts that it has not seen are kept until the file reaches
//!   [`Limits::max_bytes`]; then appends fail as on a full disk, so an agent cannot fill the node's
//!   disk with alerts. Events make room before that happens, see `retention.rs`.

mod dead_letters;
mod history;
mod open;
mod read;
pub mod recorder;
mod retention;
mod write;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::watch;

pub use dead_letters::{DeadLetter, MAX_DEAD_LETTERS};
pub use history::Past;
pub use read::{Behind, Place};
pub use recorder::Recorder;
pub use retention::{Limits, Pruned, Reader};

/// Number of an alert or event in the store, from 1; 0 is "before the first".
pub type Seq = i64;

/// What of the store a reader wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Alerts alone.
    #[default]
    Alerts,
    /// Alerts and events.
    Everything,
}

/// An alert or event as stored: what a sink gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub seq: Seq,
    /// The event's kind.
    pub kind: String,
    /// The event as one line of JSON, without a newline.
    pub json: String,
}

/// Why the store could not do what was asked. The message is whole: there is no
/// [`source`](std::error::Error::source) to print after it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file next to or of the database could not be made or opened.
    #[error("cannot open {}: {cause}; check that the folder exists and is writable, or set [store] path", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// SQLite could not open or prepare the database, which is not corrupt.
    #[error("cannot open the store {}: {cause}", path.display())]
    Prepare {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        cause: rusqlite::Error,
    },
    /// Another process has it open.
    #[error("the store {} is in use by another agent-monitor: stop that one, or set [store] path to another file", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// It could not be opened, or failed and was closed.
    #[error("the store {} is not open: {problem}", path.display())]
    Closed {
        /// The database.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// Two different alerts claim one id.
    #[error("another alert with the id {0} is already stored")]
    IdTaken(String),
    /// The event has no JSON form.
    #[error("cannot write the event {id} as JSON: {cause}")]
    Json {
        /// The event's id.
        id: String,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
    /// A read or a write failed: full disk, I/O error.
    #[error("the store failed: {0}")]
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// A handle on the store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    writer: Mutex<Option<Connection>>,
    reader: Mutex<Option<Connection>>,
    newest: watch::Sender<Seq>,
    limits: Mutex<Limits>,
    /// Whose cursors count, once that is known.
    sinks: Mutex<Option<Vec<Reader>>>,
    health: Mutex<Health>,
    /// Held for as long as the store is open, so declared after the connections.
    lock: Mutex<Option<open::Lock>>,
}

/// What has happened to the file.
#[derive(Default)]
struct Health {
    /// Why it is not open.
    problem: String,
    /// Whether only opening it again can help.
    is_broken: bool,
    /// What was moved aside since [`Store::take_notices`] was called.
    notices: Vec<String>,
}

impl Store {
    /// Opens the database at `path`, and makes it (mode 0600) and its folder
    /// (0700) when they do not exist. Reads all of it to check it: seconds for a
    /// database of gigabytes.
    ///
    /// # Errors
    /// The file cannot be opened or is in use. A corrupt file, and one of a newer
    /// version, is no error: see the module's documentation.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let store = Self::closed(path)?;
        store.reopen()?;
        Ok(store)
    }

    /// A store that is not open yet: every call fails until [`Store::reopen`] succeeds.
    ///
    /// # Errors
    /// It is in use. What else keeps it from being opened may pass.
    pub fn closed(path: &Path) -> Result<Self, StoreError> {
        let lock = match open::lock(path) {
            Err(error @ StoreError::InUse { .. }) => return Err(error),
            lock => lock.ok(),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                writer: Mutex::default(),
                reader: Mutex::default(),
                newest: watch::Sender::new(0),
                limits: Mutex::default(),
                sinks: Mutex::default(),
                health: Mutex::new(Health {
                    problem: "it is being opened".to_owned(),
                    ..Health::default()
                }),
                lock: Mutex::new(lock),
            }),
        })
    }

    /// Opens the database, again if it was open. Numbers go on where they were.
    ///
    /// # Errors
    /// As [`Store::open`]; the store is closed then.
    pub fn reopen(&self) -> Result<(), StoreError> {
        self.close();
        let opened = self.try_open();
        if let Err(error) = &opened {
            guard(&self.inner.health).problem = match error {
                // They name the file, and so does who reports this.
                StoreError::Open { cause, .. } => cause.to_string(),
                StoreError::Prepare { cause, .. } => cause.to_string(),
                other => other.to_string(),
            };
        }
        opened
    }

    fn close(&self) {
        *guard(&self.inner.reader) = None;
        *guard(&self.inner.writer) = None;
        guard(&self.inner.health).is_broken = false;
    }

    fn try_open(&self) -> Result<(), StoreError> {
        let Inner { path, lock, .. } = &*self.inner;
        let mut lock = guard(lock);
        if lock.is_none() {
            *lock = Some(open::lock(path)?);
        }
        let limits = *guard(&self.inner.limits);
        let opened = open::open(path, self.latest(), &limits)?;
        guard(&self.inner.health).notices.extend(opened.notices);
        let reader = open::connect(path)?;
        *guard(&self.inner.writer) = Some(opened.writer);
        *guard(&self.inner.reader) = Some(reader);
        self.inner.newest.send_replace(opened.newest);
        Ok(())
    }

    /// Sentences about files that were moved aside since the last call.
    pub fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut guard(&self.inner.health).notices)
    }

    /// Number of the newest record, also when retention has removed it; 0 when
    /// there never was one.
    pub fn latest(&self) -> Seq {
        *self.inner.newest.borrow()
    }

    /// The newest number, to wait for records.
    pub fn watch(&self) -> watch::Receiver<Seq> {
        self.inner.newest.subscribe()
    }

    /// Whether it is closed, or something happened that only opening it again can mend:
    /// it is corrupt, or the disk failed or was mounted anew.
    pub fn needs_reopening(&self) -> bool {
        guard(&self.inner.health).is_broken || guard(&self.inner.writer).is_none()
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let result = match &mut *guard(&self.inner.writer) {
            Some(writer) => work(writer),
            None => Err(self.is_closed()),
        };
        self.noted(result)
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let result = match &*guard(&self.inner.reader) {
            Some(reader) => work(reader),
            None => Err(self.is_closed()),
        };
        self.noted(result)
    }

    fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Sql(cause)) = &result
            && open::is_broken(cause)
        {
            guard(&self.inner.health).is_broken = true;
        }
        result
    }

    fn is_closed(&self) -> StoreError {
        StoreError::Closed {
            path: self.inner.path.clone(),
            problem: guard(&self.inner.health).problem.clone(),
        }
    }
}

/// A thread that panicked while it held a connection left no transaction open:
/// dropping one rolls it back. So the connection is good to use.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
