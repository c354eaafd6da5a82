//! CEF, ArcSight's Common Event Format, version 0:
//! `CEF:0|vendor|product|version|signature|name|severity|extension`.
//!
//! The header escapes `|` and `\`, the extension `=` and `\`; line ends become
//! the two characters `\n` or `\r` in the extension and a blank in the header.
//! Whatever else a terminal would obey, reorder or hide, which CEF lets through,
//! becomes the text `\u001b`, its backslash escaped as any other.

use std::fmt::Write as _;

use super::view::View;
use crate::escape::is_unsafe;

/// `event` as one line.
pub(super) fn map(event: View<'_>) -> String {
    let body = event.body();
    let kind = event.kind();
    let mut out = format!(
        "CEF:0|agent-monitor|agent-monitor|{}|",
        env!("CARGO_PKG_VERSION")
    );
    push_header(&mut out, body.text("rule").unwrap_or(kind));
    out.push('|');
    push_header(&mut out, body.text("title").unwrap_or(kind));
    out.push('|');
    out.push_str(severity(body.text("severity")));
    out.push('|');
    let mut extension = Extension { out, first: true };
    extension.event(event);
    extension.process(event);
    extension.network(event);
    extension.alert(event);
    extension.out
}

/// 0 to 10: low is 0–3, medium 4–6, high 7–8, very high 9–10. What is no alert is 1.
fn severity(name: Option<&str>) -> &'static str {
    match name {
        Some("critical") => "10",
        Some("high") => "8",
        Some("medium") => "5",
        Some("low") => "3",
        _ => "1",
    }
}

struct Extension {
    out: String,
    first: bool,
}

impl Extension {
    fn event(&mut self, event: View<'_>) {
        self.number("rt", event.millis("time"));
        self.text("externalId", event.text("id"));
        self.text("dvchost", event.text("node"));
        self.text("cat", Some(event.kind()));
        self.custom("cs2", "agent", event.text("agent.name"));
        self.custom(
            "cs3",
            "container",
            event.text("agent.container.id").or(event.text("agent.id")),
        );
    }

    fn process(&mut self, event: View<'_>) {
        let process = event.at("process");
        self.number("spid", process.number("pid"));
        self.text("sproc", process.text("exe").or(process.text("comm")));
        self.number("suid", process.number("uid"));
        let command = process.command_line("argv");
        self.custom("cs6", "command", command.as_deref());
    }

    fn network(&mut self, event: View<'_>) {
        let body = event.body();
        let (source, destination) = event.ends();
        self.text("src", source.text("ip"));
        self.number("spt", source.number("port"));
        self.text("dst", destination.text("ip"));
        self.number("dpt", destination.number("port"));
        self.text("dhost", body.text("server_name").or(body.text("question")));
        self.text("proto", body.text("transport"));
        self.text("app", body.text("protocol"));
        self.text("outcome", body.text("result"));
        self.number("out", body.number("bytes_out"));
        self.number("in", body.number("bytes_in"));
    }

    fn alert(&mut self, event: View<'_>) {
        let alert = event.at("alert");
        self.text("msg", alert.text("summary"));
        self.number("cnt", alert.number("count"));
        self.number("start", alert.millis("first_seen"));
        self.number("end", alert.millis("last_seen"));
        self.custom("cs1", "incident", alert.text("incident"));
        let evidence = alert.texts("evidence").join("\n");
        self.custom("cs4", "evidence", Some(&evidence));
        let attack = alert.texts("attack").join(",");
        self.custom("cs5", "attack", Some(&attack));
        if let Some(revision) = alert.number("revision") {
            self.number("cn1", Some(revision));
            self.text("cn1Label", Some("revision"));
        }
        self.text("reason", alert.text("coverage"));
    }

    fn custom(&mut self, key: &str, label: &str, value: Option<&str>) {
        if value.is_some_and(|value| !value.is_empty()) {
            self.text(key, value);
            self.text(&format!("{key}Label"), Some(label));
        }
    }

    fn number<T: ToString>(&mut self, key: &str, value: Option<T>) {
        self.text(key, value.map(|value| value.to_string()).as_deref());
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return;
        };
        if !self.first {
            self.out.push(' ');
        }
        self.first = false;
        self.out.push_str(key);
        self.out.push('=');
        push_value(&mut self.out, value);
    }
}

pub(super) fn push_header(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '|' | '\\' => out.extend(['\\', c]),
            '\n' | '\r' => out.push(' '),
            c => push(out, c),
        }
    }
}

pub(super) fn push_value(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '=' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => push(out, c),
        }
    }
}

fn push(out: &mut String, c: char) {
    if is_unsafe(c) {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\\\u{:04x}", u32::from(c));
    } else {
        out.push(c);
    }
}
