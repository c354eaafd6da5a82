//! Which alerts a sink gets.

use globset::{Glob, GlobMatcher};
use serde::Deserialize;

use crate::config::FilterConfig;
use crate::event::Severity;

/// A sink's filter, compiled. The default lets everything through.
#[derive(Default)]
pub(super) struct Filter {
    min_severity: Option<Severity>,
    rules: Vec<GlobMatcher>,
    agents: Vec<GlobMatcher>,
}

/// The parts of a stored alert that a filter looks at.
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

impl Filter {
    /// Compiles `config`.
    pub(super) fn new(config: &FilterConfig) -> Self {
        let compile = |globs: &[Glob]| globs.iter().map(Glob::compile_matcher).collect();
        Self {
            min_severity: config.min_severity,
            rules: compile(&config.rules),
            agents: compile(&config.agents),
        }
    }

    /// Whether the alert `json` passes. What cannot be read back passes: better once
    /// too often than never.
    pub(super) fn wants(&self, json: &str) -> bool {
        if self.min_severity.is_none() && self.rules.is_empty() && self.agents.is_empty() {
            return true;
        }
        let Ok(head) = serde_json::from_str::<Head>(json) else {
            return true;
        };
        let Some(alert) = head.alert else {
            return true;
        };
        let agent = head.agent.map(|agent| agent.name).unwrap_or_default();
        self.min_severity
            .is_none_or(|least| alert.severity >= least)
            && matches(&self.rules, &alert.rule)
            && matches(&self.agents, &agent)
    }
}

/// No patterns match everything.
fn matches(globs: &[GlobMatcher], text: &str) -> bool {
    globs.is_empty() || globs.iter().any(|glob| glob.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(rule: &str, severity: &str, agent: &str) -> String {
        format!(
            r#"{{"agent":{{"name":"{agent}"}},"alert":{{"rule":"{rule}","severity":"{severity}"}}}}"#
        )
    }

    fn filter(config: FilterConfig) -> Filter {
        Filter::new(&config)
    }

    fn globs(patterns: &[&str]) -> Vec<Glob> {
        patterns.iter().map(|it| Glob::new(it).unwrap()).collect()
    }

    #[test]
    fn nothing_configured_lets_everything_through() {
        assert!(Filter::default().wants("not json"));
        assert!(filter(FilterConfig::default()).wants(&alert("r", "info", "a")));
    }

    #[test]
    fn every_condition_must_hold() {
        let filter = filter(FilterConfig {
            min_severity: Some(Severity::High),
            rules: globs(&["reverse-*", "mining-pool-protocol"]),
            agents: globs(&["agent-?"]),
        });
        assert!(filter.wants(&alert("reverse-shell", "critical", "agent-7")));
        assert!(filter.wants(&alert("mining-pool-protocol", "high", "agent-7")));
        assert!(!filter.wants(&alert("mining-pool-protocol", "medium", "agent-7")));
        assert!(!filter.wants(&alert("tunnel-tool", "high", "agent-7")));
        assert!(!filter.wants(&alert("reverse-shell", "high", "agent-77")));
    }

    #[test]
    fn what_cannot_be_read_back_passes() {
        let filter = filter(FilterConfig {
            min_severity: Some(Severity::High),
            ..FilterConfig::default()
        });
        assert!(filter.wants("not json"));
        assert!(filter.wants(r#"{"kind":"loss"}"#));
    }
}
