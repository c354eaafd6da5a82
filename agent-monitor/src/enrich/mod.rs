//! Who did it: agents by their cgroup, containers by their runtime, processes
//! with their ancestors.

pub mod birthplace;
pub mod cgroup_path;
pub mod cgroupfs;
pub mod devices;
mod footprint;
pub mod huge_pages;
pub mod kubernetes;
pub mod lookups;
mod pods;
pub mod process;
pub mod procfs;
pub mod runtime;
pub mod selector;
pub mod sockets;
