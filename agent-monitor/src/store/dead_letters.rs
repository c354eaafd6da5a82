//! Alerts that a receiver refused for what they are, kept for a person to look at.

use rusqlite::params;

use super::{Record, Seq, Store, StoreError};
use crate::event::Timestamp;

/// How many dead letters a sink may have; the oldest make room.
pub const MAX_DEAD_LETTERS: u32 = 10_000;

/// An alert that a sink could not deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The alert.
    pub record: Record,
    /// When it was given up.
    pub time: Timestamp,
    /// What the receiver said last.
    pub error: String,
}

impl Store {
    /// Puts `letter` among the dead letters of the sink `name` and moves its cursor
    /// past it, both or neither. Beyond [`MAX_DEAD_LETTERS`] the oldest go; gives how many.
    ///
    /// # Errors
    /// The disk is full or failing; the cursor is where it was.
    pub fn bury(&self, name: &str, letter: &DeadLetter) -> Result<usize, StoreError> {
        self.write(|writer| {
            let transaction = writer.transaction()?;
            transaction
                .prepare_cached(
                    "INSERT INTO dead_letters (sink, seq, time_ns, error, json, kind)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT DO UPDATE SET time_ns = excluded.time_ns, error = excluded.error",
                )?
                .execute(params![
                    name,
                    letter.record.seq,
                    i64::try_from(letter.time.0).unwrap_or(i64::MAX),
                    letter.error,
                    letter.record.json,
                    letter.record.kind,
                ])?;
            let dropped = transaction
                .prepare_cached(
                    "DELETE FROM dead_letters WHERE sink = ?1 AND seq NOT IN
                     (SELECT seq FROM dead_letters WHERE sink = ?1 ORDER BY seq DESC LIMIT ?2)",
                )?
                .execute(params![name, MAX_DEAD_LETTERS])?;
            super::write::advance(&transaction, name, letter.record.seq)?;
            transaction.commit()?;
            Ok(dropped)
        })
    }

    /// The dead letters of the sink `name`, oldest first, at most `limit` of those after `seq`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn dead_letters(
        &self,
        name: &str,
        seq: Seq,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        self.read(|reader| {
            let mut statement = reader.prepare_cached(
                "SELECT seq, time_ns, error, json, kind FROM dead_letters
                 WHERE sink = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
            )?;
            let rows = statement.query_map(params![name, seq, limit], |row| {
                let time: i64 = row.get(1)?;
                Ok(DeadLetter {
                    record: Record {
                        seq: row.get(0)?,
                        kind: row.get(4)?,
                        json: row.get(3)?,
                    },
                    time: Timestamp(u64::try_from(time).unwrap_or(0)),
                    error: row.get(2)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// How many dead letters the sink `name` has.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn count_dead_letters(&self, name: &str) -> Result<u64, StoreError> {
        self.read(|reader| {
            let count: i64 = reader
                .prepare_cached("SELECT count(*) FROM dead_letters WHERE sink = ?1")?
                .query_row([name], |row| row.get(0))?;
            Ok(u64::try_from(count).unwrap_or(0))
        })
    }

    /// Deletes the dead letters of the sink `name` up to number `last`; gives how many.
    ///
    /// # Errors
    /// The disk is full or failing.
    pub fn drop_dead_letters(&self, name: &str, last: Seq) -> Result<usize, StoreError> {
        self.write(|writer| {
            Ok(writer
                .prepare_cached("DELETE FROM dead_letters WHERE sink = ?1 AND seq <= ?2")?
                .execute(params![name, last])?)
        })
    }

    /// Deletes one dead letter of the sink `name`: it has arrived after all.
    ///
    /// # Errors
    /// The disk is full or failing.
    pub fn unbury(&self, name: &str, seq: Seq) -> Result<(), StoreError> {
        self.write(|writer| {
            writer
                .prepare_cached("DELETE FROM dead_letters WHERE sink = ?1 AND seq = ?2")?
                .execute(params![name, seq])?;
            Ok(())
        })
    }
}
