//! An agent that does nothing but what a test has it do, and its events.

use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::agent::Agent;
use crate::monitor::{Monitor, SOON};
use crate::world::World;

/// A watched agent in a world of its own.
#[derive(Debug)]
pub struct Watched {
    // The first to be dropped: its agent is still there then.
    monitor: Monitor,
    /// The agent.
    pub agent: Agent,
    /// Its internet.
    pub world: Arc<World>,
}

impl Watched {
    /// A plain cgroup, watched.
    ///
    /// # Errors
    /// When there is no root, or agent-monitor does not start.
    pub fn cgroup(name: &str) -> Result<Self> {
        Self::new(name, Agent::cgroup)
    }

    /// A Docker container, watched.
    ///
    /// # Errors
    /// As [`Watched::cgroup`], or when Docker cannot be had.
    pub fn docker(name: &str) -> Result<Self> {
        Self::new(name, Agent::docker)
    }

    fn new(name: &str, make: fn(&Arc<World>, &str) -> Result<Agent>) -> Result<Self> {
        let world = World::new(name)?;
        let agent = make(&world, "agent")?;
        let monitor = Monitor::of(&agent)?;
        Ok(Self {
            monitor,
            agent,
            world,
        })
    }

    /// Runs a Python script in the agent to its end; gives its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn python(&self, script: &str, args: &[&str]) -> Result<String> {
        self.agent
            .run(&[&["python3", "-u", "-c", script], args].concat())
    }

    /// The daemon.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Everything the agent has done, in order.
    ///
    /// # Errors
    /// When agent-monitor has not told it, or does not end well.
    pub fn events(self) -> Result<Events> {
        self.monitor.catch_up(&self.agent)?;
        Ok(Events(self.monitor.stop()?))
    }

    /// Ends the daemon; gives what it has told.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop(self) -> Result<Events> {
        Ok(Events(self.monitor.stop()?))
    }

    /// The end of the flow with this other end, once it has come: `closed` or `failed`.
    ///
    /// # Errors
    /// When it does not come.
    pub fn end_of_flow(&self, remote: &str) -> Result<Value> {
        self.monitor.wait_for("the end of a flow", SOON, |event| {
            let flow = &event["flow"];
            (flow["state"] == "closed" || flow["state"] == "failed")
                && address(&flow["remote"]) == remote
        })
    }
}

/// Events of a daemon, in the order they were told.
#[derive(Debug)]
pub struct Events(pub Vec<Value>);

impl Events {
    /// Those of this kind.
    pub fn of_kind(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|it| it["kind"] == kind).collect()
    }

    /// All but the daemon's own end, which is of no agent.
    pub fn of_agents(&self) -> impl Iterator<Item = &Value> {
        let end = |it: &Value| it["kind"] == "gap" && it["agent"].is_null();
        self.0.iter().filter(move |it| !end(it))
    }

    /// The only event of this kind for which `is_it`.
    ///
    /// # Errors
    /// There is none or more than one, with all of this kind.
    pub fn only(&self, kind: &str, is_it: impl Fn(&Value) -> bool) -> Result<&Value> {
        let all = self.of_kind(kind);
        let mut found = all.iter().filter(|event| is_it(event));
        match (found.next(), found.next()) {
            (Some(event), None) => Ok(event),
            (found, _) => {
                let all: Vec<_> = all.iter().map(|event| event.to_string()).collect();
                let how_many = if found.is_some() { "several" } else { "none" };
                None.with_context(|| format!("{how_many} such among:\n{}", all.join("\n")))
            }
        }
    }

    /// The only exec event whose last argument is `mark`.
    ///
    /// # Errors
    /// As [`Events::only`].
    pub fn exec(&self, mark: &str) -> Result<&Value> {
        self.only("exec", |event| {
            let argv = event["exec"]["argv"].as_array();
            argv.and_then(|argv| argv.last())
                .is_some_and(|it| it == mark)
        })
    }
}

/// `{"ip":…,"port":…}` as `ip:port`, without brackets; empty when it is none.
pub fn address(value: &Value) -> String {
    match (value["ip"].as_str(), value["port"].as_u64()) {
        (Some(ip), Some(port)) => format!("{ip}:{port}"),
        _ => String::new(),
    }
}
