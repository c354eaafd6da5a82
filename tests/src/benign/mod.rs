//! An agent that works honestly for a long time, and what agent-monitor says of it:
//! nothing above `info` is what it must say.
//!
//! Two kinds of work go on at once in one agent, each piece after a pause: the
//! scenarios that must raise nothing, and the `works` of this module. All the
//! while `services::SESSIONS` stay open. Everything is bounded by the time that
//! is asked for, and nothing leaves the world's own network namespaces.

pub mod report;
mod services;
mod works;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::agent::Agent;
use crate::monitor::{Monitor, Site};
use crate::process::Process;
use crate::scenario::SCENARIOS;
use crate::wait;
use crate::world::World;
use report::Report;
use services::Services;

/// How often events are taken in while the load goes on.
const TAKE: Duration = Duration::from_millis(500);

/// Ticks a second in /proc: USER_HZ, the same on all machines that Linux runs on now.
const TICKS: f64 = 100.0;

/// How the load is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// For how long.
    pub time: Duration,
    /// The rest after each piece of work, in each of the two lanes.
    pub pause: Duration,
    /// Where a recording of all of it goes, to be replayed by later versions.
    pub record: Option<PathBuf>,
}

/// A piece of work: its name, and what does it.
type Work = (&'static str, Box<dyn Fn() -> Result<()> + Send + Sync>);

/// Runs the load beside a daemon of its own.
///
/// # Errors
/// When the world, the agent or the daemon cannot be had, or the daemon ends. A piece
/// of work that fails is told of in the report.
pub fn run(options: &Options) -> Result<Report> {
    let world = World::new("benign")?;
    let agent = Arc::new(Agent::cgroup(&world, "benign")?);
    let site = Arc::new(Site::new()?);
    let rules = site.dir().join("rules");
    std::fs::create_dir(&rules)?;
    std::fs::write(rules.join("vars.yaml"), services::POLICY)?;
    let rules = format!("[rules]\ndirs = [\"{}\"]\n", rules.display());
    let monitor = Monitor::start_at(&site, &[&agent.selector()], &rules)?;
    let recorder = match &options.record {
        Some(file) => Some(record(&site, &agent, file)?),
        None => None,
    };
    // That the watch began after the agent did is no loss of what follows.
    monitor.catch_up(&agent)?;
    drop(monitor.take());
    let services = Services::start(&agent, options.time)?;
    let report = Mutex::new(Report::default());
    let begun = Instant::now();
    let end = begun + options.time;
    scope(|scope| {
        let lanes = [scenarios(&agent), works::all(&agent)].map(|works| {
            let report = &report;
            scope.spawn(move || lane(&works, options.pause, end, report))
        });
        while !lanes.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            sleep(TAKE);
            lock(&report).take_in(&monitor.take());
        }
    });
    services.finish(&mut lock(&report))?;
    monitor.catch_up(&agent)?;
    let processor = processor_time(monitor.pid())?;
    lock(&report).take_in(&monitor.stop()?);
    if let Some(mut recorder) = recorder {
        interrupt(&mut recorder)?;
    }
    drop(agent);
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.seconds = begun.elapsed().as_secs_f64();
    report.daemon_seconds = processor;
    report.load_seconds = children_time() - processor;
    Ok(report)
}

/// Does `works` in turn until `end`, with a pause after each.
fn lane(works: &[Work], pause: Duration, end: Instant, report: &Mutex<Report>) {
    for (name, work) in works.iter().cycle() {
        if Instant::now() >= end || wait::interrupted() {
            return;
        }
        let result = work();
        lock(report).done(name, result);
        let rest = end.saturating_duration_since(Instant::now()).min(pause);
        let until = Instant::now() + rest;
        while Instant::now() < until && !wait::interrupted() {
            sleep(Duration::from_millis(50));
        }
    }
}

/// The rig's scenarios that must raise nothing.
fn scenarios(agent: &Arc<Agent>) -> Vec<Work> {
    let honest = SCENARIOS.iter().filter(|it| it.alert.is_none());
    let works = honest.map(|scenario| {
        let agent = Arc::clone(agent);
        let work = move || (scenario.run)(&agent).map(drop);
        (scenario.name, Box::new(work) as Box<_>)
    });
    works.collect()
}

fn record(site: &Site, agent: &Agent, file: &std::path::Path) -> Result<Process> {
    let mut command = site.command(&["record", "--agent", &agent.selector(), "-o"])?;
    command.arg(file);
    let mut recorder = Process::start(&mut command, &site.dir().join("record.log"))?;
    recorder.wait_for_line("recording to", Duration::from_secs(30))?;
    Ok(recorder)
}

fn interrupt(process: &mut Process) -> Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = Pid::from_raw(i32::try_from(process.pid()?)?).context("a pid")?;
    kill_process(pid, Signal::INT)?;
    process.finish(Duration::from_secs(30)).map(drop)
}

/// Seconds of processor time that a running process has used: fields 14 and 15 of
/// proc_pid_stat(5), in ticks.
fn processor_time(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no name in it")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    ensure!(fields.len() > 12, "too short: {stat}");
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / TICKS)
}

/// Seconds of processor time of everything that this program has started and waited for.
fn children_time() -> f64 {
    // SAFETY: an all-zero rusage is a valid value, and getrusage only writes to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let seconds = |it: libc::timeval| it.tv_sec as f64 + it.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
