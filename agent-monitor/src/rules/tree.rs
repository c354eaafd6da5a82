//! Conditions, compiled: a typed tree over the fields of an event.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use regex::Regex;

use super::fields::Field;
use super::text::{Place, TextSet};
use super::value::Value;
use crate::enrich::selector::Selector;
use crate::event::Event;

/// A condition.
#[derive(Debug)]
pub enum Tree {
    /// All of them; true when there are none.
    All(Vec<Tree>),
    /// One of them; false when there are none.
    Any(Vec<Tree>),
    /// Not this.
    Not(Box<Tree>),
    /// A selection, which several conditions may share.
    Named(Arc<Tree>),
    /// A test of a field.
    Leaf(Leaf),
}

/// A test of a field.
#[derive(Debug)]
pub struct Leaf {
    /// The field.
    pub field: &'static Field,
    /// Its values are put together with spaces first.
    pub joined: bool,
    /// What is asked of each value: one has to answer yes.
    pub test: Test,
}

/// What is asked of a value.
#[derive(Debug)]
pub enum Test {
    /// There is a value, or there is none.
    Exists(bool),
    /// Text.
    Text(TextSet),
    /// Text, by one of these.
    Regex(Vec<Regex>),
    /// One of these numbers.
    Numbers(Vec<i64>),
    /// A number compared with another.
    Compare(Compare, i64),
    /// Yes or no.
    Bool(bool),
    /// An address in one of these networks.
    Nets(Vec<IpNet>),
    /// Another field of the event has, or its value has as a part, the same value.
    Same(&'static Field, Place, bool),
    /// What a variable says: of the first entry that chooses the agent, else the last.
    PerAgent(Vec<(Vec<Selector>, Test)>, Box<Test>),
}

/// How numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Above.
    Gt,
    /// Above or equal.
    Gte,
    /// Below.
    Lt,
    /// Below or equal.
    Lte,
}

impl Compare {
    /// Compares.
    pub fn holds(self, value: i64, with: i64) -> bool {
        match self {
            Self::Gt => value > with,
            Self::Gte => value >= with,
            Self::Lt => value < with,
            Self::Lte => value <= with,
        }
    }
}

/// An event, with what is made of it once for all rules.
pub struct Subject<'e> {
    /// The event.
    pub event: &'e Event,
    joined: &'e mut Joined,
}

/// Memory for values that are put together, used again for each event.
#[derive(Debug, Default)]
pub struct Joined {
    slots: Vec<(&'static str, bool, String)>,
}

impl<'e> Subject<'e> {
    /// An event to ask about.
    pub fn new(event: &'e Event, joined: &'e mut Joined) -> Self {
        for (_, made, _) in &mut joined.slots {
            *made = false;
        }
        Self { event, joined }
    }

    /// A field's texts with spaces between; `None` when there are none.
    pub fn joined(&mut self, field: &'static Field) -> Option<&str> {
        let slots = &mut self.joined.slots;
        let place = match slots.iter().position(|(path, ..)| *path == field.path) {
            Some(place) => place,
            None => {
                slots.push((field.path, false, String::new()));
                slots.len() - 1
            }
        };
        let (_, made, text) = &mut slots[place];
        if !*made {
            *made = true;
            text.clear();
            field.see(self.event, &mut |value| {
                if let Value::Text(part) = value {
                    if !text.is_empty() {
                        text.push(' ');
                    }
                    text.push_str(part);
                }
                false
            });
        }
        (!text.is_empty()).then_some(text.as_str())
    }
}

impl Tree {
    /// Whether it holds.
    pub fn holds(&self, subject: &mut Subject<'_>) -> bool {
        match self {
            Self::All(trees) => trees.iter().all(|tree| tree.holds(subject)),
            Self::Any(trees) => trees.iter().any(|tree| tree.holds(subject)),
            Self::Not(tree) => !tree.holds(subject),
            Self::Named(tree) => tree.holds(subject),
            Self::Leaf(leaf) => leaf.holds(subject),
        }
    }

    /// Puts what is cheap to ask first.
    pub fn sort(&mut self) {
        if let Self::All(trees) | Self::Any(trees) = self {
            trees.iter_mut().for_each(Self::sort);
            trees.sort_by_key(Self::cost);
        } else if let Self::Not(tree) = self {
            tree.sort();
        }
    }

    fn cost(&self) -> u32 {
        match self {
            Self::All(trees) | Self::Any(trees) => {
                trees.iter().map(|t| t.cost()).fold(1, u32::saturating_add)
            }
            Self::Not(tree) => tree.cost(),
            Self::Named(tree) => tree.cost(),
            Self::Leaf(leaf) => leaf.test.cost() * if leaf.joined { 4 } else { 1 },
        }
    }

