//! Which end of a flow is the agent's.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::event::Address;

/// Tells agents by their addresses.
#[derive(Clone, Debug, Default)]
pub struct Whose {
    /// Where agents are; nothing: whoever begins a flow is one.
    pub nets: Vec<IpNet>,
}

impl Whose {
    /// The agent's end of a flow and the other one; nothing if neither is an agent's.
    pub fn ends(&self, initiator: Address, responder: Address) -> Option<(Address, Address)> {
        match (self.is_agent(initiator.ip), self.is_agent(responder.ip)) {
            _ if self.nets.is_empty() => Some((initiator, responder)),
            (true, _) => Some((initiator, responder)),
            (false, true) => Some((responder, initiator)),
            (false, false) => None,
        }
    }

    fn is_agent(&self, ip: IpAddr) -> bool {
        self.nets.iter().any(|net| net.contains(&ip))
    }
}

/// Who probably began a flow of which the begin is missing, when `source` sends
/// to `destination`: servers have the lower port. Nobody's port tells nothing.
pub fn guess(source: Address, destination: Address) -> (Address, Address) {
    if source.port < destination.port {
        (destination, source)
    } else {
        (source, destination)
    }
}
