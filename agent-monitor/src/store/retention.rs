//! What is kept, and for how long.
//!
//! An alert is deleted when every sink has delivered it **and** it is older than
//! [`KEEP`] or not among the newest [`MAX_ROWS`]. One that a sink has not
//! delivered is never deleted. Without sinks, only age and number count.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, params};

use super::{Seq, Store, StoreError, guard};
use crate::event::Timestamp;

/// How long a delivered alert stays to be looked at.
pub const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many delivered alerts stay at most.
pub const MAX_ROWS: i64 = 100_000;

/// Rows a transaction deletes, so that an append waits for one of these at most.
const CHUNK: u32 = 1_000;

impl Store {
    /// Deletes what need not be kept at the time `now` and returns how many
    /// alerts that were. `sinks` are the names of all configured sinks: one that
    /// was taken out of the configuration holds nothing back.
    ///
    /// # Errors
    /// The disk is failing; what was deleted until then stays deleted.
    pub fn prune(&self, sinks: &[String], now: Timestamp) -> Result<usize, StoreError> {
        let mut delivered = self.latest();
        for sink in sinks {
            delivered = delivered.min(self.cursor(sink)?);
        }
        let keep_from = self.first_since(now)?.max(self.latest() - MAX_ROWS + 1);
        let last = delivered.min(keep_from - 1);
        let mut deleted = 0;
        loop {
            let rows = self
                .writer()
                .prepare_cached(
                    "DELETE FROM alerts WHERE seq IN
                     (SELECT seq FROM alerts WHERE seq <= ?1 ORDER BY seq LIMIT ?2)",
                )?
                .execute(params![last, CHUNK])?;
            deleted += rows;
            if rows == 0 {
                return Ok(deleted);
            }
        }
    }

    /// Number of the first alert younger than [`KEEP`], in the order of the
    /// sequence: the search ends there, and does not read the whole table.
    fn first_since(&self, now: Timestamp) -> Result<Seq, StoreError> {
        let keep = u64::try_from(KEEP.as_nanos()).unwrap_or(u64::MAX);
        let oldest = i64::try_from(now.0.saturating_sub(keep)).unwrap_or(i64::MAX);
        let reader = guard(&self.inner.reader);
        let first = reader
            .prepare_cached("SELECT seq FROM alerts WHERE time_ns >= ?1 ORDER BY seq LIMIT 1")?
            .query_row([oldest], |row| row.get(0))
            .optional()?;
        Ok(first.unwrap_or(self.latest() + 1))
    }
}
