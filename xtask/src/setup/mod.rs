//! `cargo xtask setup`: brings a machine to the point where everything builds
//! and every test can run. It looks first and is silent about what is there.

mod apt;
mod cargo;
pub mod kernels;
mod npm;
pub mod requirements;
mod rootfs;
mod syslog_ng;

use std::fs::{self, File};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use requirements::{BENCH, EBPF, Requirement, TOOLS, VM};

pub use self::cargo::cargo;
use crate::root;

/// Installs what is missing.
///
/// # Errors
/// When something is missing and cannot be installed.
pub fn run() -> Result<()> {
    run_for_demo()?;
    let _lock = lock()?;
    bring(VM.iter())?;
    kernels::fetch()?;
    syslog_ng::unpack()?;
    cargo::CARGO_DENY.install()?;
    cargo::CARGO_DEB.install()
}

/// The same without what only checks need, and takes minutes to compile.
///
/// # Errors
/// When something is missing and cannot be installed.
pub fn run_for_demo() -> Result<()> {
    let began = Instant::now();
    let _lock = lock()?;
    // With the rustup way at hand Debian's compiler is not needed; once it is
    // there the build prefers it, and it needs its own linker.
    let debian_way = EBPF[0].is_met() || !requirements::has_rustup_way();
    bring(TOOLS.iter().chain(EBPF.iter().filter(|_| debian_way)))?;
    if debian_way {
        cargo::BPF_LINKER.install()?;
    }
    cargo::fetch()?;
    npm::install()?;
    rootfs::make()?;
    eprintln!(
        "setup: everything is there ({:.1} s)",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// What the demo needs, and what makes packages.
///
/// # Errors
/// When something is missing and cannot be installed.
pub fn run_for_dist() -> Result<()> {
    run_for_demo()?;
    let _lock = lock()?;
    cargo::CARGO_DEB.install()
}

/// What the demo needs, and what the benchmark compares agent-monitor with.
///
/// # Errors
/// When something is missing and cannot be installed.
pub fn run_for_bench() -> Result<()> {
    run_for_demo()?;
    let _lock = lock()?;
    bring(BENCH.iter())
}

/// Installs the packages of those that are not met.
fn bring(wanted: impl Iterator<Item = &'static Requirement>) -> Result<()> {
    let missing: Vec<&Requirement> = wanted.filter(|requirement| !requirement.is_met()).collect();
    apt::install(&missing)?;
    if let Some(still) = missing.iter().find(|requirement| !requirement.is_met()) {
        bail!(
            "{} was installed, but one of {:?} is still not there",
            still.name,
            still.shown_by
        );
    }
    Ok(())
}

/// Two setups of one workspace would build into the same places: the second waits.
fn lock() -> Result<File> {
    let dir = root().join("target/xtask");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join("setup.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}
