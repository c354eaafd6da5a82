//! Bodies of what happens to a socket before any peer: `socket`, `bind`, `listen`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Address, Transport, is_false};

/// Body of a `socket` event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Socket {
    /// Id of its first flow, if it comes to one.
    pub flow: String,
    /// `inet` or `inet6`.
    pub family: Cow<'static, str>,
    /// `stream`, `dgram`, `raw` or `seqpacket`; a number when it has no name here.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// Such as `tcp`; a number when it has no name here.
    pub protocol: Cow<'static, str>,
    /// TCP or UDP, if either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// It sees and makes packets below TCP and UDP.
    #[serde(skip_serializing_if = "is_false")]
    pub raw: bool,
}

/// Body of `bind` and `listen` events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bound {
    /// Id of the socket's flow, if it comes to one. Connections that a listener
    /// accepts are flows of their own.
    pub flow: String,
    /// TCP or UDP.
    pub transport: Transport,
    /// The address; port 0 where the kernel chooses one at connect().
    pub local: Address,
}
