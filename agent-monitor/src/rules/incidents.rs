//! Sightings of one thing are one incident, which grows.
//!
//! A sighting belongs to the incident of its rule and agent that is about one of
//! its subjects. What raises the stage of evidence, or tells what was not known, is told
//! as a new revision at once; the rest is counted, and told when the count has doubled. What comes again
//! after a long quiet is another incident.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::engine::Sighting;
use super::rule::Rule;
use crate::detect::Subject;
use crate::event::{Alert, Severity, Timestamp};

/// Incidents that can grow at once; the one that was quiet longest is closed.
const MAX_INCIDENTS: usize = 4_096;
/// Lines of evidence that are kept, and events that are referred to.
const MAX_EVIDENCE: usize = 32;

/// Bytes of one line of evidence; the events behind an alert have the rest.
const MAX_LINE: usize = 512;
/// New incidents of one rule that an agent may cause in a minute. One that makes
/// thousands, such as a command line repeated in a loop, must not keep other
/// agents', nor those of another rule, from being stored; what is withheld is counted.
const MAX_NEW: u32 = 60;
/// Revisions of an incident because something was not known before: a miner has a coin, a
/// login, a program and a pool. One that connects again and again, or names another wallet
/// each time, is only counted then.
const MAX_NEWS: u32 = 4;
/// Also the least time between a revision and one that only counts further.
const MINUTE: u64 = 60_000_000_000;
/// An incident about what comes again (an agent, an address) is over when it was
/// quiet for so long, in nanoseconds. A process and a flow come once: what is about
/// one is one incident, however long a tunnel waits for its first visitor.
const QUIET: u64 = 60 * MINUTE;

/// Incidents that can still grow.
#[derive(Default)]
pub struct Incidents {
    open: Vec<Incident>,
    /// Agent → rule → begin of the current minute, and new incidents in it.
    new: HashMap<u64, HashMap<Arc<str>, (Timestamp, u32)>>,
    /// Sightings that would have begun an incident too many, by agent and rule.
    withheld: BTreeMap<(u64, Arc<str>), u64>,
}

struct Incident {
    id: String,
    rule: Arc<Rule>,
    agent: u64,
    /// The first finding's own subject and those of later ones, without the
    /// processes above: what runs under one shell is not one incident.
    about: Vec<Subject>,
    stage: usize,
    revision: u32,
    /// Revisions that were due to nothing but news.
    news: u32,
    summary: String,
    evidence: Vec<String>,
    events: Vec<Arc<str>>,
    count: u64,
    first_seen: Timestamp,
    last_seen: Timestamp,
    /// Count and time of the last revision.
    told: (u64, Timestamp),
}

impl Incidents {
    /// Takes a sighting of an agent's at `time`; gives the new revision of its
    /// incident if it grew. `coverage` says what was lost of the agent.
    pub fn take(
        &mut self,
        sighting: &Sighting,
        agent: u64,
        time: Timestamp,
        coverage: &str,
    ) -> Option<Alert> {
        let rule = &sighting.rule;
        let place = self.open.iter().position(|incident| {
            incident.agent == agent && incident.rule.id == rule.id && incident.is_about(sighting)
        });
        let place = match place {
            Some(place) if !self.open[place].is_over(time) => place,
            over => {
                if !self.may_begin(agent, &rule.id, time) {
                    let withheld = self.withheld.entry((agent, rule.id.clone()));
                    *withheld.or_default() += 1;
                    return None;
                }
                if let Some(over) = over {
                    self.open.swap_remove(over);
                } else if self.open.len() >= MAX_INCIDENTS {
                    self.close_quietest();
                }
                self.open.push(Incident::new(sighting, agent, time));
                self.open.len() - 1
            }
        };
        self.open[place].add(sighting, time, coverage)
    }

