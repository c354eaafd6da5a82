//! The benchmark behind `cargo xtask bench`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use agent_monitor_tests::bench::{self, Extent, work};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    about = "Measures agent-monitor against its budgets (needs root)",
    after_help = "Exit codes: 0 every budget is met, 1 one is not, or could not be measured."
)]
struct Options {
    /// Under two minutes, less exact; BENCHMARKS.md stays as it is
    #[arg(long)]
    quick: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What the benchmark starts itself for.
#[derive(Subcommand)]
enum Role {
    /// An agent's work
    #[command(hide = true)]
    Work {
        kind: work::Kind,
        #[arg(long)]
        cgroup: PathBuf,
        #[arg(long)]
        port: u16,
    },
    /// A miner's first message
    #[command(hide = true)]
    Prove { ip: IpAddr, port: u16 },
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.role {
        Some(Role::Work { kind, cgroup, port }) => work::main(kind, &cgroup, port).map(|()| true),
        Some(Role::Prove { ip, port }) => work::prove(SocketAddr::from((ip, port))).map(|()| true),
        None => bench::run(if options.quick {
            Extent::QUICK
        } else {
            Extent::FULL
        }),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
