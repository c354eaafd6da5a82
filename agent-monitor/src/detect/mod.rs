//! What behaviour and command lines give away.

pub mod ssh_command;
