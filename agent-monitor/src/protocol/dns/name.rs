//! Domain names (RFC 1035, 3.1 and 4.1.4), as text.

use super::Refused;

/// Bytes of a name on the wire, its last zero included (RFC 1035, 2.3.4).
const MAX_NAME: usize = 255;
/// Pointers that one name may follow: as many as it can have labels, were each
/// followed by a pointer. Each pointer leads back, so this bounds time, not loops.
const MAX_POINTERS: usize = 127;
/// The two high bits of a length byte that make it a pointer's first.
const POINTER: u8 = 0xc0;

/// Reads the name at `at`: its text, and the place after it.
///
/// The text has no last dot; the root is `.`. A dot or backslash inside a label
/// is written `\.` and `\\`, what is no printable ASCII `\DDD` (RFC 1035, 5.1),
/// so that a name has one text and that text is safe to show.
///
/// # Errors
/// The message ends inside the name, or the name is longer than names are, has a
/// label of an unknown kind, or a pointer that does not lead back.
pub fn read(message: &[u8], at: usize) -> Result<(String, usize), Refused> {
    let mut text = String::new();
    let (mut place, mut after, mut len, mut pointers) = (at, None, 1, 0);
    // Where the part that is being read began: a pointer leads to before it.
    let mut begun = at;
    loop {
        let length = *message.get(place).ok_or(Refused::Short)?;
        if length & POINTER == POINTER {
            let low = *message.get(place + 1).ok_or(Refused::Short)?;
            after.get_or_insert(place + 2);
            place = usize::from(u16::from_be_bytes([length & !POINTER, low]));
            pointers += 1;
            if place >= begun || pointers > MAX_POINTERS {
                return Err(Refused::Malformed);
            }
            begun = place;
            continue;
        }
        if length & POINTER != 0 {
            return Err(Refused::Malformed);
        }
        place += 1;
        if length == 0 {
            break;
        }
        let label = message
            .get(place..place + usize::from(length))
            .ok_or(Refused::Short)?;
        len += label.len() + 1;
        if len > MAX_NAME {
            return Err(Refused::Malformed);
        }
        if !text.is_empty() {
            text.push('.');
        }
        label.iter().for_each(|byte| push(&mut text, *byte));
        place += label.len();
    }
    if text.is_empty() {
        text.push('.');
    }
    Ok((text, after.unwrap_or(place)))
}

/// The place after the name at `at`, without following pointers.
///
/// # Errors
/// As [`read`].
pub fn skip(message: &[u8], at: usize) -> Result<usize, Refused> {
    let mut place = at;
    loop {
        let length = *message.get(place).ok_or(Refused::Short)?;
        place += 1;
        match length & POINTER {
            POINTER => {
                return if place < message.len() {
                    Ok(place + 1)
                } else {
                    Err(Refused::Short)
                };
            }
            0 if length == 0 => return Ok(place),
            0 if place + usize::from(length) - at >= MAX_NAME => return Err(Refused::Malformed),
            0 => place += usize::from(length),
            _ => return Err(Refused::Malformed),
        }
    }
}

/// Adds a byte of a label.
fn push(text: &mut String, byte: u8) {
    match byte {
        b'.' | b'\\' => {
            text.push('\\');
            text.push(char::from(byte));
        }
        b'!'..=b'~' => text.push(char::from(byte)),
        _ => text.push_str(&format!("\\{byte:03}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(message: &[u8], at: usize) -> Result<(String, usize), Refused> {
        let read = read(message, at);
        if let Ok((_, after)) = &read {
            assert_eq!(skip(message, at), Ok(*after));
        }
        read
    }

    #[test]
    fn reads_labels_and_pointers_that_lead_back() {
        let message = b"\x07example\x00\x03www\xc0\x00\x01a\xc0\x09.";
        assert_eq!(text(message, 0), Ok(("example".to_owned(), 9)));
        assert_eq!(text(message, 9), Ok(("www.example".to_owned(), 15)));
        assert_eq!(text(message, 15), Ok(("a.www.example".to_owned(), 19)));
        assert_eq!(text(b"\0", 0), Ok((".".to_owned(), 1)));
    }

    #[test]
    fn refuses_pointers_that_do_not_lead_back() {
        let itself = b"\xc0\x00";
        let ahead = b"\xc0\x02\x01a\0";
        let in_a_circle = b"\x01a\xc0\x04\x01b\xc0\x00";
        let into_itself = b"\x01a\xc0\x00";
        for message in [&itself[..], ahead, in_a_circle, into_itself] {
            assert_eq!(read(message, 0), Err(Refused::Malformed), "{message:?}");
        }
    }

    #[test]
    fn refuses_names_that_are_too_long() {
        let longest: Vec<u8> = [&b"\x3f"[..], &[b'a'; 63]].concat().repeat(3);
        let name = |last: usize| {
            let label = [&[last as u8][..], &vec![b'b'; last]].concat();
            [longest.clone(), label, vec![0]].concat()
        };
        assert!(text(&name(61), 0).is_ok(), "255 bytes");
        assert_eq!(read(&name(62), 0), Err(Refused::Malformed));
        assert_eq!(skip(&name(62), 0), Err(Refused::Malformed));
        assert_eq!(
            read(b"\x41a", 0),
            Err(Refused::Malformed),
            "an unknown kind of label"
        );
    }

    #[test]
    fn long_chains_of_pointers_end() {
        let mut message = b"\x00\x00".to_vec();
        for place in (0..0x3000u16).step_by(2) {
            message.extend((0xc000 | place).to_be_bytes());
        }
        assert_eq!(read(&message, message.len() - 2), Err(Refused::Malformed));
    }

    #[test]
    fn escapes_what_is_no_plain_text() {
        let (name, _) = read(b"\x07a.b\\\x1b[m\x02\xc3\xa4\x00", 0).expect("a name");
        assert_eq!(name, "a\\.b\\\\\\027[m.\\195\\164");
    }
}
