//! `cargo xtask dist`: what is given to others, and whether it installs.
//!
//! A static binary, a Debian package and the files of a container image, all in
//! `target/dist`; then the suite `package` installs them where nothing else is.

mod files;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, cargo};
use crate::{root, step};

/// Where everything goes, below the workspace's folder.
const DIST: &str = "target/dist";

/// What to make.
#[derive(clap::Args)]
pub struct Options {
    /// Package the debug build, which is there after tests: to try the packaging, not to give away
    #[arg(long)]
    debug: bool,
    /// Leave out the suite that installs, upgrades, removes and purges the package, which needs root
    #[arg(long)]
    no_check: bool,
}

/// Builds, packages, and tries the package.
///
/// # Errors
/// When setup or a step fails.
pub fn run(options: &Options) -> Result<()> {
    setup::run_for_dist()?;
    let dist = root().join(DIST);
    files::make(&build(options.debug)?, &dist)?;
    let package = package(&dist, options.debug)?;
    if !options.no_check {
        check()?;
    }
    println!("{}", package.display());
    println!("{}", dist.join("files/agent-monitor").display());
    println!(
        "docker build --file deploy/kubernetes/Containerfile --tag agent-monitor {}",
        dist.join("files").display()
    );
    Ok(())
}

/// Builds the binary with the C library in it; gives its path.
///
/// Only the last step is told so: the crates it links are the ones that other
/// builds use, and procedural macros could not be built static.
fn build(debug: bool) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["rustc", "--package=agent-monitor", "--bin=agent-monitor"]);
    build.arg("--locked");
    if !debug {
        build.arg("--release");
    }
    build.args(["--", "-C", "target-feature=+crt-static"]);
    step::run("dist-build", "building a static agent-monitor", &mut build)?;
    let profile = if debug { "debug" } else { "release" };
    Ok(root().join("target").join(profile).join("agent-monitor"))
}

/// Makes the Debian package in `dist`.
fn package(dist: &Path, debug: bool) -> Result<PathBuf> {
    let deb = dist.join("agent-monitor.deb");
    let mut make = Command::new(root().join("target/tools/bin/cargo-deb"));
    // What it would build and strip is in `dist/files` already.
    make.args(["--no-build", "--no-strip", "--package=agent-monitor"])
        .args(["--locked", "--offline", "--output"])
        .arg(&deb);
    if debug {
        // Nobody downloads it.
        make.arg("--fast");
    }
    step::run("dist-deb", "making the Debian package", &mut make)?;
    Ok(deb)
}

/// Runs the suite that installs it. Its output is for whoever runs this task.
fn check() -> Result<()> {
    let mut suite = cargo();
    suite
        .args(["test", "--package=agent-monitor-tests", "--locked"])
        .args(["--test=package", "--", "--test-threads=1"]);
    if !suite.status().context("cannot start cargo")?.success() {
        bail!("the package is not as it should be, see above");
    }
    Ok(())
}
