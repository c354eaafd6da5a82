//! What the screen looks like. Everything that the daemon or an agent says passes through
//! [`said`], and is cut to the columns there are.

mod agents;
mod alerts;
mod header;
mod help;
mod opened;
#[cfg(test)]
mod tests;
mod theme;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders};
use unicode_width::UnicodeWidthStr as _;

use super::app::{App, Focus};
use super::text;
use crate::escape::escape;
pub use theme::Theme;

/// Lines below which only the list with the keyboard is shown.
const ONE_LIST: u16 = 8;
/// Least lines of a list.
const LIST: u16 = 4;

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, app: &mut App, theme: Theme) {
    let area = frame.area();
    let header = match area.height {
        0..=7 => 1,
        8..=11 => 2,
        _ => header::LINES,
    };
    let parts = [
        Constraint::Length(header),
        Constraint::Min(0),
        Constraint::Length(1),
    ];
    let [head, body, foot] = Layout::vertical(parts).areas(area);
    header::draw(frame, head, app, theme);
    if app.help {
        help::draw(frame, body, theme);
    } else if app.alert.is_some() {
        alerts::draw_one(frame, body, app, theme);
    } else if app.opened.is_some() {
        opened::draw(frame, body, app, theme);
    } else {
        overview(frame, body, app, theme);
    }
    help::draw_footer(frame, foot, app, theme);
}

/// All agents, and the latest alerts.
fn overview(frame: &mut Frame<'_>, area: Rect, app: &mut App, theme: Theme) {
    if area.height < ONE_LIST {
        match app.focus {
            Focus::Alerts => alerts::draw(frame, area, app, theme),
            Focus::First | Focus::Processes => agents::draw(frame, area, app, theme),
        }
        return;
    }
    let wanted = u16::try_from(app.rows().len()).unwrap_or(u16::MAX);
    let most = area.height - (area.height / 3).max(LIST);
    let agents = wanted.saturating_add(1).clamp(LIST.min(most), most);
    let parts = [Constraint::Length(agents), Constraint::Min(0)];
    let [above, below] = Layout::vertical(parts).areas(area);
    agents::draw(frame, above, app, theme);
    alerts::draw(frame, below, app, theme);
}

/// Foreign text, made safe to show.
fn said(text: &str) -> String {
    escape(text).into_owned()
}

/// A part of a line, of text that is safe.
fn part(style: Style, text: impl Into<String>) -> Span<'static> {
    Span::styled(text.into(), style)
}

/// Parts as a line of at most so many columns, cut with `…`.
fn line(parts: Vec<Span<'static>>, width: u16) -> Line<'static> {
    let width = usize::from(width);
    let total: usize = parts.iter().map(|part| part.content.width()).sum();
    if total <= width {
        return Line::from(parts);
    }
    // A column is left for the mark that something is missing.
    let mut room = width.saturating_sub(1);
    let mut kept = Vec::new();
    for part in parts {
        let text = text::prefix(&part.content, room).to_owned();
        room = room.saturating_sub(text.width());
        let is_cut = text.len() < part.content.len();
        kept.push(Span::styled(text, part.style));
        if is_cut {
            break;
        }
    }
    if width > 0 {
        kept.push(Span::raw("…"));
    }
    Line::from(kept)
}

/// A number, to the right of its column.
fn to_the_right(text: &str, width: u16) -> String {
    let text = text::cut(text, width.into()).unwrap_or_else(|| text.to_owned());
    let blank = usize::from(width).saturating_sub(text.width());
    " ".repeat(blank) + &text
}

/// A line above a list, with its name.
fn titled(name: String, has_keyboard: bool, theme: Theme) -> Block<'static> {
    let style = match has_keyboard {
        true => theme.title(),
        false => theme.quiet(),
    };
    Block::new()
        .borders(Borders::TOP)
        .border_style(theme.quiet())
        .title(Span::styled(format!(" {name} "), style))
}
