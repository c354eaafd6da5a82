//! Cgroups that are no agent's: what every process of the node pays is to be found
//! in one of them.
//!
//! A cgroup is known by its serial number, which no other ever has
//! (`cgroup_subsys_state.serial_nr`, include/linux/cgroup-defs.h), and which lies in
//! the cgroup itself: its id is two cache lines further on, and a place in
//! [`WATCHED`](crate::maps::WATCHED) two more. Only user space watches a cgroup that
//! was there before; it empties [`OUTSIDE`] then.

use crate::atomic;
use crate::maps::{OUTSIDE, global};
use crate::object::Object;
use crate::task;

/// The place in [`OUTSIDE`] that says whether there are strays.
const STRAYS: u32 = 0;

/// Notes that a process of an agent is in a cgroup that is no agent's.
#[inline(always)]
pub fn note_stray() {
    if let Some(strays) = OUTSIDE.get_ptr_mut(STRAYS) {
        // SAFETY: a map value; all who write it write the same.
        unsafe { strays.write_volatile(1) };
    }
}

/// Whether a process of an agent was ever in a cgroup that is no agent's.
#[inline(always)]
pub fn are_strays() -> bool {
    // SAFETY: a map value, valid while the program runs.
    OUTSIDE
        .get_ptr(STRAYS)
        .is_some_and(|strays| unsafe { strays.read_volatile() } != 0)
}

/// Whether no process in this cgroup is an agent's, as far as was noted.
#[inline(always)]
pub fn knows(cgroup: Object) -> bool {
    let serial: u64 = cgroup.get(global!(OFFSETS.cgroup_serial));
    // SAFETY: as in `are_strays`.
    OUTSIDE
        .get_ptr(place(serial))
        .is_some_and(|known| unsafe { known.read_volatile() } == serial)
        && !are_strays()
}

/// Notes a cgroup that was just found to be no agent's.
#[inline(always)]
pub fn note(cgroup: Object) {
    let serial: u64 = cgroup.get(global!(OFFSETS.cgroup_serial));
    let Some(known) = OUTSIDE.get_ptr_mut(place(serial)) else {
        return;
    };
    // SAFETY: a map value. The exchange is done before it is looked again.
    unsafe { atomic::swap(known, serial) };
    // User space may have put it into WATCHED since, and emptied OUTSIDE too early.
    if task::agent_of_cgroup(task::id(cgroup)).is_some() {
        // SAFETY: as above.
        unsafe { atomic::swap(known, 0) };
    }
}

/// Seven places, the last cgroup of each that was seen.
#[inline(always)]
fn place(serial: u64) -> u32 {
    (serial as u32 & 7).max(1)
}
