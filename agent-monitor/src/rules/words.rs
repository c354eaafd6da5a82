//! What a rule asks for, in words: for `rules explain`. Made of what was written,
//! so that names and values are those of the file.

use super::fields as table;
use super::rule::{Rule, What};
use super::set::RuleSet;
use super::value::Type;
use super::yaml::{Node, Value};

/// Values of one list that are said; more are counted.
const MAX_VALUES: usize = 16;

/// A heading, and what belongs below it, a line each.
pub type Part = (String, Vec<String>);

/// What a rule asks for.
pub fn asks(rule: &Rule, set: &RuleSet) -> Vec<Part> {
    match &rule.what {
        What::Event { kind, beside, .. } => {
            let mut parts = event(rule, kind, set);
            parts.extend(beside.as_ref().map(|(detector, _)| {
                let name = detector.name;
                (
                    format!("It also finds what the detector `{name}` tells of."),
                    Vec::new(),
                )
            }));
            parts
        }
        What::Detector(detector, _) => vec![(
            format!("It finds what the detector `{}` tells of.", detector.name),
            Vec::new(),
        )],
        What::Correlation(_) => {
            let correlation = rule.node.get("correlation");
            let line = correlation.map(correlation_in_words).unwrap_or_default();
            vec![(line, Vec::new())]
        }
    }
}

/// What it lets pass, an entry each.
pub fn exceptions(rule: &Rule, set: &RuleSet) -> Vec<String> {
    let entries = rule.node.get("exceptions").filter(|it| !it.is_null());
    let entries = entries.map_or(&[][..], Node::items).iter();
    let in_words = |entry: &Node| {
        let Value::Map(members) = &entry.value else {
            return String::new();
        };
        let parts = members
            .iter()
            .filter(|(key, _)| key.text() != Some("reason"));
        let parts: Vec<String> = parts
            .map(|(key, value)| {
                let values = value.items().iter().map(|item| variable(item, set));
                let values = listed(values.collect(), "or");
                format!("{} {values}", key.text().unwrap_or_default())
            })
            .collect();
        let reason = entry.get("reason").and_then(Node::text);
        let reason = reason.map_or_else(String::new, |reason| format!("  ({reason})"));
        parts.join(", and ") + &reason
    };
    entries.map(in_words).collect()
}

/// Paths of the fields that its selections name, each once.
pub fn fields(rule: &Rule) -> Vec<&str> {
    fn collect<'n>(node: &'n Node, paths: &mut Vec<&'n str>) {
        match &node.value {
            Value::Map(members) => {
                let keys = members.iter().filter_map(|(key, _)| key.text());
                let new = keys.filter_map(|key| key.split('|').next());
                for path in new {
                    if !paths.contains(&path) {
                        paths.push(path);
                    }
                }
            }
            Value::List(items) => items.iter().for_each(|item| collect(item, paths)),
            Value::Scalar { .. } => {}
        }
    }
    let mut paths = Vec::new();
    if let Some(Value::Map(members)) = rule.node.get("detection").map(|it| &it.value) {
        let selections = members
            .iter()
            .filter(|(name, _)| name.text() != Some("condition"));
        selections.for_each(|(_, selection)| collect(selection, &mut paths));
    }
    paths
}

/// Names of its tests: of those that it has to find, or that it must not.
pub fn tests(rule: &Rule, finds: bool) -> Vec<&str> {
    let tests = rule.node.get("tests").filter(|it| !it.is_null());
    let tests = tests.map_or(&[][..], Node::items).iter();
    let wanted = |test: &&Node| {
        let text = test.get("match").and_then(Node::text);
        text == Some(if finds { "true" } else { "false" })
    };
    let names = tests
        .filter(wanted)
        .map(|test| test.get("name").and_then(Node::text));
    names.map(|name| name.unwrap_or("without a name")).collect()
}

fn event(rule: &Rule, kind: &str, set: &RuleSet) -> Vec<Part> {
    let article = match kind.starts_with(['a', 'e', 'i', 'o', 'u']) {
        true => "an",
        false => "a",
    };
    let detection = rule.node.get("detection");
    let condition = detection.and_then(|it| it.get("condition"));
    let conditions = condition.map_or(&[][..], Node::items).iter();
    let conditions: Vec<&str> = conditions.filter_map(Node::text).collect();
    let mut lines = Vec::new();
    if let Some(Value::Map(members)) = detection.map(|it| &it.value) {
        for (name, node) in members {
            let name = name.text().unwrap_or_default();
            if name != "condition" {
                let what = selection(node, kind, set);
                lines.push(format!("{name}: {what}"));
            }
        }
    }
    vec![(
        format!(
            "It finds {article} `{kind}` event when  {}",
            conditions.join("  or  ")
        ),
        lines,
    )]
}

