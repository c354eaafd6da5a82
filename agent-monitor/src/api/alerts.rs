//! `GET /v1/alerts`: stored alerts, the newest revision of each incident.

use serde::Deserialize;

use super::query::{AgentPattern, parse_severity, parse_since};
use crate::event::Severity;
use crate::store::{Past, Store, StoreError};

/// Alerts in an answer when nothing is said.
const DEFAULT: usize = 100;
/// Alerts in an answer at most: what it takes in memory.
const MAX: usize = 1_000;

/// The query of `GET /v1/alerts`.
#[derive(Debug)]
pub struct AlertQuery {
    past: Past,
    agents: Vec<AgentPattern>,
    min_severity: Option<Severity>,
    n: usize,
}

/// What is looked at of a stored alert.
#[derive(Deserialize)]
struct Head {
    agent: Option<AgentHead>,
    alert: AlertHead,
}

#[derive(Deserialize)]
struct AgentHead {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct AlertHead {
    severity: Severity,
}

impl AlertQuery {
    /// Reads a URL's query. `agent` may be repeated.
    ///
    /// # Errors
    /// A sentence that names the member that is unknown or cannot be read.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self {
            past: Past::default(),
            agents: Vec::new(),
            min_severity: None,
            n: DEFAULT,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "since" => parsed.past.since = parse_since(&value)?,
                "rule" => parsed.past.rule = Some(value.into_owned()),
                "incident" => parsed.past.incident = Some(value.into_owned()),
                "agent" => parsed.agents.push(AgentPattern::parse(&value)?),
                "min_severity" => parsed.min_severity = Some(parse_severity(&value)?),
                "n" => {
                    let n = value.parse::<usize>().ok();
                    let n = n.filter(|n| (1..=MAX).contains(n));
                    parsed.n =
                        n.ok_or_else(|| format!("n={value} is no number from 1 to {MAX}"))?;
                }
                _ => {
                    return Err(format!(
                        "{name} is not known here; known are since, n, rule, incident, agent, min_severity"
                    ));
                }
            }
        }
        Ok(parsed)
    }

    /// The newest alerts that are wanted, oldest first, a line of JSON each.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn read(&self, store: &Store) -> Result<String, StoreError> {
        let mut lines = Vec::new();
        store.look_back(&self.past, |json| {
            if self.wants(&json) {
                lines.push(json + "\n");
            }
            lines.len() < self.n
        })?;
        lines.reverse();
        Ok(lines.concat())
    }

    fn wants(&self, json: &str) -> bool {
        if self.agents.is_empty() && self.min_severity.is_none() {
            return true;
        }
        let Ok(head) = serde_json::from_str::<Head>(json) else {
            return false;
        };
        let by = |agent: &AgentHead| {
            let names = [agent.name.as_str(), agent.id.as_str()];
            self.agents.iter().any(|pattern| pattern.matches(names))
        };
        self.min_severity
            .is_none_or(|least| head.alert.severity >= least)
            && (self.agents.is_empty() || head.agent.as_ref().is_some_and(by))
    }
}
