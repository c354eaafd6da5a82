//! The way up: quota, reservation, submission, and the count of what was lost.

use agent_monitor_common::event::{Header, kind};
use agent_monitor_common::limits::{
    EVENTS_RING_BYTES, FAIR_SHARE, LINGER_NS, NOTE_EVERY_NS, PAYLOAD_RING_BYTES, QUOTA_WINDOW_NS,
};
use agent_monitor_common::policy::{AgentState, Class, LossReason};
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::maps::RingBuf;

use crate::atomic;
use crate::maps::{AGENTS, EVENTS, LAST_SENT, global};

/// Adds one to a counter of a map value.
#[inline(always)]
fn count(counter: *mut u64) -> u64 {
    // SAFETY: callers point into a value of AGENTS, which is aligned and stays
    // valid while the program runs (maps free values after an RCU grace period).
    unsafe { atomic::fetch_add(counter, 1) }
}

/// Counts a record of `agent` of this [`kind`] that is not sent.
#[inline(always)]
pub fn lose(agent: u64, kind: u32, reason: LossReason) {
    if let Some(state) = AGENTS.get_ptr_mut(agent) {
        lost(state, kind, reason);
    }
}

/// Counts something of `agent` that a map has no room to remember.
#[inline(always)]
pub fn no_room(agent: u64) {
    lose(agent, kind::MEMORY, LossReason::Kernel);
}

#[inline(always)]
fn lost(state: *mut AgentState, kind: u32, reason: LossReason) {
    // SAFETY: a value of AGENTS; see `count`.
    let counter = unsafe { &raw mut (*state).lost[reason as usize][index(kind)] };
    count(counter);
}

#[inline(always)]
fn sent(state: *mut AgentState, kind: u32) {
    // SAFETY: a value of AGENTS; see `count`.
    let counter = unsafe { &raw mut (*state).emitted[index(kind)] };
    count(counter);
}

#[inline(always)]
fn index(kind: u32) -> usize {
    kind as usize % kind::MOST
}

/// Takes one from the agent's quota of `class`; gives how many were taken before in
/// this window. The window is opened anew by
/// whoever first sees that it is over; two CPUs that see it together may both
/// count into the new one, so a quota can be passed by what the other CPUs counted meanwhile.
#[inline(always)]
fn take(state: *mut AgentState, class: Class, now: u64) -> u64 {
    let class = class as usize;
    // SAFETY: a value of AGENTS; see `count`.
    let (window, used) = unsafe {
        (
            &raw mut (*state).window[class],
            &raw mut (*state).used[class],
        )
    };
    // A plain load is enough: the exchange below decides.
    // SAFETY: as above.
    let begun = unsafe { window.read_volatile() };
    if now.saturating_sub(begun) >= QUOTA_WINDOW_NS {
        // SAFETY: as above.
        unsafe {
            if atomic::compare_exchange(window, begun, now) == begun {
                atomic::swap(used, 0);
            }
        }
    }
    count(used)
}

/// Whether a ring is half full: user space does not keep up.
#[inline(always)]
fn is_crowded(ring: &RingBuf) -> bool {
    // The kernel could be asked for the size too: for as much as the rest costs.
    let size = if core::ptr::eq(ring, &raw const EVENTS) {
        EVENTS_RING_BYTES
    } else {
        PAYLOAD_RING_BYTES
    };
    ring.query(u64::from(BPF_RB_AVAIL_DATA)) > u64::from(size / 2)
}

/// A record that may be sent: its quota is taken. Say what became of it.
pub struct Allowed {
    state: *mut AgentState,
    kind: u32,
}

impl Allowed {
    /// It is sent.
    #[inline(always)]
    pub fn sent(&self) {
        sent(self.state, self.kind);
    }

    /// It is lost.
    #[inline(always)]
    pub fn lost(&self, reason: LossReason) {
        lost(self.state, self.kind, reason);
    }
}

/// Takes a record of this [`kind`] from the agent's quota; nothing means that it
/// is lost and counted, or that the agent is none any more.
#[inline(always)]
pub fn allowed(ring: &RingBuf, agent: u64, kind: u32, now: u64) -> Option<Allowed> {
    let state = AGENTS.get_ptr_mut(agent)?;
    let class = Class::of(kind);
    let used = take(state, class, now);
    if used >= global!(SETTINGS.quota[class as usize]) {
        lost(state, kind, LossReason::Quota);
        return None;
    }
    // The second half of a ring is for those who send little: who sends much
    // finds it full earlier.
    if used >= FAIR_SHARE && is_crowded(ring) {
        lost(state, kind, LossReason::Ring);
        return None;
    }
    Some(Allowed { state, kind })
}

/// Whether to wake user space for a record: only when it may be asleep.
///
/// Waking interrupts this CPU, which costs more than all else here, and often lets
/// the reader run at once, in the middle of the agent's system call. After a
/// record the reader looks for more by itself for [`LINGER_NS`]: while records come
/// more often than that, nobody has to wake it. Half of it is left for a reader
/// that gets no processor at once.
#[inline(always)]
pub fn wake(now: u64) -> u64 {
    let Some(last) = LAST_SENT.get_ptr_mut(0) else {
        return u64::from(BPF_RB_FORCE_WAKEUP);
    };
    // SAFETY: a map value, valid while the program runs. Two CPUs that read the
    // same old time both wake, which is one time too many.
    let quiet = unsafe {
        let quiet = now.saturating_sub(last.read_volatile());
        if quiet < NOTE_EVERY_NS {
            return u64::from(BPF_RB_NO_WAKEUP);
        }
        last.write_volatile(now);
        quiet
    };
    u64::from(if quiet < LINGER_NS / 2 {
        BPF_RB_NO_WAKEUP
    } else {
        BPF_RB_FORCE_WAKEUP
    })
}

/// Reserves a record of this [`kind`] in `ring`, lets `fill` write every byte of
/// it, and sends it. `T` starts with a [`Header`]; `fill` gets the place and says
/// whether to send.
#[inline(always)]
pub fn record<T: 'static>(
    ring: &RingBuf,
    kind: u32,
    agent: u64,
    now: u64,
    fill: impl FnOnce(*mut T) -> bool,
) {
    let Some(allowed) = allowed(ring, agent, kind, now) else {
        return;
    };
    let Some(mut entry) = ring.reserve::<T>(0) else {
        allowed.lost(LossReason::Ring);
        return;
    };
    if fill(entry.as_mut_ptr()) {
        // No news by themselves: what the socket is used for wakes, and what the process
        // does. An end can wait until something else comes, or user space looks.
        let flags = match kind {
            kind::SOCKET | kind::FORK | kind::EXIT => u64::from(BPF_RB_NO_WAKEUP),
            _ => wake(now),
        };
        entry.submit(flags);
        allowed.sent();
    } else {
        entry.discard(0);
        allowed.lost(LossReason::Kernel);
    }
}

/// A header of `kind` for a record of `T`.
#[inline(always)]
pub fn header<T>(kind: u32, now: u64, agent: u64) -> Header {
    Header {
        kind,
        len: size_of::<T>() as u32,
        time: now,
        agent,
        cgroup: 0,
        start: 0,
        tgid: 0,
        tid: 0,
    }
}