fn selection(node: &Node, kind: &str, set: &RuleSet) -> String {
    match &node.value {
        Value::Map(members) => {
            let members = members.iter();
            let fields: Vec<String> = members
                .map(|(key, value)| field(key.text().unwrap_or_default(), value, kind, set))
                .collect();
            fields.join(", and ")
        }
        Value::List(items) => {
            let items = items.iter();
            let each: Vec<String> = items
                .map(|item| format!("({})", selection(item, kind, set)))
                .collect();
            each.join(" or ")
        }
        Value::Scalar { text, .. } => text.clone(),
    }
}

fn field(key: &str, value: &Node, kind: &str, set: &RuleSet) -> String {
    let mut modifiers = key.split('|');
    let path = modifiers.next().unwrap_or_default();
    let modifiers: Vec<&str> = modifiers.collect();
    let has = |name: &str| modifiers.contains(&name);
    let ty = table::find(kind, path).ok().map(|field| field.ty);
    let subject = match ty {
        Some(Type::Texts) if has("joined") => format!("{path}, put together,"),
        Some(Type::Texts) => format!("one of {path}"),
        _ => path.to_owned(),
    };
    if has("exists") || value.is_null() {
        let there = has("exists") && value.text() == Some("true");
        let verb = if there { "is there" } else { "is not there" };
        return format!("{subject} {verb}");
    }
    let verb = verb(&has);
    let values = value.items().iter().map(|item| match item.is_null() {
        true => "nothing".to_owned(),
        false if has("fieldref") => format!("the value of {}", item.text().unwrap_or_default()),
        false => variable(item, set),
    });
    let values = listed(values.collect(), if has("all") { "and" } else { "or" });
    let mut aside = Vec::new();
    if has("cased") {
        aside.push("case counts");
    }
    if has("windash") {
        aside.push("with any dash");
    }
    let aside = match aside.is_empty() {
        true => String::new(),
        false => format!(" ({})", aside.join(", ")),
    };
    format!("{subject} {verb} {values}{aside}")
}

fn verb(has: &impl Fn(&str) -> bool) -> &'static str {
    let verbs = [
        ("base64offset", "contains, in base64,"),
        ("contains", "contains"),
        ("startswith", "begins with"),
        ("endswith", "ends with"),
        ("below", "is or lies below"),
        ("re", "matches the regular expression"),
        ("cidr", "is in"),
        ("gt", "is more than"),
        ("gte", "is at least"),
        ("lt", "is less than"),
        ("lte", "is at most"),
    ];
    let found = verbs.iter().find(|(name, _)| has(name));
    found.map_or("is", |(_, verb)| verb)
}

/// A value; of a variable, what it is now.
fn variable(item: &Node, set: &RuleSet) -> String {
    let text = item.text().unwrap_or_default();
    let name = text.strip_prefix('%').and_then(|it| it.strip_suffix('%'));
    let Some(known) = name.and_then(|name| set.variable(name)) else {
        return match text {
            "" => "''".to_owned(),
            text => text.to_owned(),
        };
    };
    let values = match known.values.is_empty() {
        true => "empty".to_owned(),
        false => listed(known.values.clone(), "or"),
    };
    let overrides = match known.overrides {
        0 => String::new(),
        1 => "; another for some agents".to_owned(),
        some => format!("; {some} others for some agents"),
    };
    format!("{text} (now {values}{overrides})")
}

/// `a, b or c`.
fn listed(mut values: Vec<String>, word: &str) -> String {
    if values.len() > MAX_VALUES {
        let more = values.len() - MAX_VALUES;
        values.truncate(MAX_VALUES);
        return format!("{} {word} {more} more", values.join(", "));
    }
    match values.pop() {
        None => String::new(),
        Some(last) if values.is_empty() => last,
        Some(last) => format!("{} {word} {last}", values.join(", ")),
    }
}

fn correlation_in_words(node: &Node) -> String {
    let text = |key: &str| node.get(key).and_then(Node::text).unwrap_or_default();
    let texts = |key: &str| -> Vec<String> {
        let items = node.get(key).map_or(&[][..], Node::items).iter();
        items
            .filter_map(|item| Some(item.text()?.to_owned()))
            .collect()
    };
    let rules = texts("rules");
    let condition = node.get("condition");
    let number = |key: &str| condition?.get(key)?.text();
    let least = match (number("gt"), number("gte").or_else(|| number("eq"))) {
        (Some(number), _) => format!("more than {number}"),
        (None, Some(number)) => format!("at least {number}"),
        (None, None) => String::new(),
    };
    let what = match text("type") {
        "event_count" => format!("{least} matches of {}", listed(rules, "or")),
        "value_count" => {
            let field = condition
                .and_then(|it| it.get("field"))
                .and_then(Node::text);
            let field = field.unwrap_or_default();
            format!(
                "{least} different values of {field} in matches of {}",
                listed(rules, "or")
            )
        }
        "temporal_ordered" => format!("a match of {}", rules.join(", then one of ")),
        _ => format!("a match of each of {}", listed(rules, "and")),
    };
    let group = match texts("group-by") {
        group if group.is_empty() => String::new(),
        group => format!(", with the same {}", listed(group, "and")),
    };
    format!("It finds {what} within {}{group}.", text("timespan"))
}
