//! Bytes of payload, as evidence shows them.

use std::fmt::Write as _;

use crate::escape::escape;

/// Bytes that are shown in hexadecimal: enough to tell a protocol by.
const MAX_HEX: usize = 64;
/// Bytes of a line that are shown: two of them stay below what may be shown of payload.
const MAX_LINE: usize = 120;

/// Bytes as text: what is not UTF-8 as `\xNN`, and what a terminal would obey or
/// hide as `\u{…}`.
pub fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&escape(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The first 120 bytes of a line as [`text`] has them, with `…` where there are more.
pub fn line(bytes: &[u8]) -> String {
    let valid = std::str::from_utf8(bytes).map(|line| line.floor_char_boundary(MAX_LINE));
    let end = valid.unwrap_or(MAX_LINE).min(bytes.len());
    let more = if end < bytes.len() { "…" } else { "" };
    text(&bytes[..end]) + more
}

/// The first 64 bytes in hexadecimal, as a line of evidence.
pub fn hex(bytes: &[u8]) -> String {
    let mut line = "in hexadecimal: ".to_owned();
    for byte in bytes.iter().take(MAX_HEX) {
        let _ = write!(line, "{byte:02x}");
    }
    if bytes.len() > MAX_HEX {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_between_characters() {
        assert_eq!(line(&[b'a'; MAX_LINE]), "a".repeat(MAX_LINE));
        let long = "a".repeat(MAX_LINE - 1) + "é";
        assert_eq!(line(long.as_bytes()), "a".repeat(MAX_LINE - 1) + "…");
        let cut = [&[b'a'; MAX_LINE][..], b"\xff"].concat();
        assert_eq!(line(&cut), "a".repeat(MAX_LINE) + "…");
    }

    #[test]
    fn bytes_are_shown_as_text_that_is_safe_and_in_hexadecimal() {
        let bytes = b"SSH-2.0\x1b[2J\xff\xc3\xa9\n";
        assert_eq!(text(bytes), r"SSH-2.0\u{1b}[2J\xffé\u{a}");
        assert_eq!(hex(bytes), "in hexadecimal: 5353482d322e301b5b324affc3a90a");
        assert_eq!(
            hex(&[0; 65]),
            format!("in hexadecimal: {}…", "00".repeat(64))
        );
    }
}
