//! `correlation`: several matches of other rules, as Sigma's specification of
//! correlations has them. What has been seen is kept by group, bounded.

mod state;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::fields::{self, Field};
use super::keys::{Keys, Report, text};
use super::problem::quoted;
use super::rule::{Rule, What};
use super::yaml::{Node, Value};
use crate::event::Event;

pub use state::{Fired, State};

/// Highest number that a condition can ask for.
const MAX_COUNT: u64 = 10_000;
/// Longest time between the first and the last match.
const MAX_SPAN_S: u64 = 30 * 24 * 3600;
/// Rules that one correlation can name.
const MAX_RULES: usize = 64;
/// Bytes of a group's values that are kept to be told of.
const MAX_SHOWN: usize = 256;

/// The kind of event as which findings of detectors are grouped: they have no
/// event of their own, and of an alert's fields only those that every event has.
const FINDING: &str = "alert";

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Matches.
    EventCount,
    /// Different values of a field.
    ValueCount,
    /// Each rule, in any order.
    Temporal,
    /// Each rule, in this order.
    TemporalOrdered,
}

const KINDS: &[(&str, Kind)] = &[
    ("event_count", Kind::EventCount),
    ("value_count", Kind::ValueCount),
    ("temporal", Kind::Temporal),
    ("temporal_ordered", Kind::TemporalOrdered),
];

impl Kind {
    /// As rules name it.
    pub fn name(self) -> &'static str {
        let found = KINDS.iter().find(|(_, kind)| *kind == self);
        found.map_or("", |(name, _)| name)
    }
}

/// A correlation, compiled.
#[derive(Debug)]
pub struct Correlation {
    /// What is counted.
    pub kind: Kind,
    /// Whose matches, by id.
    pub rules: Vec<Arc<str>>,
    /// Whether those tell of their matches themselves too.
    pub generate: bool,
    /// For each rule: the fields whose values make a group.
    groups: Vec<Vec<&'static Field>>,
    /// For each rule: the field whose values are counted.
    values: Vec<&'static Field>,
    span_ns: u64,
    /// How many make it true.
    least: u64,
}

impl Correlation {
    /// Reads `correlation:`, with the rules that it can name.
    pub fn read(node: &Node, rules: &[Arc<Rule>], report: &mut Report<'_>) -> Option<Self> {
        let what = "`correlation`";
        let mut keys = Keys::new(node, what, report)?;
        let kind_named = keys.need("type", what, report).is_some();
        let kind = keys.word("type", KINDS, report);
        let named = keys.need("rules", what, report);
        let span = keys.need("timespan", what, report);
        let span_ns = span.and_then(|node| timespan(node, report));
        let generate = keys.word("generate", &[("true", true), ("false", false)], report);
        let group_by = keys.texts("group-by", report);
        let aliases = keys.get("aliases");
        let condition = keys.get("condition");
        keys.end(what, report);

        let named = named?;
        let (mut found, mut unknown) = (Vec::new(), false);
        for item in named.items() {
            let name = item.text().unwrap_or_default();
            let rule = rules.iter().find(|rule| rule.is_called(name));
            match rule.map(|rule| (rule, &rule.what)) {
                Some((rule, What::Event { kind, .. })) => found.push((rule.id.clone(), *kind)),
                Some((rule, What::Detector(..))) => found.push((rule.id.clone(), FINDING)),
                Some((_, What::Correlation(_))) => {
                    let message = format!("{} is a correlation itself", quoted(name));
                    report.add(&item.span, message, None);
                    unknown = true;
                }
                None => {
                    let ids = rules.iter().map(|rule| &*rule.id);
                    let help = super::problem::nearest(name, ids);
                    report.add(
                        &item.span,
                        format!("there is no rule {}", quoted(name)),
                        help,
                    );
                    unknown = true;
                }
            }
        }
        // Read whatever is wrong above, so that every problem is told.
        let condition_read = condition.map(|condition| read_condition(condition, report));
        if unknown {
            return None;
        }
        if found.is_empty() || found.len() > MAX_RULES {
            let message = format!("`rules` names 1 to {MAX_RULES} rules");
            report.add(&named.span, message, None);
            return None;
        }
        let aliases =
            aliases.map_or_else(|| Some(BTreeMap::new()), |it| read_aliases(it, report))?;
        let resolve = |node: &Node, report: &mut Report<'_>| {
            let name = node.text().unwrap_or_default();
            let fields = found.iter().map(|(id, kind)| {
                let path = aliases
                    .get(name)
                    .and_then(|by_rule| by_rule.get(&**id).copied())
                    .unwrap_or(name);
                match fields::find(kind, path) {
                    Ok(field) => Some(field),
                    Err((message, help)) => {
                        let help = help.or(Some("`aliases` can name a field for each rule".into()));
                        report.add(&node.span, message, help);
                        None
                    }
                }
            });
            let fields: Vec<_> = fields.collect();
            fields.into_iter().collect::<Option<Vec<_>>>()
        };
        let mut groups = vec![Vec::new(); found.len()];
        for node in group_by {
            for (group, field) in groups.iter_mut().zip(resolve(node, report)?) {
                group.push(field);
            }
        }
        let kind = kind.filter(|_| kind_named)?;
        let counts = matches!(kind, Kind::EventCount | Kind::ValueCount);
        let (least, field) = match condition_read {
            Some(read) => read?,
            None if counts => {
                let start = node.span.start..node.span.start;
                let help = Some("such as `condition: {gte: 10}`".to_owned());
                report.add(&start, "`correlation` has no `condition`", help);
                return None;
            }
            None => (0, None),
        };
        let problem = match (kind, field, condition) {
            (Kind::ValueCount, None, Some(at)) => Some((at, "`value_count` needs a `field`")),
            (Kind::EventCount, Some(at), _) => Some((at, "`event_count` counts no `field`")),
            (Kind::Temporal | Kind::TemporalOrdered, _, Some(at)) => Some((
                at,
                "a condition goes with `event_count` and `value_count` alone",
            )),
            _ => None,
        };
        if let Some((at, message)) = problem {
            report.add(&at.span, message, None);
            return None;
        }
        let values = match field {
            Some(field) => resolve(field, report)?,
            None => Vec::new(),
        };
        Some(Self {
            kind,
            rules: found.into_iter().map(|(id, _)| id).collect(),
            generate: generate.unwrap_or(false),
            groups,
            values,
            span_ns: span_ns?,
            least,
        })
    }
}

