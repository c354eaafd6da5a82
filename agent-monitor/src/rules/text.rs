//! Patterns of text: Sigma's strings with `*` and `?`, many at once.
//!
//! Letters of ASCII match in either case unless the rule says `cased`.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// Most bytes of a pattern.
pub const MAX_PATTERN: usize = 4_096;

/// Most patterns of one value that are looked for anywhere in it: building an
/// automaton of many that begin alike takes time that grows with their square.
const MAX_CONTAINS: usize = 4_096;
/// Most patterns of one value that an index looks for.
const MAX_NEEDLES: usize = 256;

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// This text.
    Literal(String),
    /// `*`: any text, also none.
    Any,
    /// `?`: one character.
    One,
}

/// Where in a value a pattern has to match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// All of it.
    #[default]
    Whole,
    /// Anywhere.
    Contains,
    /// At its beginning.
    Start,
    /// At its end.
    End,
    /// All of it, or what lies above it in a path.
    Below,
}

/// One pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Piece>);

impl Pattern {
    /// Reads a string as Sigma writes it: `*` and `?` are wild, a backslash
    /// before one of them or before a backslash makes it plain.
    pub fn parse(text: &str, place: Place) -> Self {
        let mut pattern = Self(Vec::new());
        if matches!(place, Place::Contains | Place::End) {
            pattern.any();
        }
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match (c, chars.peek()) {
                ('\\', Some(&next @ ('*' | '?' | '\\'))) => {
                    chars.next();
                    pattern.literal(next);
                }
                ('*', _) => pattern.any(),
                ('?', _) => pattern.0.push(Piece::One),
                (c, _) => pattern.literal(c),
            }
        }
        if matches!(place, Place::Contains | Place::Start) {
            pattern.any();
        }
        pattern
    }

    /// A string without wildcards.
    pub fn plain(text: &str, place: Place) -> Self {
        let literal = Piece::Literal(text.to_owned());
        Self(match place {
            Place::Whole | Place::Below => vec![literal],
            Place::Contains => vec![Piece::Any, literal, Piece::Any],
            Place::Start => vec![literal, Piece::Any],
            Place::End => vec![Piece::Any, literal],
        })
    }

    /// Whether it has a `*` or `?`, or is not for the whole of a value.
    pub fn is_wild(&self) -> bool {
        !matches!(self.0.as_slice(), [] | [Piece::Literal(_)])
    }

    fn any(&mut self) {
        if self.0.last() != Some(&Piece::Any) {
            self.0.push(Piece::Any);
        }
    }

    fn literal(&mut self, c: char) {
        match self.0.last_mut() {
            Some(Piece::Literal(text)) => text.push(c),
            _ => self.0.push(Piece::Literal(c.into())),
        }
    }

    /// The longest text that a match must contain.
    fn longest(&self) -> Option<&str> {
        let literals = self.0.iter().filter_map(|piece| match piece {
            Piece::Literal(text) => Some(text.as_str()),
            _ => None,
        });
        literals.max_by_key(|text| text.len())
    }

    /// Matches piece by piece; after a `*` that did not lead on, one character
    /// further. Takes at most pattern × text steps.
    pub fn matches(&self, text: &str, cased: bool) -> bool {
        let (mut piece, mut rest) = (0, text);
        let mut back: Option<(usize, &str)> = None;
        loop {
            let step = match self.0.get(piece) {
                None if rest.is_empty() => return true,
                None => None,
                Some(Piece::Any) => {
                    if piece + 1 == self.0.len() {
                        return true;
                    }
                    back = Some((piece + 1, rest));
                    Some(rest)
                }
                Some(Piece::One) => {
                    let mut chars = rest.chars();
                    chars.next().map(|_| chars.as_str())
                }
                Some(Piece::Literal(literal)) => {
                    starts_with(rest, literal, cased).then(|| &rest[literal.len()..])
                }
            };
            match (step, back) {
                (Some(after), _) => (piece, rest) = (piece + 1, after),
                (None, None) => return false,
                (None, Some((at, from))) => {
                    let mut chars = from.chars();
                    if chars.next().is_none() {
                        return false;
                    }
                    back = Some((at, chars.as_str()));
                    (piece, rest) = (at, chars.as_str());
                }
            }
        }
    }
}

fn same(one: &[u8], other: &[u8], cased: bool) -> bool {
    if cased {
        one == other
    } else {
        one.eq_ignore_ascii_case(other)
    }
}

/// Bytes that equal a literal end where a character ends, because the literal's do.
fn starts_with(text: &str, start: &str, cased: bool) -> bool {
    text.as_bytes()
        .get(..start.len())
        .is_some_and(|head| same(head, start.as_bytes(), cased))
}

