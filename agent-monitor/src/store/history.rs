//! Looking back: stored alerts, the newest revision of each incident.

use rusqlite::params;

use super::{Store, StoreError};
use crate::event::Timestamp;

/// Which alerts are asked for.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Not older than this.
    pub since: Timestamp,
    /// Of this rule.
    pub rule: Option<String>,
    /// Of this incident: all its revisions, not only the newest.
    pub incident: Option<String>,
}

impl Store {
    /// Hands on alerts as lines of JSON, the newest first, until `each` says that it
    /// is enough.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn look_back(
        &self,
        past: &Past,
        mut each: impl FnMut(String) -> bool,
    ) -> Result<(), StoreError> {
        let since = i64::try_from(past.since.0).unwrap_or(i64::MAX);
        self.read(|reader| {
            let mut statement = reader.prepare_cached(
                "SELECT json FROM alerts AS one
                 WHERE time_ns >= ?1 AND (?2 IS NULL OR rule = ?2)
                   AND CASE WHEN ?3 IS NULL
                       THEN NOT EXISTS (SELECT 1 FROM alerts AS later
                            WHERE later.incident = one.incident AND later.seq > one.seq)
                       ELSE incident = ?3 END
                 ORDER BY seq DESC",
            )?;
            let mut rows = statement.query(params![since, past.rule, past.incident])?;
            while let Some(row) = rows.next()? {
                if !each(row.get(0)?) {
                    break;
                }
            }
            Ok(())
        })
    }
}
