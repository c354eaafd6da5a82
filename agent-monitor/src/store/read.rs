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

impl Store {
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
