//! The test rig: agents in containers, a network of their own, and real tools
//! as scenarios.
//!
//! A [`world::World`] is a network namespace that plays the internet. An
//! [`agent::Agent`] is a Docker container (or a plain cgroup, which is quicker)
//! with a network namespace of its own, joined to that internet by a veth pair.
//! Both kinds of agent run from one root filesystem, so a scenario finds the
//! same tools in either. [`scenario::SCENARIOS`] lists what agents can be made
//! to do; [`benign`] has one work honestly for hours. [`monitor::Monitor`] is
//! agent-monitor, watching.
//!
//! Everything needs root, uses documentation addresses only, and is removed on
//! drop; what a killed run left behind is removed by the next one.

pub mod agent;
pub mod bench;
pub mod benign;
pub mod cgroup;
mod container;
pub mod demo;
pub mod docker;
pub mod evasion;
pub mod leftovers;
pub mod monitor;
pub mod netns;
pub mod node;
pub mod pairs;
pub mod paths;
pub mod process;
pub mod recorder;
mod root;
pub mod scenario;
pub mod services;
pub mod terminal;
pub mod traffic;
pub mod wait;
pub mod watched;
pub mod world;
