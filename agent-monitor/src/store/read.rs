//! Reading along the sequence: what sinks and other cursors do.

use rusqlite::{OptionalExtension as _, Row, params};

use super::{Record, Seq, Store, StoreError, Wanted};
use crate::event::Timestamp;

/// Up to so many records behind a cursor are counted; beyond, the difference of the
/// numbers is given, which is as many or more.
const COUNTED: i64 = 100_000;

/// What lies behind a cursor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// How many records.
    pub records: u64,
    /// When the first of them happened.
    pub oldest: Option<Timestamp>,
}

/// A place in the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    time_ns: i64,
    seq: Seq,
}

impl Place {
    /// Before everything that happened at `time`.
    pub fn at(time: Timestamp) -> Self {
        Self {
            time_ns: i64::try_from(time.0).unwrap_or(i64::MAX),
            seq: 0,
        }
    }
}

impl Store {
    /// At most `limit` records that happened after `place` and not after `until`, in the
    /// order of time, each with its place.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn read_since(
        &self,
        place: Place,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<(Place, Record)>, StoreError> {
        let until = i64::try_from(until.0).unwrap_or(i64::MAX);
        self.read(|reader| {
            let mut statement = reader.prepare_cached(
                "SELECT seq, 'alert', json, time_ns FROM alerts
                 WHERE time_ns >= ?1 AND time_ns <= ?3 AND (time_ns > ?1 OR seq > ?2)
                 UNION ALL SELECT seq, kind, json, time_ns FROM events
                 WHERE time_ns >= ?1 AND time_ns <= ?3 AND (time_ns > ?1 OR seq > ?2)
                 ORDER BY time_ns, seq LIMIT ?4",
            )?;
            let rows =
                statement.query_map(params![place.time_ns, place.seq, until, limit], |row| {
                    let (time_ns, record) = (row.get(3)?, record(row)?);
                    let seq = record.seq;
                    Ok((Place { time_ns, seq }, record))
                })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The last `most` of the wanted records that happened after `place` and not after
    /// `until`, in the order of time.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn read_last(
        &self,
        place: Place,
        until: Timestamp,
        most: usize,
        wanted: impl Fn(&Record) -> bool,
    ) -> Result<Vec<Record>, StoreError> {
        let until = i64::try_from(until.0).unwrap_or(i64::MAX);
        self.read(|reader| {
            let mut statement = reader.prepare_cached(
                "SELECT seq, 'alert', json, time_ns FROM alerts
                 WHERE time_ns >= ?1 AND time_ns <= ?2
                 UNION ALL SELECT seq, kind, json, time_ns FROM events
                 WHERE time_ns >= ?1 AND time_ns <= ?2
                 ORDER BY time_ns DESC, seq DESC",
            )?;
            let mut rows = statement.query(params![place.time_ns, until])?;
            let mut last = Vec::new();
            while last.len() < most
                && let Some(row) = rows.next()?
            {
                last.extend(Some(record(row)?).filter(&wanted));
            }
            last.reverse();
            Ok(last)
        })
    }

    /// At most `limit` records with a number above `seq`, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn read_after(
        &self,
        seq: Seq,
        limit: u32,
        wanted: Wanted,
    ) -> Result<Vec<Record>, StoreError> {
        let sql = match wanted {
            Wanted::Alerts => {
                "SELECT seq, 'alert', json FROM alerts WHERE seq > ?1 ORDER BY seq LIMIT ?2"
            }
            // Both halves are in order already: SQLite merges them without a sort.
            Wanted::Everything => {
                "SELECT seq, 'alert', json FROM alerts WHERE seq > ?1
                 UNION ALL SELECT seq, kind, json FROM events WHERE seq > ?1
                 ORDER BY seq LIMIT ?2"
            }
        };
        self.read(|reader| {
            let mut statement = reader.prepare_cached(sql)?;
            let rows = statement.query_map(params![seq, limit], record)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Number of the last record that the sink `name` has delivered; 0 for a sink
    /// that is new, which then gets everything that is still kept.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn cursor(&self, name: &str) -> Result<Seq, StoreError> {
        self.read(|reader| {
            let cursor = reader
                .prepare_cached("SELECT cursor FROM sinks WHERE name = ?1")?
                .query_row([name], |row| row.get(0))
                .optional()?;
            Ok(cursor.unwrap_or(0))
        })
    }

    /// What of the wanted records lies behind `seq`.
    ///
    /// # Errors
    /// The disk is failing.
    pub fn behind(&self, seq: Seq, wanted: Wanted) -> Result<Behind, StoreError> {
        if seq >= self.latest() {
            return Ok(Behind::default());
        }
        let (first, counted) = self.read(|reader| {
            let mut oldest: Option<(Seq, i64)> = None;
            let mut counted = 0;
            let tables: &[[&str; 2]] = match wanted {
                Wanted::Alerts => &[ALERTS],
                Wanted::Everything => &[ALERTS, EVENTS],
            };
            for [first, count] in tables {
                let first = reader
                    .prepare_cached(first)?
                    .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?;
                oldest = [oldest, first].into_iter().flatten().min();
                counted += reader
                    .prepare_cached(count)?
                    .query_row([seq, COUNTED - counted], |row| row.get::<_, i64>(0))?;
            }
            Ok((oldest, counted))
        })?;
        let records = match first {
            Some((first, _)) if counted >= COUNTED => self.latest() - first + 1,
            _ => counted,
        };
        Ok(Behind {
            records: u64::try_from(records).unwrap_or(0),
            oldest: first.map(|(_, time)| Timestamp(u64::try_from(time).unwrap_or(0))),
        })
    }
}

/// What is asked of a table: the first record after a number, and how many.
const ALERTS: [&str; 2] = [
    "SELECT seq, time_ns FROM alerts WHERE seq > ?1 ORDER BY seq LIMIT 1",
    "SELECT count(*) FROM (SELECT 1 FROM alerts WHERE seq > ?1 LIMIT ?2)",
];
const EVENTS: [&str; 2] = [
    "SELECT seq, time_ns FROM events WHERE seq > ?1 ORDER BY seq LIMIT 1",
    "SELECT count(*) FROM (SELECT 1 FROM events WHERE seq > ?1 LIMIT ?2)",
];

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        seq: row.get(0)?,
        kind: row.get(1)?,
        json: row.get(2)?,
    })
}
