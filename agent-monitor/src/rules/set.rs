//! A set of rules: read from files, checked together, compiled once.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use super::correlation::Correlation;
use super::detection::Context;
use super::exceptions::Exception;
use super::index::Index;
use super::keys::{Keys, Report};
use super::problem::{Problems, Source, nearest, quoted};
use super::rule::{Head, Rule, What, only_stage};
use super::sigma::{self, Unmapped};
use super::tree::Tree;
use super::vars::Vars;
use super::yaml::{self, Node};
use super::{files, pack, settings};
use crate::detect::{Detector, Settings};

/// Rules of a set.
pub const MAX_RULES: usize = 20_000;

/// Compiled rules.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Arc<Rule>>,
    indexes: HashMap<&'static str, Index>,
    detectors: HashMap<&'static str, Vec<usize>>,
    /// For each rule: the correlations that count its matches, and its number there.
    correlations: Vec<Vec<(usize, usize)>>,
    /// Whether a rule's own matches are told, not only counted.
    tells: Vec<bool>,
    labels: BTreeSet<String>,
    unmapped: Vec<Unmapped>,
    variables: BTreeMap<String, Variable>,
}

/// A variable, as it is for agents that have no list of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variable {
    /// Its values.
    pub values: Vec<String>,
    /// How many entries of `overrides` have a list of their own.
    pub overrides: usize,
}

/// The default pack; a test shows that it compiles.
static BUILTIN: LazyLock<Arc<RuleSet>> = LazyLock::new(|| match RuleSet::load(&[]) {
    Ok(set) => Arc::new(set),
    Err(problems) => {
        tracing::error!("the default rules are not valid: {problems}");
        Arc::default()
    }
});

impl RuleSet {
    /// The default pack alone.
    pub fn builtin() -> Arc<Self> {
        BUILTIN.clone()
    }

