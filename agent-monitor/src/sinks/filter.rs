//! Which records a sink gets.

use globset::{Glob, GlobMatcher};
use serde::Deserialize;

use crate::config::FilterConfig;
use crate::event::{Body, Severity};
use crate::store::{Record, Wanted};

/// A sink's filter, compiled.
pub(super) struct Filter {
    kinds: Vec<GlobMatcher>,
    min_severity: Option<Severity>,
    rules: Vec<GlobMatcher>,
    agents: Vec<GlobMatcher>,
}

/// The parts of a stored event that a filter looks at.
#[derive(Deserialize)]
struct Head {
    agent: Option<AgentHead>,
    alert: Option<AlertHead>,
}

#[derive(Deserialize)]
struct AgentHead {
    name: String,
}

#[derive(Deserialize)]
struct AlertHead {
    rule: String,
    severity: Severity,
}

impl Default for Filter {
    fn default() -> Self {
        Self::new(&FilterConfig::default())
    }
}

impl Filter {
    /// Compiles `config`.
    pub(super) fn new(config: &FilterConfig) -> Self {
        let compile = |globs: &[Glob]| globs.iter().map(Glob::compile_matcher).collect();
        Self {
            kinds: compile(&config.kinds),
            min_severity: config.min_severity,
            rules: compile(&config.rules),
            agents: compile(&config.agents),
        }
    }

    /// What has to be read for it.
    pub(super) fn wanted(&self) -> Wanted {
        let mut kinds = Body::KINDS.iter().filter(|kind| **kind != "alert");
        match kinds.any(|kind| matches(&self.kinds, kind)) {
            true => Wanted::Everything,
            false => Wanted::Alerts,
        }
    }

    /// Whether `record` passes. What cannot be read back passes: better once
    /// too often than never.
    pub(super) fn wants(&self, record: &Record) -> bool {
        if !matches(&self.kinds, &record.kind) {
            return false;
        }
        if self.min_severity.is_none() && self.rules.is_empty() && self.agents.is_empty() {
            return true;
        }
        let Ok(head) = serde_json::from_str::<Head>(&record.json) else {
            return true;
        };
        let agent = head.agent.map(|agent| agent.name).unwrap_or_default();
        matches(&self.agents, &agent)
            && head.alert.is_none_or(|alert| {
                let least = self.min_severity.unwrap_or(alert.severity);
                alert.severity >= least && matches(&self.rules, &alert.rule)
            })
    }
}

/// No patterns match everything.
fn matches(globs: &[GlobMatcher], text: &str) -> bool {
    globs.is_empty() || globs.iter().any(|glob| glob.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(rule: &str, severity: &str, agent: &str) -> Record {
        record(
            "alert",
            &format!(
                r#"{{"agent":{{"name":"{agent}"}},"alert":{{"rule":"{rule}","severity":"{severity}"}}}}"#
            ),
        )
    }

    fn record(kind: &str, json: &str) -> Record {
        Record {
            seq: 1,
            kind: kind.into(),
            json: json.into(),
        }
    }

    fn globs(patterns: &[&str]) -> Vec<Glob> {
        patterns.iter().map(|it| Glob::new(it).unwrap()).collect()
    }

    #[test]
    fn without_conditions_it_is_alerts_and_all_of_them() {
        let filter = Filter::default();
        assert!(filter.wants(&record("alert", "not json")));
        assert!(filter.wants(&alert("r", "info", "a")));
        assert!(!filter.wants(&record("exec", "{}")));
        assert_eq!(filter.wanted(), Wanted::Alerts);
    }

    #[test]
    fn every_condition_must_hold() {
        let filter = Filter::new(&FilterConfig {
            min_severity: Some(Severity::High),
            rules: globs(&["reverse-*", "mining-pool-protocol"]),
            agents: globs(&["agent-?"]),
            ..FilterConfig::default()
        });
        assert!(filter.wants(&alert("reverse-shell", "critical", "agent-7")));
        assert!(filter.wants(&alert("mining-pool-protocol", "high", "agent-7")));
        assert!(!filter.wants(&alert("mining-pool-protocol", "medium", "agent-7")));
        assert!(!filter.wants(&alert("tunnel-tool", "high", "agent-7")));
        assert!(!filter.wants(&alert("reverse-shell", "high", "agent-77")));
    }

    #[test]
    fn conditions_of_alerts_keep_no_other_kind_back() {
        let filter = Filter::new(&FilterConfig {
            kinds: globs(&["alert", "exec", "gap"]),
            min_severity: Some(Severity::High),
            agents: globs(&["agent-?"]),
            ..FilterConfig::default()
        });
        assert_eq!(filter.wanted(), Wanted::Everything);
        assert!(filter.wants(&record("exec", r#"{"agent":{"name":"agent-7"}}"#)));
        assert!(!filter.wants(&record("exec", r#"{"agent":{"name":"other"}}"#)));
        assert!(!filter.wants(&record("exit", r#"{"agent":{"name":"agent-7"}}"#)));
        assert!(!filter.wants(&alert("r", "low", "agent-7")));
    }

    #[test]
    fn what_cannot_be_read_back_passes() {
        let filter = Filter::new(&FilterConfig {
            min_severity: Some(Severity::High),
            ..FilterConfig::default()
        });
        assert!(filter.wants(&record("alert", "not json")));
    }
}
