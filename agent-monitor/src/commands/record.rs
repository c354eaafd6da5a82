//! `agent-monitor record`: the kernel's records of agents, into a file.

use std::fs::OpenOptions;
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::watch;
use crate::capture::recording::{About, Writer};
use crate::capture::rings::boot_epoch;
use crate::cli::RecordArgs;
use crate::enrich::selector::Selector;

/// Runs the command until its time is over, or SIGINT or SIGTERM.
///
/// # Errors
/// As [`record`], or this is not root.
pub fn run(args: RecordArgs) -> Result<ExitCode> {
    watch::log_to_stderr();
    watch::need_root()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start")?;
    let _entered = runtime.enter();
    let stop = Arc::new(AtomicBool::new(false));
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut signals = signal(kind).context("cannot listen for signals")?;
        let stop = stop.clone();
        runtime.spawn(async move {
            if signals.recv().await.is_some() {
                stop.store(true, Ordering::Relaxed);
            }
        });
    }
    record(args.agents.agents, &args.file, args.duration, &stop)?;
    Ok(ExitCode::SUCCESS)
}

/// Records until `stop` is set, or for as long as `time` says. The file holds
/// what agents sent and were sent: only its owner can read it.
///
/// # Errors
/// The watch cannot be started, or the file cannot be written.
pub fn record(
    selectors: Vec<Selector>,
    file: &Path,
    time: Option<Duration>,
    stop: &AtomicBool,
) -> Result<()> {
    let cannot = || format!("cannot write the recording {}", file.display());
    let mut events = Vec::new();
    let mut live = watch::start(selectors, &mut events)?;
    let to = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .with_context(cannot)?;
    let about = About {
        node: watch::node(),
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        boot_epoch: boot_epoch(),
    };
    live.record_to(Writer::new(BufWriter::new(to), &about).with_context(cannot)?)?;
    eprintln!("recording to {}; stop with Ctrl-C", file.display());
    let until = time.map(|time| Instant::now() + time);
    while !stop.load(Ordering::Relaxed) && until.is_none_or(|until| Instant::now() < until) {
        live.step(&mut events)?;
        events.clear();
    }
    live.take_rest(&mut events)?;
    live.finish_recording().with_context(cannot)
}
