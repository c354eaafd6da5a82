//! Asks every rule about every event, and what rules say of findings.

use std::collections::HashMap;
use std::sync::Arc;

use super::correlation::{Correlation, State, group};
use super::exceptions::Deed;
use super::fields;
use super::rule::{Rule, What};
use super::set::RuleSet;
use super::summary::Summary;
use super::tree::{Joined, Subject as Asked};
use crate::decode::ProcessKey;
use crate::detect::{Detector, Finding, Subject};
use crate::event::{Address, Agent, Alert, Body, Event, Timestamp};

/// Fields of an event that evidence shows.
const MAX_SHOWN: usize = 12;

/// A rule that matched.
#[derive(Debug)]
pub struct Sighting {
    /// The rule.
    pub rule: Arc<Rule>,
    /// Its stage, by place.
    pub stage: usize,
    /// What it is about: sightings that share one belong to one incident.
    pub subjects: Vec<Subject>,
    /// One sentence for a person.
    pub summary: String,
    /// What shows it.
    pub evidence: Vec<String>,
    /// Ids of the events behind it.
    pub events: Vec<Arc<str>>,
    /// It says what was not known before, though it does not raise the stage.
    pub tells_more: bool,
}

/// A set of rules at work.
#[derive(Debug)]
pub struct Engine {
    set: Arc<RuleSet>,
    joined: Joined,
    bits: Vec<u64>,
    candidates: Vec<usize>,
    /// By the id of the correlation.
    correlations: HashMap<Arc<str>, State>,
    forgotten: u64,
}

impl Engine {
    /// A set of rules that has seen nothing yet.
    pub fn new(set: Arc<RuleSet>) -> Self {
        Self {
            set,
            joined: Joined::default(),
            bits: Vec::new(),
            candidates: Vec::new(),
            correlations: HashMap::new(),
            forgotten: 0,
        }
    }

    /// Takes another set of rules. What correlations have seen begins anew:
    /// rules of the same name may mean something else now.
    pub fn replace(&mut self, set: Arc<RuleSet>) {
        self.forgotten = self.forgotten();
        *self = Self {
            forgotten: self.forgotten,
            ..Self::new(set)
        };
    }

    /// The rules.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.set
    }

    /// Matches that correlations forgot because there were too many.
    pub fn forgotten(&self) -> u64 {
        let now: u64 = self.correlations.values().map(|it| it.forgotten).sum();
        self.forgotten + now
    }

    /// Asks every rule about an event.
    pub fn event(&mut self, event: &Event, out: &mut Vec<Sighting>) {
        let Some(index) = self.set.index(event.body.kind()) else {
            return;
        };
        self.candidates.clear();
        let candidates = &mut self.candidates;
        index.candidates(event, &mut self.bits, |place| candidates.push(place));
        if self.candidates.is_empty() {
            return;
        }
        let set = self.set.clone();
        let mut asked = Asked::new(event, &mut self.joined);
        let mut matched = Vec::new();
        for place in &self.candidates {
            let rule = &set.rules()[*place];
            if let Some(stage) = stage_of(rule, &mut asked) {
                matched.push((*place, stage));
            }
        }
        for (place, stage) in matched {
            let rule = &set.rules()[place];
            let deed = deed(event);
            if rule.lets_pass(&deed) {
                continue;
            }
            for (correlation, number) in set.correlations_of(place) {
                let correlation = (&set.rules()[*correlation], *number);
                self.correlate(correlation, event, &deed, out);
            }
            if set.tells(place) {
                out.push(sighting(rule, stage, event));
            }
        }
    }

    /// Counts a match; an exception of the correlation's own is asked of `deed`.
    fn correlate(
        &mut self,
        (rule, place): (&Arc<Rule>, usize),
        event: &Event,
        deed: &Deed<'_>,
        out: &mut Vec<Sighting>,
    ) {
        let What::Correlation(correlation) = &rule.what else {
            return;
        };
        let state = match self.correlations.get_mut(&rule.id) {
            Some(state) => state,
            None => self.correlations.entry(rule.id.clone()).or_default(),
        };
        let Some(fired) = state.take(correlation, place, event) else {
            return;
        };
        if rule.lets_pass(deed) {
            return;
        }
        let group = match fired.shown.as_str() {
            "" => String::new(),
            shown => format!(" ({shown})"),
        };
        out.push(Sighting {
            rule: rule.clone(),
            stage: 0,
            subjects: vec![Subject::Group(fired.group)],
            summary: format!("{}{group}", rule.title),
            evidence: vec![counted(correlation, fired.count)],
            events: fired.events,
            tells_more: false,
        });
    }

    /// Whether every rule that would take a detector's findings lets this pass:
    /// for what a detector counts, before it has found anything.
    pub fn lets_pass(&self, detector: &Detector, deed: &Deed<'_>) -> bool {
        let mut places = self.set.of_detector(detector.name).iter();
        places.all(|place| self.set.rules()[*place].lets_pass(deed))
    }

    /// What rules say of a finding of a detector.
    pub fn finding(&mut self, finding: &Finding, found: &Found<'_>, out: &mut Vec<Sighting>) {
        let deed = Deed {
            agent: found.agent.map(|agent| &**agent),
            process: finding.process.as_deref(),
            remote: finding.remote,
            name: found.name,
        };
        let set = self.set.clone();
        for place in set.of_detector(finding.detector.name) {
            let rule = &set.rules()[*place];
            if finding.stage >= rule.stages.len() || rule.lets_pass(&deed) {
                continue;
            }
            let correlations = set.correlations_of(*place);
            if !correlations.is_empty() {
                let event = found.as_event(finding, rule);
                for (correlation, number) in correlations {
                    let correlation = (&set.rules()[*correlation], *number);
                    self.correlate(correlation, &event, &deed, out);
                }
            }
            if !set.tells(*place) {
                continue;
            }
            out.push(Sighting {
                rule: rule.clone(),
                stage: finding.stage,
                subjects: finding.subjects.clone(),
                summary: finding.summary.clone(),
                evidence: finding.evidence.clone(),
                events: found.events.to_vec(),
                tells_more: finding.tells_more,
            });
        }
    }
}

