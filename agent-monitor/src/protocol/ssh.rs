//! SSH on the wire (RFC 4253), and what its record sizes tell once encrypted.

use super::{Answer, Input, Parser, Side};

/// What was noticed on an SSH flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// An identification string (RFC 4253, 4.2), without its line end.
    Banner {
        /// Who sent it.
        side: Side,
        /// `SSH-2.0-…`, control characters as received.
        text: String,
    },
    /// Record sizes say that the client asked the server to forward a port back.
    ForwardRequested {
        /// Which side is the SSH client, by its sizes.
        client: Side,
        /// The sizes that show it, in words.
        shown_by: String,
    },
    /// Record sizes say that a connection came in through such a forward and was taken.
    ForwardedOpen {
        /// Which side is the SSH client.
        client: Side,
        /// The sizes that show it, in words.
        shown_by: String,
    },
}

/// Follows one SSH flow.
#[derive(Default)]
pub struct Ssh {}

impl Parser for Ssh {
    fn feed(&mut self, _side: Side, _input: Input<'_>, _facts: &mut Vec<super::Fact>) -> Answer {
        Answer::NotThis
    }
}
