//! What was done and what was said of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

/// How many failures are told of in full.
const FAILURES: usize = 10;

/// What became of a load.
#[derive(Debug, Default)]
pub struct Report {
    /// How long it took.
    pub seconds: f64,
    /// Processor time of the daemon.
    pub daemon_seconds: f64,
    /// Processor time of the agent and its internet.
    pub load_seconds: f64,
    works: BTreeMap<String, Count>,
    failures: Vec<String>,
    events: BTreeMap<String, u64>,
    /// Incidents by rule and the severity of each revision, with an example.
    alerts: BTreeMap<(String, String), (u64, String)>,
    losses: Vec<String>,
}

#[derive(Debug, Default)]
struct Count {
    done: u64,
    failed: u64,
}

impl Report {
    /// A piece of work has ended.
    pub(super) fn done(&mut self, name: &str, result: Result<()>) {
        let count = self.works.entry(name.to_owned()).or_default();
        match result {
            Ok(()) => count.done += 1,
            Err(error) => {
                count.failed += 1;
                self.failures.push(format!("{name}: {error:#}"));
            }
        }
    }

    /// Counts what the daemon has told.
    pub(super) fn take_in(&mut self, events: &[Value]) {
        for event in events {
            let kind = event["kind"].as_str().unwrap_or("not an event");
            *self.events.entry(kind.to_owned()).or_default() += 1;
            match kind {
                "alert" => {
                    let text = |member: &str| event["alert"][member].as_str().unwrap_or("?");
                    let key = (text("rule").to_owned(), text("severity").to_owned());
                    let example = || (0, text("summary").to_owned());
                    self.alerts.entry(key).or_insert_with(example).0 += 1;
                }
                "loss" => self.losses.push(event["loss"].to_string()),
                // The daemon's own end is a gap of no agent.
                "gap" if !event["agent"].is_null() => self.losses.push(event["gap"].to_string()),
                _ => {}
            }
        }
    }

    /// Whether everything was done at least once, nothing was lost, and no alert was
    /// more than worth knowing.
    pub fn is_silent(&self) -> bool {
        let undone = self.works.values().any(|count| count.done == 0);
        let alarmed = self.alerts.keys().any(|(_, severity)| severity != "info");
        !undone && !alarmed && self.losses.is_empty() && !self.events.contains_key("not an event")
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{:<28} {:>6} {:>7}", "work", "done", "failed");
        for (name, count) in &self.works {
            let _ = writeln!(text, "{name:<28} {:>6} {:>7}", count.done, count.failed);
        }
        let _ = writeln!(text, "\n{:<28} {:>6}", "events", "seen");
        for (kind, count) in &self.events {
            let _ = writeln!(text, "{kind:<28} {count:>6}");
        }
        let total: u64 = self.events.values().sum();
        let _ = writeln!(text, "{:<28} {total:>6}", "all");
        let _ = writeln!(text, "\n{:<28} {:<8} {:>6}", "alerts", "severity", "told");
        for ((rule, severity), (count, example)) in &self.alerts {
            let _ = writeln!(text, "{rule:<28} {severity:<8} {count:>6}   {example}");
        }
        if self.alerts.is_empty() {
            let _ = writeln!(text, "none");
        }
        let _ = writeln!(text, "\nlosses and gaps: {}", self.losses.len());
        for loss in &self.losses {
            let _ = writeln!(text, "  {loss}");
        }
        for failure in self.failures.iter().take(FAILURES) {
            let _ = writeln!(text, "failed: {failure}");
        }
        let percent = |seconds: f64| 100.0 * seconds / self.seconds.max(f64::MIN_POSITIVE);
        let _ = writeln!(
            text,
            "\n{:.0} s; of one core, the load used {:.1} % and the daemon {:.1} %",
            self.seconds,
            percent(self.load_seconds),
            percent(self.daemon_seconds)
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use serde_json::{Value, json};

    use super::Report;

    fn told(event: Value) -> Report {
        let mut report = Report::default();
        report.done("work", Ok(()));
        report.take_in(&[event]);
        report
    }

    #[test]
    fn what_is_only_worth_knowing_is_silence() {
        let alert =
            |severity| json!({"kind": "alert", "alert": {"rule": "r", "severity": severity}});
        assert!(told(alert("info")).is_silent());
        assert!(!told(alert("low")).is_silent());
    }

    #[test]
    fn a_loss_is_no_silence() {
        assert!(!told(json!({"kind": "loss", "loss": {"records": 1}})).is_silent());
        assert!(!told(json!({"kind": "gap", "agent": {"id": "a"}, "gap": {}})).is_silent());
        assert!(told(json!({"kind": "gap", "gap": {}})).is_silent());
    }

    #[test]
    fn what_never_succeeded_was_not_tested() {
        let mut report = told(json!({"kind": "exec"}));
        report.done("other", Err(anyhow!("no")));
        assert!(!report.is_silent());
        report.done("other", Ok(()));
        assert!(report.is_silent());
    }
}
