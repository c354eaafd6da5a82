//! What `run` and `record` share: a live watch from a list of selectors.

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::capture::rings::boot_epoch;
use crate::enrich::cgroupfs::CgroupFs;
use crate::enrich::devices::Devices;
use crate::enrich::lookups::{Lookups, Patience};
use crate::enrich::process::Processes;
use crate::enrich::runtime::Api;
use crate::enrich::selector::{Selector, Selectors};
use crate::event::Event;
use crate::live::Live;
use crate::pipeline::Pipeline;
use crate::rules::set::RuleSet;

/// Answers of container runtimes that may wait to be taken.
const ANSWERS: usize = 1_024;

/// This machine's name.
pub fn node() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Log lines go to stderr; `RUST_LOG` chooses them, `info` and above by default.
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// Fails with what to do when this is not root.
///
/// # Errors
/// It is not.
pub fn need_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("watching agents needs root: run this with sudo, or as a systemd service");
    }
    Ok(())
}

/// What SIGINT or SIGTERM sets from now on; to be called on a runtime of tokio's.
///
/// # Errors
/// Signals cannot be listened for.
pub fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut signals = signal(kind).context("cannot listen for signals")?;
        let stop = stop.clone();
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                stop.store(true, Ordering::Relaxed);
            }
        });
    }
    Ok(stop)
}

/// Starts a live watch, with `pinned`, the daemon's socket, one that outlives it;
/// to be called on a runtime of tokio's.
///
/// # Errors
/// As [`Live::start`]; then nothing is left attached.
pub fn start(
    selectors: Vec<Selector>,
    rules: Arc<RuleSet>,
    pinned: Option<&Path>,
    out: &mut Vec<Event>,
) -> Result<Live> {
    let cgroups = CgroupFs::find()?;
    let selectors = Selectors::new(selectors);
    let (sender, answers) = tokio::sync::mpsc::channel(ANSWERS);
    let api = Api::new(selectors.label_keys().chain(rules.label_keys()));
    if let Err(problem) = api.kubernetes() {
        tracing::warn!("{problem}");
    }
    let lookups = Lookups::start(api, Patience::default(), sender);
    // Ids of events are unique across restarts: a run is named by its start.
    let started = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let run = format!("{:x}", started.as_nanos());
    let pipeline = Pipeline::new(
        &node(),
        run,
        boot_epoch(),
        Processes::default(),
        Devices::at("/proc"),
        rules,
    );
    Live::start(cgroups, selectors, lookups, answers, pipeline, pinned, out)
}
