//! Sessions of `tests/data`, for tests.

use std::path::Path;

use serde::Deserialize;

use super::Side;

/// What one side sent at once.
pub type Sent = (Side, Vec<u8>);

/// A session that was captured: `tests/data/NAME.json`.
pub fn session(name: &str) -> Vec<Sent> {
    #[derive(Deserialize)]
    struct Piece {
        side: String,
        hex: String,
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data");
    let text = std::fs::read_to_string(dir.join(format!("{name}.json"))).expect("a capture");
    let pieces: Vec<Piece> = serde_json::from_str(&text).expect("a list of pieces");
    let sent = pieces.into_iter().map(|piece| {
        let side = match piece.side.as_str() {
            "initiator" => Side::Initiator,
            _ => Side::Responder,
        };
        (side, hex(&piece.hex))
    });
    sent.collect()
}

/// Bytes written as hexadecimal digits.
pub fn hex(text: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("hex");
        u8::from_str_radix(pair, 16).expect("hex")
    };
    text.as_bytes().chunks(2).map(byte).collect()
}
