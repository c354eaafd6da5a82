//! `detection`: named selections of fields, compiled to trees.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

use super::condition::{self, Condition};
use super::fields::{self, Field};
use super::keys::Report;
use super::modifiers::{Modifiers, base64_offsets, windash};
use super::problem::{Source, nearest, quoted};
use super::text::{MAX_PATTERN, Pattern, Place, TextSet};
use super::tree::{Leaf, Test, Tree};
use super::value::Type;
use super::vars::{Item, Vars};
use super::yaml::{Node, Value};

/// Most bytes of one compiled regular expression, and of its cache.
const REGEX_BYTES: usize = 256 << 10;
/// Deepest nesting of one.
const REGEX_DEPTH: u32 = 50;
/// Regular expressions of all rules together.
pub const MAX_REGEXES: usize = 1_000;

/// What rules are compiled with.
pub struct Context<'a> {
    /// Variables.
    pub vars: &'a Vars,
    /// Names of variables that were used.
    pub used: RefCell<BTreeSet<String>>,
    /// Regular expressions so far.
    pub regexes: std::cell::Cell<usize>,
}

/// The selections of a rule.
pub struct Selections<'n> {
    names: Vec<&'n str>,
    spans: Vec<Range<usize>>,
    trees: Vec<Option<Arc<Tree>>>,
    used: RefCell<Vec<bool>>,
}

impl<'n> Selections<'n> {
    /// Compiles every member of `detection` but its `condition`.
    pub fn new(
        detection: &'n Node,
        kind: &str,
        context: &Context<'_>,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let Value::Map(members) = &detection.value else {
            let message = format!("`detection` must be a map, not {}", detection.what());
            report.add(&detection.span, message, None);
            return None;
        };
        let mut selections = Self {
            names: Vec::new(),
            spans: Vec::new(),
            trees: Vec::new(),
            used: RefCell::default(),
        };
        for (name, node) in members {
            let text = name.text().unwrap_or_default();
            if text == "condition" || text == "timeframe" {
                if text == "timeframe" {
                    let help = "write a rule with `correlation:` and its `timespan`".to_owned();
                    report.add(&name.span, "`timeframe` is not supported", Some(help));
                }
                continue;
            }
            let mut compiler = Compiler {
                kind,
                context,
                report,
            };
            let tree = compiler.selection(node).map(|mut tree| {
                tree.sort();
                Arc::new(tree)
            });
            selections.names.push(text);
            selections.spans.push(name.span.clone());
            selections.trees.push(tree);
        }
        selections.used = RefCell::new(vec![false; selections.names.len()]);
        Some(selections)
    }

    /// Compiles a condition over the selections.
    pub fn condition(&self, node: &Node, report: &mut Report<'_>) -> Option<Tree> {
        let mut all = Vec::new();
        // A list of conditions, as old rules have, means any of them.
        for item in node.items() {
            let text = super::keys::text("condition", item, report)?;
            match condition::parse(text, &self.names) {
                Ok(condition) => all.push(self.tree(&condition)),
                Err(error) => {
                    // Where the text stands as it is in the file, its part can be shown.
                    let start = item.span.start;
                    let written = report.source.text().get(start..start + text.len());
                    let span = match written == Some(text) {
                        true => start + error.span.start..start + error.span.end,
                        false => item.span.clone(),
                    };
                    report.add(
                        &span,
                        format!("the condition: {}", error.message),
                        error.help,
                    );
                    return None;
                }
            }
        }
        let all: Option<Vec<Tree>> = all.into_iter().collect();
        let mut all = all?;
        let mut tree = match all.len() {
            1 => all.remove(0),
            _ => Tree::Any(all),
        };
        tree.sort();
        Some(tree)
    }

    fn tree(&self, condition: &Condition) -> Option<Tree> {
        let many = |parts: &[Condition]| -> Option<Vec<Tree>> {
            // All of them, so that each is known to be used.
            let trees: Vec<_> = parts.iter().map(|part| self.tree(part)).collect();
            trees.into_iter().collect()
        };
        Some(match condition {
            Condition::One(place) => {
                self.used.borrow_mut()[*place] = true;
                Tree::Named(self.trees[*place].clone()?)
            }
            Condition::All(parts) => Tree::All(many(parts)?),
            Condition::Any(parts) => Tree::Any(many(parts)?),
            Condition::Not(part) => Tree::Not(Box::new(self.tree(part)?)),
        })
    }

    /// A selection that no condition names does nothing: most likely a mistake.
    pub fn report_unused(&self, report: &mut Report<'_>) {
        for (place, used) in self.used.borrow().iter().enumerate() {
            if !used {
                let name = self.names[place];
                let message = format!("no condition uses the selection {}", quoted(name));
                report.add(&self.spans[place], message, None);
            }
        }
    }
}

