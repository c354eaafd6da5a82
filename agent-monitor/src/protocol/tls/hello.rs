//! A ClientHello (RFC 8446, 4.1.2).

use super::super::{NAME_MAX, text};

const SERVER_NAME: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
/// Protocols kept of those offered.
const ALPN_MAX: usize = 8;

/// What matters of a ClientHello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Version of the message itself.
    pub version: u16,
    /// Versions offered in the extension.
    pub versions: Vec<u16>,
    /// Cipher suites, in order.
    pub ciphers: Vec<u16>,
    /// Types of extensions, in order.
    pub extensions: Vec<u16>,
    /// Signature algorithms, in order.
    pub signatures: Vec<u16>,
    /// Server's name.
    pub sni: Option<String>,
    /// Protocols offered inside, the first few.
    pub alpn: Vec<String>,
    /// The first of them, as sent.
    pub first_alpn: Vec<u8>,
}

impl Hello {
    /// Reads the body of the message; nothing if it contradicts itself.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut rest = Reader(body);
        let mut hello = Self {
            version: rest.u16()?,
            ..Self::default()
        };
        // Random.
        rest.take(32)?;
        // Session.
        rest.short()?;
        hello.ciphers = numbers(rest.long()?.0)?;
        // Compression.
        rest.short()?;
        if rest.0.is_empty() {
            return Some(hello);
        }
        let mut extensions = rest.long()?;
        while !extensions.0.is_empty() {
            let kind = extensions.u16()?;
            let content = extensions.long()?;
            hello.extensions.push(kind);
            hello.extension(kind, content)?;
        }
        Some(hello)
    }

    fn extension(&mut self, kind: u16, mut content: Reader<'_>) -> Option<()> {
        match kind {
            SERVER_NAME if !content.0.is_empty() => {
                let mut names = content.long()?;
                // Type 0 is a host's name; there is no other.
                if names.u8()? == 0 {
                    self.sni = Some(text(names.long()?.0, NAME_MAX));
                }
            }
            SIGNATURE_ALGORITHMS => self.signatures = numbers(content.long()?.0)?,
            SUPPORTED_VERSIONS => self.versions = numbers(content.short()?.0)?,
            ALPN => {
                let mut names = content.long()?;
                while !names.0.is_empty() {
                    let name = names.short()?.0;
                    if self.alpn.is_empty() {
                        self.first_alpn = name.to_vec();
                    }
                    if self.alpn.len() < ALPN_MAX {
                        self.alpn.push(text(name, NAME_MAX));
                    }
                }
            }
            _ => {}
        }
        Some(())
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<Self> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Self(taken))
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|taken| taken.0[0])
    }

    fn u16(&mut self) -> Option<u16> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*number))
    }

    /// A vector with a byte of length in front.
    fn short(&mut self) -> Option<Self> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// A vector with two bytes of length in front.
    fn long(&mut self) -> Option<Self> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

fn numbers(bytes: &[u8]) -> Option<Vec<u16>> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let numbers = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
    rest.is_empty().then(|| numbers.collect())
}
