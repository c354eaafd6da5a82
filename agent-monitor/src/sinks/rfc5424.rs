//! The syslog message of an alert, as RFC 5424 has it.
//!
//! `<PRI>1 TIME NODE agent-monitor - KIND [agentMonitor@32473 …] JSON`
//! - PRI: facility local0 (16), severity by the alert's: critical 2, high 3, medium 4, low 5, info 6;
//!   6 for what is no alert.
//! - TIME: the event's, cut to microseconds, which is all that section 6.2.3 allows.
//! - KIND, the MSGID: the event's.
//! - Structured data: of an alert `rule`, `severity`, `incident`, `revision`; and `agent` (its
//!   name) when there is one. 32473 is the number that RFC 5612 reserves for documentation.
//! - MSG: the event in the sink's [`Format`]; JSON in ASCII, everything else as `\u` escapes. To a JSON reader it is
//!   the same object. UTF-8 would oblige us to begin it with a byte-order mark (section
//!   6.4), which those readers refuse, and would let C1 and direction controls through.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use serde::Deserialize;

use crate::config::Format;

/// local0; section 6.2.1.
const FACILITY: u8 = 16;
/// Longest HOSTNAME; section 6.
const HOSTNAME_MAX: usize = 255;
/// Longest MSGID; section 6.
const MSGID_MAX: usize = 32;

