//! `cargo xtask demo`: agent-monitor at work on this machine, from nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::setup::{self, cargo};
use crate::{is_root, root, step};

/// Detectors that can be left out of a build: values of `cfg(mutate)`, see the
/// lints in the workspace's Cargo.toml.
const MUTANTS: [&str; 2] = ["mining-pool-protocol", "reverse-tunnel-relay"];
/// The demo's exit code when alerts are not as expected.
const DIFFERS: i32 = 3;

/// How to run the demo.
#[derive(clap::Args)]
pub struct Options {
    /// Leave out this detector, and succeed only if the demo notices
    #[arg(long, value_name = "DETECTOR", value_parser = MUTANTS)]
    mutate: Option<String>,
    /// Let the agent be a plain cgroup with namespaces instead of a Docker container
    #[arg(long)]
    no_docker: bool,
}

/// Sets up, builds and becomes the demo, whose exit code is then this process's.
///
/// # Errors
/// When setup or the build fails, or a missing detector was not noticed.
pub fn run(options: &Options) -> Result<()> {
    ensure!(
        is_root(),
        "the demo loads eBPF programs and starts a container, which only root may: run \
         `sudo -E env PATH=\"$PATH\" cargo xtask demo`"
    );
    setup::run_for_demo()?;
    step::run("demo", "building agent-monitor and the demo", &mut build())?;
    let mut demo = Command::new(program("demo"));
    demo.current_dir(root());
    if options.no_docker {
        demo.arg("--no-docker");
    }
    let Some(detector) = &options.mutate else {
        // In place of this process, so that Ctrl-C meets the demo alone, which cleans up.
        return Err(demo.exec()).context("cannot start target/debug/demo");
    };
    demo.arg("--monitor").arg(mutant(detector)?);
    match demo
        .status()
        .context("cannot start target/debug/demo")?
        .code()
    {
        Some(DIFFERS) => {
            println!("\nas it should: without {detector} the demo fails");
            Ok(())
        }
        Some(0) => bail!("without the detector {detector} the demo must fail, but it passed"),
        code => bail!("the demo could not be run (exit code {code:?})"),
    }
}

/// Debug: a newcomer waits for this build.
fn build() -> Command {
    let mut command = cargo();
    command
        .args(["build", "--locked"])
        .args(["--package=agent-monitor", "--package=agent-monitor-tests"]);
    command
}

fn program(name: &str) -> PathBuf {
    root().join("target/debug").join(name)
}

/// Builds an agent-monitor without `detector`, beside the real one.
fn mutant(detector: &str) -> Result<PathBuf> {
    let dir = root().join("target/mutants").join(detector);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    // A wrapper reaches the workspace's crates only, and cargo keeps what it makes
    // apart: neither dependencies nor the real program are built again.
    let wrapper = dir.join("rustc");
    let script = format!("#!/bin/sh\nexec \"$@\" --cfg 'mutate=\"{detector}\"'\n");
    fs::write(&wrapper, script)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    let what = format!("building agent-monitor without {detector}");
    let mut command = cargo();
    command
        .args(["build", "--locked", "--package=agent-monitor"])
        .env("RUSTC_WORKSPACE_WRAPPER", &wrapper);
    let built = step::run("mutant", &what, &mut command).and_then(|()| {
        let place = dir.join("agent-monitor");
        fs::copy(program("agent-monitor"), &place).context("cannot keep the mutant")?;
        Ok(place)
    });
    // Both land in the same place: puts the real program back there.
    step::run("demo", "putting the real agent-monitor back", &mut build())?;
    built
}
