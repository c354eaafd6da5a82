//! agent-monitor's own tasks, run as `cargo xtask <task>`.

mod bench;
mod demo;
mod dist;
mod fuzz;
mod setup;
mod step;
mod test;
mod vm;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

/// agent-monitor's own tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Set up, build for release, and measure agent-monitor against its budgets; needs root.
    Bench(bench::Options),
    /// Install what building and testing need and this machine lacks; the only task that uses the network.
    Setup,
    /// Set up, build, and show agent-monitor beside an agent that tunnels and mines; needs root.
    Demo(demo::Options),
    /// Set up, make a static binary and a Debian package in target/dist, and try them; needs root.
    Dist(dist::Options),
    /// Build a fuzzer and run it on everything that reads hostile bytes.
    Fuzz(fuzz::Options),
    /// Set up, then run every check and test of the workspace.
    Test(test::Options),
    /// Set up, then try the same binary on stock kernels in emulated machines.
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Bench(options) => bench::run(&options),
        Task::Setup => setup::run(),
        Task::Demo(options) => demo::run(&options),
        Task::Dist(options) => dist::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Vm(options) => vm::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's folder.
fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A folder of the workspace always has a parent; the fallback is unreachable.
    own.parent().unwrap_or(own)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
