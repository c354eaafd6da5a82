//! `agent-monitor replay`: a recording, or a capture of packets, through the same
//! pipeline as live.

mod packets;
mod recording;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use flate2::bufread::MultiGzDecoder;
use ipnet::IpNet;

use super::pretty::Pretty;
use super::tail::is_broken_pipe;
use crate::capture::recording::MAGIC;
use crate::cli::{Output, ReplayArgs};
use crate::event::{Body, Event};
use crate::rules::set::RuleSet;

/// Exit code with `--fail-on-alert` when there was one.
const ALERTS_FOUND: u8 = 3;
/// Processes that are kept of a recording, as live.
const PROCESSES: usize = agent_monitor_common::limits::MAX_TASKS as usize;
/// Of gzip (RFC 1952, 2.3.1).
const GZIP: &[u8] = &[0x1f, 0x8b];

/// How to replay.
#[derive(Clone)]
pub struct Options {
    /// What judges.
    pub rules: Arc<RuleSet>,
    /// Where agents are in a capture of packets; nothing: whoever begins a flow is one.
    pub agent_nets: Vec<IpNet>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rules: RuleSet::builtin(),
            agent_nets: Vec::new(),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// As [`replay`].
pub fn run(args: ReplayArgs) -> Result<ExitCode> {
    let format = args.output.format();
    let pretty = Pretty::for_stdout();
    let mut stdout = BufWriter::new(anstream::stdout());
    let mut alerts = false;
    let options = Options {
        agent_nets: args.agent_nets,
        ..Options::default()
    };
    let replayed = args.files.iter().enumerate().try_for_each(|(n, file)| {
        replay_with(file, n, &options, |event| {
            alerts |= matches!(event.body, Body::Alert(_));
            match format {
                Output::Json => {
                    serde_json::to_writer(&mut stdout, event)?;
                    stdout.write_all(b"\n")?;
                }
                Output::Pretty => {
                    stdout.write_all(pretty.show(&serde_json::to_value(event)?).as_bytes())?;
                }
            }
            Ok(())
        })
    });
    match replayed.and_then(|()| Ok(stdout.flush()?)) {
        Err(error) if is_broken_pipe(&error) => {}
        other => other?,
    }
    Ok(if alerts && args.fail_on_alert {
        ExitCode::from(ALERTS_FOUND)
    } else {
        ExitCode::SUCCESS
    })
}

/// Replays a file and hands on every event in order. Ids of events are made from
/// when the recording's node was booted, or from the time of the capture's first
/// packet, and from `n`, the place of the file among those replayed: the same each
/// time, and no id comes twice.
///
/// # Errors
/// The file cannot be read, is neither a recording nor a capture, or is damaged;
/// events from before the damage have been handed on. `hand_on`'s own errors end
/// the replay.
pub fn replay(path: &Path, n: usize, hand_on: impl FnMut(&Event) -> Result<()>) -> Result<()> {
    replay_with(path, n, &Options::default(), hand_on)
}

/// The same with other rules, or agents elsewhere.
///
/// # Errors
/// As [`replay`].
pub fn replay_with(
    path: &Path,
    n: usize,
    options: &Options,
    hand_on: impl FnMut(&Event) -> Result<()>,
) -> Result<()> {
    let mut failed = None;
    let mut hand_on = hand_on;
    let outcome = File::open(path).map_err(Into::into).and_then(|file| {
        replay_from(BufReader::new(file), n, options, |event| {
            hand_on(event).or_else(|error| {
                failed = Some(error);
                anyhow::bail!("stopped")
            })
        })
    });
    match failed {
        Some(error) => Err(error),
        None => outcome.with_context(|| format!("cannot replay {}", path.display())),
    }
}

/// Replays what `from` gives: the first bytes say what it is.
///
/// # Errors
/// As [`replay`].
pub fn replay_from(
    mut from: impl BufRead + Send,
    n: usize,
    options: &Options,
    hand_on: impl FnMut(&Event) -> Result<()>,
) -> Result<()> {
    if from.fill_buf()?.starts_with(GZIP) {
        return replay_plain(
            BufReader::new(MultiGzDecoder::new(from)),
            n,
            options,
            hand_on,
        );
    }
    replay_plain(from, n, options, hand_on)
}

fn replay_plain(
    mut from: impl BufRead + Send,
    n: usize,
    options: &Options,
    hand_on: impl FnMut(&Event) -> Result<()>,
) -> Result<()> {
    if from.fill_buf()?.starts_with(MAGIC) {
        recording::replay(from, n, options.rules.clone(), hand_on)
    } else {
        packets::replay(from, n, options, hand_on)
    }
}
