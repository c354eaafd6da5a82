//! Processes the rig starts: their output is kept, their time is bounded, and
//! they are killed by pid on drop.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::cgroup::Cgroup;
use crate::wait;

/// The variable that marks everything one [`Process`] starts.
pub const MARKER: &str = "AGENT_MONITOR_RIG";

/// How long a killed process may take to go.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A process that was started by the rig, and whatever it starts itself.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// For a process of an agent: its cgroup, and the value of [`MARKER`].
    members: Option<(Cgroup, String)>,
    /// `child` is a client (`docker exec`) and not the process itself.
    by_client: bool,
}

impl Process {
    /// Starts `command` with its output going to the file `log`.
    ///
    /// # Errors
    /// When the log cannot be made or the program not be started.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let out = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self {
            name,
            child,
            log: log.to_path_buf(),
            members: None,
            by_client: false,
        })
    }

    /// Says that the process runs in `cgroup`, with `marker` in its environment.
    pub(crate) fn in_cgroup(mut self, cgroup: Cgroup, marker: String, by_client: bool) -> Self {
        self.members = Some((cgroup, marker));
        self.by_client = by_client;
        self
    }

    /// Gives the process a name for messages, better than its first argument.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// The process's pid in the host's pid namespace.
    ///
    /// # Errors
    /// When it ended before it could be found (Docker only).
    pub fn pid(&mut self) -> Result<u32> {
        if !self.by_client {
            return Ok(self.child.id());
        }
        let what = format!("the pid of {}", self.name);
        wait::until(&what, Duration::from_secs(5), || {
            if let Some(pid) = self.marked()?.into_iter().min() {
                return Ok(Some(pid));
            }
            match self.child.try_wait()? {
                Some(status) => bail!("{} ended first ({status}): {}", self.name, self.output()),
                None => Ok(None),
            }
        })
    }

    /// Pids of the agent's processes that carry this process's marker.
    fn marked(&self) -> Result<Vec<u32>> {
        let Some((cgroup, marker)) = &self.members else {
            return Ok(Vec::new());
        };
        let wanted = format!("{MARKER}={marker}");
        let mut found = cgroup.processes()?;
        found.retain(|pid| {
            // A process that has gone meanwhile has no environment.
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
                environ
                    .split(|byte| *byte == 0)
                    .any(|entry| entry == wanted.as_bytes())
            })
        });
        Ok(found)
    }

    /// What it has written to stdout and stderr so far.
    pub fn output(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| format!("(no output: {error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Waits until the process has written a whole line that contains `needle`,
    /// and returns the line.
    ///
    /// # Errors
    /// When it ends without having done so, or `timeout` passes.
    pub fn wait_for_line(&mut self, needle: &str, timeout: Duration) -> Result<String> {
        let what = format!("{needle:?} from {}", self.name);
        let found = wait::until(&what, timeout, || {
            // The state is read first: what was written before the end counts.
            let ended = self.child.try_wait()?;
            let output = self.output();
            let line = output
                .split_inclusive('\n')
                .find(|line| line.ends_with('\n') && line.contains(needle));
            match (line, ended) {
                (Some(line), _) => Ok(Some(line.trim_end().to_owned())),
                (None, Some(status)) => bail!("{} ended ({status}) without it", self.name),
                (None, None) => Ok(None),
            }
        });
        found.with_context(|| format!("{what}; its output:\n{}", self.output()))
    }

    /// True while the process has not ended.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// After `timeout`, with the output so far.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait::until(&what, timeout, || Ok(self.child.try_wait()?))
            .with_context(|| format!("output of {}:\n{}", self.name, self.output()))
    }

    /// Waits for the end, which must be a success, and returns the output.
    ///
    /// # Errors
    /// When it failed or did not end within `timeout`.
    pub fn finish(&mut self, timeout: Duration) -> Result<String> {
        let status = self.wait(timeout)?;
        let output = self.output();
        ensure!(status.success(), "{} {status}:\n{output}", self.name);
        Ok(output)
    }

    /// Kills the process and, in an agent, whatever it started.
    ///
    /// # Errors
    /// When something is still there after some seconds.
    pub fn stop(&mut self) -> Result<()> {
        let what = format!("{} to be gone", self.name);
        wait::until(&what, KILL_TIMEOUT, || {
            let left = self.marked()?;
            left.iter().for_each(|pid| kill(*pid));
            Ok(left.is_empty().then_some(()))
        })?;
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("rig: {error:#}");
        }
    }
}

/// Kills one process; one that has gone already is no error.
pub(crate) fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Runs a helper of the host (`ip`, `docker`) to its end and returns its stdout.
///
/// # Errors
/// When it cannot be started or fails, with what it said.
pub fn tool(program: &str, args: &[&str]) -> Result<String> {
    checked(Command::new(program).args(args))
}

/// Runs a command to its end and returns its stdout.
///
/// # Errors
/// When it cannot be started or fails, with what it said.
pub fn checked(command: &mut Command) -> Result<String> {
    let line = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {line}: is the program installed?"))?;
    ensure!(
        output.status.success(),
        "{line} {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
