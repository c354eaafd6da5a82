//! Waiting for conditions, always bounded in time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// Set once, by [`interrupt`].
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes every [`until`] fail from now on, so that whatever is under way is given
/// up and, on its way out, cleaned up.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// True after [`interrupt`].
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Calls `condition` until it gives `Some`, and returns that.
///
/// # Errors
/// `condition`'s own error at once, and one after [`interrupt`]; otherwise, after
/// `timeout`, an error that names `what` was waited for.
pub fn until<T>(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    until_gone(what, timeout, || {
        ensure!(!interrupted(), "interrupted");
        condition()
    })
}

/// [`until`] for cleaning up: goes on after [`interrupt`].
///
/// # Errors
/// `condition`'s own error at once; otherwise, after `timeout`, an error that
/// names `what` was waited for.
pub fn until_gone<T>(
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
