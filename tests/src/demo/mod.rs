//! `cargo xtask demo`: agent-monitor beside an agent in a container, which works,
//! opens a reverse tunnel and mines, all on this machine.

pub mod acts;
pub mod judge;
pub mod monitor;
pub mod show;

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use self::acts::{ACTS, Act};
use self::judge::Incident;
use self::monitor::Monitor;
use crate::agent::Agent;
use crate::docker::Docker;
use crate::scenario;
use crate::wait;
use crate::world::World;

/// What the agent is called, before the dot.
const NAME: &str = "demo-agent";
/// How long an alert may take after an act before it counts as not seen.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long any other event may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Between acts, for whoever reads along.
const PAUSE: Duration = Duration::from_millis(700);

/// Runs the demo with the `agent-monitor` at `program`; `plain` asks for an agent
/// without Docker. Everything made is removed again, whatever happens.
///
/// # Errors
/// When the demo could not be run. That alerts differ from what is expected is
/// no error but in the result.
pub fn run(program: &Path, plain: bool) -> Result<show::Result> {
    let began = Instant::now();
    let expected = acts::expected()?;
    let world = World::new("demo")?;
    let docker = docker(plain)?;
    let name = format!("{NAME}.{}", world.id());
    let selector = match &docker {
        Some(_) => format!("docker:{name}"),
        None => format!("cgroup:/agent-monitor-test/{name}"),
    };
    let host = docker.as_deref().and_then(Docker::host);
    show::note(&format!("starting agent-monitor run --agent {selector}"));
    let mut monitor = Monitor::start(program, world.dir(), &selector, host)?;
    show::note("agent-monitor is attached; below is agent-monitor tail, live\n");
    let agent = match docker {
        Some(_) => Agent::docker(&world, NAME)?,
        None => Agent::cgroup(&world, NAME)?,
    };
    monitor.wait_for("the agent to appear", TIMEOUT, |it| {
        it.kind() == "agent" && it.event["agent"]["name"] == agent.name()
    })?;
    for (number, act) in ACTS.iter().enumerate() {
        sleep(PAUSE);
        if wait::interrupted() {
            bail!("interrupted");
        }
        show::heading(number + 1, act);
        monitor.begin(number);
        play(act, &agent)?;
        settle(&mut monitor, &expected, number, &agent)?;
    }
    let losses = monitor.status()?.counters.losses;
    sleep(PAUSE);
    let arrived = monitor.stop()?;
    Ok(show::Result {
        verdict: judge::judge(&expected, &arrived),
        arrived,
        losses,
        took: began.elapsed(),
    })
}

/// Docker with the agent's image, unless it cannot be had or is not wanted.
fn docker(plain: bool) -> Result<Option<Arc<Docker>>> {
    const INSTEAD: &str = "the agent is a plain cgroup with namespaces of its own instead";
    if plain {
        show::note(&format!("as asked, no Docker: {INSTEAD}"));
        return Ok(None);
    }
    show::note("starting Docker and importing the agent's image, unless they are there");
    match Docker::shared() {
        Ok(docker) => Ok(Some(docker)),
        Err(error) if wait::interrupted() => Err(error),
        Err(error) => {
            eprintln!("Docker cannot be started ({error:#}): {INSTEAD}");
            Ok(None)
        }
    }
}

fn play(act: &Act, agent: &Agent) -> Result<()> {
    for name in act.scenarios {
        (scenario::find(name)?.run)(agent)?;
    }
    Ok(())
}

/// Waits for the alerts that are expected of the act, and then until everything
/// the agent did in it has arrived.
fn settle(
    monitor: &mut Monitor,
    expected: &[Vec<Incident>],
    act: usize,
    agent: &Agent,
) -> Result<()> {
    // An alert that does not come is for the verdict to tell.
    let _ = wait::until("the alerts", PATIENCE, || {
        let verdict = judge::judge(expected, &monitor.arrived());
        Ok(verdict.has_all_of(act).then_some(()))
    });
    // Events keep their order: when this one is here, so are those before it.
    let fence = format!("end of act {}", act + 1);
    agent.run(&["echo", &fence])?;
    monitor.wait_for(&fence, TIMEOUT, |it| {
        it.event["exec"]["argv"][1] == fence.as_str()
    })
}
