//! Findings about one thing are one incident, which grows.
//!
//! A finding belongs to the incident of its rule and agent that is about one of
//! its subjects. What raises the stage of evidence is told as a new revision;
//! the rest is counted.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::pack::{Rule, rule};
use crate::detect::{Finding, Subject};
use crate::event::{Alert, Timestamp};

/// Incidents that can grow at once; the one that was quiet longest is closed.
const MAX_INCIDENTS: usize = 4_096;
/// Lines of evidence that are kept, and events that are referred to.
const MAX_EVIDENCE: usize = 32;

/// Incidents that can still grow.
#[derive(Default)]
pub struct Incidents {
    open: Vec<Incident>,
}

struct Incident {
    id: String,
    rule: &'static Rule,
    agent: u64,
    /// The first finding's own subject and those of later ones, without the
    /// processes above: what runs under one shell is not one incident.
    about: Vec<Subject>,
    stage: usize,
    revision: u32,
    summary: String,
    evidence: Vec<String>,
    events: Vec<Arc<str>>,
    count: u64,
    first_seen: Timestamp,
    last_seen: Timestamp,
}

impl Incidents {
    /// Takes a finding, shown by `events`, at `time`; gives the new revision of
    /// its incident if it grew. `coverage` says what was lost of the agent.
    pub fn take(
        &mut self,
        finding: &Finding,
        events: &[Arc<str>],
        time: Timestamp,
        coverage: &str,
    ) -> Option<Alert> {
        let rule = rule(finding.rule)?;
        let place = self.open.iter().position(|incident| {
            incident.agent == finding.agent
                && incident.rule.id == rule.id
                && incident.is_about(finding)
        });
        let place = match place {
            Some(place) => place,
            None => {
                if self.open.len() >= MAX_INCIDENTS {
                    self.close_quietest();
                }
                self.open.push(Incident::new(rule, finding, time));
                self.open.len() - 1
            }
        };
        self.open[place].add(finding, events, time, coverage)
    }

    fn close_quietest(&mut self) {
        let quietest = self
            .open
            .iter()
            .enumerate()
            .min_by_key(|(_, open)| open.last_seen);
        if let Some((place, _)) = quietest {
            self.open.swap_remove(place);
        }
    }
}

impl Incident {
    fn new(rule: &'static Rule, finding: &Finding, time: Timestamp) -> Self {
        // Keys of DefaultHasher::new() are fixed: the same finding gives the
        // same id when a recording is replayed.
        let mut hash = DefaultHasher::new();
        (rule.id, finding.agent, time.0).hash(&mut hash);
        finding.subjects.first().hash(&mut hash);
        Self {
            id: format!("{}-{:016x}", rule.id, hash.finish()),
            rule,
            agent: finding.agent,
            about: Vec::new(),
            stage: 0,
            revision: 0,
            summary: String::new(),
            evidence: Vec::new(),
            events: Vec::new(),
            count: 0,
            first_seen: time,
            last_seen: time,
        }
    }

    fn is_about(&self, finding: &Finding) -> bool {
        finding.subjects.iter().any(|subject| {
            self.about.iter().any(|known| match (known, subject) {
                // Ancestors come without their start.
                (Subject::Process(known), Subject::Process(process)) => {
                    known.pid == process.pid && (process.start == 0 || known.start == process.start)
                }
                (known, subject) => known == subject,
            })
        })
    }

    fn add(
        &mut self,
        finding: &Finding,
        events: &[Arc<str>],
        time: Timestamp,
        coverage: &str,
    ) -> Option<Alert> {
        for subject in &finding.subjects {
            let own = !matches!(subject, Subject::Process(process) if process.start == 0);
            if own && !self.about.contains(subject) && self.about.len() < MAX_EVIDENCE {
                self.about.push(*subject);
            }
        }
        self.count += 1;
        self.last_seen = time;
        for line in &finding.evidence {
            if self.evidence.len() < MAX_EVIDENCE && !self.evidence.contains(line) {
                self.evidence.push(line.clone());
            }
        }
        for event in events {
            if self.events.len() < MAX_EVIDENCE && !self.events.contains(event) {
                self.events.push(event.clone());
            }
        }
        if self.revision > 0 && finding.stage <= self.stage {
            return None;
        }
        self.stage = finding.stage;
        self.summary.clone_from(&finding.summary);
        self.revision += 1;
        let (severity, confidence) = *self.rule.stages.get(self.stage)?;
        Some(Alert {
            incident: self.id.clone(),
            revision: self.revision,
            rule: self.rule.id,
            title: self.rule.title,
            severity,
            confidence,
            attack: self.rule.attack,
            summary: self.summary.clone(),
            evidence: self.evidence.clone(),
            events: self.events.clone(),
            count: self.count,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            coverage: coverage.to_owned(),
        })
    }
}
