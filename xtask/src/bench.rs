//! `cargo xtask bench`: every line of the table of budgets, measured.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::setup::{self, cargo};
use crate::{is_root, root, step};

/// How to measure.
#[derive(clap::Args)]
pub struct Options {
    /// In under two minutes, less exactly; BENCHMARKS.md stays as it is
    #[arg(long)]
    quick: bool,
}

/// Sets up, builds and becomes the benchmark, whose exit code is then this
/// process's: 0 only when every budget is met.
///
/// # Errors
/// When setup or the build fails.
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
    let program = root().join("target/release/bench");
    let mut bench = Command::new(&program);
    bench.current_dir(root());
    if options.quick {
        bench.arg("--quick");
    }
    Err(bench.exec()).with_context(|| format!("cannot start {}", program.display()))
}
