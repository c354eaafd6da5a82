//! `detection`: named selections of fields, compiled to trees.

mod compiler;
mod values;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::condition::{self, Condition};
use super::keys::Report;
use super::problem::quoted;
use super::tree::Tree;
use super::vars::Vars;
use super::yaml::{Node, Value};
use compiler::Compiler;

pub use values::MAX_REGEXES;

/// What rules are compiled with.
pub struct Context<'a> {
    /// Variables.
    pub vars: &'a Vars,
    /// Names of variables that were used.
    pub used: RefCell<BTreeSet<String>>,
    /// Regular expressions so far.
    pub regexes: Cell<usize>,
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
