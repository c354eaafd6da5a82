//! Opening: the lock, the corrupt file, the versions.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _};

use super::retention::{Limits, bound};
use super::write::keep_newest;
use super::{Seq, StoreError};

/// `MIGRATIONS[n]` takes a database from version n to n + 1; `PRAGMA
/// user_version` says where one is. Entries are never changed, only added.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE alerts (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        time_ns INTEGER NOT NULL,
        incident TEXT NOT NULL,
        revision INTEGER NOT NULL,
        rule TEXT NOT NULL,
        severity TEXT NOT NULL,
        json TEXT NOT NULL
    ) STRICT;
    CREATE TABLE sinks (
        name TEXT PRIMARY KEY,
        cursor INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE dead_letters (
        sink TEXT NOT NULL,
        seq INTEGER NOT NULL,
        time_ns INTEGER NOT NULL,
        error TEXT NOT NULL,
        json TEXT NOT NULL,
        PRIMARY KEY (sink, seq)
    ) STRICT, WITHOUT ROWID;
",
    // To find the newest revision of each incident.
    "CREATE INDEX alerts_by_incident ON alerts (incident, seq);",
    // Events, numbered like alerts: the newest number is kept where AUTOINCREMENT keeps it.
    "
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        time_ns INTEGER NOT NULL,
        kind TEXT NOT NULL,
        json TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_by_time ON events (time_ns);
    CREATE INDEX alerts_by_time ON alerts (time_ns);
    ALTER TABLE dead_letters ADD COLUMN kind TEXT NOT NULL DEFAULT 'alert';
    INSERT INTO sqlite_sequence (name, seq)
        SELECT 'alerts', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'alerts');
",
];
/// Most bytes of WAL that stay on the disk once it has been written back.
const WAL_BYTES: i64 = 64 << 20;

/// How long to wait for another process, such as a person's `sqlite3`, to let go.
const BUSY: Duration = Duration::from_secs(5);

/// `PATH.lock`, held. The kernel drops it with the process.
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not be enough: a child forked meanwhile has a copy of the
        // descriptor until it calls exec, and with it the lock (flock(2)).
        let _ = self.0.unlock();
    }
}

/// Takes `PATH.lock`. Not the database itself: closing a second descriptor of
/// that would drop SQLite's own locks (POSIX locks belong to the process).
pub(super) fn lock(path: &Path) -> Result<Lock, StoreError> {
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|cause| StoreError::Open {
                path: folder.to_owned(),
                cause,
            })?;
    }
    let lock = private_file(&beside(path, ".lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(Lock(lock)),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(cause)) => Err(StoreError::Open {
            path: beside(path, ".lock"),
            cause,
        }),
    }
}

/// A database that was opened.
pub(super) struct Opened {
    pub writer: Connection,
    /// The newest number ever given.
    pub newest: Seq,
    /// What was moved aside, in sentences.
    pub notices: Vec<String>,
}

/// Opens, checks and migrates; the caller holds the lock. Numbers go on after `newest`,
/// or after what the database says.
pub(super) fn open(path: &Path, newest: Seq, limits: &Limits) -> Result<Opened, StoreError> {
    let mut notices = Vec::new();
    let (writer, before) = match try_open(path, limits) {
        Ok(writer) => (writer, newest),
        Err(Refusal::Other(error)) => return Err(error),
        Err(refusal) => {
            let before = salvage(path).unwrap_or(0).max(newest);
            let aside = move_aside(path, &refusal)?;
            let notice = format!(
                "the store {} {refusal}: it was moved aside to {} and a new one begun; alerts in \
                 it that were not delivered yet will not be",
                path.display(),
                aside.display()
            );
            tracing::error!("{notice}; `sqlite3 FILE .recover` shows what is in a corrupt one");
            notices.push(notice);
            let again = try_open(path, limits).map_err(|refusal| match refusal {
                Refusal::Other(error) => error,
                still => StoreError::Closed {
                    path: path.to_owned(),
                    problem: format!("a new database {still}"),
                },
            });
            (again?, before)
        }
    };
    let newest = prepare(path, || {
        let newest = stored_newest(&writer)?.max(before);
        keep_newest(&writer, newest)?;
        Ok(newest)
    })?;
    Ok(Opened {
        writer,
        newest,
        notices,
    })
}

/// A connection with the store's settings, to a database that exists.
pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
    prepare(path, || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES, |_| Ok(()))?;
        Ok(connection)
    })
}

