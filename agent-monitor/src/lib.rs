//! agent-monitor's user side, a stage a module, in the order a record travels.

pub mod detect;
pub mod event;
pub mod protocol;
