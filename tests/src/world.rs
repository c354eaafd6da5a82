//! A small internet for agents.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::leftovers;
use crate::netns::{self, Netns};
use crate::process::Process;

/// The internet's own address on the network agents are in, their gateway and
/// their name server (which refuses, unless a test starts one).
pub const GATEWAY: &str = "203.0.113.1";
/// A host far away: the server of most scenarios.
pub const SERVER: &str = "198.51.100.1";
/// Another host far away.
pub const OTHER_SERVER: &str = "192.0.2.1";

/// Names that every agent can resolve, from its `/etc/hosts`.
pub const NAMES: [(&str, &str); 5] = [
    ("api.example", SERVER),
    ("git.example", SERVER),
    ("hub.example", OTHER_SERVER),
    ("pool.example", OTHER_SERVER),
    ("web.example", SERVER),
];

const BRIDGE: &str = "br0";

/// A network namespace that plays the internet, and a folder for its files.
///
/// Its addresses are [`GATEWAY`], [`SERVER`] and [`OTHER_SERVER`]. Packets to any
/// other address are dropped without an answer, as on a filtered network.
#[derive(Debug)]
pub struct World {
    name: String,
    id: String,
    // Fields drop in this order: what writes to the folder goes before it.
    net: Netns,
    dir: TempDir,
    agents: AtomicU32,
    processes: AtomicU32,
}

impl World {
    /// Makes a world; `name` is for messages. Removes earlier runs' leftovers first.
    ///
    /// # Errors
    /// When the namespace cannot be made, for example without root.
    pub fn new(name: &str) -> Result<Arc<Self>> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        leftovers::remove();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", leftovers::owner());
        let net = Netns::create(&format!("{}{id}", leftovers::NET_NETNS))?;
        net.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        net.ip(&["link", "set", BRIDGE, "up"])?;
        let dir = TempDir::with_prefix(format!("{}{id}.", leftovers::FOLDER))?;
        let world = Self {
            name: name.to_owned(),
            id,
            net,
            dir,
            agents: AtomicU32::new(0),
            processes: AtomicU32::new(0),
        };
        world.add_address(&format!("{GATEWAY}/24"))?;
        world.add_address(&format!("{SERVER}/32"))?;
        world.add_address(&format!("{OTHER_SERVER}/32"))?;
        Ok(Arc::new(world))
    }

    /// Gives the internet an address (`a.b.c.d/len`), if it has not got it; its closed
    /// ports refuse.
    ///
    /// # Errors
    /// When `ip` does not take it.
    pub fn add_address(&self, address: &str) -> Result<()> {
        self.net
            .ip(&["addr", "replace", address, "dev", BRIDGE])
            .map(drop)
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `<pid>-<start>-<number>`, unique on the host and part of every name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The internet's network namespace.
    pub fn net(&self) -> &Netns {
        &self.net
    }

    /// A folder for files, removed on drop.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts a program of the host on the internet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, argv: &[&str]) -> Result<Process> {
        let (program, args) = argv.split_first().context("an empty command")?;
        let mut command = Command::new(program);
        command.args(args);
        netns::enter_on_exec(&mut command, self.net.open()?);
        Process::start(&mut command, &self.next_log(program))
    }

    /// A number and a network namespace for one more agent, wired to the bridge
    /// with address 203.0.113.(9 + number).
    pub(crate) fn join(&self, make: impl FnOnce(&str) -> Result<Netns>) -> Result<(Netns, String)> {
        let number = self.agents.fetch_add(1, Ordering::Relaxed) + 1;
        let netns = make(&format!("{}{}-{number}", leftovers::AGENT_NETNS, self.id))?;
        netns.plug_into(&self.net, &format!("agent{number}"), BRIDGE)?;
        let address = format!("203.0.113.{}", 9 + number);
        netns.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        netns.ip(&["route", "add", "default", "via", GATEWAY])?;
        Ok((netns, address))
    }

    /// A number for one more process: part of its log's name and of its marker.
    pub(crate) fn next_process(&self) -> u32 {
        self.processes.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn next_log(&self, program: &str) -> PathBuf {
        let program = program.rsplit('/').next().unwrap_or(program);
        self.dir()
            .join(format!("{}-{program}.log", self.next_process()))
    }
}
