//! Putting programs into the kernel, and onto agents' cgroups.

pub mod probe;
