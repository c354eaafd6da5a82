//! What follows a field's name after `|`, and what it makes of values.

use super::problem::nearest;
use super::text::Place;
use super::tree::Compare;

/// Dashes that Windows programs, and careless parsers, take for each other
/// (Sigma's `windash`).
const DASHES: [char; 5] = ['-', '/', '–', '—', '―'];
/// Dashes of one value that are replaced: each multiplies the patterns by five.
const MAX_DASHES: usize = 3;

/// The modifiers of one field, as written.
#[derive(Clone, Debug, Default)]
pub struct Modifiers {
    /// `contains`, `startswith`, `endswith`, and `below`: a path, or one that begins with it.
    pub place: Option<Place>,
    /// `all`: every value has to match, not one.
    pub all: bool,
    /// `re`, and its flags `i`, `m`, `s`.
    pub re: Option<String>,
    /// `cidr`.
    pub cidr: bool,
    /// `gt`, `gte`, `lt`, `lte`.
    pub compare: Option<Compare>,
    /// `exists`.
    pub exists: bool,
    /// `base64offset`.
    pub base64offset: bool,
    /// `windash`.
    pub windash: bool,
    /// `fieldref`.
    pub fieldref: bool,
    /// `expand`: values are names of variables.
    pub expand: bool,
    /// `joined`: a list of texts with spaces between, as a command line.
    pub joined: bool,
    /// `cased`.
    pub cased: bool,
}

const NAMES: &[&str] = &[
    "contains",
    "startswith",
    "endswith",
    "below",
    "all",
    "re",
    "i",
    "m",
    "s",
    "cidr",
    "gt",
    "gte",
    "lt",
    "lte",
    "exists",
    "base64offset",
    "windash",
    "fieldref",
    "expand",
    "joined",
    "cased",
];

/// What would have one of the two do nothing, and why.
const CLASHES: &[(&str, &str, &str)] = &[
    (
        "re",
        "cased",
        "a regular expression tells cases apart without `i`",
    ),
    ("re", "windash", "write the dashes into the expression"),
    ("re", "base64offset", "an expression is not known in base64"),
    (
        "base64offset",
        "startswith",
        "what is coded may begin anywhere: use `contains`",
    ),
    (
        "base64offset",
        "endswith",
        "what is coded may end anywhere: use `contains`",
    ),
    ("base64offset", "below", "use `contains`"),
    ("base64offset", "windash", "write a value for each dash"),
    ("expand", "all", "a variable's values are alternatives"),
    ("exists", "all", "`exists` takes one `true` or `false`"),
    ("exists", "expand", "`exists` takes `true` or `false`"),
    ("exists", "fieldref", "`exists` takes `true` or `false`"),
    ("exists", "base64offset", "`exists` takes `true` or `false`"),
    ("exists", "windash", "`exists` takes `true` or `false`"),
    ("exists", "cased", "`exists` takes `true` or `false`"),
];

impl Modifiers {
    /// Reads `a|b|c`.
    ///
    /// # Errors
    /// One is not known, or two exclude each other: which byte range, what, and help.
    pub fn parse(text: &str) -> Result<Self, (std::ops::Range<usize>, String, Option<String>)> {
        let mut modifiers = Self::default();
        let mut at = 0;
        // Those of which a field can have one only.
        let mut exclusive: Option<&str> = None;
        for name in text.split('|') {
            let span = at..at + name.len();
            at = span.end + 1;
            let set = &mut modifiers;
            match name {
                "contains" => set.place = Some(Place::Contains),
                "startswith" => set.place = Some(Place::Start),
                "endswith" => set.place = Some(Place::End),
                "below" => set.place = Some(Place::Below),
                "all" => set.all = true,
                "re" => set.re = Some(String::new()),
                "i" | "m" | "s" => match &mut set.re {
                    Some(flags) => flags.push_str(name),
                    None => {
                        let message = format!("`{name}` is a flag of `re`");
                        return Err((span, message, Some(format!("write `re|{name}`"))));
                    }
                },
                "cidr" => set.cidr = true,
                "gt" => set.compare = Some(Compare::Gt),
                "gte" => set.compare = Some(Compare::Gte),
                "lt" => set.compare = Some(Compare::Lt),
                "lte" => set.compare = Some(Compare::Lte),
                "exists" => set.exists = true,
                "base64offset" => set.base64offset = true,
                "windash" => set.windash = true,
                "fieldref" => set.fieldref = true,
                "expand" => set.expand = true,
                "joined" => set.joined = true,
                "cased" => set.cased = true,
                _ => {
                    let message = format!("there is no modifier `{}`", name.escape_debug());
                    let help = nearest(name, NAMES.iter().copied())
                        .unwrap_or_else(|| format!("there are {}", NAMES.join(", ")));
                    return Err((span, message, Some(help)));
                }
            }
            let excludes = matches!(
                name,
                "contains"
                    | "startswith"
                    | "endswith"
                    | "below"
                    | "re"
                    | "cidr"
                    | "exists"
                    | "gt"
                    | "gte"
                    | "lt"
                    | "lte"
            );
            if excludes && let Some(before) = exclusive.replace(name) {
                let message = format!("`{before}` and `{name}` exclude each other");
                return Err((span, message, None));
            }
        }
        let given = |name: &str| text.split('|').any(|it| it == name);
        let mut clashes = CLASHES.iter();
        if let Some((one, other, why)) = clashes.find(|(one, other, _)| given(one) && given(other))
        {
            let message = format!("`{one}` and `{other}` exclude each other");
            return Err((0..text.len(), message, Some((*why).to_owned())));
        }
        Ok(modifiers)
    }

