//! `agent-monitor record`: the kernel's records of agents, into a file.

use std::io::BufWriter;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{privileges, watch};
use crate::capture::recording::{About, Bounds, Writer, create};
use crate::capture::rings::boot_epoch;
use crate::cli::{Payload, RecordArgs};
use crate::enrich::selector::Selector;
use crate::rules::set::RuleSet;

/// Runs the command until its time is over, or SIGINT or SIGTERM.
///
/// # Errors
/// As [`record`], or this is not root.
pub fn run(args: RecordArgs) -> Result<ExitCode> {
    watch::log_to_stderr();
    watch::need_root()?;
    privileges::drop_unneeded(false)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start")?;
    let _entered = runtime.enter();
    let stop = watch::stop_on_signals()?;
    let selectors = args.agents.agents.iter().map(|text| text.parse());
    let selectors = selectors.collect::<Result<_, _>>()?;
    let bounds = Bounds {
        size: args.max_size.unwrap_or(u64::MAX),
        payload: args.payload == Payload::Heads,
    };
    record(selectors, &args.file, args.duration, bounds, &stop)?;
    Ok(ExitCode::SUCCESS)
}

/// Records until `stop` is set, for as long as `time` says, or until `bounds` let no
/// more into the file. It holds what agents sent and were sent, so it is made as
/// [`create`] does.
///
/// # Errors
/// The watch cannot be started, or the file cannot be written.
pub fn record(
    selectors: Vec<Selector>,
    file: &Path,
    time: Option<Duration>,
    bounds: Bounds,
    stop: &AtomicBool,
) -> Result<()> {
    let cannot = || format!("cannot write the recording {}", file.display());
    let mut events = Vec::new();
    let mut live = watch::start(selectors, RuleSet::builtin(), None, &mut events)?;
    let to = create(file).with_context(cannot)?;
    let about = About {
        node: watch::node(),
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        boot_epoch: boot_epoch(),
    };
    let writer = Writer::new(BufWriter::new(to), &about, bounds).with_context(cannot)?;
    live.record_to(writer)?;
    eprintln!("recording to {}; stop with Ctrl-C", file.display());
    let until = time.map(|time| Instant::now() + time);
    while !stop.load(Ordering::Relaxed)
        && until.is_none_or(|until| Instant::now() < until)
        && !live.recording_is_full()
    {
        live.step(&mut events)?;
        events.clear();
    }
    live.take_rest(&mut events)?;
    if live.recording_is_full() {
        eprintln!("the recording is as large as it may be");
    }
    live.finish_recording().with_context(cannot)
}
