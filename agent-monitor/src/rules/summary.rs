//! `summary`: one sentence for a person, with fields of the event in braces.

use super::fields::{self, Field};
use super::keys::Report;
use super::yaml::Node;
use crate::event::Event;

/// A sentence with places for fields.
#[derive(Debug)]
pub struct Summary(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(String),
    Field(&'static Field),
    /// `{process}`: its name and pid, or words for one that is not known.
    Process,
}

impl Summary {
    /// Reads `"{process} opened {device.name}"`; `{{` is a brace.
    pub fn read(node: &Node, kind: &str, report: &mut Report<'_>) -> Option<Self> {
        let text = super::keys::text("summary", node, report)?;
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            parts.push(Part::Text(rest[..at].to_owned()));
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('{') {
                parts.push(Part::Text("{".to_owned()));
                rest = after;
                continue;
            }
            let Some(end) = rest.find('}') else {
                let message = "a `{` without its `}`";
                report.add(
                    &node.span,
                    message,
                    Some("write `{{` for a brace".to_owned()),
                );
                return None;
            };
            match fields::find(kind, &rest[..end]) {
                _ if &rest[..end] == "process" => parts.push(Part::Process),
                Ok(field) => parts.push(Part::Field(field)),
                Err((message, help)) => {
                    report.add(&node.span, message, help);
                    return None;
                }
            }
            rest = &rest[end + 1..];
        }
        parts.push(Part::Text(rest.to_owned()));
        Some(Self(parts))
    }

    /// The fields that it names.
    pub fn fields(&self) -> impl Iterator<Item = &'static Field> {
        self.0.iter().filter_map(|part| match part {
            Part::Field(field) => Some(*field),
            Part::Text(_) | Part::Process => None,
        })
    }

    /// The sentence about an event; a field that it lacks is a `?`.
    pub fn of(&self, event: &Event) -> String {
        let mut sentence = String::new();
        for part in &self.0 {
            match (part, event.process.as_deref()) {
                (Part::Text(text), _) => sentence.push_str(text),
                (Part::Field(field), _) => match field.show(event) {
                    Some(value) => sentence.push_str(&value),
                    None => sentence.push('?'),
                },
                (Part::Process, Some(process)) => {
                    sentence.push_str(&format!("{}[{}]", process.comm, process.pid));
                }
                (Part::Process, None) if sentence.is_empty() => {
                    sentence.push_str("A process of the agent");
                }
                (Part::Process, None) => sentence.push_str("a process of the agent"),
            }
        }
        sentence
    }
}
