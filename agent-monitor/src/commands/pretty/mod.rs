//! Events for people: one line each, alerts with their evidence below.
//!
//! It reads the JSON contract, not the daemon's types, so it shows events of
//! another version as well. Everything passes through `Line::push`, which
//! escapes: nothing an agent wrote reaches the terminal as it is.

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::escape::escape;

mod alert;
mod body;
pub mod text;

/// Columns of an agent's name.
const AGENT: usize = 16;
/// Columns of `comm[pid]`.
const PROCESS: usize = 22;
/// Columns of a kind: `connect` is the longest that is frequent.
const KIND: usize = 7;

const PLAIN: Style = Style::new();
const BOLD: Style = PLAIN.bold();
const DIM: Style = PLAIN.dimmed();
const WARNING: Style = color(AnsiColor::Yellow);

const fn color(color: AnsiColor) -> Style {
    color.on_default()
}

/// Shows events; with colours, which the stream it goes to may strip.
#[derive(Clone, Debug)]
pub struct Pretty {
    zone: TimeZone,
    /// Asked again for each line, because terminals are resized.
    width: fn() -> Option<usize>,
}

impl Pretty {
    /// For what stdout is: lines are cut to a terminal's width, and only to that.
    pub fn for_stdout() -> Self {
        Self {
            zone: TimeZone::system(),
            width: || {
                let size = terminal_size::terminal_size_of(std::io::stdout());
                size.map(|(width, _)| usize::from(width.0))
            },
        }
    }

    /// The lines of an event, in its JSON form, each with its line's end.
    pub fn show(&self, event: &Value) -> String {
        let kind = string(event, "/kind");
        let mut out = String::new();
        let mut line = Line::default();
        line.push(DIM, &self.time(event));
        line.push(PLAIN, "  ");
        if kind == "alert" {
            alert::write(line, event, (self.width)(), &mut out);
            return out;
        }
        line.column(body::style(kind), kind, KIND);
        line.push(PLAIN, "  ");
        line.column(BOLD, string(event, "/agent/name"), AGENT);
        line.push(PLAIN, "  ");
        let pid = event
            .pointer("/process/pid")
            .map(|pid| format!("[{pid}]"))
            .unwrap_or_default();
        let comm = escape(string(event, "/process/comm"));
        let comm = text::cut(&comm, PROCESS.saturating_sub(pid.len())).unwrap_or(comm.into());
        line.column(PLAIN, &(comm + &pid), PROCESS);
        line.push(PLAIN, "  ");
        body::write(&mut line, kind, event);
        line.finish((self.width)(), &mut out);
        out
    }

    /// Local time of day; a date would cost room in every line.
    fn time(&self, event: &Value) -> String {
        let time = string(event, "/time");
        match time.parse::<jiff::Timestamp>() {
            Ok(time) => time
                .to_zoned_datetime(self.zone.clone())
                .strftime("%H:%M:%S%.3f")
                .to_string(),
            Err(_) => text::column(&escape(time), "00:00:00.000".len()),
        }
    }
}

/// A line in the making.
#[derive(Default)]
struct Line(Vec<(Style, String)>);

impl Line {
    fn push(&mut self, style: Style, text: &str) {
        self.0.push((style, escape(text).into_owned()));
    }

    fn column(&mut self, style: Style, text: &str, width: usize) {
        self.0.push((style, text::column(&escape(text), width)));
    }

    /// Columns it takes.
    fn width(&self) -> usize {
        use unicode_width::UnicodeWidthStr as _;
        self.0.iter().map(|(_, text)| text.width()).sum()
    }

    /// Adds the line to `out`, cut to so many columns.
    fn finish(self, width: Option<usize>, out: &mut String) {
        use std::fmt::Write as _;

        use unicode_width::UnicodeWidthStr as _;

        let total = self.width();
        let cut = width.is_some_and(|width| width < total);
        // A column is left for the mark that something is missing.
        let mut room = width
            .filter(|_| cut)
            .map_or(total, |width| width.saturating_sub(1));
        for (style, text) in &self.0 {
            let text = text::prefix(text, room);
            // Ligatures make the whole differ from the sum of its characters.
            room = room.saturating_sub(text.width());
            if !text.is_empty() {
                // Writing to a String cannot fail.
                let _ = write!(out, "{style}{text}{style:#}");
            }
        }
        if cut {
            out.push('…');
        }
        out.push('\n');
    }
}

/// The string there, or nothing.
pub(super) fn string<'a>(event: &'a Value, pointer: &str) -> &'a str {
    event
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The number there.
pub(super) fn integer(event: &Value, pointer: &str) -> Option<u64> {
    event.pointer(pointer).and_then(Value::as_u64)
}

/// The strings of the list there.
fn strings<'a>(event: &'a Value, pointer: &str) -> impl Iterator<Item = &'a str> {
    let list = event.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

/// From one time to another, if both can be read.
fn between(event: &Value, from: &str, to: &str) -> Option<std::time::Duration> {
    let time = |pointer| string(event, pointer).parse::<jiff::Timestamp>().ok();
    time(to)?.duration_since(time(from)?).try_into().ok()
}

#[cfg(test)]
mod tests;
