//! Alerts: what is claimed in the first line, what shows it below.

use anstyle::{AnsiColor, Style};
use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use super::escape;
use super::text::{command_line, duration, number, wrap};
use super::{BOLD, DIM, Line, PLAIN, WARNING, between, color, integer, string, strings};

/// Columns below the time.
const INDENT: &str = "              ";
/// Columns of the longest label, `incident`, and a space.
const LABEL: usize = 9;

/// Fewest columns worth wrapping a detail into.
const NARROWEST: usize = 30;

/// Adds an alert to `out`; `line` already holds the time. Nothing of it is cut:
/// details are wrapped to so many columns.
pub(super) fn write(mut line: Line, event: &Value, width: Option<usize>, out: &mut String) {
    let alert = &event["alert"];
    let (severity, confidence) = (string(alert, "/severity"), string(alert, "/confidence"));
    let rule = string(alert, "/rule");
    line.push(
        style(severity),
        &format!("ALERT {severity}/{confidence} {rule}"),
    );
    let summary = escape(string(alert, "/summary"));
    if width.is_none_or(|width| line.width() + 2 + summary.width() <= width) {
        line.push(BOLD, "  ");
        line.push(BOLD, &summary);
        line.finish(None, out);
    } else {
        line.finish(None, out);
        let room = width.map_or(usize::MAX, |width| width.saturating_sub(INDENT.len()));
        for part in wrap(&summary, room.max(NARROWEST)) {
            let mut line = Line::default();
            line.push(PLAIN, INDENT);
            line.push(BOLD, &part);
            line.finish(None, out);
        }
    }

    let room = width
        .map(|width| width.saturating_sub(INDENT.len() + LABEL))
        .filter(|room| *room >= NARROWEST);
    let mut detail = |label: &str, style: Style, text: &str| {
        let text = escape(text);
        let parts = match room {
            Some(room) => wrap(&text, room),
            None => vec![text.into_owned()],
        };
        let labels = std::iter::once(label).chain(std::iter::repeat(""));
        for (label, part) in labels.zip(parts) {
            let mut line = Line::default();
            line.push(PLAIN, INDENT);
            line.column(DIM, label, LABEL);
            line.push(style, &part);
            line.finish(None, out);
        }
    };
    detail("incident", PLAIN, &incident(alert));
    if event.get("agent").is_some() {
        let (name, cgroup) = (string(event, "/agent/name"), string(event, "/agent/cgroup"));
        detail("agent", PLAIN, &format!("{name}  {cgroup}"));
    }
    if let Some(process) = event.get("process") {
        detail("process", PLAIN, &ancestry(process));
        let command = command_line(strings(process, "/argv"));
        if !command.is_empty() {
            detail("command", PLAIN, &command);
        }
    }
    let mut label = "evidence";
    for fact in strings(alert, "/evidence") {
        detail(label, PLAIN, &format!("- {fact}"));
        label = "";
    }
    let coverage = string(alert, "/coverage");
    if coverage != "complete" {
        detail("coverage", WARNING, coverage);
    }
}

fn style(severity: &str) -> Style {
    match severity {
        "critical" => AnsiColor::White.on(AnsiColor::Red).bold(),
        "high" => color(AnsiColor::Red).bold(),
        "medium" => WARNING.bold(),
        "low" => color(AnsiColor::Cyan).bold(),
        _ => BOLD,
    }
}

fn incident(alert: &Value) -> String {
    let revision = integer(alert, "/revision").unwrap_or_default();
    let mut text = format!("{} revision {revision}", string(alert, "/incident"));
    let count = integer(alert, "/count").unwrap_or_default();
    if count > 1 {
        text += &format!(", seen {} times", number(count));
        if let Some(length) = between(alert, "/first_seen", "/last_seen") {
            text += &format!(" in {}", duration(length));
        }
    }
    for technique in strings(alert, "/attack") {
        text += &format!("  {technique}");
    }
    text
}

/// `ssh[4242] uid 1000 ← bash[4000] ← python3[3999]`.
fn ancestry(process: &Value) -> String {
    let name = |process: &Value| {
        format!(
            "{}[{}]",
            string(process, "/comm"),
            integer(process, "/pid").unwrap_or_default()
        )
    };
    let mut text = name(process);
    if let Some(uid) = integer(process, "/uid") {
        text += &format!(" uid {uid}");
    }
    for ancestor in process["ancestors"].as_array().into_iter().flatten() {
        text += &format!(" ← {}", name(ancestor));
    }
    text
}
