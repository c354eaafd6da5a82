//! Where the rig finds its files, on the host and inside an agent.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Where the workspace's compiled programs appear inside an agent.
pub const INSIDE_BIN: &str = "/opt/rig/bin";
/// Where `tests/scenarios` appears inside an agent.
pub const INSIDE_SCENARIOS: &str = "/opt/rig/scenarios";
/// A directory inside the agent that the host shares: see [`crate::agent::Agent::shared`].
pub const INSIDE_SHARED: &str = "/opt/rig/shared";

/// The workspace's `target` directory.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    )
}

/// `tests/scenarios` on the host.
pub fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// `tests/data` on the host: sessions and captures.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// The directory with the workspace's compiled programs, next to the running one.
///
/// # Errors
/// When the path of the running program cannot be read.
pub fn bin() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("where is the running program?")?;
    let dir = exe.parent().context("the running program has no folder")?;
    // Cargo puts test executables one level below the programs.
    Ok(match dir.file_name() {
        Some(name) if name == "deps" => dir.parent().unwrap_or(dir).to_path_buf(),
        _ => dir.to_path_buf(),
    })
}

/// The root filesystem agents run from: `AGENT_MONITOR_ROOTFS`, or `target/rootfs`.
///
/// # Errors
/// When there is none yet.
pub fn rootfs() -> Result<PathBuf> {
    let path = std::env::var_os("AGENT_MONITOR_ROOTFS")
        .map_or_else(|| target().join("rootfs"), PathBuf::from);
    ensure!(
        path.join("usr/bin/ssh").exists(),
        "{} is not an agent's root filesystem: run `cargo xtask setup`, or set AGENT_MONITOR_ROOTFS",
        path.display()
    );
    path.canonicalize()
        .with_context(|| path.display().to_string())
}

/// Third-party Node packages for tests: `AGENT_MONITOR_NPM`, or `target/npm/node_modules`.
///
/// # Errors
/// When they are not installed yet.
pub fn npm() -> Result<PathBuf> {
    let path = std::env::var_os("AGENT_MONITOR_NPM")
        .map_or_else(|| target().join("npm/node_modules"), PathBuf::from);
    ensure!(
        path.join("stratum").exists(),
        "{} has no package `stratum`: run `cargo xtask setup`, or set AGENT_MONITOR_NPM",
        path.display()
    );
    Ok(path)
}