fn read_aliases<'n>(
    node: &'n Node,
    report: &mut Report<'_>,
) -> Option<BTreeMap<&'n str, BTreeMap<&'n str, &'n str>>> {
    let mut aliases = BTreeMap::new();
    let map = |node: &'n Node, report: &mut Report<'_>| match &node.value {
        Value::Map(members) => Some(members),
        _ => {
            let message = "`aliases` has for each name a map from rules to fields";
            report.add(&node.span, message, None);
            None
        }
    };
    for (name, by_rule) in map(node, report)? {
        let members = map(by_rule, report)?.iter();
        let fields = members
            .filter_map(|(rule, field)| Some((rule.text()?, field.text()?)))
            .collect();
        aliases.insert(name.text().unwrap_or_default(), fields);
    }
    Some(aliases)
}

fn read_condition<'n>(node: &'n Node, report: &mut Report<'_>) -> Option<(u64, Option<&'n Node>)> {
    let mut keys = Keys::new(node, "`condition`", report)?;
    let field = keys.get("field");
    let (gt, gte, eq) = (keys.get("gt"), keys.get("gte"), keys.get("eq"));
    for key in ["lt", "lte", "neq"] {
        if let Some(node) = keys.get(key) {
            let message = format!("`{key}` cannot be decided while events still come");
            let help = Some("use `gt`, `gte` or `eq`".to_owned());
            report.add(&node.span, message, help);
        }
    }
    keys.end("`condition`", report);
    let (node, more) = match (gt, gte, eq) {
        (Some(gt), None, None) => (gt, 1),
        (None, Some(least), None) | (None, None, Some(least)) => (least, 0),
        _ => {
            report.add(
                &node.span,
                "`condition` needs one of `gt`, `gte`, `eq`",
                None,
            );
            return None;
        }
    };
    let number = text("condition", node, report)?.parse::<u64>().ok();
    match number.map(|number| number + more) {
        Some(least) if (1..=MAX_COUNT).contains(&least) => Some((least, field)),
        _ => {
            let message = format!("this is no number from 1 to {MAX_COUNT}");
            report.add(&node.span, message, None);
            None
        }
    }
}

/// `30s`, `5m`, `1h`, `1d`, in nanoseconds.
fn timespan(node: &Node, report: &mut Report<'_>) -> Option<u64> {
    let given = text("timespan", node, report)?;
    let unit = match given.chars().last() {
        Some('s') => Some(1),
        Some('m') => Some(60),
        Some('h') => Some(3600),
        Some('d') => Some(24 * 3600),
        _ => None,
    };
    let seconds = unit.and_then(|unit: u64| {
        let number: u64 = given[..given.len() - 1].parse().ok()?;
        number.checked_mul(unit)
    });
    match seconds {
        Some(seconds) if (1..=MAX_SPAN_S).contains(&seconds) => Some(seconds * 1_000_000_000),
        _ => {
            let message = format!("{} is no `timespan` of 1s to 30d", quoted(given));
            report.add(
                &node.span,
                message,
                Some("such as 30s, 5m, 1h, 1d".to_owned()),
            );
            None
        }
    }
}

/// The values of fields as a number that is the same each time, and for a person.
pub fn group(fields: &[&'static Field], event: &Event) -> (u64, String) {
    let mut key = DefaultHasher::new();
    let mut shown = String::new();
    for field in fields {
        field.see(event, &mut |value| {
            value.to_string().hash(&mut key);
            false
        });
        0xff_u8.hash(&mut key);
        if shown.len() < MAX_SHOWN {
            let value = field.show(event).unwrap_or_else(|| "?".to_owned());
            let comma = if shown.is_empty() { "" } else { ", " };
            shown.push_str(&format!("{comma}{} {value}", field.path));
        }
    }
    // Keys of DefaultHasher::new() are fixed: a replay gives the same numbers.
    (key.finish(), shown)
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
