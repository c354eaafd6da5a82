//! The benchmark behind `cargo xtask bench`: every line of the design's table of
//! budgets, measured on this machine and judged.
//!
//! The yardstick is the kernel's own statistics: nanoseconds of a subject's
//! programs, summed over the work that is done. `cost` compares subjects on the
//! same work in the same run; `capacity` measures what only agent-monitor has.

mod capacity;
mod capture;
mod cost;
pub mod daemon;
mod floor;
mod judge;
mod kernel;
mod latency;
mod report;
mod subject;
pub mod work;

use anyhow::{Context, Result};
use aya::sys::{Stats, enable_stats};

pub use judge::{Row, Verdict};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Rounds in which every subject does all the work once.
    pub rounds: usize,
    /// By what the work of a round is divided.
    pub divisor: u64,
    /// Seconds that the idle daemon is looked at, and that files are replayed.
    pub seconds: u64,
    /// Seconds that a rate of events has to be kept up.
    pub sustained: u64,
    /// Proofs whose way to `tail` is timed.
    pub proofs: usize,
    /// Whether everything was measured: only then is the report kept.
    pub full: bool,
}

impl Extent {
    /// In under ten minutes.
    pub const FULL: Self = Self {
        rounds: 8,
        divisor: 1,
        seconds: 10,
        sustained: 60,
        proofs: 200,
        full: true,
    };
    /// In under two.
    pub const QUICK: Self = Self {
        rounds: 3,
        divisor: 4,
        seconds: 3,
        sustained: 3,
        proofs: 50,
        full: false,
    };
}

/// Measures, prints, writes the report if everything was measured; whether every
/// budget is met.
///
/// # Errors
/// When something cannot be measured at all.
pub fn run(extent: Extent) -> Result<bool> {
    // Held until the end: the kernel counts as long as it is open.
    let _counting = enable_stats(Stats::RunTime)
        .context("the kernel does not count run times (BPF_ENABLE_STATS)")?;
    let costs = cost::measure(extent)?;
    let mut rows = costs.rows();
    rows.extend(capacity::measure(extent)?);
    rows.push(latency::measure(extent)?);
    rows.extend(capture::replayed(extent)?);
    let report = report::Report::new(extent, &costs, &rows);
    print!("{}", report.text());
    if extent.full {
        let file = report.write()?;
        println!("\nwritten to {}", file.display());
    }
    Ok(rows.iter().all(|row| row.verdict == Verdict::Met))
}
