//! agent-monitor's user side, a stage a module, in the order a record travels.

pub mod config;
pub mod event;
pub mod protocol;
pub mod sinks;
pub mod store;
