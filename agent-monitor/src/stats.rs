//! What the user side has counted since it started.

use serde::Serialize;

/// Counters of the pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Records taken.
    pub records: u64,
    /// Records that could not be read.
    pub refused: u64,
    /// Events made.
    pub events: u64,
    /// Alerts made, every revision.
    pub alerts: u64,
}
