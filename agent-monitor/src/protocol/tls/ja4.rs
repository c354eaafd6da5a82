//! JA4, a fingerprint of TLS clients, after its public description
//! (<https://github.com/FoxIO-LLC/ja4>, BSD 3-clause; the other fingerprints of
//! that family have another licence and are not used).

use sha2::{Digest, Sha256};

use super::hello::Hello;

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// The fingerprint; `transport` is `t` over TCP, `q` in QUIC.
pub fn ja4(transport: char, hello: &Hello) -> String {
    let ciphers = without_grease(&hello.ciphers);
    let extensions = without_grease(&hello.extensions);
    let version = without_grease(&hello.versions).into_iter().max();
    let name = match hello.extensions.contains(&SERVER_NAME) {
        true => 'd',
        false => 'i',
    };
    let mut hashed: Vec<u16> = extensions
        .iter()
        .copied()
        .filter(|kind| ![SERVER_NAME, ALPN].contains(kind))
        .collect();
    hashed.sort_unstable();
    let mut extension_list = list(&hashed);
    let signatures = without_grease(&hello.signatures);
    if !signatures.is_empty() && !hashed.is_empty() {
        extension_list = format!("{extension_list}_{}", list(&signatures));
    }
    let mut sorted = ciphers.clone();
    sorted.sort_unstable();
    format!(
        "{transport}{}{name}{:02}{:02}{}_{}_{}",
        version_name(version.unwrap_or(hello.version)),
        ciphers.len().min(99),
        extensions.len().min(99),
        alpn_ends(&hello.first_alpn),
        hash(&list(&sorted)),
        hash(&extension_list),
    )
}

/// Without values that only test whether servers bear unknown ones (RFC 8701).
fn without_grease(values: &[u16]) -> Vec<u16> {
    let is_grease = |value: u16| value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff;
    (values.iter().copied())
        .filter(|value| !is_grease(*value))
        .collect()
}

fn version_name(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        0xfeff => "d1",
        0xfefd => "d2",
        0xfefc => "d3",
        _ => "00",
    }
}

/// First and last character of the first protocol offered, or of its hexadecimal form.
fn alpn_ends(name: &[u8]) -> String {
    let (Some(first), Some(last)) = (name.first(), name.last()) else {
        return "00".to_owned();
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [char::from(*first), char::from(*last)].iter().collect();
    }
    format!("{:x}{:x}", first >> 4, last & 0xf)
}

fn list(values: &[u16]) -> String {
    let texts: Vec<_> = values.iter().map(|value| format!("{value:04x}")).collect();
    texts.join(",")
}

/// Twelve digits of the hash, zeroes for nothing.
fn hash(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(12);
    }
    let digest = Sha256::digest(text.as_bytes());
    digest[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