    fn may_begin(&mut self, agent: u64, rule: &Arc<str>, time: Timestamp) -> bool {
        let rules = self.new.entry(agent).or_default();
        let (begun, count) = rules.entry(rule.clone()).or_insert((time, 0));
        if time.0.saturating_sub(begun.0) >= MINUTE {
            (*begun, *count) = (time, 0);
        }
        *count += 1;
        *count <= MAX_NEW
    }

    /// Sightings that were held back since the last call, by agent and rule.
    pub fn take_withheld(&mut self) -> BTreeMap<(u64, Arc<str>), u64> {
        std::mem::take(&mut self.withheld)
    }

    /// Forgets an agent that is gone; its incidents stay until they are quiet.
    pub fn forget(&mut self, agent: u64) {
        self.new.remove(&agent);
    }

    /// What can still grow, by agent and severity.
    pub fn by_severity(&self) -> HashMap<u64, BTreeMap<Severity, u64>> {
        let mut agents: HashMap<u64, BTreeMap<_, _>> = HashMap::new();
        for incident in &self.open {
            if let Some(stage) = incident.rule.stages.get(incident.stage) {
                let severities = agents.entry(incident.agent).or_default();
                *severities.entry(stage.severity).or_default() += 1;
            }
        }
        agents
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
    fn new(sighting: &Sighting, agent: u64, time: Timestamp) -> Self {
        let rule = &sighting.rule;
        // Keys of DefaultHasher::new() are fixed: the same sighting gives the
        // same id when a recording is replayed.
        let mut hash = DefaultHasher::new();
        (&*rule.id, agent, time.0).hash(&mut hash);
        sighting.subjects.first().hash(&mut hash);
        Self {
            id: format!("{}-{:016x}", rule.id, hash.finish()),
            rule: rule.clone(),
            agent,
            about: Vec::new(),
            stage: 0,
            revision: 0,
            news: 0,
            summary: String::new(),
            evidence: Vec::new(),
            events: Vec::new(),
            count: 0,
            first_seen: time,
            last_seen: time,
            told: (0, time),
        }
    }

    fn is_about(&self, sighting: &Sighting) -> bool {
        sighting.subjects.iter().any(|subject| {
            self.about.iter().any(|known| match (known, subject) {
                // Ancestors come without their start.
                (Subject::Process(known), Subject::Process(process)) => {
                    known.pid == process.pid && (process.start == 0 || known.start == process.start)
                }
                (known, subject) => known == subject,
            })
        })
    }

    /// Whether it is about nothing but what comes again, and was quiet for long.
    fn is_over(&self, time: Timestamp) -> bool {
        let comes_again = |about: &Subject| matches!(about, Subject::Group(_) | Subject::Agent);
        time.0.saturating_sub(self.last_seen.0) >= QUIET && self.about.iter().all(comes_again)
    }

    fn add(&mut self, sighting: &Sighting, time: Timestamp, coverage: &str) -> Option<Alert> {
        // After a reload the rule may judge otherwise.
        self.rule = sighting.rule.clone();
        for subject in &sighting.subjects {
            let own = !matches!(subject, Subject::Process(process) if process.start == 0);
            if own && !self.about.contains(subject) && self.about.len() < MAX_EVIDENCE {
                self.about.push(*subject);
            }
        }
        self.count += 1;
        self.last_seen = self.last_seen.max(time);
        let rises = self.revision == 0 || sighting.stage > self.stage;
        for line in &sighting.evidence {
            keep(&mut self.evidence, &cut(line), rises);
        }
        for event in &sighting.events {
            keep(&mut self.events, event, rises);
        }
        if sighting.stage >= self.stage {
            self.summary = cut(&sighting.summary);
        }
        let (count, at) = self.told;
        let doubled = self.count >= 2 * count && time.0.saturating_sub(at.0) >= MINUTE;
        // At a lower stage than that of the incident it is no news.
        let tells_more =
            sighting.tells_more && sighting.stage >= self.stage && self.news < MAX_NEWS;
        if !rises && !doubled && !tells_more {
            return None;
        }
        self.news += u32::from(!rises && !doubled);
        self.told = (self.count, time);
        if rises {
            self.stage = sighting.stage;
        }
        self.revision += 1;
        let stage = self.rule.stages.get(self.stage)?;
        Some(Alert {
            incident: self.id.clone(),
            revision: self.revision,
            rule: self.rule.id.clone(),
            title: self.rule.title.clone(),
            severity: stage.severity,
            confidence: stage.confidence,
            attack: self.rule.attack.clone(),
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

/// Adds what is not there yet. When there is much, what proves more takes the
/// place of what came first.
fn keep<T: Clone + PartialEq>(all: &mut Vec<T>, one: &T, proves_more: bool) {
    if all.contains(one) {
        return;
    }
    if all.len() >= MAX_EVIDENCE {
        if !proves_more {
            return;
        }
        all.remove(0);
    }
    all.push(one.clone());
}

/// A line of evidence, cut at [`MAX_LINE`].
fn cut(line: &str) -> String {
    match line.len() <= MAX_LINE {
        true => line.to_owned(),
        false => format!("{}…", &line[..line.floor_char_boundary(MAX_LINE)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::ProcessKey;
    use crate::rules::set::RuleSet;

    fn sighting(pid: u32, stage: usize) -> Sighting {
        let rules = RuleSet::builtin();
        Sighting {
            rule: rules.get("reverse-ssh-tunnel").expect("a rule").clone(),
            stage,
            subjects: vec![Subject::Process(ProcessKey { pid, start: 1 })],
            summary: "a tunnel".to_owned(),
            evidence: vec![format!("stage {stage}"), "x".repeat(10_000)],
            events: Vec::new(),
            tells_more: false,
        }
    }

    #[test]
    fn sightings_of_one_process_are_one_incident_that_grows() {
        let mut incidents = Incidents::default();
        let mut take =
            |stage, time| incidents.take(&sighting(5, stage), 7, Timestamp(time), "complete");
        let first = take(0, 1).expect("an incident begins");
        let second = take(2, 2).expect("it grows");
        assert_eq!(first.incident, second.incident);
        assert_eq!((first.revision, second.revision, second.count), (1, 2, 2));
        assert_eq!(take(1, 3), None, "what proves less is only counted");
    }

    #[test]
    fn what_was_not_known_is_told_at_once_unless_it_is_of_a_lower_stage() {
        let mut incidents = Incidents::default();
        let mut take = |stage, tells_more| {
            let sighting = Sighting {
                tells_more,
                ..sighting(5, stage)
            };
            let alert = incidents.take(&sighting, 7, Timestamp(1), "complete");
            alert.map(|alert| alert.revision)
        };
        assert_eq!(take(1, false), Some(1));
        assert_eq!(take(1, false), None);
        assert_eq!(take(1, true), Some(2));
        assert_eq!(take(0, true), None);
        for news in 1..MAX_NEWS {
            assert_eq!(take(1, true), Some(2 + news));
        }
        assert_eq!(take(1, true), None, "it has been told often enough");
    }

    #[test]
    fn what_goes_on_is_told_again_when_its_count_has_doubled_once_a_minute_at_most() {
        let mut incidents = Incidents::default();
        let mut told = Vec::new();
        for second in 0..600 {
            let time = Timestamp(second * 1_000_000_000);
            let alert = incidents.take(&sighting(5, 1), 7, time, "complete");
            told.extend(alert.map(|alert| {
                let seconds = alert.last_seen.0 / 1_000_000_000;
                assert_eq!(alert.first_seen, Timestamp(0));
                (alert.revision, alert.count, seconds)
            }));
        }
        assert_eq!(
            told,
            [
                (1, 1, 0),
                (2, 61, 60),
                (3, 122, 121),
                (4, 244, 243),
                (5, 488, 487)
            ]
        );
    }

    #[test]
    fn what_proves_more_is_in_the_evidence_however_much_there_was_before() {
        let mut incidents = Incidents::default();
        for n in 0..100 {
            let mut weak = sighting(5, 0);
            weak.evidence = vec![format!("weak sign {n}")];
            incidents.take(&weak, 7, Timestamp(n), "complete");
        }
        let alert = incidents.take(&sighting(5, 2), 7, Timestamp(100), "complete");
        let evidence = alert.expect("it rises").evidence;
        assert_eq!(evidence.len(), MAX_EVIDENCE);
        assert!(evidence.contains(&"stage 2".to_owned()), "{evidence:?}");
    }

    #[test]
    fn incidents_are_counted_by_agent_and_severity_as_they_are_now() {
        let mut incidents = Incidents::default();
        for (agent, pid, stage) in [(7, 5, 0), (7, 6, 1), (7, 5, 2), (8, 5, 1)] {
            incidents.take(&sighting(pid, stage), agent, Timestamp(1), "complete");
        }
        let seven = [(Severity::High, 1), (Severity::Critical, 1)].into();
        let eight = [(Severity::High, 1)].into();
        assert_eq!(incidents.by_severity(), [(7, seven), (8, eight)].into());
    }

    #[test]
    fn another_process_is_another_incident() {
        let mut incidents = Incidents::default();
        let mut take = |pid| {
            incidents
                .take(&sighting(pid, 0), 7, Timestamp(1), "complete")
                .map(|a| a.incident)
        };
        assert_ne!(take(5), take(6));
    }

    #[test]
    fn what_comes_again_after_an_hour_of_quiet_is_another_incident_and_a_process_s_is_not() {
        let mut incidents = Incidents::default();
        let mut take = |subject, time| {
            let mut found = sighting(5, 0);
            found.subjects = vec![subject];
            let alert = incidents.take(&found, 7, Timestamp(time), "complete");
            alert.map(|alert| (alert.incident, alert.revision, alert.count))
        };
        for subject in [Subject::Group(9), Subject::Agent] {
            let (first, ..) = take(subject, 0).expect("it begins");
            assert_eq!(take(subject, 2).map(|it| it.0), None, "it is only counted");
            let (next, revision, count) = take(subject, QUIET + 2).expect("it begins anew");
            assert_eq!((revision, count), (1, 1));
            assert_ne!(first, next);
        }
        let process = Subject::Process(ProcessKey { pid: 5, start: 1 });
        let (first, ..) = take(process, 0).expect("it begins");
        let (later, revision, count) = take(process, QUIET + 2).expect("it goes on");
        assert_eq!((later, revision, count), (first, 2, 2));
    }

    #[test]
    fn lines_of_evidence_are_cut() {
        let mut incidents = Incidents::default();
        let alert = incidents.take(&sighting(5, 0), 7, Timestamp(1), "complete");
        let longest = alert
            .expect("an incident")
            .evidence
            .iter()
            .map(String::len)
            .max();
        assert!(longest <= Some(MAX_LINE + 3), "{longest:?}");
    }

    #[test]
    fn an_agent_that_makes_incidents_in_a_loop_is_held_back_and_counted() {
        let mut incidents = Incidents::default();
        let began = (0..1000)
            .filter(|pid| {
                let found = sighting(*pid, 0);
                incidents
                    .take(&found, 7, Timestamp(1), "complete")
                    .is_some()
            })
            .count();
        assert_eq!(began, MAX_NEW as usize);
        let key = (7, "reverse-ssh-tunnel".into());
        let held_back = [(key, 1000 - u64::from(MAX_NEW))];
        assert_eq!(incidents.take_withheld(), held_back.into());
        assert_eq!(incidents.take_withheld(), BTreeMap::new());
        let later = Timestamp(1 + MINUTE);
        assert!(
            incidents
                .take(&sighting(5000, 0), 7, later, "complete")
                .is_some()
        );
    }
}