    /// The default pack, with what directories add to it and replace of it, in order.
    ///
    /// # Errors
    /// Everything that is wrong with any of the files.
    pub fn load(dirs: &[PathBuf]) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut origins = vec![pack::sources()];
        for dir in dirs {
            origins.push(files::read(dir, &mut problems));
        }
        Self::compile(&origins, problems)
    }

    /// Compiles the files of several origins; a later one replaces rules of the
    /// same id of the ones before.
    ///
    /// # Errors
    /// Everything that is wrong with any of the files, and `problems`.
    pub fn compile(origins: &[Vec<Source>], mut problems: Problems) -> Result<Self, Problems> {
        let mut vars = Vars::default();
        let mut documents = Vec::new();
        for (origin, sources) in origins.iter().enumerate() {
            for source in sources {
                match yaml::documents(source.text()) {
                    Ok(nodes) => documents.extend(nodes.into_iter().map(|node| Document {
                        origin,
                        source,
                        node,
                    })),
                    Err(error) => {
                        let help = error.help.map(str::to_owned);
                        problems.add(source, &error.span, error.message, help);
                    }
                }
            }
        }
        documents.retain(|document| {
            let is_vars = document
                .source
                .path()
                .file_stem()
                .is_some_and(|it| it == "vars");
            if is_vars {
                vars.read(&document.node, document.source, &mut problems);
            }
            !is_vars
        });
        if documents.len() > MAX_RULES {
            let last = &documents[MAX_RULES];
            let message = format!("there are more than {MAX_RULES} rules");
            problems.add(last.source, &last.node.span, message, None);
            return Err(problems);
        }
        let context = Context {
            vars: &vars,
            used: RefCell::default(),
            regexes: Cell::new(0),
        };
        let mut loader = Loader {
            rules: Vec::new(),
            by_id: BTreeMap::new(),
            unmapped: Vec::new(),
            problems,
        };
        loader.load(&documents, &context);
        let Loader {
            rules,
            unmapped,
            mut problems,
            ..
        } = loader;
        let known = pack::variables();
        let used = context.used.into_inner();
        let is_used = |name: &str| used.contains(name) || known.contains(name);
        vars.report_unused(&is_used, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut set = Self {
            unmapped,
            ..Self::default()
        };
        let selectors = rules
            .iter()
            .flat_map(|rule| rule.exceptions.iter().flat_map(Exception::selectors));
        let labels = selectors.chain(vars.selectors());
        set.labels = labels
            .filter_map(|it| Some(it.label_key()?.to_owned()))
            .collect();
        set.variables = vars
            .names()
            .map(|name| (name.to_owned(), vars.shown(name)))
            .collect();
        set.rules = rules;
        match set.index_all() {
            Ok(()) => Ok(set),
            Err(message) => {
                let source = Source::new("rules".as_ref(), String::new());
                problems.add(&source, &(0..0), message, None);
                Err(problems)
            }
        }
    }

    fn index_all(&mut self) -> Result<(), String> {
        self.correlations = vec![Vec::new(); self.rules.len()];
        self.tells = self.rules.iter().map(|rule| rule.enabled).collect();
        let mut counted = vec![false; self.rules.len()];
        for (place, rule) in self.rules.iter().enumerate() {
            let What::Correlation(correlation) = &rule.what else {
                continue;
            };
            if !rule.enabled {
                continue;
            }
            for (number, id) in correlation.rules.iter().enumerate() {
                let other = self.rules.iter().position(|rule| rule.id == *id);
                // A correlation is read after the rules that it names.
                let Some(other) = other else { continue };
                self.correlations[other].push((place, number));
                counted[other] = true;
                self.tells[other] &= correlation.generate;
            }
        }
        let mut kinds: BTreeMap<&'static str, Vec<(usize, &Tree)>> = BTreeMap::new();
        for (place, rule) in self.rules.iter().enumerate() {
            if !rule.enabled && !counted[place] {
                continue;
            }
            if let What::Event { kind, tree, .. } = &rule.what {
                kinds.entry(kind).or_default().push((place, tree));
            }
            if let Some((detector, _)) = rule.what.detector() {
                self.detectors.entry(detector.name).or_default().push(place);
            }
        }
        for (kind, rules) in kinds {
            self.indexes.insert(kind, Index::new(rules)?);
        }
        Ok(())
    }

    /// Every rule, those that are not enabled too.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// A rule by its id.
    pub fn get(&self, id: &str) -> Option<&Arc<Rule>> {
        self.rules.iter().find(|rule| &*rule.id == id)
    }

    /// Rules in SigmaHQ's form that were left out.
    pub fn unmapped(&self) -> &[Unmapped] {
        &self.unmapped
    }

    /// A variable by its name, without percent signs.
    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.get(name)
    }

    /// Keys of the labels that rules ask for.
    pub fn label_keys(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().map(String::as_str)
    }

    /// The rules of a kind of event.
    pub(super) fn index(&self, kind: &str) -> Option<&Index> {
        self.indexes.get(kind)
    }

    /// The rules of a detector, by place.
    pub(super) fn of_detector(&self, name: &str) -> &[usize] {
        self.detectors.get(name).map_or(&[], Vec::as_slice)
    }

    /// The numbers that a detector goes by: where rules of it differ, the last counts.
    pub fn settings(&self, detector: &Detector) -> Settings {
        let mut all = Settings::default();
        for place in self.of_detector(detector.name) {
            if let Some((_, settings)) = self.rules[*place].what.detector() {
                all.extend(settings);
            }
        }
        all
    }

    /// The correlations that count a rule's matches, and its number there.
    pub(super) fn correlations_of(&self, place: usize) -> &[(usize, usize)] {
        &self.correlations[place]
    }

    /// Whether a rule's own matches are told of: it is enabled, and no
    /// correlation counts them without `generate`.
    pub fn tells(&self, place: usize) -> bool {
        self.tells[place]
    }
}

struct Document<'s> {
    origin: usize,
    source: &'s Source,
    node: Node,
}

struct Loader {
    rules: Vec<Arc<Rule>>,
    /// Where each id is, and the origin it is from.
    by_id: BTreeMap<Arc<str>, (usize, usize)>,
    unmapped: Vec<Unmapped>,
    problems: Problems,
}