/// The newest number ever given, kept as AUTOINCREMENT keeps it.
fn stored_newest(connection: &Connection) -> rusqlite::Result<Seq> {
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'alerts'";
    let newest = connection.query_row(sql, [], |row| row.get(0)).optional()?;
    Ok(newest.unwrap_or(0))
}

/// The newest number in a database that cannot be used, if that much can be read.
fn salvage(path: &Path) -> Option<Seq> {
    let newest = stored_newest(&connect(path).ok()?).ok()?;
    // Whatever wrote nonsense there did not count that far.
    (0..1 << 60).contains(&newest).then_some(newest)
}

/// Why a database cannot be used.
enum Refusal {
    Corrupt(rusqlite::Error),
    Newer { found: i64, known: i64 },
    Other(StoreError),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Corrupt(cause) => write!(f, "is corrupt ({cause})"),
            Self::Newer { found, known } => write!(
                f,
                "has version {found} of a newer agent-monitor, this one knows versions up to {known}"
            ),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Prepare { cause, .. } if is_corrupt(&cause) => Self::Corrupt(cause),
            other => Self::Other(other),
        }
    }
}

fn try_open(path: &Path, limits: &Limits) -> Result<Connection, Refusal> {
    // SQLite would make it readable for all; its WAL takes the same mode.
    private_file(path)?;
    let mut connection = connect(path)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found: i64 = prepare(path, || {
        connection.pragma_query_value(None, "user_version", |row| row.get(0))
    })?;
    if found > known {
        return Err(Refusal::Newer { found, known });
    }
    prepare(path, || {
        check(&connection)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        migrate(&mut connection, found)?;
        bound(&connection, limits)
    })?;
    Ok(connection)
}

/// The full check, not `quick_check`: that one does not see an index that
/// disagrees with its table, and such a store would fail every append for ever.
fn check(connection: &Connection) -> rusqlite::Result<()> {
    let answer: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if answer == "ok" {
        return Ok(());
    }
    let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(rusqlite::Error::SqliteFailure(corrupt, Some(answer)))
}

fn migrate(connection: &mut Connection, found: i64) -> rusqlite::Result<()> {
    let done = usize::try_from(found).unwrap_or(0);
    for (version, sql) in (1_i64..).zip(MIGRATIONS).skip(done) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

fn prepare<T>(path: &Path, work: impl FnOnce() -> rusqlite::Result<T>) -> Result<T, StoreError> {
    work().map_err(|cause| StoreError::Prepare {
        path: path.to_owned(),
        cause,
    })
}

/// Whether the connection is of no more use.
pub(super) fn is_broken(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    is_corrupt(error)
        || matches!(
            code,
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::SystemIoFailure)
        )
}

fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Renames the database and its WAL to `PATH.corrupt-TIME[-wal]`, or `PATH.newer-TIME`. The
/// WAL goes first: left beside a new database, it would be replayed into it.
fn move_aside(path: &Path, refusal: &Refusal) -> Result<PathBuf, StoreError> {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%.9fZ");
    let word = match refusal {
        Refusal::Newer { .. } => "newer",
        _ => "corrupt",
    };
    let aside = beside(path, &format!(".{word}-{time}"));
    for suffix in ["-wal", "-shm", ""] {
        let from = beside(path, suffix);
        match std::fs::rename(&from, beside(&aside, suffix)) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Open { path: from, cause });
            }
            _ => {}
        }
    }
    Ok(aside)
}

fn private_file(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|cause| StoreError::Open {
            path: path.to_owned(),
            cause,
        })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_synced_and_the_size_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits::default();
        let opened = open(&folder.path().join("store.db"), 0, &limits).unwrap();
        let connection = opened.writer;
        let pragma = |name: &str| -> String {
            connection
                .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
                .map(|value| format!("{value:?}"))
                .unwrap()
        };
        assert_eq!(pragma("journal_mode"), "Text(\"wal\")");
        assert_eq!(pragma("synchronous"), "Integer(2)");
        assert_eq!(pragma("page_size"), "Integer(4096)");
        assert_eq!(
            pragma("max_page_count"),
            format!("Integer({})", limits.max_bytes / 4096)
        );
    }
    #[test]
    fn a_lock_let_go_is_free_though_a_copy_of_its_descriptor_lives_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let first = lock(&path).unwrap();
        let _inherited = first.0.try_clone().unwrap();
        assert!(matches!(lock(&path), Err(StoreError::InUse { .. })));
        drop(first);
        assert!(lock(&path).is_ok());
    }
}
