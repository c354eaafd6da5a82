//! The default rules.

use crate::detect::{mining, tunnel};
use crate::event::{Confidence, Severity};

/// A rule: what findings of one kind mean.
#[derive(Debug)]
pub struct Rule {
    /// Stable id.
    pub id: &'static str,
    /// For people.
    pub title: &'static str,
    /// MITRE ATT&CK technique ids.
    pub attack: &'static [&'static str],
    /// How bad and how sure, by stage of evidence.
    pub stages: &'static [(Severity, Confidence)],
}

/// Every rule.
pub static RULES: &[Rule] = &[
    Rule {
        id: mining::RULE,
        title: "Mining pool protocol",
        attack: &["T1496.001"],
        stages: &[
            (Severity::Low, Confidence::Low),
            (Severity::High, Confidence::Medium),
            (Severity::Critical, Confidence::High),
        ],
    },
    Rule {
        id: tunnel::SSH_RULE,
        title: "Reverse SSH tunnel",
        attack: &["T1572", "T1021.004"],
        stages: &[
            (Severity::Medium, Confidence::Low),
            (Severity::High, Confidence::Medium),
            (Severity::Critical, Confidence::High),
        ],
    },
    Rule {
        id: tunnel::RELAY_RULE,
        title: "Reverse tunnel by relay",
        attack: &["T1572", "T1090"],
        stages: &[
            (Severity::High, Confidence::Medium),
            (Severity::Critical, Confidence::High),
        ],
    },
];

/// A rule by its id.
pub fn rule(id: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.id == id)
}
