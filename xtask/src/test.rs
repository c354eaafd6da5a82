//! `cargo xtask test`: every check and test, in the order that fails soonest.

use std::io::{BufRead as _, BufReader};
use std::ops::AddAssign;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::setup::requirements::DEBIAN_CORE;
use crate::setup::{self, cargo};
use crate::{is_root, root};

/// How to run the tests.
#[derive(clap::Args)]
pub struct Options {
    /// Leave out the end-to-end suites, which need root.
    #[arg(long)]
    no_root: bool,
}

/// Tests among the user side's own that fail without root.
const NEED_ROOT: [&str; 8] = [
    "a_cgroup_s_id_is_the_kernel_s_and_leads_back_to_its_path",
    "a_process_s_path_in_proc_is_the_path_below_the_mount",
    "every_hook_can_be_tried_and_leaves_nothing_behind",
    "doctor_says_that_run_can_work_and_every_hook_was_tried",
    "a_hook_on_what_is_no_cgroup_is_refused_at_attach",
    "strangers_are_refused_even_where_the_file_lets_them_in",
    "rules_are_reloaded_for_root_alone_and_problems_are_told",
    "who_is_kept_out_by_the_mode_is_told_so",
];

/// One line of the plan.
struct Step {
    name: &'static str,
    command: Command,
}

/// What libtest counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Runs setup, then every step up to the first that fails.
///
/// # Errors
/// When setup or a step fails; the summary on stdout says which.
pub fn run(options: &Options) -> Result<()> {
    setup::run()?;
    let mut total = Counts::default();
    let mut summary = Vec::new();
    let mut failed = None;
    for Step { name, mut command } in plan(options) {
        println!("\n=== {name}");
        let began = Instant::now();
        let done = run_step(&mut command, &mut total);
        let ok = matches!(done, Ok(true));
        summary.push(line(
            name,
            if ok { "ok" } else { "FAILED" },
            began.elapsed(),
        ));
        if let Err(error) = done {
            eprintln!("error: {error:#}");
        }
        if !ok {
            failed = Some(name);
            break;
        }
    }
    println!("\n{}", summary.join("\n"));
    if options.no_root {
        println!(
            "not run (--no-root): the end-to-end suites, and {}",
            NEED_ROOT.join(", ")
        );
    }
    if let Some(name) = failed {
        println!("stopped at: {name}");
    }
    if total.ignored > 0 {
        println!("{} ignored", total.ignored);
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    match failed {
        Some("end-to-end") if !is_root() => bail!(
            "the end-to-end suites load eBPF programs and start containers, which only root may: run \
             `sudo -E env PATH=\"$PATH\" cargo xtask test`, or leave them out with --no-root"
        ),
        Some(name) => bail!("{name} failed"),
        None => Ok(()),
    }
}

fn plan(options: &Options) -> Vec<Step> {
    // The eBPF crate compiles for its own target only.
    let user_side = ["--workspace", "--exclude", "agent-monitor-ebpf", "--locked"];
    let step = |name, args: &[&str]| {
        let mut command = cargo();
        command.args(args);
        Step { name, command }
    };
    let mut steps = vec![step("format", &["fmt", "--all", "--check"])];
    let mut lint = cargo();
    lint.arg("clippy")
        .args(user_side)
        .args(["--all-targets", "--", "-D", "warnings"]);
    steps.push(Step {
        name: "clippy",
        command: lint,
    });
    steps.push(Step {
        name: "clippy, eBPF side",
        command: ebpf_clippy(),
    });
    let mut deny = Command::new(root().join("target/tools/bin/cargo-deny"));
    // Advisories would have to be downloaded.
    deny.args(["--offline", "check", "licenses", "bans", "sources"]);
    steps.push(Step {
        name: "licences and sources of crates",
        command: deny,
    });
    let mut doc = cargo();
    doc.arg("doc")
        .args(user_side)
        .arg("--no-deps")
        .env("RUSTDOCFLAGS", "-D warnings");
    steps.push(Step {
        name: "documentation",
        command: doc,
    });
    // The end-to-end suites start target/debug/agent-monitor, which `cargo test` need not build.
    let mut build = cargo();
    build.arg("build").args(user_side);
    steps.push(Step {
        name: "build",
        command: build,
    });
    let mut unit = cargo();
    unit.arg("test")
        .args(user_side)
        .args(["--exclude", "agent-monitor-tests", "--no-fail-fast"]);
    if options.no_root {
        unit.arg("--");
        unit.args(NEED_ROOT.iter().flat_map(|name| ["--skip", name]));
    }
    steps.push(Step {
        name: "unit, CLI and doc tests",
        command: unit,
    });
    let seconds = ["xtask", "fuzz", "--seconds", "5"];
    steps.push(step("fuzz, 5 s each", &seconds));
    if !options.no_root {
        // They share the kernel's and Docker's state: one at a time.
        let args = [
            "test",
            "--package",
            "agent-monitor-tests",
            "--locked",
            "--no-fail-fast",
            "--",
            "--test-threads=1",
        ];
        steps.push(step("end-to-end", &args));
        steps.push(demo("demo", &[]));
        steps.push(demo(
            "demo notices a missing detector",
            &["--mutate", "mining-pool-protocol"],
        ));
    }
    steps.push(step("stock kernels", &["xtask", "vm"]));
    if !options.no_root {
        // Last: it puts a static binary where the other steps expect their own.
        steps.push(step("package", &["xtask", "dist", "--debug"]));
    }
    steps
}

/// `cargo xtask demo` with `args`.
fn demo(name: &'static str, args: &[&str]) -> Step {
    let mut command = cargo();
    command
        .args(["run", "--quiet", "--package=xtask", "--", "demo"])
        .args(args);
    Step { name, command }
}

/// Lints the eBPF crate for its target with the compiler that builds it.
fn ebpf_clippy() -> Command {
    let package = [
        "--package",
        "agent-monitor-ebpf",
        "--locked",
        "--target",
        "bpfel-unknown-none",
    ];
    let mut command;
    if Path::new(DEBIAN_CORE).exists() {
        // By its path: `cargo clippy` would find rustup's clippy first. Its own
        // target folder keeps the two compilers from rebuilding each other's work.
        command = Command::new("/usr/bin/cargo-clippy");
        command
            .arg("clippy")
            .args(["--target-dir", "target/ebpf"])
            .env("CARGO", "/usr/bin/cargo")
            .env("RUSTC", "/usr/bin/rustc")
            .env("RUSTC_BOOTSTRAP", "aya_ebpf,agent_monitor_ebpf")
            .env_remove("RUSTUP_TOOLCHAIN");
    } else {
        command = Command::new("rustup");
        command
            .args(["run", "nightly", "cargo", "clippy", "-Z", "build-std=core"])
            .args(["--target-dir", "target/ebpf"])
            .env_remove("CARGO");
    }
    command.args(package).args(["--", "-D", "warnings"]);
    command
}

/// Passes the step's output on, line by line, and adds up what its tests report.
fn run_step(command: &mut Command, total: &mut Counts) -> Result<bool> {
    let program = command.get_program().to_owned();
    let mut child = command
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("cannot read the step's output")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            if let Some(counts) = test_result(&line) {
                *total += counts;
            }
        }
    }
    Ok(child.wait()?.success())
}

