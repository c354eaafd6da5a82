//! Network namespaces, made and wired with iproute2.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{kill, tool};
use crate::wait;

/// A named network namespace, removed on drop with the processes in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a new one, with `lo` up.
    ///
    /// # Errors
    /// When `ip` fails, for example without root.
    pub fn create(name: &str) -> Result<Self> {
        tool("ip", &["netns", "add", name])?;
        let netns = Self {
            name: name.to_owned(),
        };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// Gives a name to the namespace `pid` is in.
    ///
    /// # Errors
    /// When `ip` fails or the process has gone.
    pub fn attach(name: &str, pid: u32) -> Result<Self> {
        tool("ip", &["netns", "attach", name, &pid.to_string()])?;
        Ok(Self {
            name: name.to_owned(),
        })
    }

    /// Its name, as `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` inside it.
    ///
    /// # Errors
    /// When `ip` fails, with what it said.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        tool("ip", &[&["-n", self.name.as_str()], args].concat())
    }

    /// Joins it to the bridge of `other` by a veth pair: `eth0` here, `port` there.
    ///
    /// # Errors
    /// When `ip` fails, with what it said.
    pub(crate) fn plug_into(&self, other: &Self, port: &str, bridge: &str) -> Result<()> {
        tool(
            "ip",
            &[
                "link",
                "add",
                "eth0",
                "netns",
                &self.name,
                "type",
                "veth",
                "peer",
                "name",
                port,
                "netns",
                &other.name,
            ],
        )?;
        other.ip(&["link", "set", port, "master", bridge, "up"])?;
        self.ip(&["link", "set", "eth0", "up"])?;
        Ok(())
    }

    /// The namespace's file, for a later `setns`.
    pub(crate) fn open(&self) -> Result<File> {
        let path = path(&self.name);
        File::open(&path).with_context(|| format!("open {}", path.display()))
    }

    /// Runs `work` on a new thread inside the namespace, so that its sockets
    /// are born there.
    ///
    /// # Errors
    /// When the namespace cannot be entered; otherwise `work`'s own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = self.open()?;
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                        .context("enter a network namespace: are you root?")?;
                    work()
                })
                .join()
                .map_err(|_| anyhow!("the work inside {} panicked", self.name))?
        })
    }

    /// Waits until something listens on TCP `port`, without connecting to it.
    ///
    /// # Errors
    /// After ten seconds.
    pub fn wait_for_listener(&self, port: u16) -> Result<()> {
        let what = format!("a listener on port {port} in {}", self.name);
        self.run(|| {
            wait::until(&what, Duration::from_secs(10), || {
                Ok(listens(port)?.then_some(()))
            })
        })
    }

    /// Pids of the processes in it.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let pids = tool("ip", &["netns", "pids", &self.name])?;
        Ok(pids.lines().filter_map(|pid| pid.parse().ok()).collect())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.name) {
            eprintln!("rig: {error:#}");
        }
    }
}

/// Kills what runs in the namespace `name` and removes it.
pub(crate) fn remove(name: &str) -> Result<()> {
    let own = std::process::id();
    let what = format!("{name} to be empty");
    wait::until_gone(&what, Duration::from_secs(5), || {
        let pids = tool("ip", &["netns", "pids", name])?;
        let mut left = pids.lines().filter_map(|pid| pid.parse().ok()).peekable();
        let empty = left.peek().is_none();
        left.filter(|pid| *pid != own).for_each(kill);
        Ok(empty.then_some(()))
    })?;
    tool("ip", &["netns", "del", name]).map(drop)
}

/// Names of all network namespaces.
pub(crate) fn names() -> Vec<String> {
    fs::read_dir("/run/netns").map_or_else(
        |_| Vec::new(),
        |entries| {
            entries
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect()
        },
    )
}

/// Makes `command` start inside the namespace that `file` names.
pub(crate) fn enter_on_exec(command: &mut Command, file: File) {
    use std::os::unix::process::CommandExt;
    let enter = move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes one system call on a file
    // opened before, and allocates nothing.
    unsafe { command.pre_exec(enter) };
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

/// True when a TCP socket of this thread's namespace listens on `port`.
///
/// Reads the tables of proc(5): the second field is `address:port` in hex, the
/// fourth the state, 0A for LISTEN.
fn listens(port: u16) -> Result<bool> {
    let suffix = format!(":{port:04X}");
    for table in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        let text = fs::read_to_string(table).with_context(|| format!("read {table}"))?;
        let found = text.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().unwrap_or_default();
            local.ends_with(&suffix) && fields.nth(1) == Some("0A")
        });
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}
