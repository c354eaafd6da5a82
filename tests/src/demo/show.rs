//! What the demo says around the live events.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use anstyle::{AnsiColor, Style};

use super::acts::{ACTS, Act};
use super::judge::{Arrived, Incident, Outcome, Seen, Verdict};
use super::monitor::time;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// What a demo has come to.
#[derive(Debug)]
pub struct Result {
    /// The incidents.
    pub verdict: Verdict,
    /// Everything that arrived.
    pub arrived: Vec<Arrived>,
    /// Records lost, by the stage that lost them.
    pub losses: BTreeMap<String, u64>,
    /// From the first process to the end of the last act.
    pub took: Duration,
}

impl Result {
    /// True when the demo succeeded.
    pub fn is_met(&self) -> bool {
        self.verdict.is_met() && !self.has_losses()
    }

    fn has_losses(&self) -> bool {
        self.losses.values().any(|records| *records > 0)
            || self.arrived.iter().any(|it| it.kind() == "loss")
    }
}

/// A line of the demo's own, dimmed: what is being set up.
pub fn note(text: &str) {
    anstream::println!("{DIM}{text}{DIM:#}");
}

/// The heading of an act.
pub fn heading(number: usize, act: &Act) {
    let (count, title, about) = (ACTS.len(), act.title, act.about);
    anstream::println!("\n{BOLD}=== {number}/{count} {title}{BOLD:#}\n    {DIM}{about}{DIM:#}");
}

/// The summary, as text with colours.
pub fn summary(result: &Result) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_summary(&mut out, result);
    out
}

fn write_summary(out: &mut String, result: &Result) -> std::fmt::Result {
    writeln!(out, "\n{BOLD}=== Summary{BOLD:#}")?;
    for (index, act) in ACTS.iter().enumerate() {
        writeln!(out, "{}. {}", index + 1, act.title)?;
        let outcomes = result.verdict.outcomes.iter();
        let mut outcomes = outcomes.filter(|outcome| outcome.act == index).peekable();
        let unexpected = result.verdict.unexpected.iter();
        let mut unexpected = unexpected.filter(|seen| seen.act == index).peekable();
        if outcomes.peek().is_none() && unexpected.peek().is_none() {
            line(out, true, "no alert", "")?;
        }
        outcomes.try_for_each(|outcome| write_outcome(out, outcome))?;
        for seen in unexpected {
            let what = format!("unexpected: {}", words(&seen.incident));
            line(out, false, &what, &seen.summary)?;
        }
    }
    writeln!(out)?;
    write_counts(out, result)?;
    let met = result.verdict.outcomes.iter().filter(|it| it.is_met());
    let (met, all) = (met.count(), result.verdict.outcomes.len());
    let unexpected = result.verdict.unexpected.len();
    let (style, word) = match result.is_met() {
        true => (GOOD, "PASSED"),
        false => (BAD, "FAILED"),
    };
    writeln!(
        out,
        "{style}{word}{style:#}: {met} of {all} expected incidents, {unexpected} unexpected"
    )
}

fn write_outcome(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let wanted = words(&outcome.expected);
    match &outcome.seen {
        None => line(out, false, &wanted, "not seen"),
        Some(seen) if outcome.is_met() => line(out, true, &wanted, &times(seen)),
        Some(seen) => {
            line(out, false, &wanted, "expected, but differs:")?;
            line(out, false, &words(&seen.incident), &times(seen))
        }
    }
}

fn write_counts(out: &mut String, result: &Result) -> std::fmt::Result {
    let of = |kind: &'static str| result.arrived.iter().filter(move |it| it.kind() == kind);
    let flows: BTreeSet<_> = of("flow")
        .filter_map(|it| it.event["flow"]["flow"].as_str())
        .collect();
    writeln!(
        out,
        "seen     {} events: {} programs started, {} connects, {} flows",
        result.arrived.len(),
        of("exec").count(),
        of("connect").count(),
        flows.len()
    )?;
    if result.has_losses() {
        writeln!(out, "{BAD}lost     {:?}{BAD:#}", result.losses)?;
    } else {
        writeln!(out, "lost     nothing")?;
    }
    for gap in of("gap") {
        let gap = &gap.event["gap"];
        let reason = gap["reason"].as_str().unwrap_or_default();
        let [from, to] = ["from", "to"].map(|end| time(&gap[end]).unwrap_or(UNIX_EPOCH));
        let lasted = to.duration_since(from).unwrap_or_default().as_millis();
        writeln!(out, "gap      {lasted} ms: {reason}")?;
    }
    writeln!(out, "took     {:.1} s", result.took.as_secs_f64())
}

fn line(out: &mut String, good: bool, what: &str, detail: &str) -> std::fmt::Result {
    let (style, mark) = if good { (GOOD, "ok") } else { (BAD, "no") };
    let what = match detail {
        "" => what.to_owned(),
        _ => format!("{what:<76}"),
    };
    writeln!(out, "   {style}{mark}{style:#} {what}{DIM}{detail}{DIM:#}")
}

/// `reverse-ssh-tunnel medium/low → high/medium`.
fn words(incident: &Incident) -> String {
    incident.to_string()
}

fn times(seen: &Seen) -> String {
    format!(
        "after {:.2} s; told ≤ {:.0} ms after its proof",
        seen.after.as_secs_f64(),
        (seen.delay.as_secs_f64() * 1000.0).ceil()
    )
}
