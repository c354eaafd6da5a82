//! Docker: the machine's own daemon if one answers, else one started by hand.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::checked;
use crate::{leftovers, paths, wait};

/// Name of the image made from the root filesystem.
pub const IMAGE: &str = "agent-monitor-test";
/// Label of the rig's containers; its value is the world's id.
pub const LABEL: &str = "agent-monitor-rig";

/// A Docker daemon that answers and has [`IMAGE`].
#[derive(Debug)]
pub struct Docker {
    /// Value for `DOCKER_HOST`; `None` for the machine's own daemon.
    host: Option<String>,
    daemon: Option<Daemon>,
}

/// Removes the containers and the daemon that a killed run left.
///
/// # Errors
/// When they cannot be removed.
pub fn clean() -> Result<()> {
    if Daemon::sockets(&Daemon::data()?)?.exists() {
        Docker::shared()?;
    }
    Ok(())
}

/// A daemon of ours, stopped on drop.
#[derive(Debug)]
struct Daemon {
    dir: PathBuf,
    /// Held while it runs: another test process waits for its turn.
    _lock: File,
}

impl Docker {
    /// The daemon this process uses, started if need be; it is stopped when the
    /// last user lets go of it.
    ///
    /// # Errors
    /// When no daemon answers or can be started, or the image cannot be made.
    pub fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Docker>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(docker) = shared.upgrade() {
            return Ok(docker);
        }
        let mut docker = Self {
            host: None,
            daemon: None,
        };
        if docker.run(&["version"]).is_err() {
            let daemon = Daemon::start()?;
            docker.host = Some(format!("unix://{}", daemon.socket().display()));
            docker.daemon = Some(daemon);
        }
        docker.remove_leftovers()?;
        docker.make_image()?;
        let docker = Arc::new(docker);
        *shared = Arc::downgrade(&docker);
        Ok(docker)
    }

    /// A `docker` command that talks to this daemon.
    pub fn command(&self) -> Command {
        let mut command = Command::new("docker");
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    /// Value for `DOCKER_HOST`, unless it is the machine's own daemon.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Runs `docker` with `args` and returns its trimmed stdout.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        Ok(checked(self.command().args(args))?.trim().to_owned())
    }

    /// Imports the root filesystem unless the image already is that one.
    fn make_image(&self) -> Result<()> {
        let rootfs = paths::rootfs()?;
        let state = fs::metadata(rootfs.join("var/lib/dpkg/status"))
            .with_context(|| format!("{} has no packages", rootfs.display()))?;
        let stamp = format!("{}.{}", state.mtime(), state.mtime_nsec());
        let format = "{{index .Config.Labels \"rootfs\"}}";
        if self
            .run(&["image", "inspect", "-f", format, IMAGE])
            .is_ok_and(|label| label == stamp)
        {
            return Ok(());
        }
        let mut tar = Command::new("tar")
            .args(["-c", "-C"])
            .arg(&rootfs)
            .arg(".")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start tar")?;
        let archive = tar.stdout.take().context("tar has no output")?;
        let change = format!("LABEL rootfs={stamp}");
        let import = self
            .command()
            .args(["import", "--change", &change, "-", IMAGE])
            .stdin(archive)
            .output()
            .context("start docker import")?;
        let packed = tar.wait()?;
        if !packed.success() || !import.status.success() {
            bail!(
                "importing {} failed: {}",
                rootfs.display(),
                String::from_utf8_lossy(&import.stderr)
            );
        }
        Ok(())
    }

    /// Removes containers of runs that were killed.
    fn remove_leftovers(&self) -> Result<()> {
        let filter = format!("label={LABEL}");
        let format = format!("{{{{.ID}}}} {{{{.Label \"{LABEL}\"}}}}");
        let list = self.run(&["ps", "-a", "--filter", &filter, "--format", &format])?;
        for (container, world) in list.lines().filter_map(|line| line.split_once(' ')) {
            if leftovers::owner_is_dead(world) {
                self.run(&["rm", "-f", "-v", container])?;
            }
        }
        Ok(())
    }
}

impl Daemon {
    /// Starts `dockerd`, or adopts the one that a killed run left.
    fn start() -> Result<Self> {
        let data = Self::data()?;
        let lock = File::create(data.join("lock"))?;
        wait::until(
            "another test process to stop its dockerd",
            Duration::from_secs(300),
            || Ok(lock.try_lock().is_ok().then_some(())),
        )?;
        let dir = Self::sockets(&data)?;
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let daemon = Self { dir, _lock: lock };
        if !daemon.answers() {
            daemon.launch(&data)?;
        }
        Ok(daemon)
    }

    /// Where images and containers are kept.
    fn data() -> Result<PathBuf> {
        let data = paths::target().join("docker");
        fs::create_dir_all(&data).with_context(|| format!("make {}", data.display()))?;
        Ok(data.canonicalize()?)
    }

    /// Where sockets are: not below `data`, whose path may be long, since a socket's
    /// may not pass 107 bytes; but as unique, by its inode.
    fn sockets(data: &Path) -> Result<PathBuf> {
        let inode = fs::metadata(data)?.ino();
        Ok(PathBuf::from(format!("/run/agent-monitor-docker-{inode}")))
    }

    fn launch(&self, data: &Path) -> Result<()> {
        let log = self.dir.join("log");
        let out = File::create(&log)?;
        let mut command = Command::new("dockerd");
        command
            .args(["--iptables=false", "--ip6tables=false", "--ip-masq=false"])
            .arg("--bridge=none")
            .arg(format!("--host=unix://{}", self.socket().display()))
            .arg(format!("--pidfile={}", self.pidfile().display()))
            .arg(format!("--exec-root={}", self.dir.join("exec").display()))
            .arg(format!("--data-root={}", data.join("data").display()))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            // A Ctrl-C at the terminal must not stop it before its containers are removed.
            .process_group(0);
        let mut child = command
            .spawn()
            .context("start dockerd: is the package docker.io installed?")?;
        let ready = wait::until("dockerd to answer", Duration::from_secs(60), || {
            if let Some(status) = child.try_wait()? {
                bail!("dockerd ended: {status}");
            }
            Ok(self.answers().then_some(()))
        });
        // Reaps it when it is stopped, so that its pid is free then.
        std::thread::spawn(move || child.wait());
        ready.with_context(|| {
            let log = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<_> = log.lines().rev().take(10).collect();
            format!("last lines of dockerd, newest first:\n{}", lines.join("\n"))
        })
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    fn pidfile(&self) -> PathBuf {
        self.dir.join("pid")
    }

    /// True when something answers on the socket with Docker's `GET /_ping`.
    fn answers(&self) -> bool {
        use std::io::{Read, Write};
        let ping = || -> io::Result<String> {
            let mut stream = std::os::unix::net::UnixStream::connect(self.socket())?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ping().is_ok_and(|answer| answer.contains("200 OK"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.pidfile())
            .ok()
            .and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
        if let Some(pid) = pid {
            // It stops its containerd, and removes its pid file last.
            let _ = kill_process(pid, Signal::TERM);
            let gone = wait::until_gone("dockerd to stop", Duration::from_secs(30), || {
                Ok((!self.pidfile().exists()).then_some(()))
            });
            if let Err(error) = gone {
                eprintln!("rig: {error:#}");
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