/// Reads libtest's `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn test_result(line: &str) -> Option<Counts> {
    let (_, counted) = line
        .trim_start()
        .strip_prefix("test result: ")?
        .split_once(". ")?;
    let mut counts = Counts::default();
    for part in counted.split("; ") {
        match part.split_once(' ') {
            Some((number, "passed")) => counts.passed = number.parse().ok()?,
            Some((number, "failed")) => counts.failed = number.parse().ok()?,
            Some((number, "ignored")) => counts.ignored = number.parse().ok()?,
            _ => {}
        }
    }
    Some(counts)
}

fn line(name: &str, outcome: &str, took: Duration) -> String {
    format!("{name:<34} {outcome:<6} {:>7.1} s", took.as_secs_f64())
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_libtest_counted() {
        let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        assert_eq!(
            test_result(line),
            Some(Counts {
                passed: 12,
                failed: 0,
                ignored: 1
            })
        );
        let line = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.00s";
        assert_eq!(
            test_result(line),
            Some(Counts {
                passed: 1,
                failed: 2,
                ignored: 0
            })
        );
        assert_eq!(test_result("test tests::reads ... ok"), None);
        assert_eq!(test_result("running 3 tests"), None);
    }

    #[test]
    fn sums_the_results_of_a_step_and_reports_its_failure() {
        let mut total = Counts::default();
        let text = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; \
                    echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored'; exit 1";
        let ok = run_step(Command::new("sh").args(["-c", text]), &mut total).unwrap();
        assert!(!ok);
        assert_eq!(
            total,
            Counts {
                passed: 3,
                failed: 1,
                ignored: 0
            }
        );
    }

    #[test]
    fn end_to_end_suites_are_left_out_only_when_asked() {
        let names = |no_root| {
            plan(&Options { no_root })
                .iter()
                .map(|step| step.name)
                .collect::<Vec<_>>()
        };
        assert!(names(false).contains(&"end-to-end"));
        assert!(!names(true).contains(&"end-to-end"));
    }
}
