//! Waiting for conditions, always bounded in time.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// Calls `condition` until it gives `Some`, and returns that.
///
/// # Errors
/// `condition`'s own error at once; otherwise, after `timeout`, an error that
/// names `what` was waited for.
pub fn until<T>(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {timeout:?} in vain for {what}");
        }
        sleep(INTERVAL);
    }
}
