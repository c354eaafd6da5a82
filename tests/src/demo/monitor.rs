//! agent-monitor at work: the daemon, a tail for the one who watches, and one
//! that is read here.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use agent_monitor::api::status::Status;
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::judge::Arrived;
use crate::process::{Process, checked};
use crate::wait;

/// What the one who watches is shown: who does what with whom, and what is missing.
const SHOWN: &str = "agent,exec,connect,accept,flow,alert,loss,gap";
/// More past events than there can be when a tail is started: it begins at the start.
const ALL: &str = "10000";
/// How long the daemon may take to attach, and to stop.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A running daemon and its tails; killed on drop.
#[derive(Debug)]
pub struct Monitor {
    program: PathBuf,
    socket: PathBuf,
    daemon: Process,
    reader: Option<JoinHandle<()>>,
    read: Tail,
    shown: Tail,
    journal: Arc<Mutex<Journal>>,
}

#[derive(Debug)]
struct Journal {
    act: usize,
    began: SystemTime,
    arrived: Vec<Arrived>,
}

/// A tail, killed on drop.
#[derive(Debug)]
struct Tail(Child);

impl Drop for Tail {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Monitor {
    /// Starts `program` as a daemon for the agents of `selector`, with its files in
    /// `dir`, and returns when it is attached and the tails follow it.
    ///
    /// # Errors
    /// When it does not attach, with what it said.
    pub fn start(
        program: &Path,
        dir: &Path,
        selector: &str,
        docker_host: Option<&str>,
    ) -> Result<Self> {
        let (socket, config) = (dir.join("monitor.sock"), dir.join("monitor.toml"));
        let store = toml_string(&dir.join("monitor.db"));
        std::fs::write(&config, format!("[store]\npath = {store}\n"))?;
        let mut run = Command::new(program);
        run.args(["run", "--agent", selector, "--config"])
            .arg(&config)
            .arg("--socket")
            .arg(&socket);
        if let Some(host) = docker_host {
            run.env("DOCKER_HOST", host);
        }
        let daemon = Process::start(&mut run, &dir.join("monitor.log"))?;
        let attached = checked(
            Command::new(program)
                .args(["status", "--wait", "10s", "--socket"])
                .arg(&socket),
        );
        attached.with_context(|| {
            format!(
                "agent-monitor does not attach; `{} doctor` tells what the machine lacks. It said:\n{}",
                program.display(),
                daemon.output()
            )
        })?;

        let mut read = Tail(
            tail(program, &socket, "json")
                .stdout(Stdio::piped())
                // It complains about the daemon's end, which is meant.
                .stderr(Stdio::null())
                .spawn()
                .context("start a tail")?,
        );
        let output = read.0.stdout.take().context("the tail has no output")?;
        let journal = Arc::new(Mutex::new(Journal {
            act: 0,
            began: SystemTime::now(),
            arrived: Vec::new(),
        }));
        let reader = {
            let journal = Arc::clone(&journal);
            std::thread::spawn(move || {
                // A line that cannot be read ends it; the fence of the act is then missed.
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    match serde_json::from_str(&line) {
                        Ok(event) => lock(&journal).add(event),
                        Err(error) => eprintln!("not an event ({error}): {line}"),
                    }
                }
            })
        };
        let shown = Tail(
            tail(program, &socket, "pretty")
                .args(["--kind", SHOWN])
                .spawn()
                .context("start a tail")?,
        );
        Ok(Self {
            program: program.to_owned(),
            socket,
            daemon,
            reader: Some(reader),
            read,
            shown,
            journal,
        })
    }

    /// An act begins: what arrives from now on belongs to it.
    pub fn begin(&self, act: usize) {
        let mut journal = lock(&self.journal);
        journal.act = act;
        journal.began = SystemTime::now();
    }

    /// Everything that has arrived so far.
    pub fn arrived(&self) -> Vec<Arrived> {
        lock(&self.journal).arrived.clone()
    }

    /// Waits for an event that `is_it`.
    ///
    /// # Errors
    /// After `timeout`, or when the daemon has ended.
    pub fn wait_for(
        &mut self,
        what: &str,
        timeout: Duration,
        is_it: impl Fn(&Arrived) -> bool,
    ) -> Result<()> {
        let found = wait::until(what, timeout, || {
            ensure!(self.daemon.is_running()?, "agent-monitor has ended");
            Ok(lock(&self.journal).arrived.iter().any(&is_it).then_some(()))
        });
        found.with_context(|| format!("agent-monitor said:\n{}", self.daemon.output()))
    }

    /// What the daemon says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Status> {
        let mut status = Command::new(&self.program);
        status
            .args(["status", "--output", "json", "--socket"])
            .arg(&self.socket);
        serde_json::from_str(&checked(&mut status)?).context("read the status")
    }

    /// Stops the tail that is watched, then the daemon, and returns all that has
    /// arrived to the last event.
    ///
    /// # Errors
    /// When the daemon does not stop, or ends with a failure.
    pub fn stop(mut self) -> Result<Vec<Arrived>> {
        signal(self.shown.0.id(), Signal::INT);
        self.shown.0.wait()?;
        signal(self.daemon.pid()?, Signal::TERM);
        let said = self.daemon.finish(TIMEOUT)?;
        self.read.0.wait()?;
        if let Some(reader) = self.reader.take() {
            let read = reader.join();
            ensure!(read.is_ok(), "reading the tail failed: {said}");
        }
        Ok(std::mem::take(&mut lock(&self.journal).arrived))
    }
}

impl Journal {
    fn add(&mut self, event: Value) {
        let happened = time(&event["time"]);
        let since = |from: SystemTime, to: SystemTime| to.duration_since(from).unwrap_or_default();
        let now = SystemTime::now();
        let happened = happened.unwrap_or(now);
        self.arrived.push(Arrived {
            act: self.act,
            after: since(self.began, happened),
            delay: since(happened, now),
            event,
        });
    }
}

/// An event's time.
pub(super) fn time(text: &Value) -> Option<SystemTime> {
    let time: jiff::Timestamp = text.as_str()?.parse().ok()?;
    let since_epoch = u64::try_from(time.as_nanosecond()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(since_epoch))
}

fn tail(program: &Path, socket: &Path, output: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(["tail", "-n", ALL, "--output", output, "--socket"])
        .arg(socket)
        .stdin(Stdio::null());
    command
}

fn toml_string(path: &Path) -> String {
    // JSON's strings are TOML's basic strings.
    Value::from(path.display().to_string()).to_string()
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Fails only when it has ended already, which the wait that follows shows.
        let _ = kill_process(pid, signal);
    }
}

fn lock(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}
