//! Docker containers.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::agent::shares;
use crate::docker::{self, Docker};
use crate::process::{Members, Process, checked};
use crate::wait;
use crate::world::{GATEWAY, NAMES, World};

/// A running container, removed on drop.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) docker: Arc<Docker>,
    pub(crate) id: String,
    pub(crate) name: String,
    /// Held while a process starts: what appears meanwhile is that process.
    starting: Mutex<()>,
}

impl Container {
    /// Starts one that only waits.
    pub(crate) fn start(docker: Arc<Docker>, world: &World, name: &str) -> Result<Self> {
        let name = format!("{name}.{}", world.id());
        let mut command = docker.command();
        command
            .args(["run", "--detach", "--init", "--network=none"])
            .args(["--dns", GATEWAY])
            .args(["--name", &name])
            .args(["--label", &format!("{}={}", docker::LABEL, world.id())]);
        for (host, address) in NAMES {
            command.arg(format!("--add-host={host}:{address}"));
        }
        for (outside, inside, writable) in shares(world, &name)? {
            let mode = if writable { "rw" } else { "ro" };
            command.args(["-v", &format!("{}:{inside}:{mode}", outside.display())]);
        }
        command.args([docker::IMAGE, "sleep", "infinity"]);
        // Made first, so that a container which fails to start is removed too.
        let mut container = Self {
            docker,
            id: String::new(),
            name,
            starting: Mutex::new(()),
        };
        container.id = checked(&mut command)?.trim().to_owned();
        ensure!(
            container.id.len() == 64,
            "no container id: {:?}",
            container.id
        );
        Ok(container)
    }

    /// The host's pid of its first process.
    pub(crate) fn init(&self) -> Result<u32> {
        let pid = self
            .docker
            .run(&["inspect", "-f", "{{.State.Pid}}", &self.id])?;
        match pid.parse() {
            Ok(0) | Err(_) => bail!("the container {} does not run", self.name),
            Ok(pid) => Ok(pid),
        }
    }

    /// Starts a program by `docker exec`, and finds its pid.
    pub(crate) fn spawn(&self, argv: &[&str], log: &Path, mut members: Members) -> Result<Process> {
        let mut command = self.docker.command();
        command
            .args(["exec", "--env", members.mark(), &self.id])
            .args(argv);
        let _turn = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = members.cgroup().processes()?;
        let mut client = Process::start(&mut command, log)?.named(argv[0]);
        wait::until("docker exec", Duration::from_secs(20), || {
            let ended = !client.is_running()?;
            let now = members.cgroup().processes()?;
            let first = now
                .iter()
                .copied()
                .find(|pid| !before.contains(pid) && came_from_outside(*pid, &now));
            if let Some(pid) = first {
                members.led_by(pid);
            }
            Ok((ended || first.is_some()).then_some(()))
        })?;
        Ok(client.with_members(members))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = self.docker.run(&["rm", "-f", "-v", &self.name]) {
            eprintln!("rig: {error:#}");
        }
    }
}

/// True for what `docker exec` has started: its parent is not among the container's
/// processes `inside`, and runc's own helper has become the program.
fn came_from_outside(pid: u32, inside: &[u32]) -> bool {
    let field = |status: &str, name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value: &str| value.trim().to_owned())
    };
    // One that has ended meanwhile is not looked for any more.
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| {
        let parent = field(&status, "PPid:").and_then(|pid| pid.parse().ok());
        let is_helper = field(&status, "Name:").is_none_or(|name| name.starts_with("runc"));
        parent.is_some_and(|parent| !inside.contains(&parent)) && !is_helper
    })
}
