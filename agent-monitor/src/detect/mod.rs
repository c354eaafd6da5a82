//! Behaviour over time: what records add up to.
//!
//! A detector says what happens and shows it; whether it is bad, and how bad,
//! is for `rules` to say.

pub mod blind;
mod bytes;
pub mod dns_tunnel;
pub mod huge_pages;
pub mod mining;
pub mod pool_shape;
pub mod probe;
pub mod relay;
pub mod shell;
pub mod ssh_command;
pub mod tool;
pub mod tunnel;

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_monitor_common::event::FlowId;

use crate::decode::ProcessKey;
use crate::event::{Address, Process};

/// What can find something: rules name it and its stages.
#[derive(Debug, PartialEq, Eq)]
pub struct Detector {
    /// As rules name it.
    pub name: &'static str,
    /// Stages of evidence, from the least.
    pub stages: &'static [&'static str],
    /// Numbers that rules may change.
    pub settings: &'static [&'static Setting],
}

/// A number that a detector goes by, and that a rule's `settings` may change.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// As rules name it.
    pub name: &'static str,
    /// What it is without a rule's word.
    pub default: u64,
    /// What it means, in which unit, and where the number comes from.
    pub about: &'static str,
}

/// A detector's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<&'static str, u64>);

impl Settings {
    /// Largest number that can be set.
    pub const MAX: u64 = 1_000_000_000;

    /// Sets a number.
    pub fn set(&mut self, setting: &Setting, value: u64) {
        self.0.insert(setting.name, value.min(Self::MAX));
    }

    /// A number: as set, else its default.
    pub fn get(&self, setting: &Setting) -> u64 {
        self.0.get(setting.name).copied().unwrap_or(setting.default)
    }

    /// Takes what another one sets.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }
}

/// Every detector.
pub static DETECTORS: &[&Detector] = &[
    &blind::DETECTOR,
    &dns_tunnel::DETECTOR,
    &mining::DETECTOR,
    &pool_shape::AT_WORK,
    &probe::DETECTOR,
    &shell::DETECTOR,
    &tool::DETECTOR,
    &tunnel::SSH_DETECTOR,
    &tunnel::RELAY_DETECTOR,
];

/// What a detector has seen.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which detector.
    pub detector: &'static Detector,
    /// Stage of evidence, an index into the detector's stages.
    pub stage: usize,
    /// The agent.
    pub agent: u64,
    /// The process behind it.
    pub process: Option<Arc<Process>>,
    /// What it is about: findings that share one belong to one incident.
    pub subjects: Vec<Subject>,
    /// The other end, when it is about one.
    pub remote: Option<Address>,
    /// One sentence for a person.
    pub summary: String,
    /// The bytes, sizes and times that show it.
    pub evidence: Vec<String>,
    /// At the stage of an earlier one it says what was not known before, and is told at once.
    pub tells_more: bool,
    /// Nanoseconds since boot.
    pub time: u64,
}

/// A process in a sentence.
fn who(process: Option<&Arc<Process>>) -> String {
    process.map_or_else(
        || "A process of the agent".to_owned(),
        |process| format!("{}[{}]", process.comm, process.pid),
    )
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A process.
    Process(ProcessKey),
    /// A flow.
    Flow(FlowId),
    /// What a correlation groups by.
    Group(u64),
    /// The agent as a whole.
    Agent,
}
