//! The latest alerts, and one of them in full.

use jiff::tz::TimeZone;
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table};

use super::{Theme, line, part, said, text, titled};
use crate::commands::top::app::{App, Focus};
use crate::commands::top::look::Alert;

/// Columns of `critical/high`.
const GRADE: usize = 13;
/// Least and most columns of an agent's name.
const AGENT: (u16, u16) = (12, 28);

/// Draws the list: of the opened agent, or of all.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, theme: Theme) {
    let alerts = app.shown_alerts();
    let has_keyboard = app.focus == Focus::Alerts;
    let block = titled(format!("Alerts {}", alerts.len()), has_keyboard, theme);
    let with_agent = app.opened.is_none();
    let clock = Clock::now();
    let rows: Vec<Row<'_>> = alerts
        .into_iter()
        .map(|alert| Row::new([in_short(alert, with_agent, &clock, area.width, theme)]))
        .collect();
    let mut table = Table::new(rows, [Constraint::Min(0)]).block(block);
    if has_keyboard {
        table = table.row_highlight_style(theme.chosen());
    }
    frame.render_stateful_widget(table, area, &mut app.alerts_at);
}

/// One line.
fn in_short(
    alert: &Alert,
    with_agent: bool,
    clock: &Clock,
    width: u16,
    theme: Theme,
) -> Line<'static> {
    let body = &alert.alert;
    let severity = body.severity.map_or("?", |severity| severity.name());
    let grade = said(&format!("{severity}/{}", body.confidence));
    let mut parts = vec![
        part(theme.quiet(), clock.show(&alert.time)),
        part(theme.plain(), "  "),
        part(theme.severity(body.severity), text::column(&grade, GRADE)),
        part(theme.plain(), "  "),
    ];
    if with_agent {
        let agent = said(&alert.agent.name);
        let room = (width / 5).clamp(AGENT.0, AGENT.1);
        parts.push(part(
            theme.strong(),
            text::column(&agent, room.into()) + "  ",
        ));
    }
    parts.push(part(theme.plain(), said(&body.rule) + "  "));
    parts.push(part(theme.plain(), said(&body.summary)));
    line(parts, width)
}

/// Where the reader is, and which day it is there.
struct Clock {
    zone: TimeZone,
    today: String,
}

impl Clock {
    fn now() -> Self {
        let zone = TimeZone::system();
        let now = jiff::Timestamp::now().to_zoned_datetime(zone.clone());
        let today = now.strftime("%F").to_string();
        Self { zone, today }
    }

    /// The time of day, or the day if that is not today.
    fn show(&self, time: &str) -> String {
        let Ok(time) = time.parse::<jiff::Timestamp>() else {
            return text::column(&said(time), 8);
        };
        let time = time.to_zoned_datetime(self.zone.clone());
        let form = match time.strftime("%F").to_string() == self.today {
            true => "%H:%M:%S",
            false => "%b %d  ",
        };
        time.strftime(form).to_string()
    }
}

/// What is before the fraction of a second.
fn to_the_second(time: &str) -> String {
    time.get(..19).unwrap_or(time).replace('T', " ")
}

/// Draws the alert that was opened, with its evidence.
pub fn draw_one(frame: &mut Frame<'_>, area: Rect, app: &mut App, theme: Theme) {
    let shown = app.shown_alerts();
    let alert = shown
        .into_iter()
        .find(|alert| Some(&alert.alert.incident) == app.alert.as_ref());
    let Some(alert) = alert else {
        app.alert = None;
        return;
    };
    let lines = in_full(alert, area.width, theme);
    let block = titled(said(&alert.alert.rule), true, theme);
    let room = usize::from(area.height.saturating_sub(1));
    let most = u16::try_from(lines.len().saturating_sub(room)).unwrap_or(u16::MAX);
    app.evidence_at = app.evidence_at.min(most);
    let shown = Paragraph::new(lines)
        .block(block)
        .scroll((app.evidence_at, 0));
    frame.render_widget(shown, area);
}

fn in_full(alert: &Alert, width: u16, theme: Theme) -> Vec<Line<'static>> {
    /// Columns of what a line is about.
    const ABOUT: usize = 10;
    let body = &alert.alert;
    let severity = body.severity.map_or("?", |severity| severity.name());
    let mut lines = Vec::new();
    let mut tell = |about: &str, style, text: &str| {
        let room = usize::from(width).saturating_sub(ABOUT);
        for (place, text) in text::wrap(&said(text), room).into_iter().enumerate() {
            let about = if place == 0 { about } else { "" };
            let about = part(theme.quiet(), text::column(about, ABOUT));
            lines.push(Line::from(vec![about, part(style, text)]));
        }
    };
    let grade = format!("{severity}/{}", body.confidence);
    tell("severity", theme.severity(body.severity), &grade);
    tell("summary", theme.strong(), &body.summary);
    tell("agent", theme.plain(), &alert.agent.name);
    if alert.process.pid > 0 {
        tell(
            "process",
            theme.plain(),
            &super::opened::command(&alert.process),
        );
    }
    let seen = format!(
        "{} from {} to {} UTC",
        text::count(body.count, "time"),
        to_the_second(&body.first_seen),
        to_the_second(&body.last_seen)
    );
    tell("seen", theme.plain(), &seen);
    if !body.attack.is_empty() {
        tell("ATT&CK", theme.plain(), &body.attack.join(" "));
    }
    tell("coverage", theme.plain(), &body.coverage);
    let incident = format!("{} revision {}", body.incident, body.revision);
    tell("incident", theme.plain(), &incident);
    for (place, fact) in body.evidence.iter().enumerate() {
        let about = if place == 0 { "evidence" } else { "" };
        tell(about, theme.plain(), &format!("- {fact}"));
    }
    lines
}
