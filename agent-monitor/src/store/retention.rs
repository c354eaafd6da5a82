//! What is kept, and for how long.
//!
//! Events go when they are older than [`Limits::max_age`], and the oldest of them
//! when the database comes near [`Limits::max_bytes`], whether a sink has them or
//! not. Alerts go last: one that a sink has not delivered is never deleted, one that
//! all have when it is older than `max_age`, or to make room once there are no events.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _};

use super::{Seq, Store, StoreError, Wanted, guard};
use crate::event::Timestamp;

/// Events a transaction deletes, so that who writes waits for one of these at most.
const EVENTS: u32 = 2_000;
/// Alerts a transaction deletes; they are larger.
const ALERTS: u32 = 500;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long an event, or a delivered alert, stays to be looked at.
    pub max_age: Duration,
    /// Size of the database file in bytes that is not exceeded: once there is nothing
    /// left that may be deleted, nothing more is stored.
    pub max_bytes: u64,
}

impl Default for Limits {
    /// 30 days, 4 GiB.
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(30 * 24 * 3600),
            max_bytes: 4 << 30,
        }
    }
}

/// A sink whose cursor keeps alerts from being deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Its name.
    pub name: String,
    /// What it delivers.
    pub wanted: Wanted,
}

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Alerts.
    pub alerts: u64,
    /// Events.
    pub events: u64,
    /// Events that a sink which wants them had not delivered.
    pub undelivered: u64,
}

impl Store {
    /// Says which sinks there are: one that was taken out of the configuration holds
    /// nothing back. Until it is said, nothing is deleted.
    pub fn set_sinks(&self, sinks: Vec<Reader>) {
        *guard(&self.inner.sinks) = Some(sinks);
    }

    /// Keeps as much as `limits` say from now on.
    ///
    /// # Errors
    /// The disk is failing. An open that succeeds later goes by the new limits.
    pub fn set_limits(&self, limits: Limits) -> Result<(), StoreError> {
        *guard(&self.inner.limits) = limits;
        match &*guard(&self.inner.writer) {
            Some(writer) => Ok(bound(writer, &limits)?),
            None => Ok(()),
        }
    }

    /// Bytes of the database that are in use.
    ///
    /// # Errors
    /// The disk is failing.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        self.write(|writer| {
            let get = |name| writer.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            let pages = get("page_count")? - get("freelist_count")?;
            Ok(unsigned(pages * get("page_size")?))
        })
    }

    /// Deletes what is too old at the time `now`.
    ///
    /// # Errors
    /// The disk is failing; what was deleted until then stays deleted.
    pub fn prune(&self, now: Timestamp) -> Result<Pruned, StoreError> {
        let max_age = guard(&self.inner.limits).max_age;
        let max_age = u64::try_from(max_age.as_nanos()).unwrap_or(u64::MAX);
        let before = i64::try_from(now.0.saturating_sub(max_age)).unwrap_or(i64::MAX);
        let mut pruned = Pruned::default();
        // In the order of the sequence: the search ends at the first that is young.
        let first = |table: &str| {
            let sql = format!("SELECT seq FROM {table} WHERE time_ns >= ?1 ORDER BY seq LIMIT 1");
            self.read(|reader| {
                let mut first = reader.prepare_cached(&sql)?;
                Ok(first.query_row([before], |row| row.get(0)).optional()?)
            })
        };
        let young: Option<Seq> = first("events")?;
        let last = young.map_or(self.latest(), |young| young - 1);
        while self.delete_events(last, &mut pruned)? {}
        let young: Option<Seq> = first("alerts")?;
        let last = young.map_or(self.latest(), |young| young - 1);
        while self.delete_alerts(last, &mut pruned)? {}
        Ok(pruned)
    }

    /// Deletes the oldest of what may go until a tenth of [`Limits::max_bytes`] is free.
    ///
    /// # Errors
    /// As [`Store::prune`].
    pub fn make_room(&self) -> Result<Pruned, StoreError> {
        let max = guard(&self.inner.limits).max_bytes;
        let mut pruned = Pruned::default();
        while self.bytes()? > max - max / 10
            && (self.delete_events(self.latest(), &mut pruned)?
                || self.delete_alerts(self.latest(), &mut pruned)?)
        {}
        Ok(pruned)
    }

    /// Deletes some of the oldest events up to number `last`; `false` when there are none.
    fn delete_events(&self, last: Seq, pruned: &mut Pruned) -> Result<bool, StoreError> {
        let Some(delivered) = self.delivered(Wanted::Everything)? else {
            return Ok(false);
        };
        self.write(|writer| {
            let transaction = writer.transaction()?;
            let (end, count): (Option<Seq>, i64) = transaction
                .prepare_cached(
                    "SELECT max(seq), count(*) FROM
                     (SELECT seq FROM events WHERE seq <= ?1 ORDER BY seq LIMIT ?2)",
                )?
                .query_row((last, EVENTS), |row| Ok((row.get(0)?, row.get(1)?)))?;
            let Some(end) = end else {
                return Ok(false);
            };
            if end > delivered {
                let undelivered = transaction
                    .prepare_cached("SELECT count(*) FROM events WHERE seq > ?1 AND seq <= ?2")?
                    .query_row([delivered, end], |row| row.get(0))?;
                pruned.undelivered += unsigned(undelivered);
            }
            transaction
                .prepare_cached("DELETE FROM events WHERE seq <= ?1")?
                .execute([end])?;
            transaction.commit()?;
            pruned.events += unsigned(count);
            Ok(true)
        })
    }

    /// Deletes some of the oldest delivered alerts up to number `last`; `false` when there are none.
    fn delete_alerts(&self, last: Seq, pruned: &mut Pruned) -> Result<bool, StoreError> {
        let Some(delivered) = self.delivered(Wanted::Alerts)? else {
            return Ok(false);
        };
        let last = last.min(delivered);
        let deleted = self.write(|writer| {
            Ok(writer
                .prepare_cached(
                    "DELETE FROM alerts WHERE seq IN
                     (SELECT seq FROM alerts WHERE seq <= ?1 ORDER BY seq LIMIT ?2)",
                )?
                .execute((last, ALERTS))?)
        })?;
        pruned.alerts += u64::try_from(deleted).unwrap_or(0);
        Ok(deleted > 0)
    }

    /// Number up to which every sink that wants `wanted` has delivered; all want alerts.
    /// Nothing while it is not known which sinks there are.
    fn delivered(&self, wanted: Wanted) -> Result<Option<Seq>, StoreError> {
        let Some(sinks) = guard(&self.inner.sinks).clone() else {
            return Ok(None);
        };
        let mut delivered = self.latest();
        for sink in sinks {
            if wanted == Wanted::Alerts || sink.wanted == wanted {
                delivered = delivered.min(self.cursor(&sink.name)?);
            }
        }
        Ok(Some(delivered))
    }
}

/// Has SQLite refuse to make the file larger.
pub(super) fn bound(connection: &Connection, limits: &Limits) -> rusqlite::Result<()> {
    let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    // The pragma answers with the limit; never fewer pages than there are.
    let pages = i64::try_from(limits.max_bytes).unwrap_or(i64::MAX) / page;
    connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
}

/// A count of SQLite's.
fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
