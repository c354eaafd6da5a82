//! The body that a webhook's template makes of an event.
//!
//! A template is JSON with places such as `{{ alert.summary }}`, in the language of Jinja.
//! Each place becomes a JSON value, so nothing that an agent says can leave it. Where the
//! receiver reads more than JSON into a text, a filter escapes for that, too:
//! `{{ alert.summary | slack }}`.
//!
//! | filter | for |
//! |---|---|
//! | `html` | text and attributes of HTML |
//! | `slack` | Slack's `mrkdwn`, where `<!channel>` calls everybody and `<url\|text>` is a link: `&`, `<` and `>` |
//! | `markdown` | CommonMark and what is like it (Mattermost, Discord, Teams): a backslash before each mark |
//!
//! All three also show what a screen would obey, reorder or hide as `\u{…}`.

#![forbid(unsafe_code)]

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, Value};
use serde::de::IgnoredAny;

use crate::escape::escape;

/// Steps that a template may take for one event.
const FUEL: u64 = 50_000;

/// `template` with the values of `event`.
///
/// # Errors
/// The template is wrong, takes too many steps, or makes something that is no JSON.
pub fn render(template: &str, event: &serde_json::Value) -> Result<String, String> {
    let body = fill(template, event).map_err(|error| format!("the template failed: {error}"))?;
    serde_json::from_str::<IgnoredAny>(&body)
        .map_err(|error| format!("the template does not make JSON: {error}"))?;
    Ok(body)
}

fn fill(template: &str, event: &serde_json::Value) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|_| AutoEscape::Json);
    environment.add_filter("html", |value: Value| escaped(&value, html));
    environment.add_filter("slack", |value: Value| escaped(&value, slack));
    environment.add_filter("markdown", |value: Value| escaped(&value, markdown));
    environment.render_str(template, Serde(event))
}

/// A value as text, nothing for one that is not there, each character as `how` writes it.
fn escaped(value: &Value, how: fn(char, &mut String)) -> String {
    if value.is_undefined() || value.is_none() {
        return String::new();
    }
    let text = value.to_string();
    let mut out = String::with_capacity(text.len());
    for c in escape(&text).chars() {
        how(c, &mut out);
    }
    out
}

fn html(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("&quot;"),
        '\'' => out.push_str("&#39;"),
        c => slack(c, out),
    }
}

/// <https://docs.slack.dev/messaging/formatting-message-text>, "Escaping text".
fn slack(c: char, out: &mut String) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        c => out.push(c),
    }
}

/// CommonMark 0.31, section 2.4: any ASCII punctuation may have a backslash before it.
fn markdown(c: char, out: &mut String) {
    if c.is_ascii_punctuation() {
        out.push('\\');
    }
    out.push(c);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_not_there_is_null_and_what_cannot_be_used_is_an_error() {
        let event = json!({});
        let null = render(
            "{\"text\": {{ nothing }}, \"n\": {{ nothing | html }}}",
            &event,
        );
        assert_eq!(null.as_deref(), Ok("{\"text\": null, \"n\": \"\"}"));
        for wrong in [
            "{{ alert.",
            "{{ alert | shout }}",
            "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}",
            "{\"text\": \"{{ kind }}\"}",
            "plain text",
        ] {
            assert!(
                render(wrong, &json!({ "kind": "alert" })).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn filters_escape_what_a_chat_tool_would_obey() {
        let event = json!({ "t": "<!channel> [x](http://y) **b** & 'q' \u{202e}" });
        let with = |filter: &str| {
            let body = render(&format!("{{{{ t | {filter} }}}}"), &event).unwrap();
            serde_json::from_str::<String>(&body).unwrap()
        };
        assert_eq!(
            with("slack"),
            "&lt;!channel&gt; [x](http://y) **b** &amp; 'q' \\u{202e}"
        );
        assert_eq!(
            with("html"),
            "&lt;!channel&gt; [x](http://y) **b** &amp; &#39;q&#39; \\u{202e}"
        );
        assert_eq!(
            with("markdown"),
            r"\<\!channel\> \[x\]\(http\:\/\/y\) \*\*b\*\* \& \'q\' \\u\{202e\}"
        );
    }

    proptest! {
        #[test]
        fn a_value_cannot_leave_its_place(summary in any::<String>()) {
            let event = json!({ "alert": { "summary": summary } });
            let body = render(r#"{"text": {{ alert.summary }}, "n": 1}"#, &event).unwrap();
            let read: Value = serde_json::from_str(&body).unwrap();
            prop_assert_eq!(read, json!({ "text": summary, "n": 1 }));
        }
    }
}
