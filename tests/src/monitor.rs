//! agent-monitor itself, as a user runs it: the daemon, and `tail` on it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use agent_monitor::attach::{Pins, pins};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::agent::Agent;
use crate::process::checked;
use crate::{paths, wait};

/// How long a daemon may take to attach: some seconds when the machine is busy.
const START: Duration = Duration::from_secs(30);
/// How long a daemon may take to end.
const STOP: Duration = Duration::from_secs(10);
/// How long an event may take from the kernel to a reader of `tail`.
pub const SOON: Duration = Duration::from_secs(10);

/// A folder for a daemon's socket, store and configuration, which outlives it:
/// a second daemon can go on where the first one ended.
#[derive(Debug)]
pub struct Site {
    dir: TempDir,
    docker_host: Option<String>,
    pin: bool,
    environment: Vec<(&'static str, String)>,
    without: Option<&'static str>,
}

impl Site {
    /// An empty one.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new() -> Result<Self> {
        Ok(Self {
            dir: TempDir::with_prefix("am-monitor-")?,
            docker_host: None,
            pin: false,
            environment: Vec::new(),
            without: None,
        })
    }

    /// Daemons of this site run with `--pin`. The last pins go with the site; the BPF
    /// file system, which every machine with systemd has mounted, stays if it was missing.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn pinning(mut self) -> Result<Self> {
        if !pins::is_mounted() {
            checked(Command::new("mount").args(["-t", "bpf", "bpf", pins::MOUNT]))?;
        }
        self.pin = true;
        Ok(self)
    }

    /// Daemons of this site have this variable in their environment.
    pub fn with(mut self, variable: &'static str, value: &str) -> Self {
        self.environment.push((variable, value.to_owned()));
        self
    }

    /// Daemons of this site start without this capability, as setpriv(1) names it.
    pub fn without(mut self, capability: &'static str) -> Self {
        self.without = Some(capability);
        self
    }

    /// Daemons of this site ask this Docker, as `DOCKER_HOST` has it.
    pub fn asking(mut self, docker_host: Option<&str>) -> Self {
        self.docker_host = docker_host.map(str::to_owned);
        self
    }

    /// Its folder, removed on drop.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where its daemon listens.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("socket")
    }

    /// Writes its configuration: `sinks` after the place of the store. Gives the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn configure(&self, sinks: &str) -> Result<PathBuf> {
        let file = self.dir().join("config.toml");
        let store = self.dir().join("store.db");
        fs::write(
            &file,
            format!("[store]\npath = \"{}\"\n{sinks}\n", store.display()),
        )?;
        Ok(file)
    }

    /// `agent-monitor <args>` with the site's socket and Docker.
    ///
    /// # Errors
    /// When there is no such program yet.
    pub fn command(&self, args: &[&str]) -> Result<Command> {
        let program = program()?;
        let mut command = match self.without.filter(|_| args.first() == Some(&"run")) {
            Some(capability) => {
                let mut command = Command::new("setpriv");
                let bounding = format!("--bounding-set=-{capability}");
                command.arg(bounding).arg("--").arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .args(args)
            .env("AGENT_MONITOR_SOCKET", self.socket())
            .env_remove("RUST_LOG")
            .env_remove("DOCKER_HOST");
        if let Some(host) = &self.docker_host {
            command.env("DOCKER_HOST", host);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.pin
            && let Err(error) = Pins::remove_all(&self.socket())
        {
            eprintln!("rig: {error:#}");
        }
    }
}

/// The program under test, next to the running one.
///
/// # Errors
/// When it is not built.
pub fn program() -> Result<PathBuf> {
    let program = paths::bin()?.join("agent-monitor");
    ensure!(
        program.exists(),
        "{} is not built: run `cargo build` first, or `cargo test --workspace`",
        program.display()
    );
    Ok(program)
}

/// A running daemon and the events it has told so far. Killed on drop.
#[derive(Debug)]
pub struct Monitor {
    daemon: Child,
    tail: Child,
    reader: Option<JoinHandle<()>>,
    events: Arc<Mutex<Vec<Value>>>,
    log: PathBuf,
    site: Arc<Site>,
}

impl Monitor {
    /// Starts a daemon that watches what `selectors` choose, and waits until it
    /// is attached.
    ///
    /// # Errors
    /// When it does not start, with what it said.
    pub fn start(selectors: &[&str]) -> Result<Self> {
        Self::start_at(&Arc::new(Site::new()?), selectors, "")
    }

    /// Starts a daemon that watches `agent`, which exists.
    ///
    /// # Errors
    /// As [`Monitor::start`].
    pub fn of(agent: &Agent) -> Result<Self> {
        let site = Site::new()?.asking(agent.docker_host());
        Self::start_at(&Arc::new(site), &[&agent.selector()], "")
    }

    /// As [`Monitor::start`], in a folder of the caller's, with `sinks` in the
    /// configuration.
    ///
    /// # Errors
    /// As [`Monitor::start`].
    pub fn start_at(site: &Arc<Site>, selectors: &[&str], sinks: &str) -> Result<Self> {
        let config = site.configure(sinks)?;
        let mut command = site.command(&["run", "--config"])?;
        command.arg(config);
        if site.pin {
            command.arg("--pin");
        }
        for selector in selectors {
            command.args(["--agent", selector]);
        }
        let log = site.dir().join("log");
        let out = File::options().create(true).append(true).open(&log)?;
        let daemon = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("start agent-monitor")?;
        let mut daemon = Killed(Some(daemon));
        let limit = format!("{}s", START.as_secs());
        if let Err(error) = checked(&mut site.command(&["status", "--wait", &limit])?) {
            bail!("{error:#}\nthe daemon said:\n{}", tail_of(&log));
        }
        let mut tail = site
            .command(&["tail", "--output", "json", "-n", "1000000"])?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(site.dir().join("tail.log"))?)
            .spawn()
            .context("start agent-monitor tail")?;
        let lines = tail.stdout.take().context("tail has no output")?;
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&events);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                // What is no JSON is kept to be found by whoever looks.
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                lock(&told).push(event);
            }
        });
        Ok(Self {
            daemon: daemon.0.take().context("it was just started")?,
            tail,
            reader: Some(reader),
            events,
            log,
            site: Arc::clone(site),
        })
    }

    /// The daemon's pid.
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// The daemon's folder.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// What the daemon has logged, the last lines.
    pub fn log(&self) -> String {
        tail_of(&self.log)
    }

    /// What `status` says now.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn status(&self) -> Result<Value> {
        let told = checked(&mut self.site.command(&["status", "--output", "json"])?)?;
        Ok(serde_json::from_str(&told)?)
    }

    /// Starts one more `tail`, with these arguments: a queue of its own, that what
    /// other readers are too slow for does not fill.
    ///
    /// # Errors
    /// When it does not start.
    pub fn also_tail(&self, name: &str, args: &[&str]) -> Result<Tail> {
        let file = self.site.dir().join(name);
        let child = self
            .site
            .command(&["tail", "--output", "json", "-n", "1000000"])?
            .args(args)
            .stdin(Stdio::null())
            .stdout(File::create(&file)?)
            .stderr(Stdio::null())
            .spawn()
            .context("start agent-monitor tail")?;
        Ok(Tail {
            child,
            file,
            _site: Arc::clone(&self.site),
        })
    }

    /// Every event so far.
    pub fn events(&self) -> Vec<Value> {
        lock(&self.events).clone()
    }

    /// Every event since the last call, for runs so long that all of them would not fit
    /// into memory: no other function knows of them from then on.
    pub fn take(&self) -> Vec<Value> {
        std::mem::take(&mut *lock(&self.events))
    }

    /// Every event of this kind so far.
    pub fn of_kind(&self, kind: &str) -> Vec<Value> {
        let mut events = self.events();
        events.retain(|event| event["kind"] == kind);
        events
    }

    /// Every alert so far, each revision of an incident.
    pub fn alerts(&self) -> Vec<Value> {
        self.of_kind("alert")
    }

    /// The first event that `is_it`, once it has come.
    ///
    /// # Errors
    /// After `timeout`, with the last events and the daemon's log.
    pub fn wait_for(
        &self,
        what: &str,
        timeout: Duration,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut seen = 0;
        let found = wait::until(what, timeout, || {
            let events = lock(&self.events);
            let found = events[seen..].iter().find(|event| is_it(event)).cloned();
            seen = events.len();
            Ok(found)
        });
        found.with_context(|| {
            let events = self.events();
            let last: Vec<_> = events.iter().rev().take(40).map(Value::to_string).collect();
            format!(
                "{} events, newest first:\n{}\nthe daemon said:\n{}",
                events.len(),
                last.join("\n"),
                self.log()
            )
        })
    }

    /// Waits until everything that `agent` did before this call has been told:
    /// events are told in the order of the kernel's clock, so a program that is
    /// started now is told last.
    ///
    /// # Errors
    /// When it is not told.
    pub fn catch_up(&self, agent: &Agent) -> Result<()> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("caught-up-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        agent.run(&["true", &mark])?;
        self.wait_for("a program's end", SOON, |event| {
            event["kind"] == "exit" && event["process"]["argv"][1] == mark.as_str()
        })
        .map(drop)
    }

    /// Sends the daemon a signal.
    ///
    /// # Errors
    /// When it has gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.daemon);
        kill_process(pid, signal).context("signal agent-monitor")
    }

    /// Ends the daemon with SIGTERM, which must succeed, and gives every event.
    ///
    /// # Errors
    /// When it does not end, or with a failure.
    pub fn stop(self) -> Result<Vec<Value>> {
        self.stop_with(Signal::TERM)
    }

    /// As [`Monitor::stop`], with another signal.
    ///
    /// # Errors
    /// As [`Monitor::stop`].
    pub fn stop_with(mut self, signal: Signal) -> Result<Vec<Value>> {
        self.signal(signal)?;
        let status = wait::until("the end of agent-monitor", STOP, || {
            Ok(self.daemon.try_wait()?)
        });
        let status = status.with_context(|| self.log())?;
        ensure!(status.success(), "agent-monitor: {status}\n{}", self.log());
        self.drain();
        Ok(self.events())
    }

    /// Waits for the end of a daemon that somebody has killed, and gives every
    /// event it had told.
    ///
    /// # Errors
    /// When it does not end.
    pub fn ended(mut self) -> Result<Vec<Value>> {
        wait::until("the end of agent-monitor", STOP, || {
            Ok(self.daemon.try_wait()?)
        })?;
        self.drain();
        Ok(self.events())
    }

    /// Kills the daemon as the kernel would when memory runs out, and gives every
    /// event it had told.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn kill(mut self) -> Result<Vec<Value>> {
        ensure!(self.daemon.try_wait()?.is_none(), "it had ended");
        self.daemon.kill()?;
        self.daemon.wait()?;
        self.drain();
        Ok(self.events())
    }

    /// Takes what tail still has; it ends with the daemon.
    fn drain(&mut self) {
        let _ = self.tail.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        for child in [&mut self.daemon, &mut self.tail] {
            // Fails only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the daemon said:\n{}", self.log());
        }
    }
}

/// A reader of a daemon's events. Killed on drop.
#[derive(Debug)]
pub struct Tail {
    child: Child,
    file: PathBuf,
    /// The folder of the file.
    _site: Arc<Site>,
}

impl Tail {
    /// What it has read so far, whole lines.
    pub fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Everything it reads until the daemon has ended.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn rest(mut self) -> Result<Vec<Value>> {
        self.child.wait()?;
        Ok(self.events())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Kills a child that nobody took over.
struct Killed(Option<Child>);

impl Drop for Killed {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The last lines of a log.
fn tail_of(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_else(|error| format!("(no log: {error})"));
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
