//! `vars.yaml`: lists that rules name as `%list%`, for all agents or for some.

use std::collections::BTreeMap;
use std::ops::Range;

use super::keys::{Keys, Report};
use super::problem::{Problems, Source, nearest};
use super::set::Variable;
use super::yaml::{Node, Value};
use crate::enrich::selector::Selector;

/// A value in a file.
#[derive(Clone, Debug)]
pub struct Item {
    /// As written.
    pub text: String,
    /// Which file.
    pub source: Source,
    /// Where in it.
    pub span: Range<usize>,
}

/// Named lists.
type Lists = BTreeMap<String, Vec<Item>>;

/// Every variable.
#[derive(Debug, Default)]
pub struct Vars {
    lists: Lists,
    /// The first entry that chooses an agent and has a variable counts for it.
    agents: Vec<(Vec<Selector>, Lists)>,
    /// Where names were first written, to be told of when nothing uses them.
    own: Vec<(String, Source, Range<usize>)>,
}

impl Vars {
    /// Takes in a file: what it names replaces what was known of that name.
    pub fn read(&mut self, node: &Node, source: &Source, problems: &mut Problems) {
        let report = &mut Report { source, problems };
        let Some(mut keys) = Keys::new(node, "a file of variables", report) else {
            return;
        };
        if let Some(vars) = keys.get("vars") {
            let lists = self.lists(vars, report);
            self.lists.extend(lists);
        }
        let entries = keys.get("overrides").map_or(&[][..], Node::items);
        let mut agents = Vec::new();
        for entry in entries {
            if let Some(entry) = self.entry(entry, report) {
                agents.push(entry);
            }
        }
        agents.append(&mut self.agents);
        self.agents = agents;
        keys.end("a file of variables", report);
    }

    fn entry(&mut self, node: &Node, report: &mut Report<'_>) -> Option<(Vec<Selector>, Lists)> {
        let mut keys = Keys::new(node, "an entry of `overrides`", report)?;
        let agents = keys.need("agents", "an entry of `overrides`", report);
        let vars = keys.need("vars", "an entry of `overrides`", report);
        keys.end("an entry of `overrides`", report);
        let agents = selectors(agents?, report);
        Some((agents, self.lists(vars?, report)))
    }

    fn lists(&mut self, node: &Node, report: &mut Report<'_>) -> Lists {
        let Value::Map(members) = &node.value else {
            if !node.is_null() {
                let message = format!("`vars` must be a map of lists, not {}", node.what());
                report.add(&node.span, message, None);
            }
            return Lists::new();
        };
        let mut lists = Lists::new();
        for (name, values) in members {
            let items = values.items().iter().filter(|item| !item.is_null());
            let items = items.filter_map(|item| match item.text() {
                Some(text) => Some(Item {
                    text: text.to_owned(),
                    source: report.source.clone(),
                    span: item.span.clone(),
                }),
                None => {
                    let message = format!("a variable is a list of values, not {}", item.what());
                    report.add(&item.span, message, None);
                    None
                }
            });
            let items = items.collect();
            let name_text = name.text().unwrap_or_default().to_owned();
            let own = (name_text.clone(), report.source.clone(), name.span.clone());
            self.own.push(own);
            lists.insert(name_text, items);
        }
        lists
    }

    /// The list that is called `name`.
    pub fn get(&self, name: &str) -> Option<&[Item]> {
        self.lists.get(name).map(Vec::as_slice)
    }

    /// A variable for people.
    pub fn shown(&self, name: &str) -> Variable {
        let items = self.get(name).unwrap_or_default().iter();
        Variable {
            values: items.map(|item| item.text.clone()).collect(),
            overrides: self.of_agents(name).count(),
        }
    }

    /// The lists of that name that only some agents have.
    pub fn of_agents(&self, name: &str) -> impl Iterator<Item = (&[Selector], &[Item])> {
        self.agents.iter().filter_map(move |(selectors, lists)| {
            Some((selectors.as_slice(), lists.get(name)?.as_slice()))
        })
    }

    /// Every name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.lists.keys().map(String::as_str)
    }

    /// Selectors that decide which list counts.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.agents.iter().flat_map(|(selectors, _)| selectors)
    }

    /// A name that neither a rule uses nor the default pack knows does nothing:
    /// most likely it is misspelt.
    pub fn report_unused(&self, used: &dyn Fn(&str) -> bool, problems: &mut Problems) {
        for (name, source, span) in &self.own {
            if !used(name) {
                let message = format!("no rule uses the variable `{}`", name.escape_debug());
                let known = self.names().filter(|known| used(known));
                problems.add(source, span, message, nearest(name, known));
            }
        }
    }
}

/// Reads one or more selectors of agents.
pub fn selectors(node: &Node, report: &mut Report<'_>) -> Vec<Selector> {
    let mut selectors = Vec::new();
    for item in node.items() {
        match super::keys::text("agents", item, report).map(str::parse::<Selector>) {
            Some(Ok(selector)) => selectors.push(selector),
            Some(Err(error)) => report.add(&item.span, error.to_string(), None),
            None => {}
        }
    }
    selectors
}
