//! The store: alerts, numbered, on disk before anyone is told of them.
//!
//! One SQLite database in WAL mode with `synchronous=FULL`: when
//! [`Store::append`] returns, the alert is synced to disk. Every alert has a
//! sequence number that only grows and is never reused, and every sink a cursor
//! on that sequence, so a sink that is down falls behind and loses nothing.
//!
//! A [`Store`] is a handle that is cheap to clone and may be used from any
//! thread. All clones share two connections: one for writing, one for reading,
//! so a sink that reads a long backlog does not hold up the pipeline. Calls
//! block on the disk; async callers go through `spawn_blocking`.
//!
//! What can go wrong, and what happens then:
//! - The file is corrupt: it is moved aside as `PATH.corrupt-TIME`, reported, and a new one begun.
//! - It was written by a newer agent-monitor: refused, untouched.
//! - Another agent-monitor has it open: refused. Two would move the same cursors.
//! - The disk is full: [`Store::append`] fails, the caller counts it, and the next one is tried anew.
//! - A sink stays down: what it has not seen is kept until the file reaches [`MAX_BYTES`];
//!   then appends fail as on a full disk, so an agent cannot fill the node's disk with alerts.

mod dead_letters;
mod history;
mod open;
mod retention;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::watch;

use crate::event::{Body, Event, Timestamp};

pub use dead_letters::{DeadLetter, MAX_DEAD_LETTERS};
pub use history::Past;
pub use retention::{KEEP, MAX_ROWS};

/// Largest size of the database file in bytes. At [`MAX_ROWS`] it allows 40 KiB
/// an alert, several times what one takes.
pub const MAX_BYTES: i64 = 4 << 30;

/// Number of an alert in the store, from 1; 0 is "before the first".
pub type Seq = i64;

/// An alert as stored: what a sink gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub seq: Seq,
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
    /// A newer agent-monitor wrote it.
    #[error(
        "the store {} has version {found}, this agent-monitor knows versions up to {known}: \
         run the newer agent-monitor again, or set [store] path to another file",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// Another process has it open.
    #[error("the store {} is in use by another agent-monitor: stop that one, or set [store] path to another file", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// Only alerts are stored.
    #[error("the store holds alerts, not events of kind {0}")]
    NotAnAlert(&'static str),
    /// Two different alerts claim one id.
    #[error("another alert with the id {0} is already stored")]
    IdTaken(String),
    /// The event has no JSON form.
    #[error("cannot write the alert as JSON: {0}")]
    Json(serde_json::Error),
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
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    newest: watch::Sender<Seq>,
    /// Held for as long as the store is open, so declared after the connections.
    _lock: open::Lock,
}

