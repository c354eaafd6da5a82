//! Who is compared: each does its watching while the same work is done.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::daemon::Daemon;
use super::floor::Floor;
use super::kernel::Programs;
use crate::cgroup::Cgroup;
use crate::wait;

/// One who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Nobody.
    Unmonitored,
    /// Programs that do nothing.
    Floor,
    /// agent-monitor.
    AgentMonitor,
    /// bpftrace, printing the same events of the whole node.
    Bpftrace,
    /// execsnoop of libbpf-tools: programs only, of the whole node.
    Execsnoop,
    /// strace -f on the work itself.
    Strace,
}

impl Subject {
    /// All, in the order in which they take their turns.
    pub const ALL: [Self; 6] = [
        Self::Unmonitored,
        Self::Floor,
        Self::AgentMonitor,
        Self::Bpftrace,
        Self::Execsnoop,
        Self::Strace,
    ];

    /// As it is called in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unmonitored => "unmonitored",
            Self::Floor => "nothing",
            Self::AgentMonitor => "agent-monitor",
            Self::Bpftrace => "bpftrace",
            Self::Execsnoop => "execsnoop",
            Self::Strace => "strace -f",
        }
    }

    /// What the work is started with.
    pub fn wrapper(self) -> &'static [&'static str] {
        match self {
            Self::Strace => &["strace", "-f", "-o", "/dev/null"],
            _ => &[],
        }
    }

    /// Starts watching `agent`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(self, agent: &Cgroup) -> Result<Running> {
        Ok(match self {
            Self::Unmonitored | Self::Strace => Running::Nothing,
            Self::Floor => Running::Floor {
                _programs: Floor::attach(agent)?,
            },
            Self::AgentMonitor => Running::Daemon(Daemon::start()?),
            Self::Bpftrace => {
                let dir = TempDir::with_prefix("am-bench-")?;
                let script = dir.path().join("events.bt");
                fs::write(&script, BPFTRACE)?;
                let script = script.to_str().context("a path of our own")?.to_owned();
                let attached = BPFTRACE.lines().count();
                Running::tool(&["bpftrace", &script], attached, Some(dir))?
            }
            Self::Execsnoop => Running::tool(&["/usr/sbin/execsnoop"], 2, None)?,
        })
    }
}

/// The same events, as one would ask bpftrace for them: births, programs and ends
/// of processes, connects, states of TCP, and what is sent and received.
const BPFTRACE: &str = r#"tracepoint:sched:sched_process_fork { printf("fork %d %d\n", pid, args->child_pid); }
tracepoint:sched:sched_process_exec { printf("exec %d %s\n", pid, str(args->filename)); }
tracepoint:sched:sched_process_exit { printf("exit %d\n", pid); }
tracepoint:syscalls:sys_enter_connect { printf("connect %d %d\n", pid, args->fd); }
tracepoint:sock:inet_sock_set_state { printf("state %d %d %d\n", pid, args->oldstate, args->newstate); }
tracepoint:syscalls:sys_enter_sendto { printf("send %d %d %d\n", pid, args->fd, args->len); }
tracepoint:syscalls:sys_enter_recvfrom { printf("recv %d %d\n", pid, args->fd); }
tracepoint:syscalls:sys_enter_write { if (comm == "bench") { printf("write %d %d %d\n", pid, args->fd, args->count); } }
"#;

/// Mounts what the tools look for, for them alone, and becomes the tool.
const WITH_TRACING: &str = r#"
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
exec "$@"
"#;

/// One who is watching. Ends on drop.
#[derive(Debug)]
pub enum Running {
    /// Nobody.
    Nothing,
    /// See [`Floor`].
    Floor {
        /// Held open.
        _programs: Floor,
    },
    /// See [`Daemon`].
    Daemon(Daemon),
    /// A tool, and the folder it needs.
    Tool(Tool),
}

/// A tool that prints to nobody.
#[derive(Debug)]
pub struct Tool {
    child: Child,
    _dir: Option<TempDir>,
}

impl Running {
    /// Starts a tool in a mount namespace of its own, and waits for its programs.
    fn tool(argv: &[&str], programs: usize, dir: Option<TempDir>) -> Result<Self> {
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", WITH_TRACING, "sh"])
            .args(argv)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start unshare")?;
        let mut tool = Tool { child, _dir: dir };
        let pid = tool.child.id();
        wait::until("the tool's programs", Duration::from_secs(20), || {
            let ended = tool.child.try_wait()?;
            ensure!(ended.is_none(), "{argv:?} ended by itself");
            Ok((Programs::of(pid)?.len() >= programs).then_some(()))
        })?;
        Ok(Self::Tool(tool))
    }

    /// Its programs now; none for who has none.
    ///
    /// # Errors
    /// When it has ended.
    pub fn programs(&self) -> Result<Programs> {
        match self {
            Self::Nothing => Ok(Programs::default()),
            Self::Floor { .. } => Programs::of(std::process::id()),
            Self::Daemon(daemon) => Programs::of(daemon.pid()),
            Self::Tool(tool) => Programs::of(tool.child.id()),
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
