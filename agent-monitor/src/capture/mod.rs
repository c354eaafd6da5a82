//! Records out of the kernel's rings in one order, and recordings of them.

pub mod recording;
pub mod rings;