/// What a finding does not know itself.
#[derive(Clone, Copy, Debug)]
pub struct Found<'e> {
    /// When.
    pub time: Timestamp,
    /// On which node.
    pub node: &'e Arc<str>,
    /// The agent.
    pub agent: Option<&'e Arc<Agent>>,
    /// The other end's name, as the agent's own traffic tells it.
    pub name: Option<&'e str>,
    /// Ids of the events behind it.
    pub events: &'e [Arc<str>],
}

impl Found<'_> {
    /// The finding for correlations, as what would be told of it.
    fn as_event(&self, finding: &Finding, rule: &Rule) -> Event {
        let stage = &rule.stages[finding.stage];
        let alert = Alert {
            incident: String::new(),
            revision: 0,
            rule: rule.id.clone(),
            title: rule.title.clone(),
            severity: stage.severity,
            confidence: stage.confidence,
            attack: rule.attack.clone(),
            summary: finding.summary.clone(),
            evidence: Vec::new(),
            events: self.events.to_vec(),
            count: 1,
            first_seen: self.time,
            last_seen: self.time,
            coverage: String::new(),
        };
        Event {
            id: self.events.first().cloned().unwrap_or_default(),
            time: self.time,
            node: self.node.clone(),
            agent: self.agent.cloned(),
            process: finding.process.clone(),
            body: Body::Alert(Arc::new(alert)),
        }
    }
}

fn counted(correlation: &Correlation, count: usize) -> String {
    let rules: Vec<&str> = correlation.rules.iter().map(|id| &**id).collect();
    let rules = rules.join(", ");
    format!("{}: {count} of {rules}", correlation.kind.name())
}

/// The stage at which a rule matches an event by itself, if it does.
pub fn judge(rule: &Rule, event: &Event) -> Option<usize> {
    let mut joined = Joined::default();
    let stage = stage_of(rule, &mut Asked::new(event, &mut joined))?;
    (!rule.lets_pass(&deed(event))).then_some(stage)
}

/// The highest stage of a rule of events that holds, its exceptions left aside.
pub fn stage_of(rule: &Rule, asked: &mut Asked<'_>) -> Option<usize> {
    let What::Event { tree, .. } = &rule.what else {
        return None;
    };
    if !tree.holds(asked) {
        return None;
    }
    let mut stages = rule.stages.iter().enumerate().rev();
    stages.find_map(|(place, stage)| {
        let holds = stage.condition.as_ref().is_none_or(|it| it.holds(asked));
        holds.then_some(place)
    })
}

/// What exceptions ask of an event.
fn deed(event: &Event) -> Deed<'_> {
    Deed {
        agent: event.agent.as_deref(),
        process: event.process.as_deref(),
        remote: remote(event),
        name: name(event),
    }
}

fn remote(event: &Event) -> Option<Address> {
    match &event.body {
        Body::Connect(body) | Body::Accept(body) | Body::Send(body) => Some(body.remote),
        Body::Dns(body) => Some(body.remote),
        Body::Flow(body) => Some(body.remote),
        _ => None,
    }
}

/// The name of the other end: whom a flow is with, or what was asked for.
fn name(event: &Event) -> Option<&str> {
    match &event.body {
        Body::Connect(body) | Body::Send(body) => body.server_name.as_deref(),
        Body::Flow(body) => body.server_name.as_deref(),
        Body::Dns(body) => body.question.as_deref(),
        _ => None,
    }
}

fn sighting(rule: &Arc<Rule>, stage: usize, event: &Event) -> Sighting {
    let process = event.process.as_deref();
    let summary = match &rule.stages[stage].summary {
        Some(summary) => summary.of(event),
        None => match process {
            Some(process) => format!("{}[{}]: {}", process.comm, process.pid, rule.title),
            None => rule.title.to_string(),
        },
    };
    Sighting {
        rule: rule.clone(),
        stage,
        subjects: vec![subject(rule, event)],
        summary,
        evidence: evidence(rule, stage, event),
        events: vec![event.id.clone()],
        tells_more: false,
    }
}

/// What an incident of this rule is about.
fn subject(rule: &Rule, event: &Event) -> Subject {
    match (&rule.what, event.process.as_deref()) {
        (What::Event { incident, .. }, _) if !incident.is_empty() => {
            Subject::Group(group(incident, event).0)
        }
        (_, Some(process)) => Subject::Process(ProcessKey {
            pid: process.pid,
            start: process.start,
        }),
        (_, None) => Subject::Agent,
    }
}

/// The fields that the summary names and that the rule asks for, and which flow it
/// is about, as the event has them.
fn evidence(rule: &Rule, stage: usize, event: &Event) -> Vec<String> {
    let What::Event { kind, shown, .. } = &rule.what else {
        return Vec::new();
    };
    let named = rule.stages[stage].summary.iter().flat_map(Summary::fields);
    let mut lines = Vec::new();
    for field in named
        .chain(shown.iter().copied())
        .chain(fields::of_flow(kind))
    {
        let Some(value) = field.show(event) else {
            continue;
        };
        let line = format!("{}: {value}", field.path);
        if lines.len() < MAX_SHOWN && !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}
