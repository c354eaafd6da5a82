//! Reads a map of a rule file: what it asks for is known, the rest is an error.

use std::ops::Range;

use super::problem::{Problems, Source, nearest, quoted};
use super::yaml::{Node, Value};

/// Where problems of one file go.
pub struct Report<'a> {
    /// The file.
    pub source: &'a Source,
    /// All files' problems.
    pub problems: &'a mut Problems,
}

impl Report<'_> {
    /// Adds a problem at a place of the file.
    pub fn add(&mut self, span: &Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.problems.add(self.source, span, message, help);
    }
}

/// A map that is being read.
pub struct Keys<'n> {
    node: &'n Node,
    members: &'n [(Node, Node)],
    asked: Vec<&'static str>,
}

impl<'n> Keys<'n> {
    /// Begins with a map; `what` it is, for the message when it is something else.
    pub fn new(node: &'n Node, what: &str, report: &mut Report<'_>) -> Option<Self> {
        match &node.value {
            Value::Map(members) => Some(Self {
                node,
                members,
                asked: Vec::new(),
            }),
            _ => {
                let message = format!("{what} must be a map, not {}", node.what());
                report.add(&node.span, message, None);
                None
            }
        }
    }

    /// A member, if it is there.
    pub fn get(&mut self, key: &'static str) -> Option<&'n Node> {
        self.asked.push(key);
        let mut members = self.members.iter();
        members.find_map(|(name, value)| (name.text() == Some(key)).then_some(value))
    }

    /// A member that has to be there.
    pub fn need(
        &mut self,
        key: &'static str,
        what: &str,
        report: &mut Report<'_>,
    ) -> Option<&'n Node> {
        let found = self.get(key);
        if found.is_none() {
            let start = self.node.span.start..self.node.span.start;
            report.add(&start, format!("{what} has no `{key}`"), None);
        }
        found
    }

    /// A text that may be left out.
    pub fn text(&mut self, key: &'static str, report: &mut Report<'_>) -> Option<&'n str> {
        text(key, self.get(key)?, report)
    }

    /// A list of texts that may be left out.
    pub fn texts(&mut self, key: &'static str, report: &mut Report<'_>) -> Vec<&'n Node> {
        let Some(node) = self.get(key) else {
            return Vec::new();
        };
        let items = node.items().iter();
        items
            .filter(|item| text(key, item, report).is_some())
            .collect()
    }

    /// One of a set of words, by its place.
    pub fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
        report: &mut Report<'_>,
    ) -> Option<T> {
        let node = self.get(key)?;
        let given = text(key, node, report)?;
        let found = words.iter().find(|(word, _)| *word == given);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let help = nearest(given, known.iter().copied())
                .unwrap_or_else(|| format!("it is one of {}", known.join(", ")));
            let message = format!("`{key}` cannot be {}", quoted(given));
            report.add(&node.span, message, Some(help));
        }
        found.map(|(_, value)| *value)
    }

    /// Ends: members that were not asked for are errors.
    pub fn end(self, what: &str, report: &mut Report<'_>) {
        for (name, _) in self.members {
            let given = name.text().unwrap_or_default();
            if !self.asked.contains(&given) {
                let message = format!("{what} has no member {}", quoted(given));
                let help = nearest(given, self.asked.iter().copied());
                report.add(&name.span, message, help);
            }
        }
    }
}

/// The text of a member that must be one.
pub fn text<'n>(key: &str, node: &'n Node, report: &mut Report<'_>) -> Option<&'n str> {
    match node.text() {
        Some(text) if !node.is_null() => Some(text),
        _ => {
            let message = format!("`{key}` must be text, not {}", node.what());
            report.add(&node.span, message, None);
            None
        }
    }
}
