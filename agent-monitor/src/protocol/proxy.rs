//! A proxy that does as it was asked: what comes after goes on to somewhere else.

/// A connection was asked for, and the server says that it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// How it was asked: `SOCKS5`, `HTTP CONNECT` and so on.
    pub by: String,
    /// Where to: a name or an address, and a port.
    pub target: String,
    /// The request; of HTTP its first line, without the credentials that may follow.
    pub request: Vec<u8>,
    /// The answer; of HTTP its first line.
    pub reply: Vec<u8>,
}

impl Granted {
    /// The fact in a few words.
    pub fn in_words(&self) -> String {
        format!("{} to {} was granted", self.by, self.target)
    }
}
