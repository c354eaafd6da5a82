//! Golden files, the published schema, and whether values stay where they are put.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::cef::{push_header, push_value};
use super::*;

/// One event of every kind, some with hostile text.
const EVENTS: &str = include_str!("golden/events.ndjson");

fn events() -> impl Iterator<Item = Value> {
    EVENTS
        .lines()
        .map(|line| serde_json::from_str(line).expect("an event"))
}

/// Compares with a committed file; with `UPDATE_GOLDEN=1` in the environment it is
/// written instead, for a person to read the difference.
fn golden(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/sinks/format/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, made).expect("the golden file can be written");
    }
    let kept = std::fs::read_to_string(&path).expect("the golden file is there");
    for (number, (made, kept)) in made.lines().zip(kept.lines()).enumerate() {
        assert_eq!(made, kept, "{name}, line {}", number + 1);
    }
    assert_eq!(made.lines().count(), kept.lines().count(), "{name}");
}

fn pretty(format: Format) -> String {
    let mut out = String::new();
    for event in EVENTS.lines() {
        let value: Value = serde_json::from_str(&format.line(event)).expect("JSON");
        out += &serde_json::to_string_pretty(&value).expect("a value can be written");
        out.push('\n');
    }
    out
}

fn schema(name: &str) -> jsonschema::Validator {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/ocsf-1.8.0")
        .join(format!("{name}.json"));
    let text = std::fs::read_to_string(path).expect("the schema is there");
    let schema: Value = serde_json::from_str(&text).expect("a schema");
    jsonschema::validator_for(&schema).expect("a valid schema")
}

#[test]
fn ocsf_is_what_was_reviewed() {
    golden("ocsf.txt", &pretty(Format::Ocsf));
}

#[test]
fn ecs_is_what_was_reviewed() {
    golden("ecs.txt", &pretty(Format::Ecs));
}

#[test]
fn cef_is_what_was_reviewed() {
    let lines: Vec<_> = EVENTS
        .lines()
        .map(|event| Format::Cef.line(event))
        .collect();
    golden("cef.txt", &(lines.join("\n") + "\n"));
}

#[test]
fn plain_is_what_was_reviewed() {
    let lines: Vec<_> = EVENTS
        .lines()
        .map(|event| Format::Plain.line(event))
        .collect();
    golden("plain.txt", &(lines.join("\n") + "\n"));
}

#[test]
fn syslog_is_what_was_reviewed() {
    let lines: Vec<_> = EVENTS
        .lines()
        .map(|event| crate::sinks::rfc5424::message(event, Format::Plain))
        .collect();
    golden("syslog.txt", &(lines.join("\n") + "\n"));
}

#[test]
fn json_is_the_event_itself() {
    for event in EVENTS.lines() {
        assert_eq!(Format::Json.line(event), event);
    }
}

#[test]
fn the_events_cover_every_kind() {
    let kinds: Vec<_> = events()
        .map(|event| event["kind"].as_str().expect("a kind").to_owned())
        .collect();
    for kind in crate::event::Body::KINDS {
        assert!(kinds.iter().any(|it| it == kind), "no {kind} event");
    }
}

