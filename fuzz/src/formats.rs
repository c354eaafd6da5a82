//! What sinks write, read back as a receiver would: nothing that an agent says may end
//! where it was not put.

use agent_monitor::config::Format;
use agent_monitor::sinks::{rfc5424, template};
use serde_json::{Value, json};

/// Every format of the sinks, with the input in every text of an alert.
pub fn formats(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let event = alert(&text);
    let alert = event.to_string();
    for format in [
        Format::Json,
        Format::Ocsf,
        Format::Ecs,
        Format::Cef,
        Format::Plain,
    ] {
        let line = format.line(&alert);
        let control = line.chars().find(|c| matches!(c, '\0'..' '));
        assert_eq!(control, None, "a control character in {line:?}");
        match format {
            Format::Cef => cef(&line, &text),
            Format::Plain => {}
            Format::Json | Format::Ocsf | Format::Ecs => {
                serde_json::from_str::<Value>(&line).expect("it is JSON");
            }
        }
        let mut frame = String::new();
        rfc5424::write_frame(&mut frame, &alert, format);
        let (length, message) = frame.split_once(' ').expect("its length comes first");
        assert_eq!(length.parse(), Ok(message.len()));
        assert!(!message.chars().any(char::is_control), "{message:?}");
        syslog(message, &text);
    }
    templates(&event, &text);
}

fn alert(text: &str) -> Value {
    json!({
        "schema": 1, "id": "a-1", "time": "2026-01-01T00:00:00.000000001Z", "kind": "alert", "node": text,
        "agent": {"id": text, "name": text, "cgroup": text, "cgroup_id": "7",
            "container": {"id": text, "name": text, "image": text, "runtime": "docker"},
            "pod": {"namespace": text, "name": text}},
        "process": {"pid": 7, "start": 9, "ppid": 1, "uid": 0, "comm": text, "exe": text, "argv": [text, text],
            "ancestors": [{"pid": 1, "comm": text, "exe": text}]},
        "alert": {"incident": text, "revision": 1, "rule": text, "title": text, "severity": "high",
            "confidence": "medium", "attack": ["T1572"], "summary": text, "evidence": [text, text],
            "events": [text], "count": 1, "first_seen": "2026-01-01T00:00:00.000000001Z",
            "last_seen": "2026-01-01T00:00:00.000000001Z", "coverage": text},
    })
}

/// The header and the structured data of RFC 5424, sections 6.2 and 6.3.
fn syslog(message: &str, text: &str) {
    let mut parts = message.splitn(7, ' ');
    let mut next = || parts.next().expect("seven parts");
    assert_eq!((next(), next()), ("<131>1", "2026-01-01T00:00:00.000000Z"));
    let host = next();
    assert!((1..=255).contains(&host.len()) && host.bytes().all(|byte| byte.is_ascii_graphic()));
    assert_eq!((next(), next(), next()), ("agent-monitor", "-", "alert"));
    let mut rest = next()
        .strip_prefix("[agentMonitor@32473")
        .expect("our element");
    let shown: String = text
        .chars()
        .map(|c| match c.is_control() {
            true => format!("\\u{:04x}", u32::from(c)),
            false => c.to_string(),
        })
        .collect();
    for (name, expected) in [
        ("rule", &*shown),
        ("severity", "high"),
        ("incident", &shown),
        ("revision", "1"),
        ("agent", &shown),
    ] {
        rest = rest.strip_prefix(' ').expect("a parameter");
        rest = rest.strip_prefix(name).expect("its name");
        rest = rest.strip_prefix("=\"").expect("its value");
        let mut value = String::new();
        let mut chars = rest.char_indices();
        loop {
            match chars.next().expect("the value ends") {
                (at, '"') => {
                    rest = &rest[at + 1..];
                    break;
                }
                (_, ']') => panic!("not escaped: {message:?}"),
                (_, '\\') => {
                    let (_, escaped) = chars.next().expect("what is escaped");
                    assert!(matches!(escaped, '"' | '\\' | ']'), "{message:?}");
                    value.push(escaped);
                }
                (_, c) => value.push(c),
            }
        }
        assert_eq!(value, expected);
    }
    assert!(rest.starts_with("] "), "{message:?}");
}