impl Store {
    /// Opens the database at `path`, and makes it (mode 0600) and its folder
    /// (0700) when they do not exist. Reads all of it to check it: seconds for a
    /// database near [`MAX_BYTES`].
    ///
    /// # Errors
    /// The file cannot be opened, is in use, or was written by a newer version.
    /// A corrupt file is no error: see the module's documentation.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let lock = open::lock(path)?;
        let writer = open::open(path)?;
        let reader = open::connect(path)?;
        let newest = open::newest(&writer)?;
        Ok(Self {
            inner: Arc::new(Inner {
                writer: Mutex::new(writer),
                reader: Mutex::new(reader),
                newest: watch::Sender::new(newest),
                _lock: lock,
            }),
        })
    }

    /// Stores an alert and returns its number; it is on disk by then. The same
    /// alert stored again keeps its number.
    ///
    /// # Errors
    /// The event is no alert, another alert has its id, or the disk is full or
    /// failing. Nothing of a failed append remains, and the next may succeed.
    pub fn append(&self, event: &Event) -> Result<Seq, StoreError> {
        self.append_all(&[event])
    }

    /// As [`Store::append`] for several alerts in one transaction, all or none;
    /// gives the number of the last.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn append_all(&self, events: &[&Event]) -> Result<Seq, StoreError> {
        let mut writer = self.writer();
        let transaction = writer.transaction()?;
        let mut newest = 0;
        for event in events {
            newest = insert(&transaction, event)?;
        }
        transaction.commit()?;
        drop(writer);
        self.inner
            .newest
            .send_if_modified(|seq| newest > std::mem::replace(seq, newest.max(*seq)));
        Ok(newest)
    }

    /// At most `limit` alerts with a number above `seq`, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn read_after(&self, seq: Seq, limit: u32) -> Result<Vec<Record>, StoreError> {
        let reader = guard(&self.inner.reader);
        let mut statement = reader
            .prepare_cached("SELECT seq, json FROM alerts WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
        let rows = statement.query_map(params![seq, limit], |row| {
            Ok(Record {
                seq: row.get(0)?,
                json: row.get(1)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Number of the last alert that the sink `name` has delivered; 0 for a sink
    /// that is new, which then gets everything that is still kept.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn cursor(&self, name: &str) -> Result<Seq, StoreError> {
        let reader = guard(&self.inner.reader);
        let cursor = reader
            .prepare_cached("SELECT cursor FROM sinks WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()?;
        Ok(cursor.unwrap_or(0))
    }

    /// Moves the cursor of the sink `name` on to `seq`, durably, never back.
    ///
    /// # Errors
    /// The disk is full or failing; the cursor is where it was.
    pub fn advance(&self, name: &str, seq: Seq) -> Result<(), StoreError> {
        advance(&self.writer(), name, seq)
    }

    /// When the first alert after `seq` happened, if there is one.
    ///
    /// # Errors
    /// The disk is failing.
    pub fn time_after(&self, seq: Seq) -> Result<Option<Timestamp>, StoreError> {
        let reader = guard(&self.inner.reader);
        let time = reader
            .prepare_cached("SELECT time_ns FROM alerts WHERE seq > ?1 ORDER BY seq LIMIT 1")?
            .query_row([seq], |row| row.get(0))
            .optional()?;
        Ok(time.map(|time: i64| Timestamp(u64::try_from(time).unwrap_or_default())))
    }

    /// Number of the newest alert, also when retention has removed it; 0 when
    /// there never was one.
    pub fn latest(&self) -> Seq {
        *self.inner.newest.borrow()
    }

    /// The newest number, to wait for alerts.
    pub fn watch(&self) -> watch::Receiver<Seq> {
        self.inner.newest.subscribe()
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        guard(&self.inner.writer)
    }
}

/// A thread that panicked while it held a connection left no transaction open:
/// dropping one rolls it back. So the connection is good to use.
fn guard(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn advance(connection: &Connection, name: &str, seq: Seq) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO sinks (name, cursor) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET cursor = max(cursor, excluded.cursor)",
        )?
        .execute(params![name, seq])?;
    Ok(())
}

/// Inserts an alert, unless it is there already; gives its number.
fn insert(transaction: &rusqlite::Transaction<'_>, event: &Event) -> Result<Seq, StoreError> {
    let Body::Alert(alert) = &event.body else {
        return Err(StoreError::NotAnAlert(event.body.kind()));
    };
    let json = serde_json::to_string(event).map_err(StoreError::Json)?;
    let known: Option<(Seq, String)> = transaction
        .prepare_cached("SELECT seq, json FROM alerts WHERE id = ?1")?
        .query_row([&*event.id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((seq, stored)) = known {
        return if stored == json {
            Ok(seq)
        } else {
            Err(StoreError::IdTaken(event.id.to_string()))
        };
    }
    transaction
        .prepare_cached(
            "INSERT INTO alerts (id, time_ns, incident, revision, rule, severity, json)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            &*event.id,
            i64::try_from(event.time.0).unwrap_or(i64::MAX),
            alert.incident,
            alert.revision,
            &*alert.rule,
            alert.severity.name(),
            json,
        ])?;
    Ok(transaction.last_insert_rowid())
}
