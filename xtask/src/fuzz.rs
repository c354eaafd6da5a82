//! `cargo xtask fuzz`: libFuzzer on everything that reads hostile bytes.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::setup::cargo;
use crate::{root, step};

/// How to fuzz.
#[derive(clap::Args)]
pub struct Options {
    /// Only these targets
    targets: Vec<String>,
    /// For how long, each target
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u32,
}

/// Builds the fuzzer and runs the targets one after the other. What they learn stays
/// in `target/fuzz`; an input that was found is copied to `fuzz/regressions` by hand,
/// once what it found is mended.
///
/// # Errors
/// When the fuzzer does not build, or a target has found something: the message names
/// the file with the input.
pub fn run(options: &Options) -> Result<()> {
    let mut build = cargo();
    build
        .args([
            "build",
            "--workspace",
            "--exclude",
            "agent-monitor-ebpf",
            "--locked",
        ])
        .args([
            "--bin",
            "fuzz",
            "--features",
            "agent-monitor-fuzz/libfuzzer",
        ])
        .env("RUSTC_WORKSPACE_WRAPPER", root().join("fuzz/coverage"));
    step::run("fuzz", "building the fuzzer", &mut build)?;
    let all = targets()?;
    for target in &options.targets {
        let names = || all.join(", ");
        ensure!(
            all.contains(target),
            "{target} is no target; there are {}",
            names()
        );
    }
    let chosen = match options.targets.as_slice() {
        [] => &all,
        some => some,
    };
    for target in chosen {
        fuzz(target, options.seconds)?;
    }
    Ok(())
}

fn program() -> Command {
    let mut command = Command::new(root().join("target/debug/fuzz"));
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Names of all targets, as the fuzzer tells them when it is asked for none.
fn targets() -> Result<Vec<String>> {
    let mut command = program();
    command.env("AGENT_MONITOR_FUZZ_TARGET", "list");
    let output = command.output().context("cannot start the fuzzer")?;
    let names = String::from_utf8(output.stdout).context("the fuzzer's targets")?;
    let names: Vec<String> = names.lines().map(str::to_owned).collect();
    ensure!(!names.is_empty(), "the fuzzer names no targets");
    Ok(names)
}

fn fuzz(target: &str, seconds: u32) -> Result<()> {
    let corpus = root().join("target/fuzz/corpus").join(target);
    let found = root().join("target/fuzz/found");
    for dir in [&corpus, &found] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let log = root().join("target/fuzz").join(format!("{target}.log"));
    let output = fs::File::create(&log)?;
    let status = program()
        .env("AGENT_MONITOR_FUZZ_TARGET", target)
        .env("AGENT_MONITOR_FUZZ_SEEDS", &corpus)
        .arg(&corpus)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/{target}-", found.display()))
        .args([
            "-max_len=65536",
            "-timeout=20",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
        ])
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .context("cannot start the fuzzer")?;
    let text = fs::read(&log)?;
    let text = String::from_utf8_lossy(&text);
    let end: Vec<&str> = text.lines().rev().take(40).collect();
    ensure!(
        status.success(),
        "{target} has found something:\n{}\nthe log is {}",
        end.into_iter().rev().collect::<Vec<_>>().join("\n"),
        log.display()
    );
    let runs = text
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    println!(
        "{target}: {} runs, nothing found",
        runs.unwrap_or("?").trim()
    );
    Ok(())
}
