//! Behaviour over time.

pub mod relay;
