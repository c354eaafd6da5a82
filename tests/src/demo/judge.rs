//! Whether what was seen is what was expected: no more, no less.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// How bad and how sure a revision of an incident is, as in the event.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grade {
    /// `info` to `critical`.
    pub severity: String,
    /// `low` to `high`.
    pub confidence: String,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.severity, self.confidence)
    }
}

/// An incident and how it grew.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    /// Rule id.
    pub rule: String,
    /// Every revision, from the first.
    pub revisions: Vec<Grade>,
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rule)?;
        for (number, grade) in self.revisions.iter().enumerate() {
            write!(f, "{}{grade}", if number == 0 { " " } else { " → " })?;
        }
        Ok(())
    }
}

/// An event as it reached us.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// The act that was on, an index.
    pub act: usize,
    /// From the act's start to what the event tells of.
    pub after: Duration,
    /// From what the event tells of to its arrival.
    pub delay: Duration,
    /// The event.
    pub event: Value,
}

impl Arrived {
    /// The event's kind.
    pub fn kind(&self) -> &str {
        self.event["kind"].as_str().unwrap_or_default()
    }
}

/// An incident that was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its id.
    pub id: String,
    /// The act in which it was first told.
    pub act: usize,
    /// What it is.
    pub incident: Incident,
    /// Its last revision's summary.
    pub summary: String,
    /// From the act's start to the proof of the first revision.
    pub after: Duration,
    /// The longest that a revision took from its proof to us.
    pub delay: Duration,
}

/// What became of one incident that was expected.
#[derive(Debug)]
pub struct Outcome {
    /// The act.
    pub act: usize,
    /// What was expected.
    pub expected: Incident,
    /// What was seen of the same rule in the same act, alike or not.
    pub seen: Option<Seen>,
}

impl Outcome {
    /// True when what was seen is what was expected.
    pub fn is_met(&self) -> bool {
        let seen = self.seen.as_ref();
        seen.is_some_and(|seen| seen.incident == self.expected)
    }
}

/// The result of a demo.
#[derive(Debug)]
pub struct Verdict {
    /// All that was expected, in order.
    pub outcomes: Vec<Outcome>,
    /// What was seen besides.
    pub unexpected: Vec<Seen>,
}

impl Verdict {
    /// True when every expected incident was seen, and nothing else.
    pub fn is_met(&self) -> bool {
        self.unexpected.is_empty() && self.outcomes.iter().all(Outcome::is_met)
    }

    /// True when every incident of `act` was seen.
    pub fn has_all_of(&self, act: usize) -> bool {
        let mut outcomes = self.outcomes.iter().filter(|outcome| outcome.act == act);
        outcomes.all(Outcome::is_met)
    }
}

/// Compares the incidents in `arrived` with those `expected` of each act.
pub fn judge(expected: &[Vec<Incident>], arrived: &[Arrived]) -> Verdict {
    let mut left = incidents(arrived);
    let mut outcomes = Vec::new();
    for (act, incidents) in expected.iter().enumerate() {
        for incident in incidents {
            let expected = incident.clone();
            let alike = |seen: &Seen| seen.act == act && seen.incident == expected;
            let similar = |seen: &Seen| seen.act == act && seen.incident.rule == expected.rule;
            let place = left
                .iter()
                .position(alike)
                .or_else(|| left.iter().position(similar));
            let seen = place.map(|place| left.remove(place));
            outcomes.push(Outcome {
                act,
                expected,
                seen,
            });
        }
    }
    Verdict {
        outcomes,
        unexpected: left,
    }
}

