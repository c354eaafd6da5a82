//! What keys do: all of them on a page, those that matter in the last line.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::{Theme, line, part, said, titled};
use crate::commands::top::app::App;

/// Every key.
const KEYS: [(&str, &str); 10] = [
    ("↑ ↓  j k", "choose a line; PgUp PgDn, Home End, g G"),
    ("Enter  →", "open the agent or the alert"),
    ("Esc  ←", "back; forget the filter"),
    ("Tab", "the next list"),
    ("s  S", "sort by the next column, the one before"),
    ("r", "sort the other way round"),
    ("/", "show only agents whose name contains a text"),
    ("?  h", "this page"),
    ("Ctrl-Z", "suspend"),
    ("q  Ctrl-C", "quit"),
];

/// What columns mean.
const COLUMNS: [(&str, &str); 6] = [
    ("AGENT", "yellow while its network is not covered"),
    (
        "CONN/s",
        "calls of connect(), those included whose record was lost",
    ),
    (
        "OUT/s IN/s",
        "payload of all its flows, loopback too, counted as bursts end:",
    ),
    ("", "what goes one way without a pause shows when it pauses"),
    (
        "ALERTS",
        "of this daemon's time: how many of the worst, + the others",
    ),
    ("LOST", "its records that were lost in this time"),
];

/// Draws the page.
pub fn draw(frame: &mut Frame<'_>, area: Rect, theme: Theme) {
    let explain = |(name, what): &(&'static str, &'static str)| {
        let name = part(theme.title(), super::text::column(name, 12));
        line(vec![name, part(theme.plain(), *what)], area.width)
    };
    let keys = KEYS.iter().map(explain);
    let columns = COLUMNS.iter().map(explain);
    let lines: Vec<Line<'_>> = keys.chain([Line::default()]).chain(columns).collect();
    let block = titled("Keys, and what columns mean".to_owned(), true, theme);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// Draws the last line.
pub fn draw_footer(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let parts = if app.typing {
        vec![
            part(theme.title(), "filter: "),
            part(theme.plain(), said(&app.filter)),
            part(theme.chosen(), " "),
            part(theme.quiet(), "  Enter keep  Esc forget"),
        ]
    } else {
        let keys: &[(&str, &str)] = if app.help {
            &[("any key", "back"), ("q", "quit")]
        } else if app.alert.is_some() {
            &[
                ("Esc", "back"),
                ("↑↓", "scroll"),
                ("?", "help"),
                ("q", "quit"),
            ]
        } else if app.opened.is_some() {
            &[
                ("Esc", "back"),
                ("Tab", "next list"),
                ("↑↓", "choose"),
                ("?", "help"),
                ("q", "quit"),
            ]
        } else {
            &[
                ("q", "quit"),
                ("?", "help"),
                ("↑↓", "choose"),
                ("Enter", "open"),
                ("s", "sort"),
                ("r", "reverse"),
                ("/", "filter"),
                ("Tab", "alerts"),
            ]
        };
        let mut parts = Vec::new();
        for (key, what) in keys {
            parts.push(part(theme.title(), *key));
            parts.push(part(theme.plain(), format!(" {what}  ")));
        }
        if !app.filter.is_empty() {
            let filter = format!("filter: {}", said(&app.filter));
            parts.insert(0, part(theme.warning(), filter + "  "));
        }
        parts
    };
    frame.render_widget(Paragraph::new(line(parts, area.width)), area);
}
