//! `agent-monitor status`: what the daemon watches, and whether it misses anything.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::pretty::text;
use crate::api::client::{Client, ClientError};
use crate::api::status::{State, Status};
use crate::cli::{Output, StatusArgs};
use crate::escape::escape;

/// How often a daemon that is still attaching is asked again.
const POLL: Duration = Duration::from_millis(100);

/// Runs the command.
///
/// # Errors
/// When there is no daemon, or it is not attached in the time given.
pub fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let status = runtime.block_on(async {
        match args.wait {
            Some(limit) => wait(&args.socket.socket, limit).await,
            None => Ok(ask(&args.socket.socket).await?),
        }
    })?;
    let shown = match args.output.format() {
        Output::Json => serde_json::to_string(&status)? + "\n",
        Output::Pretty => pretty(&status),
    };
    match io::stdout().write_all(shown.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

async fn ask(socket: &Path) -> Result<Status, ClientError> {
    Client::new(socket).get_json("/v1/status").await
}

async fn wait(socket: &Path, limit: Duration) -> anyhow::Result<Status> {
    let end = Instant::now() + limit;
    loop {
        let answer = tokio::time::timeout(end.duration_since(Instant::now()), ask(socket)).await;
        let limit = limit.as_secs_f64();
        let not_yet = match answer {
            Ok(Ok(status)) if status.state == State::Attached => return Ok(status),
            Ok(Ok(status)) => {
                let state = word(status.state);
                anyhow::anyhow!("agent-monitor is still {state} after {limit} s")
            }
            // It may be about to start, or to be stopped and started again.
            Ok(Err(
                error @ (ClientError::NotRunning(_)
                | ClientError::Broken(_)
                | ClientError::TimedOut(_)),
            )) => anyhow::Error::from(error).context(format!("not attached after {limit} s")),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => anyhow::anyhow!("agent-monitor does not answer within {limit} s"),
        };
        if Instant::now() + POLL >= end {
            return Err(not_yet);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How far the daemon is, in a word.
pub(super) fn word(state: State) -> &'static str {
    match state {
        State::Attaching => "attaching",
        State::Attached => "attached",
        State::Stopping => "stopping",
    }
}

fn pretty(status: &Status) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_pretty(&mut out, status);
    out
}

fn write_pretty(out: &mut String, status: &Status) -> std::fmt::Result {
    let up = text::duration(Duration::from_secs(status.uptime_seconds));
    writeln!(
        out,
        "agent-monitor {} on {}: {} (pid {}, up {up}, kernel {})",
        escape(&status.version),
        escape(&status.node),
        word(status.state),
        status.pid,
        escape(&status.kernel),
    )?;
    let counters = &status.counters;
    let (records, events) = (
        text::number(counters.records),
        text::number(counters.events),
    );
    writeln!(out, "  seen      {records} records, {events} events")?;
    let losses: Vec<_> = counters
        .losses
        .iter()
        .filter(|(_, records)| **records > 0)
        .collect();
    if losses.is_empty() {
        writeln!(out, "  lost      nothing")?;
    }
    for (stage, records) in losses {
        writeln!(
            out,
            "  lost      {} records at {}",
            text::number(*records),
            escape(stage)
        )?;
    }
    let store = &status.store;
    writeln!(
        out,
        "  stored    {}, {:.1} MiB in use",
        text::count(store.stored, "record"),
        store.bytes as f64 / f64::from(1 << 20)
    )?;
    if let Some(error) = &store.error {
        let waiting = text::count(store.pending, "record");
        writeln!(
            out,
            "  stored    not now, {waiting} waiting: {}",
            escape(error)
        )?;
    }
    let programs = text::count(status.programs.len() as u64, "program");
    let places: u64 = status
        .programs
        .values()
        .map(|places| u64::from(*places))
        .sum();
    writeln!(
        out,
        "  attached  {programs}, {}",
        text::count(places, "attachment")
    )?;
    writeln!(
        out,
        "  rules     {} since {}",
        text::count(status.rules.enabled as u64, "rule"),
        escape(&status.rules.since)
    )?;
    if let Some(error) = &status.rules.error {
        writeln!(
            out,
            "  rules     could not be read again, the old ones stay:"
        )?;
        for line in error.lines() {
            writeln!(out, "            {}", escape(line))?;
        }
    }
    if let Some(pins) = &status.pinned {
        writeln!(out, "  pinned    {}", escape(pins))?;
    }

    writeln!(out, "\nAgents: {}", status.agents.len())?;
    for agent in &status.agents {
        let covered = if agent.attached {
            "covered"
        } else {
            "not covered"
        };
        let name = text::column(&escape(&agent.name), 24);
        write!(
            out,
            "  {name}  {}, {covered}, {}",
            escape(&agent.state),
            text::count(agent.events, "event")
        )?;
        if agent.lost > 0 {
            write!(out, ", {} lost", text::number(agent.lost))?;
            let stages = agent.losses.keys().map(|stage| escape(stage));
            let stages: Vec<_> = stages.collect();
            if !stages.is_empty() {
                write!(out, " at {}", stages.join(", "))?;
            }
        }
        writeln!(out, "  {}", escape(&agent.cgroup))?;
    }
    if !status.sinks.is_empty() {
        writeln!(out, "\nSinks: {}", status.sinks.len())?;
    }
    for sink in &status.sinks {
        let name = text::column(&escape(&sink.name), 24);
        let behind = text::number(sink.lag);
        write!(
            out,
            "  {name}  delivered up to {}, {behind} behind",
            sink.cursor
        )?;
        if sink.dead_letters > 0 {
            let letters = text::count(sink.dead_letters, "dead letter");
            write!(out, ", {letters}")?;
        }
        if let Some(error) = &sink.last_error {
            write!(out, ", last error: {}", escape(error))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::{AgentStatus, Counters, SinkStatus, StoreStatus};
    use crate::rules::reload::Loaded;

    #[test]
    fn everything_a_person_needs_is_shown_and_nothing_of_an_agent_is_obeyed() {
        let status = Status {
            version: "0.1.0".into(),
            node: "node-1".into(),
            pid: 4242,
            uptime_seconds: 3723,
            state: State::Attached,
            kernel: "6.1.0".into(),
            agents: vec![
                AgentStatus {
                    id: "3f2a".into(),
                    name: "web\x1b[2J".into(),
                    cgroup: "/agents/web".into(),
                    state: "watched".into(),
                    attached: true,
                    events: 12_345,
                    ..AgentStatus::default()
                },
                AgentStatus {
                    name: "db".into(),
                    cgroup: "/agents/db".into(),
                    state: "tentative".into(),
                    events: 1,
                    lost: 7,
                    losses: [("held".into(), 4), ("quota".into(), 3)].into(),
                    ..AgentStatus::default()
                },
            ],
            programs: [("connect4".into(), 3), ("sched_exec".into(), 1)].into(),
            counters: Counters {
                records: 20_000,
                events: 12_346,
                losses: [("quota".into(), 7), ("ring".into(), 0)].into(),
            },
            rules: Loaded {
                enabled: 11,
                since: "2026-01-31T12:00:00Z".into(),
                error: Some("x.yaml:1: a rule has no `id`\nx\x1b[2J.yaml:2: …".into()),
                ..Loaded::default()
            },
            store: StoreStatus {
                error: Some("the disk\x1b is full".into()),
                bytes: 3 << 19,
                stored: 1_234,
                pending: 2,
                ..StoreStatus::default()
            },
            sinks: vec![SinkStatus {
                name: "siem".into(),
                cursor: 120,
                lag: 3,
                dead_letters: 2,
                last_error: Some("connection refused".into()),
                ..SinkStatus::default()
            }],
            ..Status::default()
        };
        assert_eq!(
            pretty(&status),
            r"agent-monitor 0.1.0 on node-1: attached (pid 4242, up 1h 2m 3s, kernel 6.1.0)
  seen      20,000 records, 12,346 events
  lost      7 records at quota
  stored    1,234 records, 1.5 MiB in use
  stored    not now, 2 records waiting: the disk\u{1b} is full
  attached  2 programs, 4 attachments
  rules     11 rules since 2026-01-31T12:00:00Z
  rules     could not be read again, the old ones stay:
            x.yaml:1: a rule has no `id`
            x\u{1b}[2J.yaml:2: …

Agents: 2
  web\u{1b}[2J              watched, covered, 12,345 events  /agents/web
  db                        tentative, not covered, 1 event, 7 lost at held, quota  /agents/db

Sinks: 1
  siem                      delivered up to 120, 3 behind, 2 dead letters, last error: connection refused
"
        );
    }
}