    /// Whether one is there that only texts can have, and which.
    pub fn of_text(&self) -> Option<&'static str> {
        match self {
            Self {
                place: Some(Place::Contains),
                ..
            } => Some("contains"),
            Self {
                place: Some(Place::Start),
                ..
            } => Some("startswith"),
            Self {
                place: Some(Place::End),
                ..
            } => Some("endswith"),
            Self {
                place: Some(Place::Below),
                ..
            } => Some("below"),
            Self { re: Some(_), .. } => Some("re"),
            Self {
                base64offset: true, ..
            } => Some("base64offset"),
            Self { windash: true, .. } => Some("windash"),
            Self { cased: true, .. } => Some("cased"),
            _ => None,
        }
    }
}

/// Every way to write a value with other dashes before its words.
///
/// # Errors
/// It has too many dashes.
pub fn windash(value: &str) -> Result<Vec<String>, String> {
    let mut places = Vec::new();
    let mut before = ' ';
    let mut chars = value.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let begins = matches!(c, '-' | '/') && !before.is_alphanumeric() && before != '_';
        let word = chars
            .peek()
            .is_some_and(|(_, next)| next.is_alphanumeric() || *next == '_');
        if begins && word {
            places.push(at);
        }
        before = c;
    }
    if places.len() > MAX_DASHES {
        return Err(format!(
            "`windash` takes values with at most {MAX_DASHES} dashes before words"
        ));
    }
    let mut all = vec![value.to_owned()];
    // From the end, so that a longer dash does not move the places before it.
    for at in places.into_iter().rev() {
        let with =
            |text: &String| DASHES.map(|dash| format!("{}{dash}{}", &text[..at], &text[at + 1..]));
        all = all.iter().flat_map(with).collect();
    }
    Ok(all)
}

/// What a text can look like within base64, by where it begins in a group of
/// three bytes; the characters that depend on its neighbours are left out.
pub fn base64_offsets(value: &str) -> Vec<String> {
    use base64::Engine as _;
    (0..3)
        .filter_map(|offset| {
            let mut bytes = vec![0; offset];
            bytes.extend_from_slice(value.as_bytes());
            let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&bytes);
            // Bits of the bytes before reach into the first 0, 2 or 3 characters.
            let start = [0, 2, 3][offset];
            let end = match bytes.len() % 3 {
                0 => text.len(),
                // The last character has bits of what follows.
                _ => text.len() - 1,
            };
            text.get(start..end)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_found_wherever_it_begins() {
        use base64::Engine as _;
        let wanted = base64_offsets("/bin/bash");
        // As pySigma gives them.
        assert_eq!(wanted, ["L2Jpbi9iYXNo", "9iaW4vYmFza", "vYmluL2Jhc2"]);
        for before in ["", "x", "xy", "xyz"] {
            let text = format!("{before}/bin/bash -i");
            let coded = base64::engine::general_purpose::STANDARD.encode(text);
            assert!(wanted.iter().any(|it| coded.contains(it)), "{before}");
        }
    }

    #[test]
    fn windash_replaces_dashes_before_words_only() {
        let all = windash("a-b -c").expect("one dash");
        assert_eq!(all, ["a-b -c", "a-b /c", "a-b –c", "a-b —c", "a-b ―c"]);
        assert_eq!(windash("-a -b").expect("two dashes").len(), 25);
        assert!(windash("-a -b -c -d").is_err());
    }

    #[test]
    fn unknown_and_contradicting_modifiers_are_errors_at_their_place() {
        let (span, message, help) = Modifiers::parse("contians|all").expect_err("misspelt");
        assert_eq!(
            (span, help.as_deref()),
            (0..8, Some("did you mean `contains`?"))
        );
        assert!(message.contains("contians"));
        let (span, message, _) = Modifiers::parse("contains|re").expect_err("both");
        assert_eq!(span, 9..11);
        assert!(message.contains("exclude"));
        assert!(Modifiers::parse("i|re").is_err());
    }
}
