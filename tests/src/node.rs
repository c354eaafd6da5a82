//! A node: Debian with systemd as its first process, in namespaces of its own,
//! over a writable copy of the root filesystem. What is installed in it is gone
//! with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cgroup::Cgroup;
use crate::process::checked;
use crate::{leftovers, paths, wait};

/// How long systemd may take to start what it starts.
const BOOT: Duration = Duration::from_secs(60);

/// Becomes the node's first process. It starts in the node's cgroup, below which
/// systemd makes all others. There is no cgroup namespace: the kernel tells of
/// cgroups by their paths from the real root, and so does a node's own mount.
/// A service that needs a network has no business there; the one that came with
/// redis is masked, since it cannot start without.
const INIT: &str = r#"
mount -t overlay overlay -o lowerdir="$1",upperdir=upper,workdir=work root
cd root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs dev
mkdir dev/shm dev/pts
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
ln -s pts/ptmx dev/ptmx
ip link set lo up
ln -sf /dev/null etc/systemd/system/redis-server.service
# What a service is confined with is mounted relative to the real root.
pivot_root . mnt
exec env -i container=rig PATH=/usr/sbin:/usr/bin chroot . sh -euc 'umount -l /mnt
exec /lib/systemd/systemd --unit=multi-user.target --log-target=journal --show-status=no'
"#;

/// A running node, ended on drop.
#[derive(Debug)]
pub struct Node {
    dir: tempfile::TempDir,
    cgroup: Cgroup,
    /// `unshare`, whose end is its first process's, and so everybody's.
    holder: Child,
    /// Of its first process.
    init: u32,
}

impl Node {
    /// Starts one and waits until systemd has started what it starts. Before,
    /// `prepare` may change the files, where they are to be found below.
    ///
    /// # Errors
    /// When it cannot be started, or `prepare` fails.
    pub fn boot(prepare: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        leftovers::remove();
        let owner = leftovers::owner();
        let dir = tempfile::Builder::new()
            .prefix(&format!("{}{owner}-node-", leftovers::FOLDER))
            .tempdir()?;
        for folder in ["upper", "work", "root"] {
            fs::create_dir(dir.path().join(folder))?;
        }
        let cgroup = Cgroup::create(&format!("node.{owner}-1"))?;
        prepare(&dir.path().join("upper"))?;
        let enter = "echo $$ > \"$1/cgroup.procs\"; shift; exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-euc", enter, "node"]).arg(cgroup.dir());
        command.args(["unshare", "--mount", "--pid", "--net", "--uts", "--ipc"]);
        command.args(["--propagation=private", "--fork", "--kill-child"]);
        command
            .args(["sh", "-euc", INIT, "node"])
            .arg(paths::rootfs()?);
        let holder = command
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("start unshare")?;
        let mut node = Self {
            dir,
            cgroup,
            holder,
            init: 0,
        };
        node.wait_for_systemd()?;
        Ok(node)
    }

    fn wait_for_systemd(&mut self) -> Result<()> {
        let parent = self.holder.id();
        wait::until("systemd to have started all", BOOT, || {
            if let Some(status) = self.holder.try_wait()? {
                bail!("the node ended: {status}");
            }
            if self.init == 0 {
                let children = format!("/proc/{parent}/task/{parent}/children");
                let children = fs::read_to_string(children).unwrap_or_default();
                match children.split_whitespace().next() {
                    Some(pid) => self.init = pid.parse()?,
                    None => return Ok(None),
                }
            }
            let state = self.command("systemctl", &["is-system-running"]).output()?;
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            Ok(matches!(state.as_str(), "running" | "degraded").then_some(()))
        })
    }

    /// A command inside the node.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init));
        command.args(["--mount", "--pid", "--net", "--uts", "--ipc"]);
        command.args(["--root", "--wd=/"]);
        command
            .args(["--", program])
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Runs a command inside the node and gives its trimmed stdout.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        Ok(checked(&mut self.command(program, args))?.trim().to_owned())
    }

    /// A property of a unit, as systemctl(1) shows it.
    ///
    /// # Errors
    /// When systemctl fails.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let name = format!("--property={name}");
        self.run("systemctl", &["show", "--value", &name, unit])
    }

    /// Where a file of the node is, from outside, when it was written inside.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    /// Writes a file of the node, and the folders it is in.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, inside: &str, text: &str) -> Result<()> {
        write(&self.path(inside), text)
    }

    /// Its folder, outside.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The cgroup that systemd takes for the root of its own.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Ends it, as dropping does, but says when something of it stays.
    ///
    /// # Errors
    /// When its cgroup cannot be removed.
    pub fn end(mut self) -> Result<()> {
        self.stop()
    }

    fn stop(&mut self) -> Result<()> {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        self.cgroup.remove()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("rig: {error:#}");
        }
    }
}

/// Writes a file and the folders it is in.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let dir = path.parent().context("a file is in a folder")?;
    fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// What `cargo xtask dist` has made.
///
/// # Errors
/// When it has not been made.
pub fn dist(name: &str) -> Result<PathBuf> {
    let path = paths::target().join("dist").join(name);
    ensure!(
        path.exists(),
        "{} is not there: run `cargo xtask dist`",
        path.display()
    );
    path.canonicalize()
        .with_context(|| path.display().to_string())
}
