//! Getting the kernel side in place: offsets, load, attach, and the maps
//! through which it is told what to watch.

pub mod kernel;
#[cfg(test)]
mod layout;
mod object;
pub mod offsets;
pub mod pins;
pub mod probe;
pub mod programs;
mod sys;

pub use kernel::Kernel;
pub use pins::Pins;
pub use sys::RunStats;

use agent_monitor_common::policy::Settings;

use crate::enrich::selector::Selectors;

/// A hash of the object and of what it is started with: pins of another one are of no use.
pub fn version(settings: &Settings, selectors: &Selectors) -> u64 {
    let selectors = format!("{selectors:?}");
    pins::version(&[
        object::OBJECT,
        bytemuck::bytes_of(settings),
        selectors.as_bytes(),
    ])
}