    /// Every field that is asked, in order, without those below a `not`.
    pub fn fields(&self, of: &mut Vec<&'static Field>) {
        match self {
            Self::All(trees) | Self::Any(trees) => {
                trees.iter().for_each(|tree| tree.fields(of));
            }
            Self::Not(_) => {}
            Self::Named(tree) => tree.fields(of),
            Self::Leaf(leaf) => {
                if !of.iter().any(|known| known.path == leaf.field.path) {
                    of.push(leaf.field);
                }
            }
        }
    }

    /// Texts of fields of which one must be there for this to hold; `None`
    /// when it can hold without any.
    pub fn needles(&self) -> Option<Vec<(&'static Field, &str)>> {
        match self {
            // The longest shortest one is met least often by chance.
            Self::All(trees) => trees
                .iter()
                .filter_map(Self::needles)
                .max_by_key(|found| found.iter().map(|(_, text)| text.len()).min()),
            Self::Any(trees) => {
                let all: Option<Vec<_>> = trees.iter().map(Self::needles).collect();
                all.map(|all| all.into_iter().flatten().collect())
            }
            Self::Not(_) => None,
            Self::Named(tree) => tree.needles(),
            Self::Leaf(leaf) => match &leaf.test {
                // A text that spans several values is in none of them.
                Test::Text(set) if !leaf.joined || set.is_of_single_words() => {
                    let needles = set.needles()?.iter();
                    Some(needles.map(|text| (leaf.field, &**text)).collect())
                }
                _ => None,
            },
        }
    }
}

impl Leaf {
    fn holds(&self, subject: &mut Subject<'_>) -> bool {
        let event = subject.event;
        if self.joined {
            return match (&self.test, subject.joined(self.field)) {
                (Test::Exists(wanted), text) => text.is_some() == *wanted,
                (_, None) => false,
                (test, Some(text)) => test.holds(Value::Text(text), event),
            };
        }
        match &self.test {
            Test::Exists(wanted) => self.field.see(event, &mut |_| true) == *wanted,
            test => self.field.see(event, &mut |value| test.holds(value, event)),
        }
    }
}

impl Test {
    fn holds(&self, value: Value<'_>, event: &Event) -> bool {
        match (self, value) {
            (Self::Text(set), Value::Text(text)) => set.matches(text),
            (Self::Regex(list), Value::Text(text)) => list.iter().any(|it| it.is_match(text)),
            (Self::Numbers(list), Value::Number(number)) => list.contains(&number),
            (Self::Compare(compare, with), Value::Number(number)) => compare.holds(number, *with),
            (Self::Bool(wanted), Value::Bool(value)) => *wanted == value,
            (Self::Nets(nets), Value::Ip(ip)) => contains(nets, ip),
            (Self::Same(field, place, cased), value) => {
                field.see(event, &mut |other| same(value, other, *place, *cased))
            }
            (Self::PerAgent(agents, others), value) => {
                let agent = event.agent.as_deref();
                let own = agents.iter().find(|(selectors, _)| {
                    agent.is_some_and(|agent| selectors.iter().any(|it| it.chooses(agent)))
                });
                own.map_or(&**others, |(_, test)| test).holds(value, event)
            }
            _ => false,
        }
    }

    /// Roughly how long it takes.
    fn cost(&self) -> u32 {
        match self {
            Self::Exists(_) | Self::Bool(_) | Self::Numbers(_) | Self::Compare(..) => 1,
            Self::Nets(_) => 2,
            Self::Same(..) => 8,
            Self::Text(set) => set.cost(),
            Self::Regex(list) => 32 + u32::try_from(list.len()).unwrap_or(u32::MAX / 8),
            Self::PerAgent(_, others) => 16 + others.cost(),
        }
    }
}

/// Whether an address lies in one of these networks.
pub fn contains(nets: &[IpNet], ip: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&ip))
}

fn same(value: Value<'_>, other: Value<'_>, place: Place, cased: bool) -> bool {
    let (Value::Text(value), Value::Text(other)) = (value, other) else {
        return value == other;
    };
    let fold = |text: &str| match cased {
        true => text.to_owned(),
        false => text.to_ascii_lowercase(),
    };
    let (value, other) = (fold(value), fold(other));
    match place {
        Place::Whole => value == other,
        Place::Contains => value.contains(&other),
        Place::Start => value.starts_with(&other),
        Place::End => value.ends_with(&other),
        Place::Below => value
            .strip_prefix(&other)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    }
}
