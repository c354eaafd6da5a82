//! Processes the rig starts: their output is kept, their time is bounded, and
//! they are killed by pid on drop.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, getsid, kill_process};

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
    /// For a process of an agent: how to find it and what it started.
    members: Option<Members>,
}

/// What belongs to one process of an agent: everything in the agent's cgroup that
/// carries its mark, and, for Docker, its whole session (some programs overwrite
/// their environment, and the mark with it).
#[derive(Debug)]
pub(crate) struct Members {
    cgroup: Cgroup,
    mark: String,
    /// The child is `docker exec`, a client, and not the process itself.
    by_client: bool,
    leader: Option<u32>,
}

impl Members {
    pub(crate) fn new(cgroup: Cgroup, marker: &str, by_client: bool) -> Self {
        Self {
            cgroup,
            mark: format!("{MARKER}={marker}"),
            by_client,
            leader: None,
        }
    }

    pub(crate) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// `NAME=value` for the environment.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }

    /// Says which process leads the session.
    pub(crate) fn led_by(&mut self, pid: u32) {
        self.leader = Some(pid);
    }

    fn pids(&self) -> Result<Vec<u32>> {
        let mut found = self.cgroup.processes()?;
        found.retain(|pid| {
            let in_session = self.leader.is_some() && session(*pid) == self.leader;
            in_session || self.is_marked(*pid)
        });
        Ok(found)
    }

    fn is_marked(&self, pid: u32) -> bool {
        // A process that has gone meanwhile has no environment.
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
            environ
                .split(|byte| *byte == 0)
                .any(|entry| entry == self.mark.as_bytes())
        })
    }
}

/// The session of a process, as a pid of the host.
fn session(pid: u32) -> Option<u32> {
    let pid = Pid::from_raw(pid.try_into().ok()?)?;
    let session = getsid(Some(pid)).ok()?;
    session.as_raw_nonzero().get().try_into().ok()
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
        })
    }

    pub(crate) fn with_members(mut self, members: Members) -> Self {
        self.members = Some(members);
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
    pub fn pid(&self) -> Result<u32> {
        match &self.members {
            Some(members) if members.by_client => members
                .leader
                .with_context(|| format!("{} ended at once: {}", self.name, self.output())),
            _ => Ok(self.child.id()),
        }
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
        wait::until_gone(&what, KILL_TIMEOUT, || {
            let left = self
                .members
                .as_ref()
                .map_or(Ok(Vec::new()), Members::pids)?;
            left.iter().for_each(|pid| kill(*pid));
            Ok(left.is_empty().then_some(()))
        })?;
        if self
            .members
            .as_ref()
            .is_some_and(|members| members.by_client)
        {
            // The client ends after its process has; killed, it would tell nothing.
            let _ = self.wait(KILL_TIMEOUT);
        }
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
