//! Records out of the kernel's rings in one order, recordings of them, and what
//! stands in for the kernel where there are only packets.

pub mod packets;
pub mod payload;
pub mod recording;
pub mod rings;