/// Keys of an alert's extension, in their order, with the input for text.
const KEYS: &[&str] = &[
    "rt",
    "externalId",
    "dvchost",
    "cat",
    "cs2",
    "cs2Label",
    "cs3",
    "cs3Label",
    "spid",
    "sproc",
    "suid",
    "cs6",
    "cs6Label",
    "msg",
    "cnt",
    "start",
    "end",
    "cs1",
    "cs1Label",
    "cs4",
    "cs4Label",
    "cs5",
    "cs5Label",
    "cn1",
    "cn1Label",
    "reason",
];

/// CEF: seven fields, then pairs. A key is the word before an equals sign that has no
/// backslash; a value goes on to the blank before the next key.
fn cef(line: &str, text: &str) {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while fields.len() < 8 {
        match chars.next().expect("seven fields") {
            '\\' => fields.last_mut().expect("one").extend(chars.next()),
            '|' => fields.push(String::new()),
            c => fields.last_mut().expect("one").push(c),
        }
    }
    let plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if plain {
        assert_eq!(fields[4..6], [text, text]);
    }
    assert_eq!(fields[6], "8");
    let (mut keys, mut pieces) = (Vec::new(), vec![String::new()]);
    let mut rest = chars.as_str().chars();
    while let Some(c) = rest.next() {
        let piece = pieces.last_mut().expect("one");
        match c {
            '\\' => {
                piece.push('\\');
                piece.extend(rest.next());
            }
            '=' => {
                let at = piece.rfind(' ').map_or(0, |at| at + 1);
                keys.push(piece.split_off(at));
                pieces.push(String::new());
            }
            c => piece.push(c),
        }
    }
    if text.is_empty() {
        assert!(keys.iter().all(|key| KEYS.contains(&&**key)), "{keys:?}");
        return;
    }
    assert_eq!(keys, KEYS, "{line:?}");
    let at = keys
        .iter()
        .position(|key| key == "msg")
        .expect("it is there");
    if plain {
        let message = pieces[at + 1].strip_suffix(' ');
        let written = text.replace('\\', "\\\\").replace('=', "\\=");
        assert_eq!(message, Some(&*written));
    }
}

/// A webhook's body, and texts for HTML and chat tools in it.
fn templates(event: &Value, text: &str) {
    let body = r#"{"a": {{ alert.summary }}, "b": {{ alert.summary | html }}, "c": {{ alert.summary | slack }}, "d": {{ alert.summary | markdown }}, "e": 1}"#;
    let body = template::render(body, event).expect("the template is right");
    let body: Value = serde_json::from_str(&body).expect("it is JSON");
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(5));
    assert_eq!((&body["a"], &body["e"]), (&text.into(), &1.into()));
    let place = |name: &str| body[name].as_str().expect("a text");
    for (name, entities) in [
        ("b", &["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"][..]),
        ("c", &["&amp;", "&lt;", "&gt;"]),
    ] {
        let value = place(name);
        assert!(!value.contains(['<', '>']), "{value:?}");
        assert!(name != "b" || !value.contains(['"', '\'']), "{value:?}");
        for (at, _) in value.match_indices('&') {
            assert!(
                entities
                    .iter()
                    .any(|entity| value[at..].starts_with(entity))
            );
        }
    }
    let mut markdown = place("d").chars();
    while let Some(c) = markdown.next() {
        assert!(!c.is_control());
        let escaped = match c {
            '\\' => markdown.next(),
            c => (!c.is_ascii_punctuation()).then_some(c),
        };
        assert!(escaped.is_some(), "a bare mark in {:?}", place("d"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What means something in one of the formats, and what stands for the rest.
    const MARKS: [&str; 22] = [
        "\"", "\\", "]", "[", "=", "|", " ", "\n", "\r", "\0", "\u{1b}", "\u{9b}", "\u{202e}", "&",
        "<", ">", "'", "*", "{", "}", "a", "é",
    ];

    #[test]
    fn every_pair_of_marks_stays_where_it_is_put() {
        formats(b"");
        for one in MARKS {
            for other in MARKS {
                formats(format!("{one}{other}").as_bytes());
            }
        }
    }
}
