//! The root filesystem of agents that are plain cgroups.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::agent::shares;
use crate::paths;
use crate::world::{GATEWAY, NAMES, World};

/// A writable copy of the root filesystem in a mount namespace of its own.
///
/// The namespace is held by a shell that ends when its stdin closes, so that
/// nothing stays mounted even if this process is killed.
#[derive(Debug)]
pub(crate) struct Root {
    holder: Child,
    path: PathBuf,
}

impl Root {
    pub(crate) fn mount(world: &World, name: &str) -> Result<Self> {
        let dir = world.dir().join(format!("root-{name}"));
        let path = dir.join("root");
        for folder in ["upper/etc", "work", "root"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        let names = NAMES.map(|(host, address)| format!("{address} {host}\n"));
        let hosts = format!("127.0.0.1 localhost\n{}", names.concat());
        fs::write(dir.join("upper/etc/hosts"), hosts)?;
        let resolver = format!("nameserver {GATEWAY}\n");
        fs::write(dir.join("upper/etc/resolv.conf"), resolver)?;
        let mut script = format!(
            "set -e; cd '{}'; mount -t overlay overlay -o 'lowerdir={}',upperdir=upper,workdir=work root; \
             mount -t proc proc root/proc; mount --rbind /dev root/dev; ",
            dir.display(),
            paths::rootfs()?.display(),
        );
        for (outside, inside, writable) in shares(world, name)? {
            let mode = if writable { "rw" } else { "ro" };
            script += &format!(
                "mkdir -p root{inside}; mount --bind -o {mode} '{}' root{inside}; ",
                outside.display()
            );
        }
        script += "echo ready; exec cat";
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation=private", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start unshare")?;
        let output = holder.stdout.take().context("no output")?;
        let root = Self { holder, path };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(
            line == "ready\n",
            "mounting the agent's root failed, see above"
        );
        Ok(root)
    }

    pub(crate) fn enter_on_exec(&self, command: &mut Command) -> Result<()> {
        let file = format!("/proc/{}/ns/mnt", self.holder.id());
        let mounts = File::open(&file).with_context(|| format!("open {file}"))?;
        let path = std::ffi::CString::new(self.path.as_os_str().as_encoded_bytes())?;
        let enter = move || {
            move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
            rustix::process::chroot(path.as_c_str())?;
            rustix::process::chdir(c"/root")?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes three system calls with
        // arguments prepared before, and allocates nothing.
        unsafe { command.pre_exec(enter) };
        Ok(())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