impl Loader {
    /// Rules first, then what names them.
    fn load(&mut self, documents: &[Document<'_>], context: &Context<'_>) {
        let is_override = |document: &&Document<'_>| document.node.get("override").is_some();
        let is_correlation = |document: &&Document<'_>| document.node.get("correlation").is_some();
        for document in documents {
            if sigma::is_sigma(&document.node) {
                self.sigma(document, context);
            } else if !is_override(&document) && !is_correlation(&document) {
                let mut report = Report {
                    source: document.source,
                    problems: &mut self.problems,
                };
                if let Some(rule) = Rule::read(&document.node, context, &mut report) {
                    self.add(rule, document);
                }
            }
        }
        for document in documents.iter().filter(is_correlation) {
            if self.leaves_out(document) {
                continue;
            }
            if let Some(rule) = self.correlation(document, context) {
                self.add(rule, document);
            }
        }
        for document in documents.iter().filter(is_override) {
            self.change(document, context);
        }
    }

    fn sigma(&mut self, document: &Document<'_>, context: &Context<'_>) {
        let mut own = Problems::default();
        let mut report = Report {
            source: document.source,
            problems: &mut own,
        };
        let rule = sigma::translate(&document.node, document.source)
            .map(|node| Rule::read(&node, context, &mut report));
        let reasons = match rule {
            Ok(Some(rule)) if own.is_empty() => return self.add(rule, document),
            Ok(_) => own
                .list()
                .iter()
                .map(|problem| format!("line {}: {problem}", problem.place().1))
                .collect(),
            Err(reasons) => reasons,
        };
        let left_out = Unmapped::new(&document.node, document.source, reasons);
        self.unmapped.push(left_out);
    }

    /// Whether a correlation counts a rule that was left out: then it is, too.
    fn leaves_out(&mut self, document: &Document<'_>) -> bool {
        let rules = document
            .node
            .get("correlation")
            .and_then(|it| it.get("rules"));
        let named = rules
            .map_or(&[][..], Node::items)
            .iter()
            .filter_map(Node::text);
        let is_left_out = |name: &&str| {
            !self.rules.iter().any(|rule| rule.is_called(name))
                && self
                    .unmapped
                    .iter()
                    .any(|it| it.names.iter().any(|known| known == name))
        };
        let Some(name) = named.into_iter().find(is_left_out) else {
            return false;
        };
        let reasons = vec![format!("it counts {}, which was left out", quoted(name))];
        let left_out = Unmapped::new(&document.node, document.source, reasons);
        self.unmapped.push(left_out);
        true
    }

    fn correlation(&mut self, document: &Document<'_>, context: &Context<'_>) -> Option<Rule> {
        let report = &mut Report {
            source: document.source,
            problems: &mut self.problems,
        };
        let mut keys = Keys::new(&document.node, "a rule", report)?;
        let correlation = keys.get("correlation")?;
        let correlation = Correlation::read(correlation, &self.rules, report);
        let stages = only_stage(&mut keys, None, report);
        let head = Head::read(&mut keys, context, report);
        keys.end("a rule", report);
        let what = What::Correlation(correlation?);
        Some(head?.rule(what, stages?, &document.node, document.source))
    }

    fn add(&mut self, rule: Rule, document: &Document<'_>) {
        match self.by_id.get_mut(&rule.id) {
            None => {
                let place = self.rules.len();
                self.by_id.insert(rule.id.clone(), (place, document.origin));
                self.rules.push(Arc::new(rule));
            }
            Some((place, origin)) if *origin < document.origin => {
                *origin = document.origin;
                self.rules[*place] = Arc::new(rule);
            }
            Some((place, _)) => {
                let id = document.node.get("id").unwrap_or(&document.node);
                let message = format!("there is another rule with the id {}", quoted(&rule.id));
                let other = self.rules[*place].source.path().display();
                let help = Some(format!("it is in {other}"));
                self.problems.add(document.source, &id.span, message, help);
            }
        }
    }

    /// `override: ID` with `enabled`, `settings`, or more `exceptions`.
    fn change(&mut self, document: &Document<'_>, context: &Context<'_>) {
        let report = &mut Report {
            source: document.source,
            problems: &mut self.problems,
        };
        let what = "an override";
        let Some(mut keys) = Keys::new(&document.node, what, report) else {
            return;
        };
        let enabled = keys.word("enabled", &[("true", true), ("false", false)], report);
        let exceptions = keys.get("exceptions");
        let exceptions = exceptions.map(|it| Exception::read_all(it, context, report));
        let numbers = keys.get("settings");
        let named = keys.get("override");
        keys.end(what, report);
        let Some(named) = named else { return };
        let id = named.text().unwrap_or_default();
        let Some((place, _)) = self.by_id.get(id) else {
            let help = nearest(id, self.by_id.keys().map(|id| &**id));
            report.add(
                &named.span,
                format!("there is no rule {}", quoted(id)),
                help,
            );
            return;
        };
        // Rules are shared only once the set is made.
        if let Some(rule) = Arc::get_mut(&mut self.rules[*place]) {
            rule.enabled = enabled.unwrap_or(rule.enabled);
            rule.exceptions.extend(exceptions.unwrap_or_default());
            match (numbers, &mut rule.what) {
                (
                    Some(numbers),
                    What::Detector(detector, settings)
                    | What::Event {
                        beside: Some((detector, settings)),
                        ..
                    },
                ) => {
                    settings.extend(&settings::read(numbers, detector, report));
                }
                (Some(numbers), _) => report.add(&numbers.span, settings::NO_DETECTOR, None),
                (None, _) => {}
            }
        }
    }
}