#[test]
fn ocsf_conforms_to_the_published_schema() {
    let schemas = [
        (0, schema("base_event")),
        (1001, schema("file_activity")),
        (1007, schema("process_activity")),
        (2004, schema("detection_finding")),
        (4001, schema("network_activity")),
        (4003, schema("dns_activity")),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for event in EVENTS.lines() {
        let mapped: Value = serde_json::from_str(&Format::Ocsf.line(event)).expect("JSON");
        let class = mapped["class_uid"].as_u64().expect("a class");
        seen.insert(class);
        let (_, schema) = schemas
            .iter()
            .find(|(uid, _)| *uid == class)
            .expect("a known class");
        let errors: Vec<_> = schema
            .iter_errors(&mapped)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{event}\n{mapped:#}\n{errors:#?}");
    }
    assert_eq!(seen.len(), schemas.len(), "every class is tried: {seen:?}");
}

#[test]
fn the_schema_refuses_what_is_wrong() {
    let event = EVENTS.lines().next().expect("an event");
    let mut mapped: Value = serde_json::from_str(&Format::Ocsf.line(event)).expect("JSON");
    let schema = schema("detection_finding");
    assert!(schema.is_valid(&mapped));
    mapped["finding_info"]["uid"] = Value::Null;
    assert!(!schema.is_valid(&mapped));
}

#[test]
fn a_later_revision_updates_the_same_finding() {
    let findings: Vec<Value> = EVENTS
        .lines()
        .take(2)
        .map(|event| serde_json::from_str(&Format::Ocsf.line(event)).expect("JSON"))
        .collect();
    assert_eq!(findings[0]["activity_id"], 1);
    assert_eq!(findings[1]["activity_id"], 2);
    assert_eq!(
        findings[0]["finding_info"]["uid"],
        findings[1]["finding_info"]["uid"]
    );
}

#[test]
fn what_cannot_be_read_back_still_goes_out() {
    for format in [Format::Json, Format::Ocsf, Format::Ecs, Format::Cef] {
        assert_eq!(format.line("not json"), "not json");
    }
}

#[test]
fn whatever_the_members_are_nothing_panics_and_lines_stay_lines() {
    for event in events() {
        // Each member in turn made something else.
        for wrong in [json!(-1), json!("x\ny"), json!({})] {
            for pointer in pointers(&event) {
                let mut changed = event.clone();
                *changed.pointer_mut(&pointer).expect("a member") = wrong.clone();
                for format in [Format::Ocsf, Format::Ecs, Format::Cef] {
                    assert!(!format.line(&changed.to_string()).contains('\n'));
                }
            }
        }
    }
}

fn pointers(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![(String::new(), value)];
    while let Some((pointer, value)) = waiting.pop() {
        match value {
            Value::Object(members) => {
                waiting.extend(members.iter().map(|(k, v)| (format!("{pointer}/{k}"), v)));
            }
            Value::Array(items) => {
                let items = items.iter().enumerate();
                waiting.extend(items.map(|(i, v)| (format!("{pointer}/{i}"), v)));
            }
            _ => {}
        }
        found.push(pointer);
    }
    found
}

/// Keys and values.
type Pairs = Vec<(String, String)>;

/// A reader of CEF: the header's fields, and the extension's keys and values.
fn read_cef(line: &str) -> Option<(Vec<String>, Pairs)> {
    let mut header = vec![String::new()];
    let mut chars = line.chars();
    while header.len() < 8 {
        match chars.next()? {
            '\\' => header.last_mut()?.push(chars.next()?),
            '|' => header.push(String::new()),
            c => header.last_mut()?.push(c),
        }
    }
    header.pop();
    // A key is a word before an unescaped `=`; a value goes on to the blank before the next key.
    let rest: Vec<char> = chars.collect();
    let mut equals = Vec::new();
    let mut index = 0;
    while index < rest.len() {
        match rest[index] {
            '\\' => index += 1,
            '=' => equals.push(index),
            _ => {}
        }
        index += 1;
    }
    let key_start = |equal: usize| {
        rest[..equal]
            .iter()
            .rposition(|c| *c == ' ')
            .map_or(0, |at| at + 1)
    };
    let mut pairs = Vec::new();
    for (n, equal) in equals.iter().enumerate() {
        let end = equals
            .get(n + 1)
            .map_or(rest.len(), |next| key_start(*next) - 1);
        let key: String = rest[key_start(*equal)..*equal].iter().collect();
        let mut value = String::new();
        let mut raw = rest[equal + 1..end].iter();
        while let Some(c) = raw.next() {
            match c {
                '\\' => match raw.next()? {
                    'n' => value.push('\n'),
                    'r' => value.push('\r'),
                    c => value.push(*c),
                },
                c => value.push(*c),
            }
        }
        pairs.push((key, value));
    }
    Some((header, pairs))
}

/// What a person reads: what is unsafe to show is written as `\uXXXX`.
fn shown(text: &str) -> String {
    text.chars()
        .map(|c| {
            if crate::escape::is_unsafe(c) && !matches!(c, '\n' | '\r') {
                format!("\\u{:04x}", u32::from(c))
            } else {
                c.to_string()
            }
        })
        .collect()
}

proptest! {
    #[test]
    fn a_cef_value_cannot_leave_its_place(summary in any::<String>(), end in "[=\\\\| \r\na]{0,4}", title in any::<String>()) {
        let summary = summary + &end;
        let event = json!({
            "kind": "alert",
            "alert": { "rule": "r", "title": title, "summary": summary, "count": 1 },
        });
        let line = Format::Cef.line(&event.to_string());
        prop_assert!(!line.chars().any(char::is_control), "{line:?}");
        let (header, pairs) = read_cef(&line).expect("it can be read");
        prop_assert_eq!(&header[4], "r");
        prop_assert_eq!(&header[5], &shown(&title.replace(['\n', '\r'], " ")));
        let keys: Vec<_> = pairs.iter().map(|(key, _)| key.as_str()).collect();
        let expected: &[&str] = if summary.is_empty() { &["cat", "cnt"] } else { &["cat", "msg", "cnt"] };
        prop_assert_eq!(&keys[..], expected);
        if !summary.is_empty() {
            prop_assert_eq!(&pairs[1].1, &shown(&summary));
        }
    }

    #[test]
    fn cef_parts_hold_no_line_end(text in any::<String>()) {
        let (mut header, mut value) = (String::new(), String::new());
        push_header(&mut header, &text);
        push_value(&mut value, &text);
        prop_assert!(!header.chars().chain(value.chars()).any(char::is_control));
    }

    #[test]
    fn ocsf_and_ecs_keep_the_summary_as_it_is(summary in "\\PC{1,40}|[\\x00-\\x1f\"\\\\]{1,8}") {
        let event = json!({ "kind": "alert", "alert": { "summary": summary } }).to_string();
        for format in [Format::Ocsf, Format::Ecs] {
            let mapped: Value = serde_json::from_str(&format.line(&event)).expect("JSON");
            prop_assert_eq!(mapped["message"].as_str(), Some(summary.as_str()));
        }
    }
}
