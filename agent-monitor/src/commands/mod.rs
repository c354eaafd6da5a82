//! What each command does.

pub mod doctor;
pub mod record;
pub mod replay;
pub mod watch;
