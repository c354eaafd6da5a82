//! YAML with places: a tree whose every node knows where it was written.
//!
//! Bounded before anything is built of it: by size, depth and number of nodes.
//! Anchors and aliases are refused, because a few of them make a tree that is
//! exponentially larger than its text, and rules have no need of them.

use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Most bytes of a file. The longest rule of SigmaHQ has 30 kB.
pub const MAX_BYTES: usize = 1 << 20;
/// Most nodes of a file.
const MAX_NODES: usize = 100_000;
/// Deepest nesting.
const MAX_DEPTH: usize = 32;

/// A value, and the bytes of the file it was written in.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where.
    pub span: Range<usize>,
    /// What.
    pub value: Value,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text, a number, a boolean, or nothing: what it is taken for decides.
    Scalar {
        /// As YAML understands it, escapes resolved.
        text: String,
        /// Written without quotes.
        plain: bool,
    },
    /// In order.
    List(Vec<Node>),
    /// In order, each key once.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// Text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether it is YAML's null: nothing, `~` or `null` without quotes.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The items of a list; a value that is no list is its only item.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => std::slice::from_ref(self),
        }
    }

    /// A member of a map.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(members) => members
                .iter()
                .find_map(|(name, value)| (name.text() == Some(key)).then_some(value)),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub fn what(&self) -> &'static str {
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Why a text is no tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// Where.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<&'static str>,
}

/// The documents of a file; empty ones are left out.
///
/// # Errors
/// It is not YAML, goes beyond a bound, or uses anchors, aliases, tags, or a key twice.
pub fn documents(text: &str) -> Result<Vec<Node>, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error {
            span: 0..0,
            message: format!(
                "the file has {} bytes, more than the {MAX_BYTES} that are read",
                text.len()
            ),
            help: Some("split it into several files"),
        });
    }
    let mut loader = Loader {
        text,
        parser: Parser::new_from_str(text),
        places: Places::new(text),
        nodes: 0,
    };
    let mut documents = Vec::new();
    while let Some((event, span)) = loader.next()? {
        if let Event::DocumentStart(_) | Event::DocumentEnd | Event::StreamStart = event {
            continue;
        }
        if event == Event::StreamEnd {
            break;
        }
        let node = loader.node(event, span, 0)?;
        if !node.is_null() {
            documents.push(node);
        }
    }
    Ok(documents)
}

/// Characters, which the parser counts, to bytes.
struct Places {
    /// Byte of each character; empty when they are the same.
    bytes: Vec<usize>,
    len: usize,
}

impl Places {
    fn new(text: &str) -> Self {
        let bytes = match text.is_ascii() {
            true => Vec::new(),
            false => text.char_indices().map(|(byte, _)| byte).collect(),
        };
        let len = text.len();
        Self { bytes, len }
    }

    fn byte(&self, character: usize) -> usize {
        match self.bytes.is_empty() {
            true => character.min(self.len),
            false => self.bytes.get(character).copied().unwrap_or(self.len),
        }
    }

    fn range(&self, span: Span) -> Range<usize> {
        let start = self.byte(span.start.index());
        start..self.byte(span.end.index()).max(start)
    }
}

struct Loader<'t> {
    text: &'t str,
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    places: Places,
    nodes: usize,
}

