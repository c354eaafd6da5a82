//! A rule: what its document says, read and checked.

use std::sync::Arc;

use super::correlation::Correlation;
use super::detection::{Context, Selections};
use super::exceptions::{Deed, Exception};
use super::fields::{self, Field};
use super::keys::{Keys, Report, text};
use super::problem::{Source, nearest, quoted};
use super::settings;
use super::summary::Summary;
use super::tree::Tree;
use super::yaml::Node;
use crate::detect::{DETECTORS, Detector, Settings};
use crate::event::{Confidence, Severity};

/// Levels, as Sigma names them and as events do.
const LEVELS: &[(&str, Severity)] = &[
    ("info", Severity::Info),
    ("informational", Severity::Info),
    ("low", Severity::Low),
    ("medium", Severity::Medium),
    ("high", Severity::High),
    ("critical", Severity::Critical),
];
const CONFIDENCES: &[(&str, Confidence)] = &[
    ("low", Confidence::Low),
    ("medium", Confidence::Medium),
    ("high", Confidence::High),
];
const STATUSES: &[(&str, &str)] = &[
    ("stable", "stable"),
    ("test", "test"),
    ("experimental", "experimental"),
    ("deprecated", "deprecated"),
    ("unsupported", "unsupported"),
];
/// What Sigma has for people and this program does not use.
const FOR_PEOPLE: &[&str] = &[
    "author", "date", "modified", "license", "related", "fields", "taxonomy", "scope",
];
/// Longest id.
const MAX_ID: usize = 100;

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// Stable id.
    pub id: Arc<str>,
    /// Id in Sigma's way.
    pub uuid: Option<String>,
    /// Another name, for correlations.
    pub name: Option<String>,
    /// For people.
    pub title: Arc<str>,
    /// What it finds, and why that is bad.
    pub description: String,
    /// How mature it is.
    pub status: &'static str,
    /// Where to read on.
    pub references: Vec<String>,
    /// Tags, as written.
    pub tags: Vec<String>,
    /// MITRE ATT&CK technique ids, of the tags.
    pub attack: Arc<[Arc<str>]>,
    /// What it may find that is not bad.
    pub falsepositives: Vec<String>,
    /// What it asks for.
    pub what: What,
    /// By stage of evidence, from the least; at least one.
    pub stages: Vec<Stage>,
    /// What it lets pass.
    pub exceptions: Vec<Exception>,
    /// Whether it is asked at all.
    pub enabled: bool,
    /// The file it comes from.
    pub source: Source,
    /// Its document.
    pub node: Node,
}

/// How bad and how sure, at a stage of evidence.
#[derive(Debug)]
pub struct Stage {
    /// Its name; empty when a rule has only one.
    pub name: String,
    /// How bad.
    pub severity: Severity,
    /// How sure.
    pub confidence: Confidence,
    /// What has to hold besides the rule's own condition.
    pub condition: Option<Tree>,
    /// What to say.
    pub summary: Option<Summary>,
}

