//! `condition`: selections put together with `and`, `or`, `not`, parentheses,
//! `1 of …` and `all of …`. `not` binds tightest, then `and`, then `or`.

use std::ops::Range;

use super::problem::nearest;

/// Deepest nesting of parentheses and `not`.
const MAX_DEPTH: usize = 64;
/// Most bytes of a condition.
const MAX_BYTES: usize = 4_096;

/// A condition, with selections by their place among those there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A selection.
    One(usize),
    /// All of them.
    All(Vec<Condition>),
    /// One of them.
    Any(Vec<Condition>),
    /// Not this.
    Not(Box<Condition>),
}

/// Why a condition cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Bytes of the condition's text.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// Reads a condition over selections of these names.
///
/// # Errors
/// It is no condition, or names a selection that there is not.
pub fn parse(text: &str, names: &[&str]) -> Result<Condition, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error {
            span: 0..text.len(),
            message: format!("a condition has at most {MAX_BYTES} bytes"),
            help: Some("put lists into selections: their values are alternatives".to_owned()),
        });
    }
    let mut parser = Parser {
        tokens: tokens(text),
        next: 0,
        names,
        end: text.len(),
        depth: 0,
    };
    let condition = parser.or()?;
    match parser.peek() {
        None => Ok(condition),
        Some("|") => parser.fail("a `|` with an aggregation is not supported", || {
            Some("write a rule with `correlation:` that names this one".to_owned())
        }),
        Some(_) => parser.fail("expected `and`, `or` or the end", || None),
    }
}

struct Token<'t> {
    text: &'t str,
    span: Range<usize>,
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut word = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        let alone = matches!(c, '(' | ')' | '|');
        if (alone || c.is_whitespace())
            && let Some(from) = word.take()
        {
            tokens.push(Token {
                text: &text[from..at],
                span: from..at,
            });
        }
        if alone {
            tokens.push(Token {
                text: &text[at..=at],
                span: at..at + 1,
            });
        } else if !c.is_whitespace() {
            word = word.or(Some(at));
        }
    }
    tokens
}

struct Parser<'t> {
    tokens: Vec<Token<'t>>,
    next: usize,
    names: &'t [&'t str],
    end: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<&'t str> {
        self.tokens.get(self.next).map(|token| token.text)
    }

    fn takes(&mut self, word: &str) -> bool {
        let takes = self.peek().is_some_and(|it| it.eq_ignore_ascii_case(word));
        self.next += usize::from(takes);
        takes
    }

    fn fail<T>(&self, message: &str, help: impl FnOnce() -> Option<String>) -> Result<T, Error> {
        let token = self.tokens.get(self.next);
        let span = token.map_or(self.end..self.end, |token| token.span.clone());
        let message = match token {
            Some(token) => format!("{message}, not `{}`", token.text.escape_debug()),
            None => format!("{message}, not the end"),
        };
        Err(Error {
            span,
            message,
            help: help(),
        })
    }

    fn or(&mut self) -> Result<Condition, Error> {
        let mut parts = vec![self.and()?];
        while self.takes("or") {
            parts.push(self.and()?);
        }
        Ok(one_or(parts, Condition::Any))
    }

    fn and(&mut self) -> Result<Condition, Error> {
        let mut parts = vec![self.not()?];
        while self.takes("and") {
            parts.push(self.not()?);
        }
        Ok(one_or(parts, Condition::All))
    }

    fn not(&mut self) -> Result<Condition, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail("a condition nests at most 64 levels deep", || None);
        }
        let condition = if self.takes("not") {
            Condition::Not(Box::new(self.not()?))
        } else if self.takes("(") {
            let inner = self.or()?;
            if !self.takes(")") {
                return self.fail("expected `)`", || None);
            }
            inner
        } else {
            self.selections()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn selections(&mut self) -> Result<Condition, Error> {
        let followed_by_of = self
            .tokens
            .get(self.next + 1)
            .is_some_and(|token| token.text.eq_ignore_ascii_case("of"));
        if !followed_by_of {
            return self.selection();
        }
        let make = if self.takes("1") || self.takes("any") {
            Condition::Any
        } else if self.takes("all") {
            Condition::All
        } else {
            return self.fail("expected `1 of` or `all of`", || None);
        };
        self.next += 1;
        let Some(pattern) = self.peek() else {
            return self.fail("expected a name such as `selection*`, or `them`", || None);
        };
        let matches = |name: &str| match pattern {
            // As Sigma says, names that begin with `_` are left out of `them`.
            "them" => !name.starts_with('_'),
            _ => matches_star(pattern, name),
        };
        let found: Vec<Condition> = (0..self.names.len())
            .filter(|place| matches(self.names[*place]))
            .map(Condition::One)
            .collect();
        if found.is_empty() {
            return self.fail("expected the beginning of a selection's name", || {
                Some(format!("the selections are {}", self.names.join(", ")))
            });
        }
        self.next += 1;
        Ok(one_or(found, make))
    }

    fn selection(&mut self) -> Result<Condition, Error> {
        let expected = "expected the name of a selection";
        match self.peek() {
            None => self.fail(expected, || None),
            Some(word) => match self.names.iter().position(|name| *name == word) {
                Some(place) => {
                    self.next += 1;
                    Ok(Condition::One(place))
                }
                None => self.fail(expected, || {
                    let known = format!("the selections are {}", self.names.join(", "));
                    nearest(word, self.names.iter().copied()).or(Some(known))
                }),
            },
        }
    }
}

