//! Every place where a record can be lost. Each is counted there, by agent and
//! kind, told as a `loss` event within a second, and shown by `status`.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_monitor_common::policy::LossReason;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A place where records are lost, the `stage` of a `loss` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Kernel: the agent had used up its quota of this class.
    Quota,
    /// Kernel: the ring was full.
    Ring,
    /// Kernel, or telling it: a map was full, or memory could not be read.
    Kernel,
    /// Kernel: a program was running already on this CPU, so it was skipped.
    Recursion,
    /// An earlier daemon ended with records that it had taken and not told.
    Restart,
    /// A selector was undecided and too much was held for it.
    Held,
    /// The record could not be read.
    Decode,
    /// Too many processes: one was forgotten.
    Enrich,
    /// Too many flows: one was forgotten.
    Flow,
    /// Too many pairs of flows: one was forgotten.
    Relay,
    /// Too many flows of an agent's on which lines come that a shell may run: one was forgotten.
    Shell,
    /// Too much for correlations to remember: a match was forgotten.
    Correlation,
    /// The agent made too many incidents of a rule: one was not told.
    Incident,
    /// The store could not be written.
    Store,
    /// This reader of `tail` was too slow; another reader may have seen it.
    Tail,
}

impl Stage {
    /// Every place, in the order in which a record passes them.
    pub const ALL: [Self; 15] = [
        Self::Quota,
        Self::Ring,
        Self::Kernel,
        Self::Recursion,
        Self::Restart,
        Self::Held,
        Self::Decode,
        Self::Enrich,
        Self::Flow,
        Self::Relay,
        Self::Shell,
        Self::Correlation,
        Self::Incident,
        Self::Store,
        Self::Tail,
    ];

    /// What it is called in events and in `status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quota => "quota",
            Self::Ring => "ring",
            Self::Kernel => "kernel",
            Self::Recursion => "recursion",
            Self::Restart => "restart",
            Self::Held => "held",
            Self::Decode => "decode",
            Self::Enrich => "enrich",
            Self::Flow => "flow",
            Self::Relay => "relay",
            Self::Shell => "shell",
            Self::Correlation => "correlation",
            Self::Incident => "incident",
            Self::Store => "store",
            Self::Tail => "tail",
        }
    }

    /// The place of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }

    /// The reasons that the kernel side counts itself, in the order of its counters.
    pub const KERNEL: [(LossReason, Self); 3] = [
        (LossReason::Quota, Self::Quota),
        (LossReason::Ring, Self::Ring),
        (LossReason::Kernel, Self::Kernel),
    ];
}

impl Serialize for Stage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Stage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let unknown = || de::Error::custom(format!("`{name}` is no stage that loses records"));
        Self::named(&name).ok_or_else(unknown)
    }
}

/// How many were lost, by place and kind.
pub type Counts = BTreeMap<(Stage, Arc<str>), u64>;

/// Environment variable for tests of what follows from a loss: a comma-separated
/// list of `stage=records`, reported as lost once, of the node, after the start.
/// Nothing is really lost.
pub const SIMULATE: &str = "AGENT_MONITOR_SIMULATE_LOSS";

/// What [`SIMULATE`] asks for.
///
/// # Errors
/// A part is not a stage, `=` and a number; the message names it.
pub fn simulated(text: &str) -> Result<Counts, String> {
    text.split(',')
        .map(|part| {
            let found = part.split_once('=').and_then(|(stage, records)| {
                Some((Stage::named(stage)?, records.parse::<u64>().ok()?))
            });
            let (stage, records) = found.ok_or_else(|| {
                let stages = Stage::ALL.map(Stage::name).join(", ");
                format!("{SIMULATE}: `{part}` is not STAGE=RECORDS with one of the stages {stages}")
            })?;
            Ok(((stage, "simulated".into()), records))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_is_found_by_its_name_and_the_documentation_lists_it() {
        let table = include_str!("../../docs/losses.md");
        for stage in Stage::ALL {
            assert_eq!(Stage::named(stage.name()), Some(stage));
            let row = format!("| `{}` |", stage.name());
            assert!(table.contains(&row), "docs/losses.md has no row {row}");
        }
    }

    #[test]
    fn the_kernel_s_counters_are_in_the_order_of_their_reasons() {
        for (index, (reason, _)) in Stage::KERNEL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }

    #[test]
    fn a_simulated_loss_is_a_stage_and_a_number() {
        let counts = simulated("decode=3,tail=1").expect("both are stages");
        assert_eq!(counts[&(Stage::Decode, "simulated".into())], 3);
        assert_eq!(counts.len(), 2);
        for wrong in [
            "",
            "decode",
            "decode=",
            "decode=-1",
            "nowhere=1",
            "decode=1,",
        ] {
            let error = simulated(wrong).expect_err("it is wrong");
            assert!(error.contains(SIMULATE), "{error}");
        }
    }
}
