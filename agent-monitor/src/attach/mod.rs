//! Getting the kernel side in place: offsets, load, attach, and the maps
//! through which it is told what to watch.

pub mod kernel;
pub mod offsets;
pub mod probe;
pub mod programs;
mod sys;

pub use kernel::Kernel;
