//! What agent-monitor's kernel and user sides must agree on: the records that
//! travel through the ring buffers ([`event`]), every cap and size
//! ([`limits`]), and what user space tells the kernel ([`policy`]).
//!
//! Everything here is `no_std` and `#[repr(C)]` with explicit padding, so that
//! the two sides, built for two targets, see the same bytes.
#![no_std]

pub mod event;
pub mod limits;
pub mod policy;