/// Puts the alerts together to incidents.
fn incidents(arrived: &[Arrived]) -> Vec<Seen> {
    let mut incidents: Vec<Seen> = Vec::new();
    for arrival in arrived.iter().filter(|it| it.kind() == "alert") {
        let alert = &arrival.event["alert"];
        let text = |member: &str| alert[member].as_str().unwrap_or_default().to_owned();
        let id = text("incident");
        let grade = Grade {
            severity: text("severity"),
            confidence: text("confidence"),
        };
        match incidents.iter_mut().find(|seen| seen.id == id) {
            Some(seen) => {
                seen.incident.revisions.push(grade);
                seen.summary = text("summary");
                seen.delay = seen.delay.max(arrival.delay);
            }
            None => incidents.push(Seen {
                id,
                act: arrival.act,
                incident: Incident {
                    rule: text("rule"),
                    revisions: vec![grade],
                },
                summary: text("summary"),
                after: arrival.after,
                delay: arrival.delay,
            }),
        }
    }
    incidents
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::demo::acts::{ACTS, expected};

    fn alert(act: usize, incident: &str, rule: &str, grade: &Grade) -> Arrived {
        Arrived {
            act,
            after: Duration::from_millis(5),
            delay: Duration::from_millis(1),
            event: json!({"kind": "alert", "alert": {"incident": incident, "rule": rule,
                "severity": grade.severity, "confidence": grade.confidence, "summary": "s"}}),
        }
    }

    /// The events of a run in which all is as expected, with some noise.
    fn perfect() -> Vec<Arrived> {
        let mut arrived = Vec::new();
        for (act, incidents) in expected().unwrap().iter().enumerate() {
            for (number, incident) in incidents.iter().enumerate() {
                for grade in &incident.revisions {
                    let id = format!("{act}-{number}");
                    arrived.push(alert(act, &id, &incident.rule, grade));
                    arrived.push(Arrived {
                        event: json!({"kind": "exec", "exec": {"filename": "/bin/true"}}),
                        ..arrived[0].clone()
                    });
                }
            }
        }
        arrived
    }

    fn judged(arrived: &[Arrived]) -> Verdict {
        judge(&expected().unwrap(), arrived)
    }

    #[test]
    fn ordinary_work_is_expected_to_raise_nothing_and_every_other_act_something() {
        let silent: Vec<_> = expected().unwrap().iter().map(Vec::is_empty).collect();
        assert_eq!(silent, [true, false, false, false]);
    }

    #[test]
    fn a_run_with_all_that_is_expected_is_met() {
        let verdict = judged(&perfect());
        assert!(verdict.is_met(), "{verdict:?}");
        assert!((0..ACTS.len()).all(|act| verdict.has_all_of(act)));
    }

    #[test]
    fn a_run_without_the_alerts_of_any_one_rule_is_not_met() {
        let rules: Vec<String> = expected()
            .unwrap()
            .concat()
            .into_iter()
            .map(|incident| incident.rule)
            .collect();
        assert!(!rules.is_empty());
        for rule in rules {
            let mut arrived = perfect();
            arrived.retain(|it| it.event["alert"]["rule"] != rule.as_str());
            let verdict = judged(&arrived);
            assert!(!verdict.is_met(), "{rule}");
            assert!(verdict.unexpected.is_empty(), "{rule}");
        }
    }

    #[test]
    fn a_run_without_any_one_revision_is_not_met() {
        for place in 0..perfect().len() {
            let mut arrived = perfect();
            if arrived.remove(place).kind() == "alert" {
                assert!(!judged(&arrived).is_met(), "without alert {place}");
            }
        }
    }

    #[test]
    fn a_revision_of_another_grade_is_not_met() {
        let mut arrived = perfect();
        arrived[0].event["alert"]["confidence"] = json!("certain");
        let verdict = judged(&arrived);
        assert!(!verdict.is_met());
        assert!(
            verdict.outcomes[0].seen.is_some(),
            "it was seen, differently"
        );
    }

    #[test]
    fn one_more_alert_is_unexpected() {
        let grade = Grade {
            severity: "info".into(),
            confidence: "high".into(),
        };
        let mut arrived = perfect();
        arrived.push(alert(0, "another", "ssh-outbound", &grade));
        let verdict = judged(&arrived);
        assert!(!verdict.is_met());
        assert_eq!(
            verdict.unexpected[0].incident.to_string(),
            "ssh-outbound info/high"
        );
    }

    #[test]
    fn an_alert_in_another_act_is_not_the_expected_one() {
        let mut arrived = perfect();
        arrived.iter_mut().for_each(|it| it.act = 0);
        assert!(!judged(&arrived).is_met());
    }
}