fn ends_with(text: &str, end: &str, cased: bool) -> bool {
    text.len()
        .checked_sub(end.len())
        .is_some_and(|at| same(&text.as_bytes()[at..], end.as_bytes(), cased))
}

/// Texts that are looked for anywhere.
#[derive(Debug)]
enum Contains {
    /// One after the other: most rules have so few that an automaton for each
    /// would take longer to build than it will ever save.
    Few(Vec<String>),
    /// All at once.
    Many(AhoCorasick),
}

/// Texts that are looked for one after the other.
const FEW: usize = 4;

impl Default for Contains {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Contains {
    fn is_in(&self, text: &str, cased: bool) -> bool {
        match self {
            Self::Few(texts) => texts
                .iter()
                .any(|it| is_in(it.as_bytes(), text.as_bytes(), cased)),
            Self::Many(automaton) => automaton.is_match(text),
        }
    }
}

/// Whether `part`, which is not empty, is in `text`.
fn is_in(part: &[u8], text: &[u8], cased: bool) -> bool {
    let Some((first, last)) = part.first().zip(text.len().checked_sub(part.len())) else {
        return part.is_empty();
    };
    let begins = &text[..=last];
    let found = |at: usize| same(part, &text[at..at + part.len()], cased);
    match cased {
        true => memchr::memchr_iter(*first, begins).any(found),
        false => {
            let (low, high) = (first.to_ascii_lowercase(), first.to_ascii_uppercase());
            memchr::memchr2_iter(low, high, begins).any(found)
        }
    }
}

/// Patterns of which one has to match.
#[derive(Debug, Default)]
pub struct TextSet {
    cased: bool,
    /// Sorted by [`order`].
    whole: Vec<Box<str>>,
    starts: Vec<Box<str>>,
    ends: Vec<Box<str>>,
    contains: Contains,
    wild: Vec<Pattern>,
    /// A text that each match contains, a pattern each; `None` if one has no such
    /// text, or they are too many.
    needles: Option<Vec<Box<str>>>,
}

impl TextSet {
    /// Compiles patterns.
    ///
    /// # Errors
    /// They are too many or too long together.
    pub fn new(patterns: Vec<Pattern>, cased: bool) -> Result<Self, String> {
        let longest = patterns.iter().map(|pattern| {
            let needle = pattern.longest().filter(|text| !text.is_empty());
            needle.map(Box::from)
        });
        let needles = match patterns.len() {
            ..=MAX_NEEDLES => longest.collect(),
            _ => None,
        };
        let mut set = Self {
            cased,
            needles,
            ..Self::default()
        };
        let mut contains = Vec::new();
        for pattern in patterns {
            match pattern.0.as_slice() {
                [] => set.whole.push("".into()),
                [Piece::Literal(text)] => set.whole.push(text.as_str().into()),
                [Piece::Literal(text), Piece::Any] => set.starts.push(text.as_str().into()),
                [Piece::Any, Piece::Literal(text)] => set.ends.push(text.as_str().into()),
                [Piece::Any, Piece::Literal(text), Piece::Any] => contains.push(text.clone()),
                _ => set.wild.push(pattern),
            }
        }
        set.whole
            .sort_by(|one, other| order(one.as_bytes(), other.as_bytes(), cased));
        if contains.len() > MAX_CONTAINS {
            return Err(format!(
                "more than {MAX_CONTAINS} patterns to look for anywhere in a value"
            ));
        }
        set.contains = match contains.len() {
            ..=FEW => Contains::Few(contains),
            _ => Contains::Many(automaton(&contains, cased, MatchKind::Standard)?),
        };
        Ok(set)
    }

    /// Whether one of the patterns matches.
    pub fn matches(&self, text: &str) -> bool {
        (match self.whole.as_slice() {
            [] => false,
            [one] => same(one.as_bytes(), text.as_bytes(), self.cased),
            many => many
                .binary_search_by(|it| order(it.as_bytes(), text.as_bytes(), self.cased))
                .is_ok(),
        }) || self
            .starts
            .iter()
            .any(|it| starts_with(text, it, self.cased))
            || self.ends.iter().any(|it| ends_with(text, it, self.cased))
            || self.contains.is_in(text, self.cased)
            || self.wild.iter().any(|it| it.matches(text, self.cased))
    }

    /// Whether no text of [`Self::needles`] has a space, so that each lies in
    /// one of several texts that are put together with spaces.
    pub fn is_of_single_words(&self) -> bool {
        self.needles
            .as_ref()
            .is_some_and(|all| all.iter().all(|text| !text.contains(' ')))
    }

    /// Roughly how long a match takes, in tests of a number.
    pub fn cost(&self) -> u32 {
        let lists = self.starts.len() + self.ends.len() + 16 * self.wild.len();
        let contains = match &self.contains {
            Contains::Few(texts) => 16 * u32::try_from(texts.len()).unwrap_or_default(),
            Contains::Many(_) => 32,
        };
        2 + contains + u32::try_from(lists).unwrap_or(u32::MAX / 8)
    }