struct Compiler<'c, 'r, 's> {
    kind: &'c str,
    context: &'c Context<'c>,
    report: &'r mut Report<'s>,
}

impl Compiler<'_, '_, '_> {
    fn selection(&mut self, node: &Node) -> Option<Tree> {
        match &node.value {
            Value::Map(members) => {
                // All of them, so that each problem is told.
                let all: Vec<_> = members
                    .iter()
                    .map(|(key, value)| self.field(key, value))
                    .collect();
                Some(Tree::All(all.into_iter().collect::<Option<_>>()?))
            }
            Value::List(items) if !items.is_empty() => {
                let all: Vec<_> = items.iter().map(|item| self.selection(item)).collect();
                Some(Tree::Any(all.into_iter().collect::<Option<_>>()?))
            }
            Value::List(_) => self.fail(&node.span, "an empty list selects nothing", None),
            Value::Scalar { .. } => {
                let help = "name the field: `exec.argv|joined|contains: …`".to_owned();
                let message = "keywords without a field are not supported";
                self.fail(&node.span, message, Some(help))
            }
        }
    }

    fn fail<T>(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Option<T> {
        self.report.add(span, message, help);
        None
    }

    fn field(&mut self, key: &Node, value: &Node) -> Option<Tree> {
        let text = key.text().unwrap_or_default();
        let (path, modifiers) = text.split_once('|').unwrap_or((text, ""));
        let found = fields::find(self.kind, path);
        let parsed = match modifiers {
            "" => Ok(Modifiers::default()),
            some => Modifiers::parse(some),
        };
        let key_span = |part: Range<usize>| {
            let start = key.span.start;
            let as_written = self.report.source.text().get(start..start + text.len()) == Some(text);
            match as_written {
                true => start + part.start..start + part.end,
                false => key.span.clone(),
            }
        };
        if let Err((message, help)) = &found {
            let span = key_span(0..path.len());
            self.report.add(&span, message, help.clone());
        }
        let at = path.len() + 1;
        let modifiers_span = key_span(at..text.len().max(at));
        let modifiers = match parsed {
            Ok(modifiers) => modifiers,
            Err((span, message, help)) => {
                let span = key_span(at + span.start..at + span.end);
                return self.fail(&span, message, help);
            }
        };
        let field = found.ok()?;
        let source = self.report.source.clone();
        let field = FieldAndModifiers {
            field,
            modifiers,
            span: modifiers_span,
        };
        self.values(&field, value, &source)
    }

    /// A field with all its values.
    fn values(&mut self, key: &FieldAndModifiers, value: &Node, source: &Source) -> Option<Tree> {
        let FieldAndModifiers {
            field, modifiers, ..
        } = key;
        if modifiers.joined && !matches!(field.ty, Type::Texts) {
            return key.mismatch(self, "joined");
        }
        if modifiers.exists || value.is_null() {
            let wanted = match value.text() {
                _ if value.is_null() => false,
                Some("true") => true,
                Some("false") => false,
                _ => {
                    let message = "`exists` is `true` or `false`";
                    return self.fail(&value.span, message, None);
                }
            };
            return Some(Tree::Leaf(key.leaf(Test::Exists(wanted))));
        }
        let mut items = Vec::new();
        let mut nothing = false;
        for item in value.items() {
            if item.is_null() {
                nothing = true;
                continue;
            }
            match item.text() {
                Some(text) => items.push(Item {
                    text: text.to_owned(),
                    source: source.clone(),
                    span: item.span.clone(),
                }),
                None => {
                    let message = format!("`{}` takes values, not {}", field.path, item.what());
                    return self.fail(&item.span, message, None);
                }
            }
        }
        if items.is_empty() && !nothing {
            return self.fail(&value.span, "an empty list matches nothing", None);
        }
        let tree = if modifiers.expand {
            self.expand(key, &items)?
        } else if modifiers.all {
            let each: Vec<_> = items
                .iter()
                .map(|item| self.test(key, std::slice::from_ref(item)))
                .collect();
            let each: Option<Vec<Test>> = each.into_iter().collect();
            Tree::All(
                each?
                    .into_iter()
                    .map(|test| Tree::Leaf(key.leaf(test)))
                    .collect(),
            )
        } else {
            Tree::Leaf(key.leaf(self.test(key, &items)?))
        };
        Some(match nothing {
            true => Tree::Any(vec![Tree::Leaf(key.leaf(Test::Exists(false))), tree]),
            false => tree,
        })
    }

    fn expand(&mut self, key: &FieldAndModifiers, items: &[Item]) -> Option<Tree> {
        let [item] = items else {
            let message = "`expand` takes one variable, such as '%trusted_networks%'";
            return self.fail(&items[0].span, message, None);
        };
        let name = item
            .text
            .strip_prefix('%')
            .and_then(|n| n.strip_suffix('%'));
        let Some(name) = name else {
            let help = Some(format!("write '%{}%'", item.text.trim_matches('%')));
            let message = "a variable is written between percent signs";
            return self.fail(&item.span, message, help);
        };
        let Some(own) = self.context.vars.get(name) else {
            let help = nearest(name, self.context.vars.names())
                .unwrap_or_else(|| "define it in vars.yaml".to_owned());
            let message = format!("there is no variable {}", quoted(name));
            return self.fail(&item.span, message, Some(help));
        };
        self.context.used.borrow_mut().insert(name.to_owned());
        let mut tests = Vec::new();
        for (selectors, items) in self.context.vars.of_agents(name) {
            tests.push((selectors.to_vec(), self.test(key, items)?));
        }
        let others = self.test(key, own)?;
        let test = match tests.is_empty() {
            true => others,
            false => Test::PerAgent(tests, Box::new(others)),
        };
        Some(Tree::Leaf(key.leaf(test)))
    }

    /// What asks for one of these values.
    fn test(&mut self, key: &FieldAndModifiers, items: &[Item]) -> Option<Test> {
        let FieldAndModifiers {
            field, modifiers, ..
        } = key;
        if modifiers.fieldref {
            return self.fieldref(key, items);
        }
        match field.ty {
            Type::Text | Type::Texts | Type::Word(_) => {
                if modifiers.cidr {
                    return key.mismatch(self, "cidr");
                }
                if modifiers.compare.is_some() {
                    return key.mismatch(self, "gt, gte, lt and lte");
                }
                if modifiers.re.is_some() {
                    return self.regexes(key, items);
                }
                self.texts(key, items)
            }
            _ if modifiers.of_text().is_some() => {
                key.mismatch(self, modifiers.of_text().unwrap_or_default())
            }
            Type::Number => {
                if modifiers.cidr {
                    return key.mismatch(self, "cidr");
                }
                let numbers = self.each(items, |text| {
                    text.parse::<i64>()
                        .map_err(|_| format!("`{}` takes whole numbers", field.path))
                })?;
                match (modifiers.compare, numbers.as_slice()) {
                    (None, _) => Some(Test::Numbers(numbers)),
                    (Some(compare), [with]) => Some(Test::Compare(compare, *with)),
                    (Some(_), _) => self.fail(&key.span, "a comparison takes one number", None),
                }
            }
            _ if modifiers.compare.is_some() => key.mismatch(self, "gt, gte, lt and lte"),
            Type::Bool => {
                if modifiers.cidr {
                    return key.mismatch(self, "cidr");
                }
                let wanted = self.each(items, |text| match text {
                    "true" => Ok(true),
                    "false" => Ok(false),
                    _ => Err(format!("`{}` is `true` or `false`", field.path)),
                })?;
                Some(Test::Bool(*wanted.first()?))
            }
            Type::Ip => {
                let nets = self.each(items, |text| {
                    let ip = text.parse::<IpAddr>().map(IpNet::from);
                    match (ip, modifiers.cidr) {
                        (Ok(net), _) => Ok(net),
                        (Err(_), true) => text
                            .parse::<IpNet>()
                            .map(|net| net.trunc())
                            .map_err(|_| "this is no network such as 192.0.2.0/24".to_owned()),
                        (Err(_), false) if text.contains(['/', '*']) => {
                            Err("a network needs the modifier `cidr`".to_owned())
                        }
                        (Err(_), false) => Err("this is no IP address".to_owned()),
                    }
                })?;
                Some(Test::Nets(nets))
            }
        }
    }

    /// Reads every value; all that cannot be read are told of.
    fn each<T>(
        &mut self,
        items: &[Item],
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let mut values = Some(Vec::new());
        for item in items {
            match read(&item.text) {
                Ok(value) => {
                    if let Some(values) = &mut values {
                        values.push(value);
                    }
                }
                Err(message) => {
                    let message = format!("{message}: {}", quoted(&item.text));
                    self.report
                        .problems
                        .add(&item.source, &item.span, message, None);
                    values = None;
                }
            }
        }
        values
    }

    fn texts(&mut self, key: &FieldAndModifiers, items: &[Item]) -> Option<Test> {
        let modifiers = &key.modifiers;
        let place = modifiers.place.unwrap_or_default();
        let lists = self.each(items, |text| {
            if text.len() > MAX_PATTERN {
                return Err(format!("a pattern has at most {MAX_PATTERN} bytes"));
            }
            if modifiers.base64offset {
                if text.is_empty() {
                    return Err("`base64offset` needs a text".to_owned());
                }
                let coded = base64_offsets(text);
                let plain = coded
                    .iter()
                    .map(|text| Pattern::plain(text, Place::Contains));
                return Ok(plain.collect());
            }
            let variants = match modifiers.windash {
                true => windash(text)?,
                false => vec![text.to_owned()],
            };
            let patterns: Vec<Pattern> = variants
                .iter()
                .flat_map(|text| match place {
                    Place::Below => vec![
                        Pattern::parse(text, Place::Whole),
                        Pattern::parse(&format!("{text}/"), Place::Start),
                    ],
                    _ => vec![Pattern::parse(text, place)],
                })
                .collect();
            key.check_word(text, &patterns, modifiers.cased)?;
            Ok(patterns)
        })?;
        let patterns = lists.into_iter().flatten().collect();
        // Base64 of other letters is another text.
        let cased = modifiers.cased || modifiers.base64offset;
        match TextSet::new(patterns, cased) {
            Ok(set) => Some(Test::Text(set)),
            Err(message) => self.fail(&key.span, message, None),
        }
    }

    fn regexes(&mut self, key: &FieldAndModifiers, items: &[Item]) -> Option<Test> {
        let flags = key.modifiers.re.as_deref().unwrap_or_default();
        let used = self.context.regexes.get() + items.len();
        self.context.regexes.set(used);
        if used > MAX_REGEXES {
            let message = format!("more than {MAX_REGEXES} regular expressions");
            let help = "use `contains` and wildcards, which are faster too".to_owned();
            return self.fail(&key.span, message, Some(help));
        }
        let regexes = self.each(items, |text| {
            if text.len() > MAX_PATTERN {
                return Err(format!("a pattern has at most {MAX_PATTERN} bytes"));
            }
            let regex = RegexBuilder::new(text)
                .case_insensitive(flags.contains('i'))
                .multi_line(flags.contains('m'))
                .dot_matches_new_line(flags.contains('s'))
                .size_limit(REGEX_BYTES)
                .dfa_size_limit(REGEX_BYTES)
                .nest_limit(REGEX_DEPTH)
                .build()
                .map_err(|error| regex_problem(&error))?;
            key.check_regex(&regex)?;
            Ok(regex)
        })?;
        Some(Test::Regex(regexes))
    }

    fn fieldref(&mut self, key: &FieldAndModifiers, items: &[Item]) -> Option<Test> {
        let [item] = items else {
            return self.fail(&key.span, "`fieldref` takes the name of one field", None);
        };
        let other = match fields::find(self.kind, &item.text) {
            Ok(other) => other,
            Err((message, help)) => return self.fail(&item.span, message, help),
        };
        let class = |ty: Type| match ty {
            Type::Text | Type::Texts | Type::Word(_) => 0,
            Type::Number => 1,
            Type::Bool => 2,
            Type::Ip => 3,
        };
        if class(other.ty) != class(key.field.ty) {
            let message = format!(
                "`{}` is {}, `{}` is {}: they are never the same",
                key.field.path,
                key.field.ty.name(),
                other.path,
                other.ty.name()
            );
            return self.fail(&item.span, message, None);
        }
        let modifiers = &key.modifiers;
        let unfit = modifiers.re.is_some()
            || modifiers.cidr
            || modifiers.compare.is_some()
            || modifiers.base64offset
            || modifiers.windash
            || (modifiers.place.is_some() && class(key.field.ty) != 0);
        if unfit {
            let message =
                "`fieldref` goes with `contains`, `startswith`, `endswith`, `below` of texts alone";
            return self.fail(&key.span, message, None);
        }
        let place = modifiers.place.unwrap_or_default();
        Some(Test::Same(other, place, modifiers.cased))
    }
}