impl<'t> Loader<'t> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, Error> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) => {
                let at = self.places.byte(error.marker().index());
                Err(Error {
                    span: at..at,
                    message: format!("not YAML: {}", error.info()),
                    help: None,
                })
            }
        }
    }

    /// What `next` gives inside of a document.
    fn inner(&mut self) -> Result<(Event<'t>, Span), Error> {
        let len = self.places.len;
        self.next()?.ok_or_else(|| Error {
            span: len..len,
            message: "not YAML: the file ends in the middle of a value".to_owned(),
            help: None,
        })
    }

    fn refuse<T>(&self, span: Span, message: &str, help: &'static str) -> Result<T, Error> {
        Err(Error {
            span: self.places.range(span),
            message: message.to_owned(),
            help: Some(help),
        })
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Error> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("the file has more than {MAX_NODES} values");
            return self.refuse(span, &message, "split it into several files");
        }
        if depth > MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} levels deep");
            return self.refuse(span, &message, "no rule needs that: write it flatter");
        }
        let (anchor, tag) = match &event {
            Event::Alias(_) => (1, None),
            Event::Scalar(_, _, anchor, tag)
            | Event::SequenceStart(anchor, tag)
            | Event::MappingStart(anchor, tag) => (*anchor, tag.as_ref()),
            _ => (0, None),
        };
        if anchor != 0 {
            let message = "anchors and aliases are not supported in rules";
            return self.refuse(span, message, "write the value out where it is needed");
        }
        if tag.is_some() {
            let message = "tags are not supported in rules";
            return self.refuse(span, message, "leave the tag out");
        }
        let mut whole = self.places.range(span);
        let value = match event {
            Event::Scalar(text, style, ..) => Value::Scalar {
                text: text.into_owned(),
                plain: style == ScalarStyle::Plain,
            },
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                let end = loop {
                    match self.inner()? {
                        (Event::SequenceEnd, end) => break end,
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                };
                whole.end = self.end(&whole, end, items.last());
                Value::List(items)
            }
            Event::MappingStart(..) => {
                let (members, end) = self.members(depth)?;
                whole.end = self.end(&whole, end, members.last().map(|(_, last)| last));
                Value::Map(members)
            }
            _ => return self.refuse(span, "not YAML: a value is missing", "write one"),
        };
        Ok(Node { span: whole, value })
    }

    /// Where a list or map ends: with its bracket, if it has one, else with the last
    /// that it holds; the parser's own end is then where the next thing begins.
    fn end(&self, whole: &Range<usize>, end: Span, last: Option<&Node>) -> usize {
        let bracketed = self.text[whole.start..].starts_with(['[', '{']);
        match last {
            Some(last) if !bracketed => last.span.end,
            Some(_) => self.places.range(end).end,
            None => self.places.range(end).end.max(whole.end),
        }
    }

    /// The members of a map, and where it ends.
    fn members(&mut self, depth: usize) -> Result<(Vec<(Node, Node)>, Span), Error> {
        let mut members: Vec<(Node, Node)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        loop {
            let (event, span) = self.inner()?;
            if event == Event::MappingEnd {
                return Ok((members, span));
            }
            let key = self.node(event, span, depth + 1)?;
            let Some(name) = key.text() else {
                return self.refuse(span, "a key must be a single value", "write a name");
            };
            if !seen.insert(name.to_owned()) {
                let message = format!("`{name}` is written twice");
                return self.refuse(span, &message, "put both into one, or rename one");
            }
            let (event, span) = self.inner()?;
            let value = self.node(event, span, depth + 1)?;
            members.push((key, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> Error {
        documents(text).expect_err("it should be refused")
    }

    #[test]
    fn every_value_knows_the_bytes_it_was_written_in() {
        let text = "título: é\nlist: [a, 'b c']\n---\nnext: 1\n";
        let documents = documents(text).expect("YAML");
        assert_eq!(documents.len(), 2);
        let list = documents[0].get("list").expect("a list");
        assert_eq!(&text[list.items()[1].span.clone()], "'b c'");
        let title = documents[0].get("título").expect("a title");
        assert_eq!(&text[title.span.clone()], "é");
    }

    #[test]
    fn lists_and_maps_end_with_their_brackets_or_with_what_they_hold_last() {
        let text = "a: {b: [1, {c: é}], d: {}}\nnext:\n  - x\n  - [y]\n\n# comment\n---\nz: 1\n";
        let documents = documents(text).expect("YAML");
        let written = |path: &[&str]| {
            let node = path
                .iter()
                .fold(&documents[0], |node, key| node.get(key).expect("a member"));
            &text[node.span.clone()]
        };
        assert_eq!(written(&["a"]), "{b: [1, {c: é}], d: {}}");
        assert_eq!(written(&["a", "b"]), "[1, {c: é}]");
        assert_eq!(written(&["a", "d"]), "{}");
        assert_eq!(written(&["next"]), "- x\n  - [y]");
        assert_eq!(
            &text[documents[0].span.clone()],
            &text[..text.find("\n\n").expect("there")]
        );
    }

    #[test]
    fn aliases_are_refused_so_that_no_small_text_makes_a_large_tree() {
        let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n";
        assert!(refusal(bomb).message.contains("anchors and aliases"));
        assert!(refusal("a: &a [*a]").message.contains("anchors"));
    }

    #[test]
    fn depth_size_and_number_of_values_are_bounded() {
        for deep in [
            "[".repeat(100_000),
            "- ".repeat(100_000),
            "a: {".repeat(1000),
            "? ".repeat(10_000),
        ] {
            documents(&deep).expect_err("too deep");
        }
        assert!(refusal(&"x".repeat(10_000_000)).message.contains("bytes"));
        assert!(
            refusal(&format!("[{}]", "x,".repeat(200_000)))
                .message
                .contains("values")
        );
    }

    #[test]
    fn a_key_that_is_written_twice_is_an_error_where_it_is() {
        let error = refusal("a: 1\nb: 2\na: 3\n");
        assert_eq!(
            (error.span, error.message),
            (10..11, "`a` is written twice".into())
        );
    }
}