/// What a rule asks for.
#[derive(Debug)]
pub enum What {
    /// Events of a kind.
    Event {
        /// The kind.
        kind: &'static str,
        /// The condition.
        tree: Tree,
        /// Fields that show it.
        shown: Vec<&'static Field>,
        /// Fields whose values make one incident; without any, the process does.
        incident: Vec<&'static Field>,
        /// A detector that sees the same otherwise, and the numbers that it goes by.
        beside: Option<(&'static Detector, Settings)>,
    },
    /// Findings of a detector, which goes by these numbers.
    Detector(&'static Detector, Settings),
    /// Several matches of other rules.
    Correlation(Correlation),
}

impl What {
    /// The detector whose findings it takes, and the numbers that this goes by.
    pub fn detector(&self) -> Option<(&'static Detector, &Settings)> {
        match self {
            Self::Detector(detector, settings) => Some((detector, settings)),
            Self::Event { beside, .. } => beside.as_ref().map(|(it, settings)| (*it, settings)),
            Self::Correlation(_) => None,
        }
    }

    /// For tables: the kind of event, the detector, or the correlation's type.
    pub fn name(&self) -> String {
        match self {
            Self::Event {
                kind,
                beside: Some((detector, _)),
                ..
            } => format!("{kind}, detector {}", detector.name),
            Self::Event { kind, .. } => (*kind).to_owned(),
            Self::Detector(detector, _) => format!("detector {}", detector.name),
            Self::Correlation(correlation) => correlation.kind.name().to_owned(),
        }
    }
}

impl Rule {
    /// Reads a document that is no correlation.
    pub fn read(node: &Node, context: &Context<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut keys = Keys::new(node, "a rule", report)?;
        let detector = keys.get("detector");
        let event = keys.get("event");
        let (what, stages) = match (detector, event) {
            (Some(detector), None) => of_detector(detector, &mut keys, report).unzip(),
            (beside, Some(event)) => of_event(event, beside, &mut keys, context, report).unzip(),
            (None, None) => {
                let message = "a rule needs `event`, `detector` or `correlation`";
                let help = "`event` is a kind of event, such as `exec`".to_owned();
                let start = node.span.start..node.span.start;
                report.add(&start, message, Some(help));
                (None, None)
            }
        };
        // Read even if the condition is wrong, so that every problem is told.
        let head = Head::read(&mut keys, context, report);
        keys.end("a rule", report);
        Some(head?.rule(what?, stages?, node, report.source))
    }

    /// Whether an exception lets this pass.
    pub fn lets_pass(&self, deed: &Deed<'_>) -> bool {
        self.exceptions.iter().any(|it| it.covers(deed))
    }

    /// Whether correlations may call it so: by id, UUID or name.
    pub fn is_called(&self, name: &str) -> bool {
        &*self.id == name
            || [&self.uuid, &self.name]
                .into_iter()
                .flatten()
                .any(|it| it == name)
    }

    /// Whether it is of the pack in the program, which has no files beside it.
    pub fn is_built_in(&self) -> bool {
        super::pack::is_of_pack(&self.source)
    }

    /// The worst it can say.
    pub fn severity(&self) -> Severity {
        let worst = self.stages.iter().map(|stage| stage.severity).max();
        worst.unwrap_or(Severity::Info)
    }
}

/// What every rule has, whatever it asks for.
pub struct Head {
    id: String,
    uuid: Option<String>,
    name: Option<String>,
    title: String,
    description: String,
    status: &'static str,
    references: Vec<String>,
    tags: Vec<String>,
    attack: Arc<[Arc<str>]>,
    falsepositives: Vec<String>,
    exceptions: Vec<Exception>,
    enabled: bool,
}

impl Head {
    /// Reads it.
    pub fn read(
        keys: &mut Keys<'_>,
        context: &Context<'_>,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let title = keys.need("title", "a rule", report);
        let id = keys.need("id", "a rule", report);
        if let Some(id) = id.filter(|id| !is_id(id.text().unwrap_or_default())) {
            let message = "an id is of small letters and digits, with `-` between words";
            report.add(&id.span, message, Some("such as `ssh-outbound`".to_owned()));
        }
        let uuid = keys.get("uuid");
        if let Some(uuid) = uuid.filter(|uuid| !is_uuid(uuid.text().unwrap_or_default())) {
            report.add(&uuid.span, "this is no UUID", None);
        }
        let (tags, attack) = tags(keys, report);
        if let Some(action) = keys.get("action").filter(|it| it.text() != Some("alert")) {
            let message = "the only action there is, is `alert`";
            report.add(&action.span, message, None);
        }
        for key in FOR_PEOPLE {
            keys.get(key);
        }
        let exceptions = keys
            .get("exceptions")
            .filter(|node| !node.is_null())
            .map(|node| Exception::read_all(node, context, report));
        let owned = |nodes: Vec<&Node>| -> Vec<String> {
            let texts = nodes.into_iter().filter_map(Node::text);
            texts.map(str::to_owned).collect()
        };
        let enabled = keys.word("enabled", &[("true", true), ("false", false)], report);
        let status = keys.word("status", STATUSES, report).unwrap_or("test");
        keys.get("tests");
        Some(Self {
            uuid: uuid.and_then(Node::text).map(str::to_owned),
            name: keys.text("name", report).map(str::to_owned),
            description: keys
                .text("description", report)
                .unwrap_or_default()
                .trim()
                .to_owned(),
            status,
            references: owned(keys.texts("references", report)),
            tags,
            attack,
            falsepositives: owned(keys.texts("falsepositives", report)),
            exceptions: exceptions.unwrap_or_default(),
            enabled: enabled.unwrap_or(!matches!(status, "deprecated" | "unsupported")),
            title: text("title", title?, report)?.to_owned(),
            id: text("id", id?, report)?.to_owned(),
        })
    }

    /// Makes the rule.
    pub fn rule(self, what: What, stages: Vec<Stage>, node: &Node, source: &Source) -> Rule {
        Rule {
            id: self.id.into(),
            uuid: self.uuid,
            name: self.name,
            title: self.title.into(),
            description: self.description,
            status: self.status,
            references: self.references,
            tags: self.tags,
            attack: self.attack,
            falsepositives: self.falsepositives,
            what,
            stages,
            exceptions: self.exceptions,
            enabled: self.enabled,
            source: source.clone(),
            node: node.clone(),
        }
    }
}

/// `level`, `confidence` and `summary` of a rule with one stage.
pub fn only_stage(
    keys: &mut Keys<'_>,
    kind: Option<&str>,
    report: &mut Report<'_>,
) -> Option<Vec<Stage>> {
    let level = keys.need("level", "a rule", report).is_some();
    let severity = keys.word("level", LEVELS, report);
    let confidence = keys.word("confidence", CONFIDENCES, report);
    let summary = keys.get("summary");
    let summary = match (summary, kind) {
        (Some(node), Some(kind)) => Summary::read(node, kind, report),
        (Some(node), None) => {
            report.add(&node.span, "this rule's summary is made for it", None);
            None
        }
        (None, _) => None,
    };
    let stage = Stage {
        name: String::new(),
        severity: severity.filter(|_| level)?,
        confidence: confidence.unwrap_or(Confidence::Medium),
        condition: None,
        summary,
    };
    Some(vec![stage])
}

fn of_event(
    event: &Node,
    beside: Option<&Node>,
    keys: &mut Keys<'_>,
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Option<(What, Vec<Stage>)> {
    let name = text("event", event, report)?;
    let Some(kind) = fields::kinds().find(|kind| *kind == name) else {
        let known: Vec<_> = fields::kinds().collect();
        let help = nearest(name, known.iter().copied())
            .unwrap_or_else(|| format!("it is one of {}", known.join(", ")));
        let message = format!("there are no {} events to ask for", quoted(name));
        report.add(&event.span, message, Some(help));
        // So that nothing else is told of what may be right.
        for key in [
            "detection",
            "stages",
            "level",
            "confidence",
            "summary",
            "incident",
            "settings",
        ] {
            keys.get(key);
        }
        return None;
    };
    let detection = keys.need("detection", "a rule", report);
    let selections = detection.and_then(|it| Selections::new(it, kind, context, report));
    let condition = detection.and_then(|detection| {
        let found = detection.get("condition");
        if found.is_none() {
            let start = detection.span.start..detection.span.start;
            report.add(&start, "`detection` has no `condition`", None);
        }
        found
    });
    let tree = selections
        .as_ref()
        .zip(condition)
        .and_then(|(selections, node)| selections.condition(node, report));
    let stages = match keys.get("stages") {
        None => only_stage(keys, Some(kind), report),
        Some(stages) => {
            let stages = stages.items().iter();
            let stages: Vec<_> = stages
                .map(|stage| event_stage(stage, kind, selections.as_ref(), report))
                .collect();
            stages.into_iter().collect()
        }
    };
    let numbers = keys.get("settings");
    let beside = match (beside, numbers) {
        (Some(node), numbers) => Some(beside_events(node, numbers, stages.as_ref(), report)?),
        (None, Some(numbers)) => {
            report.add(&numbers.span, settings::NO_DETECTOR, None);
            None
        }
        (None, None) => None,
    };
    let fields = keys.texts("incident", report);
    let fields: Vec<_> = fields
        .into_iter()
        .map(
            |node| match fields::find(kind, node.text().unwrap_or_default()) {
                Ok(field) => Some(field),
                Err((message, help)) => {
                    report.add(&node.span, message, help);
                    None
                }
            },
        )
        .collect();
    let incident: Option<Vec<_>> = fields.into_iter().collect();
    // A condition with an error may have used what it was cut off before.
    if let Some(selections) = selections.filter(|_| tree.is_some() && stages.is_some()) {
        selections.report_unused(report);
    }
    let tree = tree?;
    let mut shown = Vec::new();
    tree.fields(&mut shown);
    let what = What::Event {
        kind,
        tree,
        shown,
        incident: incident?,
        beside,
    };
    Some((what, stages?))
}

/// A detector beside a rule's events: what it finds is graded as they are.
fn beside_events(
    node: &Node,
    numbers: Option<&Node>,
    stages: Option<&Vec<Stage>>,
    report: &mut Report<'_>,
) -> Option<(&'static Detector, Settings)> {
    let detector = find_detector(node, report)?;
    if detector.stages.len() != 1 || stages.is_some_and(|stages| stages.len() != 1) {
        let message = "a detector beside `event` and the rule must have one stage each";
        report.add(&node.span, message, None);
        return None;
    }
    let settings = numbers.map(|it| settings::read(it, detector, report));
    Some((detector, settings.unwrap_or_default()))
}

fn find_detector(node: &Node, report: &mut Report<'_>) -> Option<&'static Detector> {
    let name = text("detector", node, report)?;
    let found = DETECTORS.iter().find(|it| it.name == name);
    if found.is_none() {
        let known: Vec<_> = DETECTORS.iter().map(|detector| detector.name).collect();
        let help = nearest(name, known.iter().copied())
            .unwrap_or_else(|| format!("there are {}", known.join(", ")));
        let message = format!("there is no detector {}", quoted(name));
        report.add(&node.span, message, Some(help));
    }
    found.copied()
}

fn event_stage(
    node: &Node,
    kind: &str,
    selections: Option<&Selections<'_>>,
    report: &mut Report<'_>,
) -> Option<Stage> {
    let mut keys = Keys::new(node, "a stage", report)?;
    let condition = keys.get("condition");
    let condition = match (condition, selections) {
        (Some(node), Some(selections)) => Some(selections.condition(node, report)?),
        _ => None,
    };
    let summary = keys
        .get("summary")
        .map(|it| Summary::read(it, kind, report));
    stage(&mut keys, condition, summary.flatten(), report).inspect(|_| {
        keys.end("a stage", report);
    })
}

fn stage(
    keys: &mut Keys<'_>,
    condition: Option<Tree>,
    summary: Option<Summary>,
    report: &mut Report<'_>,
) -> Option<Stage> {
    let name = keys.need("name", "a stage", report);
    let name = name.and_then(|node| text("name", node, report));
    let level = keys.need("level", "a stage", report);
    let severity = keys.word("level", LEVELS, report);
    let confidence = keys.need("confidence", "a stage", report);
    let sure = keys.word("confidence", CONFIDENCES, report);
    level?;
    confidence?;
    Some(Stage {
        name: name?.to_owned(),
        severity: severity?,
        confidence: sure?,
        condition,
        summary,
    })
}

fn of_detector(
    node: &Node,
    keys: &mut Keys<'_>,
    report: &mut Report<'_>,
) -> Option<(What, Vec<Stage>)> {
    let stages = keys.need("stages", "a detector's rule", report);
    let numbers = keys.get("settings");
    let detector = find_detector(node, report)?;
    let name = detector.name;
    let settings = numbers.map(|it| settings::read(it, detector, report));
    let stages = stages?;
    let mut by_place: Vec<Option<Stage>> = detector.stages.iter().map(|_| None).collect();
    for node in stages.items() {
        let Some(mut keys) = Keys::new(node, "a stage", report) else {
            continue;
        };
        let stage = stage(&mut keys, None, None, report);
        keys.end("a stage", report);
        let Some(stage) = stage else { continue };
        match detector.stages.iter().position(|it| *it == stage.name) {
            Some(place) => by_place[place] = Some(stage),
            None => {
                let help = nearest(&stage.name, detector.stages.iter().copied())
                    .unwrap_or_else(|| format!("there are {}", detector.stages.join(", ")));
                let message = format!("the detector `{name}` has no stage {}", quoted(&stage.name));
                report.add(&node.span, message, Some(help));
            }
        }
    }
    let mut missing = by_place.iter().zip(detector.stages);
    if let Some((_, missing)) = missing.find(|(stage, _)| stage.is_none()) {
        let message = format!("`stages` lacks `{missing}` of the detector `{name}`");
        let start = stages.span.start..stages.span.start;
        report.add(&start, message, None);
    }
    let stages: Option<Vec<Stage>> = by_place.into_iter().collect();
    let what = What::Detector(detector, settings.unwrap_or_default());
    Some((what, stages?))
}

fn tags(keys: &mut Keys<'_>, report: &mut Report<'_>) -> (Vec<String>, Arc<[Arc<str>]>) {
    let (mut tags, mut attack) = (Vec::new(), Vec::new());
    for node in keys.texts("tags", report) {
        let tag = node.text().unwrap_or_default();
        tags.push(tag.to_owned());
        let Some(rest) = tag.strip_prefix("attack.t") else {
            continue;
        };
        // Tactics may begin with a t, too; technique ids go on with a digit.
        if !rest.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let digits =
            |text: &str, many| text.len() == many && text.bytes().all(|b| b.is_ascii_digit());
        let (technique, sub) = rest.split_once('.').unwrap_or((rest, "000"));
        if digits(technique, 4) && digits(sub, 3) {
            attack.push(format!("T{rest}").into());
        } else {
            let help = Some("such as `attack.t1572` or `attack.t1021.004`".to_owned());
            let message = format!("{} is no technique of ATT&CK", quoted(tag));
            report.add(&node.span, message, help);
        }
    }
    (tags, attack.into())
}

fn is_id(text: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    text.len() <= MAX_ID && text.split('-').all(word)
}

fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}
