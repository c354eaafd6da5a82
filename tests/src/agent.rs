//! Agents: what agent-monitor watches.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::docker::Docker;
use crate::netns::{self, Netns};
use crate::paths;
use crate::process::{MARKER, Members, Process};
use crate::root::Root;
use crate::wait;
use crate::world::World;

/// How long [`Agent::run`] lets a command take.
const RUN_TIMEOUT: Duration = Duration::from_secs(20);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A container, or a cgroup that behaves like one, with an address of its own in
/// a [`World`]. Only an idle init process runs in it until something is started.
#[derive(Debug)]
pub struct Agent {
    name: String,
    address: String,
    cgroup: Cgroup,
    kind: Kind,
    // After `kind`: a container goes before its namespace.
    netns: Netns,
    world: Arc<World>,
}

#[derive(Debug)]
enum Kind {
    Docker { container: Container },
    Cgroup { root: Root, _cgroup: OwnCgroup },
}

impl Agent {
    /// Starts a Docker container named `<name>.<world id>`.
    ///
    /// # Errors
    /// When Docker cannot be had, or refuses.
    pub fn docker(world: &Arc<World>, name: &str) -> Result<Self> {
        let container = Container::start(Docker::shared()?, world, name)?;
        let pid = container.init()?;
        let cgroup = Cgroup::of_process(pid)?;
        // Docker does not wait for what its init process starts.
        wait::until("the container to idle", Duration::from_secs(10), || {
            let idles =
                |pid| fs::read(format!("/proc/{pid}/comm")).is_ok_and(|it| it == b"sleep\n");
            Ok(cgroup.processes()?.into_iter().any(idles).then_some(()))
        })?;
        let (netns, address) = world.join(|name| Netns::attach(name, pid))?;
        Ok(Self {
            name: container.name.clone(),
            address,
            cgroup,
            kind: Kind::Docker { container },
            netns,
            world: Arc::clone(world),
        })
    }

    /// Makes the cgroup `/agent-monitor-test/<name>.<world id>`, whose processes
    /// see a copy of the same root filesystem. Takes some ten milliseconds.
    ///
    /// # Errors
    /// When the cgroup or the mounts cannot be made.
    pub fn cgroup(world: &Arc<World>, name: &str) -> Result<Self> {
        let name = format!("{name}.{}", world.id());
        let cgroup = Cgroup::create(&name)?;
        let own = OwnCgroup(cgroup.clone());
        let root = Root::mount(world, &name)?;
        let (netns, address) = world.join(Netns::create)?;
        Ok(Self {
            name,
            address,
            cgroup,
            kind: Kind::Cgroup { root, _cgroup: own },
            netns,
            world: Arc::clone(world),
        })
    }

    /// Its name: the container's, or the last part of the cgroup's path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address in the world.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its version 2 cgroup.
    pub fn group(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The world it lives in.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// The container's 64-digit id, for Docker.
    pub fn container_id(&self) -> Option<&str> {
        match &self.kind {
            Kind::Docker { container } => Some(&container.id),
            Kind::Cgroup { .. } => None,
        }
    }

    /// Value of `DOCKER_HOST` for the container's daemon, unless it is the default one.
    pub fn docker_host(&self) -> Option<&str> {
        match &self.kind {
            Kind::Docker { container } => container.docker.host(),
            Kind::Cgroup { .. } => None,
        }
    }

    /// The `--agent` selector that chooses exactly this agent by its cgroup.
    pub fn selector(&self) -> String {
        format!("cgroup:{}", self.cgroup.path())
    }

    /// A folder that the host and the agent share; inside it is
    /// [`paths::INSIDE_SHARED`].
    pub fn shared(&self) -> PathBuf {
        shared(&self.world, &self.name)
    }

    /// Starts a program inside the agent, found by the agent's own `PATH`. It is
    /// in the agent's cgroup and namespaces from before its exec.
    ///
    /// # Errors
    /// When it cannot be started. With Docker a program that does not exist is
    /// noticed only when it is waited for.
    pub fn spawn(&self, argv: &[&str]) -> Result<Process> {
        let (program, args) = argv.split_first().context("an empty command")?;
        let marker = format!("{}-{}", self.world.id(), self.world.next_process());
        let log = self.world.next_log(program);
        let by_client = self.container_id().is_some();
        let members = Members::new(self.cgroup.clone(), &marker, by_client);
        match &self.kind {
            Kind::Docker { container } => container.spawn(argv, &log, members),
            Kind::Cgroup { root, .. } => {
                let mut command = Command::new(program);
                command
                    .args(args)
                    .env_clear()
                    .env("PATH", PATH)
                    .env("HOME", "/root")
                    .env(MARKER, &marker);
                enter_cgroup(&mut command, self.cgroup.entrance()?);
                netns::enter_on_exec(&mut command, self.netns.open()?);
                root.enter_on_exec(&mut command)?;
                Ok(Process::start(&mut command, &log)?.with_members(members))
            }
        }
    }

    /// Runs a program inside the agent to its end and returns its output, stderr
    /// included.
    ///
    /// # Errors
    /// When it fails or takes longer than twenty seconds.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        self.spawn(argv)?.finish(RUN_TIMEOUT)
    }

    /// Starts `tests/scenarios/<script>` with the agent's Python.
    ///
    /// # Errors
    /// As [`Agent::spawn`].
    pub fn python(&self, script: &str, args: &[&str]) -> Result<Process> {
        let path = format!("{}/{script}", paths::INSIDE_SCENARIOS);
        self.spawn(&[&["python3", "-u", &path], args].concat())
    }
}

/// Folders shared with an agent, by name inside: (host path, inside, writable).
pub(crate) fn shares(world: &World, name: &str) -> Result<[(PathBuf, &'static str, bool); 3]> {
    let shared = shared(world, name);
    fs::create_dir_all(&shared).with_context(|| format!("make {}", shared.display()))?;
    Ok([
        (paths::bin()?, paths::INSIDE_BIN, false),
        (
            paths::scenarios().canonicalize()?,
            paths::INSIDE_SCENARIOS,
            false,
        ),
        (shared, paths::INSIDE_SHARED, true),
    ])
}

fn shared(world: &World, name: &str) -> PathBuf {
    world.dir().join(format!("shared-{name}"))
}

/// Moves `command` into the cgroup whose `cgroup.procs` is `entrance`.
fn enter_cgroup(command: &mut Command, entrance: File) {
    let enter = move || {
        rustix::io::write(&entrance, b"0")?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes one system call on a file
    // opened before, and allocates nothing.
    unsafe { command.pre_exec(enter) };
}

/// A cgroup that is removed on drop, with its processes.
#[derive(Debug)]
struct OwnCgroup(Cgroup);

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove() {
            eprintln!("rig: {error:#}");
        }
    }
}
