//! What each command does.

pub mod doctor;
