//! From the last byte that proves something to the line on `tail`.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Extent;
use super::daemon::Daemon;
use super::judge::{Row, Verdict};
use super::work::{Kind, Server, Worker, now};
use crate::cgroup::Cgroup;

/// Proofs of one agent: fewer than the incidents it may cause in a minute.
const OF_AN_AGENT: usize = 50;
/// How long to wait for lines that have not come.
const PATIENCE: Duration = Duration::from_secs(5);
/// The budget, milliseconds.
const BUDGET: f64 = 20.0;

/// Times proofs of mining: a client's first message, each from a process of its
/// own to an address of its own.
///
/// # Errors
/// When an agent cannot do its work.
pub fn measure(extent: Extent) -> Result<Row> {
    eprintln!("{} proofs", extent.proofs);
    let port = Server::Keep.start()?;
    let agents: Vec<Removed> = (0..extent.proofs.div_ceil(OF_AN_AGENT))
        .map(|n| Ok(Removed(Cgroup::create(&format!("bench-proof-{n}"))?)))
        .collect::<Result<_>>()?;
    let daemon = Daemon::start()?;
    let (mut tail, alerts) = follow(&daemon)?;
    let mut times = Vec::new();
    let mut sent_all = 0;
    for agent in &agents {
        let mut worker = Worker::start(Kind::Proof, &agent.0, port, &[])?;
        let mut sent = HashMap::new();
        for _ in 0..OF_AN_AGENT.min(extent.proofs - sent_all) {
            worker.order(1)?;
            let line = worker.answer()?;
            let (to, at) = line.split_once(' ').context("where to and when")?;
            sent.insert(to.to_owned(), at.parse::<u64>()?);
            worker.answer()?;
            sent_all += 1;
        }
        while !sent.is_empty() {
            let Ok((to, at)) = alerts.recv_timeout(PATIENCE) else {
                break;
            };
            if let Some(sent) = sent.remove(&to) {
                times.push(at.saturating_sub(sent) as f64 / 1e6);
            }
        }
    }
    // Fails only when it has ended already.
    let _ = tail.kill();
    let _ = tail.wait();
    times.sort_by(f64::total_cmp);
    Ok(row(&times, sent_all))
}

fn row(times: &[f64], sent: usize) -> Row {
    let (what, budget) = ("last byte of proof → alert on tail", "p99 ≤ 20 ms");
    let at = |part: f64| {
        let place = ((times.len() as f64 * part).ceil() as usize).clamp(1, times.len());
        times[place - 1]
    };
    if times.is_empty() {
        return Row::new(what, budget, "no alert came".to_owned(), Verdict::Missed);
    }
    let missing = sent - times.len();
    let verdict = if missing > 0 || at(0.99) > BUDGET {
        Verdict::Missed
    } else if times.len() < 100 {
        // The 99th percentile of fewer is their maximum.
        Verdict::Inconclusive
    } else {
        Verdict::Met
    };
    let figure = format!(
        "p99 {:.1} ms, median {:.1}, worst {:.1} of {sent}, {missing} never came",
        at(0.99),
        at(0.5),
        at(1.0)
    );
    Row::new(what, budget, figure, verdict)
}

/// Starts `tail`; gives the remote address of each alert and when its line came.
fn follow(daemon: &Daemon) -> Result<(Child, Receiver<(String, u64)>)> {
    let mut tail = daemon
        .site()
        .command(&["tail", "--output", "json", "--kind", "alert"])?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start agent-monitor tail")?;
    let lines = tail.stdout.take().context("tail has no output")?;
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(lines).lines().map_while(Result::ok) {
            let at = now();
            let Some(to) = address(&line) else { continue };
            if send.send((to, at)).is_err() {
                break;
            }
        }
    });
    Ok((tail, receive))
}

/// The address of this benchmark's in an alert's text.
fn address(line: &str) -> Option<String> {
    let alert: Value = serde_json::from_str(line).ok()?;
    let text = alert["alert"].to_string();
    let begin = text.find("127.77.")?;
    let rest = &text[begin..];
    let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
    Some(rest[..end].to_owned())
}

/// A cgroup that is removed on drop, with what is in it.
struct Removed(Cgroup);

impl Drop for Removed {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove() {
            eprintln!("{error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_told_by_the_address_it_names() {
        let line = r#"{"kind":"alert","alert":{"summary":"to 127.77.0.9:3333"}}"#;
        assert_eq!(address(line).as_deref(), Some("127.77.0.9"));
        assert_eq!(address(r#"{"alert":{"summary":"other"}}"#), None);
    }

    #[test]
    fn a_proof_that_never_came_is_a_miss_and_few_proofs_decide_nothing() {
        assert_eq!(row(&[1.0; 200], 200).verdict, Verdict::Met);
        assert_eq!(row(&[1.0; 199], 200).verdict, Verdict::Missed);
        assert_eq!(row(&[1.0; 50], 50).verdict, Verdict::Inconclusive);
        assert_eq!(row(&[], 50).verdict, Verdict::Missed);
    }
}