/// The parts of a stored alert that the header and the structured data repeat.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Head {
    time: String,
    node: String,
    kind: String,
    agent: Option<AgentHead>,
    alert: Option<AlertHead>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AgentHead {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AlertHead {
    incident: String,
    revision: u32,
    rule: String,
    severity: String,
}

/// Appends the message of the alert `json` to `out`, with the octet count of RFC 6587
/// (section 3.4.1) before it.
pub fn write_frame(out: &mut String, json: &str, format: Format) {
    let message = message(json, format);
    out.push_str(&message.len().to_string());
    out.push(' ');
    out.push_str(&message);
}

/// The message of the alert `json`, without line feeds.
pub fn message(json: &str, format: Format) -> String {
    // The store holds what this program wrote. If it cannot be read back all the
    // same, it still goes out, with what is not known left empty.
    let head: Head = serde_json::from_str(json).unwrap_or_default();
    // What is not known is a warning: someone should look.
    let severity = match (&head.alert, &*head.kind) {
        (Some(alert), _) => severity(&alert.severity),
        (None, "") => severity(""),
        (None, _) => severity("info"),
    };
    let mut out = format!("<{}>1 ", FACILITY * 8 + severity);
    match head.time.parse::<jiff::Timestamp>() {
        Ok(time) => push(&mut out, format_args!("{time:.6}")),
        Err(_) => out.push('-'),
    }
    out.push(' ');
    push_name(&mut out, &head.node, HOSTNAME_MAX);
    out.push_str(" agent-monitor - ");
    push_name(&mut out, &head.kind, MSGID_MAX);
    out.push_str(" [agentMonitor@32473");
    if let Some(alert) = &head.alert {
        push_param(&mut out, "rule", &alert.rule);
        push_param(&mut out, "severity", &alert.severity);
        push_param(&mut out, "incident", &alert.incident);
        push_param(&mut out, "revision", &alert.revision.to_string());
    }
    if let Some(agent) = &head.agent {
        push_param(&mut out, "agent", &agent.name);
    }
    out.push_str("] ");
    let body = format.line(json);
    match format {
        Format::Json | Format::Ocsf | Format::Ecs => push_ascii_json(&mut out, &body),
        // MSG-ANY (section 6.4): UTF-8 without the byte-order mark that readers of CEF refuse.
        Format::Cef | Format::Plain => out.push_str(&body),
    }
    out
}

/// Section 6.2.1, table 2.
fn severity(name: &str) -> u8 {
    match name {
        "critical" => 2,
        "high" => 3,
        "low" => 5,
        "info" => 6,
        _ => 4,
    }
}

/// Printable ASCII without blanks; anything else becomes `?`.
fn push_name(out: &mut String, name: &str, longest: usize) {
    if name.is_empty() {
        out.push('-');
    }
    out.extend(
        name.chars()
            .take(longest)
            .map(|c| if c.is_ascii_graphic() { c } else { '?' }),
    );
}

/// Section 6.3.3: `"`, `\` and `]` take a backslash. Control characters, which
/// it allows, would reach terminals: they become the text `\u001b`, its
/// backslash escaped as any other.
fn push_param(out: &mut String, name: &str, value: &str) {
    push(out, format_args!(" {name}=\""));
    for c in value.chars() {
        match c {
            '"' | '\\' | ']' => out.extend(['\\', c]),
            c if c.is_control() => push(out, format_args!("\\\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Outside its strings JSON is ASCII, and inside them an escape means the same.
fn push_ascii_json(out: &mut String, json: &str) {
    for c in json.chars() {
        if matches!(c, ' '..='~') {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                push(out, format_args!("\\u{unit:04x}"));
            }
        }
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALERT: &str = r#"{"schema":1,"id":"a","time":"2030-01-02T03:04:05.123456789Z","kind":"alert","node":"n 1","agent":{"name":"x"},"alert":{"incident":"i","revision":2,"rule":"r","severity":"critical","summary":"é\u009b𝄞"}}"#;

    /// A reader of one parameter's value, by section 6.3.3: the value, and what follows it.
    fn read_value(text: &str) -> Option<(String, &str)> {
        let mut value = String::new();
        let mut chars = text.char_indices();
        while let Some((index, c)) = chars.next() {
            match c {
                '"' => return Some((value, &text[index + 1..])),
                ']' => return None,
                '\\' => match chars.next()?.1 {
                    c @ ('"' | '\\' | ']') => value.push(c),
                    c => value.extend(['\\', c]),
                },
                c => value.push(c),
            }
        }
        None
    }

    #[test]
    fn message_has_every_field_in_its_place() {
        assert_eq!(
            message(ALERT, Format::Json),
            "<130>1 2030-01-02T03:04:05.123456Z n?1 agent-monitor - alert \
             [agentMonitor@32473 rule=\"r\" severity=\"critical\" incident=\"i\" revision=\"2\" agent=\"x\"] "
                .to_owned()
                + &ALERT.replace('é', "\\u00e9").replace('𝄞', "\\ud834\\udd1e")
        );
    }

    #[test]
    fn the_body_is_in_the_format_asked_for() {
        let body = |format| {
            let message = message(ALERT, format);
            message.split_once("] ").map(|(_, body)| body.to_owned())
        };
        let cef = body(Format::Cef).unwrap();
        assert!(cef.starts_with("CEF:0|agent-monitor|"), "{cef}");
        let ocsf = body(Format::Ocsf).unwrap();
        assert!(
            ocsf.is_ascii() && ocsf.contains("\"class_uid\":2004"),
            "{ocsf}"
        );
        assert_eq!(
            body(Format::Plain).unwrap(),
            "critical r x: é\\u{9b}𝄞 (incident i, revision 2)"
        );
    }

    #[test]
    fn what_is_no_alert_has_its_kind_and_no_severity_of_its_own() {
        let exec = r#"{"kind":"exec","node":"n","agent":{"name":"a]"},"exec":{}}"#;
        assert_eq!(
            message(exec, Format::Json),
            "<134>1 - n agent-monitor - exec [agentMonitor@32473 agent=\"a\\]\"] ".to_owned()
                + exec
        );
    }

    #[test]
    fn frame_counts_octets() {
        let mut out = String::new();
        write_frame(&mut out, ALERT, Format::Json);
        write_frame(&mut out, "{}", Format::Json);
        let (count, rest) = out.split_once(' ').unwrap();
        let (first, second) = rest.split_at(count.parse().unwrap());
        assert_eq!(first, message(ALERT, Format::Json));
        assert!(second.ends_with("] {}"), "{second}");
    }

    #[test]
    fn severities_keep_their_order() {
        let numbers = ["critical", "high", "medium", "low", "info"].map(severity);
        assert_eq!(numbers, [2, 3, 4, 5, 6]);
    }

    #[test]
    fn what_cannot_be_read_back_still_goes_out() {
        let message = message("not json", Format::Json);
        assert!(
            message.starts_with("<132>1 - - agent-monitor - - [agentMonitor@32473] "),
            "{message}"
        );
        assert!(message.ends_with("] not json"), "{message}");
    }

    proptest! {
        #[test]
        fn a_value_cannot_leave_its_quotes(value in any::<String>(), end in "[\"\\\\\\] a]{0,4}") {
            let value = value + &end;
            let mut out = String::new();
            push_param(&mut out, "p", &value);
            out.push_str("] rest");
            let (read, rest) = read_value(out.strip_prefix(" p=\"").unwrap()).unwrap();
            prop_assert_eq!(rest, "] rest");
            prop_assert!(!read.chars().any(char::is_control));
            let shown: String = value
                .chars()
                .map(|c| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() })
                .collect();
            prop_assert_eq!(read, shown);
        }

        #[test]
        fn message_is_the_same_json_in_ascii(text in any::<String>()) {
            let json = serde_json::json!({ "node": text, "agent": { "name": text } }).to_string();
            let mut out = String::new();
            push_ascii_json(&mut out, &json);
            prop_assert!(out.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            let read: serde_json::Value = serde_json::from_str(&out).unwrap();
            prop_assert_eq!(read, serde_json::from_str::<serde_json::Value>(&json).unwrap());
        }
    }
}
