//! Writing: alerts and events, and cursors.

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::{Seq, Store, StoreError};
use crate::event::{Alert, Body, Event};

impl Store {
    /// Stores an alert or event and returns its number; it is on disk by then. The
    /// same stored again keeps its number.
    ///
    /// # Errors
    /// Another alert has its id, or the disk is full or failing. Nothing of a failed
    /// append remains, and the next may succeed.
    pub fn append(&self, event: &Event) -> Result<Seq, StoreError> {
        let numbers = self.append_all(&[event])?;
        Ok(numbers.first().copied().unwrap_or_default())
    }

    /// As [`Store::append`] for several in one transaction, all or none; gives the
    /// number of each. Numbers grow in the order of the slice.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn append_all(&self, events: &[&Event]) -> Result<Vec<Seq>, StoreError> {
        let (numbers, newest) = self.write(|writer| {
            let transaction = writer.transaction()?;
            let mut newest = self.latest();
            let mut numbers = Vec::with_capacity(events.len());
            for event in events {
                numbers.push(insert(&transaction, event, &mut newest)?);
            }
            keep_newest(&transaction, newest)?;
            transaction.commit()?;
            Ok((numbers, newest))
        })?;
        self.inner
            .newest
            .send_if_modified(|seq| newest > std::mem::replace(seq, newest.max(*seq)));
        Ok(numbers)
    }

    /// Whether an event with this id is stored.
    ///
    /// # Errors
    /// The disk is failing.
    pub fn has_event(&self, id: &str) -> Result<bool, StoreError> {
        self.read(|reader| {
            let sql = "SELECT EXISTS (SELECT 1 FROM events WHERE id = ?1)";
            Ok(reader
                .prepare_cached(sql)?
                .query_row([id], |row| row.get(0))?)
        })
    }

    /// Writes to the disk to see whether it can be written.
    ///
    /// # Errors
    /// It cannot.
    pub fn probe(&self) -> Result<(), StoreError> {
        self.append_all(&[]).map(drop)
    }

    /// Moves the cursor of the sink `name` on to `seq`, durably, never back.
    ///
    /// # Errors
    /// The disk is full or failing; the cursor is where it was.
    pub fn advance(&self, name: &str, seq: Seq) -> Result<(), StoreError> {
        self.write(|writer| advance(writer, name, seq))
    }
}

pub(super) fn advance(connection: &Connection, name: &str, seq: Seq) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO sinks (name, cursor) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET cursor = max(cursor, excluded.cursor)",
        )?
        .execute(params![name, seq])?;
    Ok(())
}

/// Keeps the newest number where SQLite keeps that of AUTOINCREMENT, for which it
/// may be written (SQLite, "Autoincrement", section 3).
pub(super) fn keep_newest(connection: &Connection, newest: Seq) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = 'alerts'")?
        .execute([newest])?;
    Ok(())
}

/// Inserts an event, unless it is there already; gives its number.
fn insert(
    transaction: &Transaction<'_>,
    event: &Event,
    newest: &mut Seq,
) -> Result<Seq, StoreError> {
    let json = serde_json::to_string(event).map_err(|cause| StoreError::Json {
        id: event.id.to_string(),
        cause,
    })?;
    if let Body::Alert(alert) = &event.body {
        return insert_alert(transaction, event, alert, &json, newest);
    }
    let inserted = transaction
        .prepare_cached(
            "INSERT INTO events (seq, id, time_ns, kind, json) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![
            *newest + 1,
            &*event.id,
            time_ns(event),
            event.body.kind(),
            json
        ])?;
    if inserted == 0 {
        let known = transaction
            .prepare_cached("SELECT seq FROM events WHERE id = ?1")?
            .query_row([&*event.id], |row| row.get(0))?;
        return Ok(known);
    }
    *newest += 1;
    Ok(*newest)
}

fn insert_alert(
    transaction: &Transaction<'_>,
    event: &Event,
    alert: &Alert,
    json: &str,
    newest: &mut Seq,
) -> Result<Seq, StoreError> {
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
            "INSERT INTO alerts (seq, id, time_ns, incident, revision, rule, severity, json)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            *newest + 1,
            &*event.id,
            time_ns(event),
            alert.incident,
            alert.revision,
            &*alert.rule,
            alert.severity.name(),
            json,
        ])?;
    *newest += 1;
    Ok(*newest)
}

fn time_ns(event: &Event) -> i64 {
    i64::try_from(event.time.0).unwrap_or(i64::MAX)
}