fn matches_star(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, "")) => name.starts_with(start),
        Some((start, end)) => {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
    }
}

fn one_or(mut parts: Vec<Condition>, many: fn(Vec<Condition>) -> Condition) -> Condition {
    match parts.len() {
        1 => parts.remove(0),
        _ => many(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["sel_a", "sel_b", "filter", "_hidden"];

    fn shown(condition: &Condition) -> String {
        let list = |parts: &[Condition]| {
            let parts: Vec<_> = parts.iter().map(shown).collect();
            parts.join(" ")
        };
        match condition {
            Condition::One(place) => NAMES[*place].to_owned(),
            Condition::All(parts) => format!("(and {})", list(parts)),
            Condition::Any(parts) => format!("(or {})", list(parts)),
            Condition::Not(part) => format!("(not {})", shown(part)),
        }
    }

    #[test]
    fn operators_bind_as_in_sigma() {
        for (text, want) in [
            ("sel_a", "sel_a"),
            (
                "sel_a or sel_b and not filter",
                "(or sel_a (and sel_b (not filter)))",
            ),
            (
                "(sel_a or sel_b) and not filter",
                "(and (or sel_a sel_b) (not filter))",
            ),
            ("1 of sel_*", "(or sel_a sel_b)"),
            (
                "all of sel* and not 1 of filter*",
                "(and (and sel_a sel_b) (not filter))",
            ),
            ("all of them", "(and sel_a sel_b filter)"),
            (
                "NOT sel_a AND 1 OF them",
                "(and (not sel_a) (or sel_a sel_b filter))",
            ),
        ] {
            assert_eq!(shown(&parse(text, NAMES).expect(text)), want, "{text}");
        }
    }

    #[test]
    fn errors_say_where_and_what_may_be_meant() {
        for (text, span, message, help) in [
            ("sel_a and", 9..9, "not the end", None),
            ("sel_a adn sel_b", 6..9, "expected `and`", None),
            (
                "sel_a and slter",
                10..15,
                "name of a selection",
                Some("filter"),
            ),
            ("(sel_a", 6..6, "expected `)`", None),
            (
                "1 of nothing*",
                5..13,
                "beginning of a selection",
                Some("sel_a, sel_b"),
            ),
            ("2 of sel_*", 0..1, "`1 of` or `all of`", None),
            (
                "sel_a | count() > 5",
                6..7,
                "aggregation",
                Some("correlation"),
            ),
            ("", 0..0, "name of a selection", None),
        ] {
            let error = parse(text, NAMES).expect_err(text);
            assert_eq!(error.span, span, "{text}");
            assert!(error.message.contains(message), "{text}: {}", error.message);
            let told = error.help.unwrap_or_default();
            assert!(told.contains(help.unwrap_or_default()), "{text}: {told}");
        }
    }

    #[test]
    fn nesting_and_length_are_bounded() {
        let deep = format!("{}sel_a{}", "(".repeat(1000), ")".repeat(1000));
        assert!(
            parse(&deep, NAMES)
                .expect_err("deep")
                .message
                .contains("64")
        );
        let nots = "not ".repeat(1000) + "sel_a";
        assert!(
            parse(&nots, NAMES)
                .expect_err("deep")
                .message
                .contains("64")
        );
        let long = "sel_a or ".repeat(10_000);
        assert!(
            parse(&long, NAMES)
                .expect_err("long")
                .message
                .contains("bytes")
        );
    }
}
