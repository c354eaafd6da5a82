//! How much agent-monitor takes, and what it takes itself.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use agent_monitor::capture::recording::{Frame, Reader};
use agent_monitor::commands::replay::replay;
use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Extent;
use super::daemon::Daemon;
use super::judge::{Estimate, Row, Verdict};
use super::work::{Kind, PACE, Server, Worker};
use crate::cgroup::Cgroup;

/// What has to be kept up, events a second.
const SUSTAINED: u64 = 100_000;
/// Below this the monitor is of no use.
const FAILURE: u64 = 50_000;
/// Rates that are tried, the highest first, until nothing is lost at one.
const RATES: [u64; 4] = [SUSTAINED, SUSTAINED * 3 / 4, FAILURE, FAILURE / 2];
/// Flows and processes that live while memory is measured.
const FLOWS: u64 = 10_000;
const PROCESSES: u64 = FLOWS / 5;
/// Agents that they are spread over: one alone may not cause so many records in a
/// second, and has only so many flows looked at for relays.
const HOLDERS: u64 = 10;
/// Open files of the process that makes them, and some.
const FILES: u64 = FLOWS + PROCESSES + 500;

/// The rows of the table of budgets that are about capacity.
///
/// # Errors
/// When something cannot be measured at all.
pub fn measure(extent: Extent) -> Result<Vec<Row>> {
    // Both ends of the flows are held open; workers inherit the limit.
    let most = getrlimit(Resource::Nofile).maximum;
    let files = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(Resource::Nofile, files).context("raise the limit of open files")?;
    ensure!(
        most.is_none_or(|most| most >= FILES),
        "the hard limit of open files is {most:?}, {FILES} are needed (ulimit -Hn)"
    );
    Ok(vec![
        sustained(extent)?,
        decode_to_rules(extent)?,
        memory()?,
        idle(extent)?,
    ])
}

/// Agents of the rig that are removed with this.
struct Agents(Vec<Cgroup>);

impl Agents {
    fn new(count: u64) -> Result<Self> {
        let mut agents = Self(Vec::new());
        for n in 0..count {
            agents.0.push(Cgroup::create(&format!("bench-{n}"))?);
        }
        Ok(agents)
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        for agent in &self.0 {
            if let Err(error) = agent.remove() {
                eprintln!("{error:#}");
            }
        }
    }
}

/// The highest rate at which nothing is lost. An agent alone may not use up what
/// all of them have, so as many take part as the rate needs.
fn sustained(extent: Extent) -> Result<Row> {
    let (what, budget) = (
        "sustained without loss, the load on the same cores",
        "≥ 100,000 events/s; below 50,000 is a failure",
    );
    let port = Server::Close.start()?;
    let mut tried = Vec::new();
    let mut best = 0.0;
    for rate in RATES {
        eprintln!("{rate} events a second for {} s", extent.sustained);
        let agents = Agents::new(rate / PACE)?;
        let daemon = Daemon::start()?;
        let mut workers = Vec::new();
        for agent in &agents.0 {
            workers.push(Worker::start(Kind::Paced, agent, port, &[])?);
        }
        let (before, lost_before) = daemon.settle()?;
        let count = PACE * extent.sustained;
        for worker in &mut workers {
            worker.order(count)?;
        }
        let mut longest: f64 = 0.0;
        for worker in &mut workers {
            longest = longest.max(worker.answer()?.parse::<f64>()? / 1e9);
        }
        let (after, lost) = daemon.settle()?;
        let made = count * workers.len() as u64;
        let reached = made as f64 / longest;
        let lost = lost - lost_before;
        tried.push(format!(
            "{reached:.0}/s: {} of {made} taken, {lost} lost",
            after - before
        ));
        // A load that falls behind is no proof of its rate.
        if lost == 0 && after - before >= made {
            best = reached;
            break;
        }
    }
    // The pacing sleeps: a hundredth is not what fails it.
    let verdict = if best >= SUSTAINED as f64 * 0.99 {
        Verdict::Met
    } else {
        Verdict::Missed
    };
    let figure = format!(
        "{best:.0} events/s for {} s ({}){}",
        extent.sustained,
        tried.join("; "),
        if best < FAILURE as f64 * 0.99 {
            ": a failure"
        } else {
            ""
        }
    );
    Ok(Row::new(what, budget, figure, verdict))
}

