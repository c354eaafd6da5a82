//! What the verifier of this machine's own kernel goes through, by the same binary.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::console::verified;
use crate::root;

/// The kernel's series (`6.18`), and the instructions of each program that the daemon
/// loads when it starts. No cgroup is watched.
///
/// # Errors
/// When the daemon does not become ready, with its log.
pub fn instructions() -> Result<(String, BTreeMap<String, u64>)> {
    let dir = root().join("target/vm/host");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (config, log, socket) = (dir.join("config.toml"), dir.join("log"), dir.join("socket"));
    let store = dir.join("store.db");
    let text = format!("[store]\npath = {:?}\n", store.display().to_string());
    fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    let binary = root().join("target/debug/agent-monitor");
    let mut daemon = Command::new(&binary)
        .args(["run", "--agent", "cgroup:/agent-monitor-vm/none"])
        .arg("--config")
        .arg(&config)
        .arg("--socket")
        .arg(&socket)
        .env("RUST_LOG", "info,agent_monitor=debug")
        .stdin(Stdio::null())
        .stderr(File::create(&log).with_context(|| format!("cannot write {}", log.display()))?)
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    let ready = Command::new(&binary)
        .args(["status", "--wait", "60s", "--socket"])
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    // One that has ended by itself was not ready.
    let _ = kill_process(Pid::from_child(&daemon), Signal::TERM);
    daemon.wait()?;
    let said = fs::read_to_string(&log)?;
    ensure!(
        ready?.success(),
        "the daemon does not become ready:\n{said}"
    );
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut parts = release.split('.');
    let series = parts
        .next()
        .zip(parts.next())
        .map(|(major, minor)| format!("{major}.{minor}"));
    let series = series.with_context(|| format!("{release} is no kernel's release"))?;
    let counted = said.lines().filter_map(verified);
    Ok((
        series,
        counted
            .map(|(name, count)| (name.to_owned(), count))
            .collect(),
    ))
}
