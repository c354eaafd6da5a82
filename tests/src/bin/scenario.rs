//! Runs a scenario by hand, so that a monitor can be attached to its agent first.

use std::io::{BufRead, stdin};
use std::time::Duration;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::scenario::{SCENARIOS, find};
use agent_monitor_tests::world::World;
use agent_monitor_tests::{docker, leftovers};
use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(about = "Runs one of the rig's scenarios by hand (needs root)")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show all scenarios and the alert each must raise.
    List,
    /// Run one.
    Run {
        /// Its name.
        name: String,
        /// What the agent is made of.
        #[arg(long, value_enum, default_value_t = Kind::Docker)]
        agent: Kind,
        /// Seconds to wait before it starts.
        #[arg(long, default_value_t = 0)]
        pause_before: u64,
        /// Wait for a newline on stdin before it starts.
        #[arg(long)]
        wait: bool,
    },
    /// Remove what killed runs left behind.
    Clean,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// A container.
    Docker,
    /// A plain cgroup.
    Cgroup,
}

fn main() -> Result<()> {
    match Options::parse().command {
        Command::List => {
            for it in SCENARIOS {
                let alert = it.alert.unwrap_or("silent");
                println!("{:<32} {:<22} {}", it.name, alert, it.about);
            }
        }
        Command::Run {
            name,
            agent,
            pause_before,
            wait,
        } => {
            let scenario = find(&name)?;
            let world = World::new(&name)?;
            let agent = match agent {
                Kind::Docker => Agent::docker(&world, "agent")?,
                Kind::Cgroup => Agent::cgroup(&world, "agent")?,
            };
            println!("agent: {}", agent.name());
            println!("address: {}", agent.address());
            println!("cgroup: {}", agent.group().dir().display());
            println!("selector: {}", agent.selector());
            if let Some(host) = agent.docker_host() {
                println!("docker host: {host}");
            }
            if wait {
                println!("press Enter to start {name}");
                stdin().lock().read_line(&mut String::new())?;
            }
            std::thread::sleep(Duration::from_secs(pause_before));
            let outcome = (scenario.run)(&agent)?;
            println!(
                "done: {} exchanges, {} bytes, with {}",
                outcome.exchanged.exchanges, outcome.exchanged.bytes, outcome.remote
            );
        }
        Command::Clean => {
            leftovers::remove();
            docker::clean()?;
        }
    }
    Ok(())
}
