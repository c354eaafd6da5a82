//! Giving up what the daemon does not need, before it touches anything an agent
//! has a say in.

use anyhow::{Context as _, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// What a watch needs, and what is lost without each; `docs/privileges.md` says
/// more, and a test removes one at a time.
const NEEDED: [(CapabilitySet, &str); 5] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
    (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
];

/// Gives up every capability but those that are needed, for this thread and those
/// it will make: to be called before there are others. With `group`, the socket
/// is going to be given to a group, which needs one more.
///
/// # Errors
/// The kernel refuses.
pub(super) fn drop_unneeded(group: bool) -> Result<()> {
    let mut keep = CapabilitySet::empty();
    for (capability, _) in NEEDED {
        keep |= capability;
    }
    if group {
        keep |= CapabilitySet::CHOWN;
    }
    let held = capabilities(None).context("cannot read this process's capabilities")?;
    for (capability, name) in NEEDED {
        if !held.permitted.contains(capability) {
            tracing::warn!("{name} is missing: not everything can be seen (docs/privileges.md)");
        }
    }
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for capability in (CapabilitySet::all() - keep).iter() {
            // One that this kernel does not know cannot be had either.
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    let left = held.permitted & keep;
    let sets = CapabilitySets {
        effective: left,
        permitted: left,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).context("cannot give up capabilities")?;
    set_no_new_privs(true).context("cannot give up gaining privileges")
}
