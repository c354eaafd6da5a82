//! A selection's members, each a field with modifiers and values, become a tree.

use std::ops::Range;

use regex::Regex;

use super::super::fields::{self, Field};
use super::super::keys::Report;
use super::super::modifiers::Modifiers;
use super::super::problem::{Source, nearest, quoted};
use super::super::text::Pattern;
use super::super::tree::{Leaf, Test, Tree};
use super::super::value::Type;
use super::super::vars::Item;
use super::super::yaml::{Node, Value};
use super::Context;

/// What makes trees of the selections of one rule.
pub(super) struct Compiler<'c, 'r, 's> {
    pub(super) kind: &'c str,
    pub(super) context: &'c Context<'c>,
    pub(super) report: &'r mut Report<'s>,
}

impl Compiler<'_, '_, '_> {
    pub(super) fn selection(&mut self, node: &Node) -> Option<Tree> {
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

    pub(super) fn fail<T>(
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
}

/// What stands before the colon.
pub(super) struct FieldAndModifiers {
    pub(super) field: &'static Field,
    pub(super) modifiers: Modifiers,
    /// Of the modifiers.
    pub(super) span: Range<usize>,
}

impl FieldAndModifiers {
    fn leaf(&self, test: Test) -> Leaf {
        Leaf {
            field: self.field,
            joined: self.modifiers.joined,
            test,
        }
    }

    pub(super) fn mismatch<T>(
        &self,
        compiler: &mut Compiler<'_, '_, '_>,
        modifier: &str,
    ) -> Option<T> {
        let message = format!(
            "`{}` is {}: `{modifier}` does not go with it",
            self.field.path,
            self.field.ty.described()
        );
        compiler.fail(&self.span, message, None)
    }

    /// A word that the field never has cannot match.
    pub(super) fn check_word(
        &self,
        text: &str,
        patterns: &[Pattern],
        cased: bool,
    ) -> Result<(), String> {
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

    pub(super) fn check_regex(&self, regex: &Regex) -> Result<(), String> {
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