/// The committed recordings, through the pipeline again and again, on one core:
/// reading and checking the files included.
fn decode_to_rules(extent: Extent) -> Result<Row> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/recordings");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .with_context(|| format!("read {}", dir.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    let mut records = 0;
    for file in &files {
        let frames = Reader::new(BufReader::new(File::open(file)?))?;
        for frame in frames {
            records += u64::from(matches!(frame?, Frame::Record(_)));
        }
    }
    ensure!(records > 0, "no recordings in {}", dir.display());
    let mut rates = Vec::new();
    let begun = Instant::now();
    let least = Duration::from_secs(extent.seconds);
    while rates.len() < 5 || begun.elapsed() < least {
        let pass = Instant::now();
        for (n, file) in files.iter().enumerate() {
            replay(file, n, |_| Ok(()))?;
        }
        // Nanoseconds a record: at most what the rate allows.
        rates.push(pass.elapsed().as_nanos() as f64 / records as f64);
    }
    let (what, budget) = ("decode → rules on one core", "≥ 300,000 events/s");
    let Some(estimate) = Estimate::of(&rates) else {
        return Ok(Row::at_most(what, budget, 0.0, "", None));
    };
    let figure = format!(
        "{:.0} events/s (between {:.0} and {:.0})",
        1e9 / estimate.mean,
        1e9 / (estimate.mean + estimate.half),
        1e9 / (estimate.mean - estimate.half)
    );
    Ok(Row::new(
        what,
        budget,
        figure,
        estimate.at_most(1e9 / 300_000.0),
    ))
}

/// Resident memory with many flows and processes alive.
fn memory() -> Result<Row> {
    eprintln!("{FLOWS} live flows and {PROCESSES} processes");
    let port = Server::Keep.start()?;
    let agents = Agents::new(HOLDERS)?;
    let daemon = Daemon::start()?;
    let mut workers = Vec::new();
    for agent in &agents.0 {
        workers.push(Worker::start(Kind::Hold, agent, port, &[])?);
    }
    // In steps: 10,000 connections at once would be another test.
    for _ in 0..FLOWS / 500 {
        for worker in &mut workers {
            worker.run(500 / HOLDERS)?;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let (_, lost) = daemon.settle()?;
    let resident = daemon.resident()?;
    let verdict = match lost {
        // What was lost takes no memory.
        0 if resident <= 64.0 => Verdict::Met,
        0 => Verdict::Missed,
        _ => Verdict::Inconclusive,
    };
    Ok(Row::new(
        "memory at 10,000 live flows and 2,000 processes",
        "≤ 64 MiB resident",
        format!("{resident:.1} MiB ({lost} records lost)"),
        verdict,
    ))
}

/// Processor time while an agent does nothing.
fn idle(extent: Extent) -> Result<Row> {
    let agents = Agents::new(1)?;
    let daemon = Daemon::start()?;
    let _agents = agents;
    thread::sleep(Duration::from_secs(2));
    let begun = Instant::now();
    let before = daemon.processor_time()?;
    thread::sleep(Duration::from_secs(extent.seconds.max(5)));
    let elapsed = begun.elapsed().as_secs_f64();
    let percent = (daemon.processor_time()? - before) / elapsed * 100.0;
    // The clock ticks a hundred times a second.
    let tick = 1.0 / elapsed;
    let verdict = if percent + tick <= 0.5 {
        Verdict::Met
    } else if percent - tick > 0.5 {
        Verdict::Missed
    } else {
        Verdict::Inconclusive
    };
    let figure = format!("{percent:.2} % ± {tick:.2} over {elapsed:.0} s");
    Ok(Row::new("idle", "≤ 0.5 % of a core", figure, verdict))
}
