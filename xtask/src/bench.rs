//! `cargo xtask bench`: every line of the table of budgets, measured, and rules
//! beside other engines.

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::setup::{self, cargo};
use crate::{is_root, root, step};

/// How to measure.
#[derive(clap::Args)]
pub struct Options {
    /// In under two minutes, less exactly; BENCHMARKS.md stays as it is
    #[arg(long)]
    quick: bool,
}

/// Sets up, builds and runs both benchmarks: that of rules is a program of its own,
/// so that the engines it compares with stay out of the other.
///
/// # Errors
/// When setup or a build fails, or a budget is not met.
pub fn run(options: &Options) -> Result<()> {
    ensure!(
        is_root(),
        "the benchmark loads eBPF programs and makes cgroups, which only root may: run \
         `sudo -E env PATH=\"$PATH\" cargo xtask bench`"
    );
    setup::run_for_bench()?;
    let mut build = cargo();
    build
        .args([
            "build",
            "--release",
            "--locked",
            "--bin=agent-monitor",
            "--bin=bench",
        ])
        .args(["--package=agent-monitor", "--package=agent-monitor-tests"]);
    step::run(
        "bench",
        "building agent-monitor and the benchmark for release",
        &mut build,
    )?;
    let mut build = rules();
    build.arg("--no-run");
    step::run("bench-rules", "building the benchmark of rules", &mut build)?;
    let mut rules = rules();
    let mut bench = Command::new(root().join("target/release/bench"));
    if options.quick {
        bench.arg("--quick");
    }
    // Both, so that what one misses does not hide what the other does.
    let mut missed = Vec::new();
    for (what, command) in [("rules", &mut rules), ("agent-monitor", &mut bench)] {
        let status = command.current_dir(root()).status();
        let status = status.with_context(|| format!("cannot start the benchmark of {what}"))?;
        if !status.success() {
            missed.push(what);
        }
    }
    if !missed.is_empty() {
        bail!("not met, or not measured: {}", missed.join(", "));
    }
    Ok(())
}

fn rules() -> Command {
    let mut command = cargo();
    command.args([
        "bench",
        "--quiet",
        "--locked",
        "--package=agent-monitor-rules-bench",
    ]);
    command
}
