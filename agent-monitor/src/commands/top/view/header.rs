//! The lines on top: the daemon, what it sees a second, whether it misses anything, and
//! whether what it found gets away.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Span;
use ratatui::widgets::Paragraph;

use super::{Theme, line, part, said, text};
use crate::api::status::{SinkStatus, State};
use crate::commands::top::app::App;
use crate::commands::top::columns::per_second;

/// An answer takes a tenth of a second, more where the machine is busy.
const LATE: Duration = Duration::from_secs(2);
/// Lines where there is room.
pub const LINES: u16 = 4;

/// Draws as many of the lines as the area has.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let daemon = match &app.trouble {
        Some(why) => trouble(why, theme),
        None if app.waiting >= LATE => late(app.waiting, theme),
        None => daemon(app, theme),
    };
    let mut lines = vec![daemon, coverage(app, theme)];
    if area.height >= LINES {
        lines.insert(1, rates(app, theme));
        lines.push(sinks(app, theme));
    }
    let lines = lines.into_iter().map(|parts| line(parts, area.width));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
}

fn trouble(why: &str, theme: Theme) -> Vec<Span<'static>> {
    vec![
        part(theme.bad(), "NO ANSWER"),
        part(theme.plain(), format!(", trying again: {}", said(why))),
    ]
}

fn late(waiting: Duration, theme: Theme) -> Vec<Span<'static>> {
    let seconds = waiting.as_secs();
    vec![
        part(theme.warning(), format!("NO ANSWER for {seconds} s")),
        part(theme.plain(), ", what is shown is as old"),
    ]
}

fn daemon(app: &App, theme: Theme) -> Vec<Span<'static>> {
    let status = &app.overview.status;
    let (state, style) = match status.state {
        State::Attached => ("attached", theme.good()),
        State::Attaching => ("attaching", theme.warning()),
        State::Stopping => ("stopping", theme.warning()),
    };
    let up = text::duration(Duration::from_secs(status.uptime_seconds));
    vec![
        part(theme.strong(), said(&status.node)),
        part(theme.plain(), "  "),
        part(style, state),
        part(theme.plain(), format!(", up {up}")),
        part(
            theme.quiet(),
            format!("  agent-monitor {}", said(&status.version)),
        ),
    ]
}

fn rates(app: &App, theme: Theme) -> Vec<Span<'static>> {
    let overview = &app.overview;
    let lost = match overview.losses {
        Some(rate) if rate > 0.0 => theme.bad(),
        _ if overview.lost > 0 => theme.warning(),
        _ => theme.plain(),
    };
    let agents = text::count(overview.rows.len() as u64, "agent");
    let processes: u64 = overview.rows.iter().map(|row| row.processes).sum();
    let flows: u64 = overview.rows.iter().map(|row| row.flows).sum();
    let processes = match processes {
        1 => "1 process".to_owned(),
        many => format!("{} processes", text::number(many)),
    };
    vec![
        part(theme.quiet(), "seen      "),
        part(theme.strong(), per_second(overview.events)),
        part(theme.plain(), " events/s  "),
        part(lost, per_second(overview.losses)),
        part(lost, " lost/s"),
        part(
            theme.plain(),
            format!(
                "  {agents}, {processes}, {}",
                text::count(flows, "live flow")
            ),
        ),
    ]
}

fn coverage(app: &App, theme: Theme) -> Vec<Span<'static>> {
    let mut parts = vec![part(theme.quiet(), "coverage  ")];
    if app.overview.missing.is_empty() {
        parts.push(part(theme.good(), "complete"));
    } else {
        let missing = said(&app.overview.missing.join("; "));
        parts.push(part(theme.warning(), missing));
    }
    parts
}

fn sinks(app: &App, theme: Theme) -> Vec<Span<'static>> {
    let status = &app.overview.status;
    let mut parts = vec![part(theme.quiet(), "sinks     ")];
    let mut sinks: Vec<&SinkStatus> = status.sinks.iter().collect();
    sinks.sort_by_key(|sink| (sink.last_error.is_none(), std::cmp::Reverse(sink.lag)));
    for (place, sink) in sinks.into_iter().enumerate() {
        if place > 0 {
            parts.push(part(theme.plain(), ", "));
        }
        let name = said(&sink.name);
        parts.push(match (&sink.last_error, sink.lag) {
            (None, 0) => part(theme.good(), format!("{name} up to date")),
            (None, lag) => part(
                theme.warning(),
                format!("{name} {} behind", text::number(lag)),
            ),
            (Some(error), lag) => part(
                theme.bad(),
                format!("{name} {} behind: {}", text::number(lag), said(error)),
            ),
        });
        if sink.dead_letters > 0 {
            let letters = text::count(sink.dead_letters, "dead letter");
            parts.push(part(theme.warning(), format!(" ({letters})")));
        }
    }
    if status.sinks.is_empty() {
        parts.push(part(theme.plain(), "none, alerts stay in the store"));
    }
    if let Some(error) = &status.store.error {
        let error = format!("  store: {}", said(error));
        parts.push(part(theme.bad(), error));
    }
    if status.rules.error.is_some() {
        let old = "  rules: the new ones cannot be used, see status";
        parts.push(part(theme.warning(), old));
    }
    parts
}
