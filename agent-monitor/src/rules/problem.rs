//! What is wrong with rules: all of it at once, each with its line.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, MietteDiagnostic, NamedSource};

/// Problems that are told of; more are counted.
const MAX_TOLD: usize = 100;
/// Longest part of a text that a message quotes.
const MAX_QUOTED: usize = 80;
/// Longest line of a file that is shown with what is wrong with it.
const MAX_LINE: usize = 400;

/// A file of rules.
#[derive(Clone, Debug)]
pub struct Source(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    named: Arc<NamedSource<String>>,
}

impl Source {
    /// A file's text, under the name it is told of.
    pub fn new(path: &Path, text: String) -> Self {
        let named = NamedSource::new(path.display().to_string(), text).with_language("yaml");
        Self(Arc::new(Inner {
            path: path.to_owned(),
            named: Arc::new(named),
        }))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// What it says.
    pub fn text(&self) -> &str {
        self.0.named.inner()
    }
}

/// One thing that is wrong.
#[derive(Debug, Diagnostic, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// What, of what.
    message: String,
    #[help]
    help: Option<String>,
    #[source_code]
    source_code: Arc<NamedSource<String>>,
    #[label("here")]
    span: miette::SourceSpan,
}

impl Problem {
    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The bytes it is about.
    pub fn span(&self) -> Range<usize> {
        self.span.offset()..self.span.offset() + self.span.len()
    }

    /// Whether it is about a file of which there is no text to show.
    fn is_of_whole_file(&self) -> bool {
        self.source_code.inner().is_empty()
    }

    /// Whether its line, and those above and below, which are shown with it, can be read.
    fn has_lines_to_show(&self) -> bool {
        let text = self.source_code.inner();
        let at = self.span.offset().min(text.len());
        let (before, after) = (&text.as_bytes()[..at], &text.as_bytes()[at..]);
        let is_end = |byte: &u8| *byte == b'\n';
        let ends = before.rsplit(is_end).take(2).map(<[u8]>::len);
        let begins = after.split(is_end).take(2).map(<[u8]>::len);
        !text.is_empty() && ends.chain(begins).all(|length| length <= MAX_LINE)
    }

    /// In one line: file, line, what.
    fn without_help(&self) -> String {
        let (file, line) = self.place();
        match self.is_of_whole_file() {
            true => format!("{file}: {self}"),
            false => format!("{file}:{line}: {self}"),
        }
    }

    /// The file's name and the line, from 1.
    pub fn place(&self) -> (&str, usize) {
        let before = self.source_code.inner().as_bytes();
        let before = &before[..self.span.offset().min(before.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        (self.source_code.name(), line)
    }
}

/// Collects what is wrong.
#[derive(Debug, Default)]
pub struct Problems {
    list: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// Adds one.
    pub fn add(
        &mut self,
        source: &Source,
        span: &Range<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        if self.list.len() >= MAX_TOLD {
            self.more += 1;
            return;
        }
        // A label over many lines hides what it is about.
        let text = source.text();
        let start = text.floor_char_boundary(span.start);
        let written = &text[start..text.ceil_char_boundary(span.end.max(start))];
        let length = written.lines().next().unwrap_or("").len();
        let problem = Problem {
            message: message.into(),
            help,
            source_code: source.0.named.clone(),
            span: (start, length).into(),
        };
        // A value of a variable is read for each rule that uses it.
        let known = self.list.iter().any(|known| {
            Arc::ptr_eq(&known.source_code, &problem.source_code)
                && known.span == problem.span
                && known.message == problem.message
        });
        if !known {
            self.list.push(problem);
        }
    }

    /// Those that are told of.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.list.len() + self.more
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// One line each, for logs and answers: file, line, what.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .list
            .iter()
            .map(|problem| {
                let help = problem.help().map(|help| format!(" ({help})"));
                problem.without_help() + &help.unwrap_or_default()
            })
            .collect();
        if self.more > 0 {
            lines.push(format!("and {} more", self.more));
        }
        lines
    }

    /// Every one with its line shown, for people.
    pub fn show(&self, color: bool, width: usize) -> String {
        let theme = match color {
            true => GraphicalTheme::unicode(),
            false => GraphicalTheme::unicode_nocolor(),
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(width)
            .with_links(false);
        let mut text = String::new();
        for problem in &self.list {
            // Writing to a String cannot fail, and a span that lies outside of its text is not made.
            let _ = match problem.has_lines_to_show() {
                true => handler.render_report(&mut text, problem),
                false => {
                    let mut plain = MietteDiagnostic::new(problem.without_help());
                    plain.help.clone_from(&problem.help);
                    handler.render_report(&mut text, &plain)
                }
            };
            text.push('\n');
        }
        if self.more > 0 {
            text.push_str(&format!("and {} more\n", self.more));
        }
        text
    }
}

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

/// `did you mean …?`, when a name is near.
pub fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let wanted = name.to_ascii_lowercase();
    if wanted.len() > MAX_QUOTED {
        return None;
    }
    let near = names
        .into_iter()
        .map(|known| {
            let lower = known.to_ascii_lowercase();
            // One slip of a short word makes it look unlike.
            let slip = strsim::osa_distance(&wanted, &lower) <= 1;
            let likeness = if slip {
                1.0
            } else {
                strsim::jaro_winkler(&wanted, &lower)
            };
            (likeness, known)
        })
        .max_by(|one, other| one.0.total_cmp(&other.0))?;
    (near.0 >= 0.75).then(|| format!("did you mean `{}`?", near.1))
}

/// A text as messages quote it: whole lines of a page do not fit there.
pub fn quoted(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_QUOTED);
    let more = if end < text.len() { "…" } else { "" };
    format!("`{}{more}`", text[..end].escape_debug())
}
