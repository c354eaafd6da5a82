//! What each hook does, one behaviour a file.

pub mod cgroup;
pub mod connect;
pub mod coverage;
pub mod datagram_burst;
pub mod device;
pub mod exec;
pub mod exit;
pub mod fork;
pub mod packet;
pub mod socket;
pub mod sysctl;
pub mod tcp;