    /// Texts of which a match contains at least one, in either case; `None`
    /// when there are no such texts.
    pub fn needles(&self) -> Option<&[Box<str>]> {
        self.needles.as_deref()
    }
}

fn order(one: &[u8], other: &[u8], cased: bool) -> std::cmp::Ordering {
    if cased {
        return one.cmp(other);
    }
    let by_letters = || {
        let one = one.iter().map(u8::to_ascii_lowercase);
        one.cmp(other.iter().map(u8::to_ascii_lowercase))
    };
    one.len().cmp(&other.len()).then_with(by_letters)
}

/// Finds many texts at once. A table of all transitions is fastest, and is
/// taken while it is small.
pub fn automaton<T: AsRef<[u8]>>(
    texts: &[T],
    cased: bool,
    kind: MatchKind,
) -> Result<AhoCorasick, String> {
    /// Bytes of patterns up to which the table stays below about a megabyte.
    const SMALL: usize = 4_096;
    let bytes: usize = texts.iter().map(|text| text.as_ref().len()).sum();
    let table = (bytes <= SMALL).then_some(AhoCorasickKind::DFA);
    AhoCorasick::builder()
        .ascii_case_insensitive(!cased)
        .match_kind(kind)
        .kind(table.or(Some(AhoCorasickKind::ContiguousNFA)))
        .build(texts)
        .map_err(|error| format!("too many patterns: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(patterns: &[(&str, Place)], cased: bool) -> TextSet {
        let patterns = patterns
            .iter()
            .map(|(text, place)| Pattern::parse(text, *place))
            .collect();
        TextSet::new(patterns, cased).expect("few patterns")
    }

    #[test]
    fn patterns_match_as_sigma_says() {
        use Place::{Contains, End, Start, Whole};
        for (pattern, place, text, want) in [
            ("/bin/sh", Whole, "/bin/SH", true),
            ("/bin/sh", Whole, "/bin/sh ", false),
            ("", Whole, "", true),
            ("", Whole, "x", false),
            ("/bin/*sh", Whole, "/bin/bash", true),
            ("/bin/*sh", Whole, "/bin/sh", true),
            ("/bin/?sh", Whole, "/bin/dash", false),
            ("/bin/?ash", Whole, "/bin/dash", true),
            ("/bin/?ash", Whole, "/bin/éash", true),
            ("a*b*c", Whole, "a-b-b-c", true),
            ("a*b*c", Whole, "a-c-b", false),
            (r"a\*b", Whole, "a*b", true),
            (r"a\*b", Whole, "axb", false),
            (r"C:\Windows", Whole, r"c:\windows", true),
            (r"a\\*", Whole, r"a\x", true),
            ("wallet", Contains, "my WALLET is", true),
            ("wal?et", Contains, "my wallet is", true),
            ("ssh", Start, "sshd", true),
            ("ssh", Start, "openssh", false),
            ("ssh", End, "/usr/bin/ssh", true),
            ("ssh", End, "sh", false),
            ("*", Whole, "", true),
            ("?*", Whole, "", false),
            ("é", Contains, "café", true),
            ("wallet", Contains, "walle", false),
            ("wallet", Contains, "wwalleT", true),
        ] {
            let got = set(&[(pattern, place)], false).matches(text);
            assert_eq!(got, want, "{pattern} {place:?} {text}");
        }
    }

    #[test]
    fn case_counts_only_when_asked_for() {
        assert!(!set(&[("Abc", Place::Whole)], true).matches("abc"));
        assert!(!set(&[("Abc", Place::Contains)], true).matches("xabcx"));
        assert!(set(&[("Abc", Place::Contains)], true).matches("xAbcx"));
        let many = ["Aa", "Bb", "Cc", "Dd", "Ee"].map(|text| (text, Place::Contains));
        assert!(set(&many, false).matches("xeEx"));
        assert!(set(&many, true).matches("xEex"));
        assert!(!set(&many, true).matches("xeEx"));
    }

    #[test]
    fn many_whole_texts_are_all_found_in_either_case() {
        let names: Vec<String> = (0..500).map(|n| format!("Name-{n}")).collect();
        let patterns: Vec<_> = names.iter().map(|n| (n.as_str(), Place::Whole)).collect();
        let set = set(&patterns, false);
        assert!(names.iter().all(|name| set.matches(&name.to_uppercase())));
        assert!(!set.matches("name-500"));
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_longer_than_its_length_allows() {
        let pattern = "*a".repeat(30) + "*b";
        let text = "a".repeat(20_000);
        let used = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec;
        let before = used();
        assert!(!set(&[(&pattern, Place::Whole)], false).matches(&text));
        assert!(used() - before < 10);
    }
}