/// What stands before the colon.
struct FieldAndModifiers {
    field: &'static Field,
    modifiers: Modifiers,
    /// Of the modifiers.
    span: Range<usize>,
}

impl FieldAndModifiers {
    fn leaf(&self, test: Test) -> Leaf {
        Leaf {
            field: self.field,
            joined: self.modifiers.joined,
            test,
        }
    }

    fn mismatch<T>(&self, compiler: &mut Compiler<'_, '_, '_>, modifier: &str) -> Option<T> {
        let message = format!(
            "`{}` is {}: `{modifier}` does not go with it",
            self.field.path,
            self.field.ty.name()
        );
        compiler.fail(&self.span, message, None)
    }

    /// A word that the field never has cannot match.
    fn check_word(&self, text: &str, patterns: &[Pattern], cased: bool) -> Result<(), String> {
        let Type::Word(words) = self.field.ty else {
            return Ok(());
        };
        let words = words();
        let matches = |word: &&str| patterns.iter().any(|it| it.matches(word, cased));
        if words.iter().any(matches) {
            return Ok(());
        }
        let help = nearest(text, words.iter().copied())
            .unwrap_or_else(|| format!("it is one of {}", listed(&words)));
        Err(format!("`{}` is never this ({help})", self.field.path))
    }

    fn check_regex(&self, regex: &Regex) -> Result<(), String> {
        match self.field.ty {
            Type::Word(words) if !words().iter().any(|word| regex.is_match(word)) => Err(format!(
                "`{}` is one of {}, never this",
                self.field.path,
                listed(&words())
            )),
            _ => Ok(()),
        }
    }
}

/// The first of them: a protocol may be any of 256 numbers.
fn listed(words: &[&str]) -> String {
    let mut list = words
        .iter()
        .take(16)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    if words.len() > 16 {
        list.push_str(", …");
    }
    list
}

fn regex_problem(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("a regular expression that needs more than {limit} bytes")
        }
        regex::Error::Syntax(text) => {
            // The message shows the pattern first, over several lines.
            let last = text.lines().last().unwrap_or_default();
            let what = last.trim_start_matches("error: ");
            format!("a regular expression that cannot be used ({what})")
        }
        other => other.to_string(),
    }
}
