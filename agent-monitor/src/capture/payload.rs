//! Records without what agents said: sizes, times and addresses stay.

use agent_monitor_common::event::{Burst, Bursts, Datagram, DatagramBurst, Head, Spell, kind};
use bytemuck::Pod;

use crate::decode;

/// The record without payload, if it has any. What was captured then counts as not
/// captured: parsers go by sizes alone.
pub fn removed(record: &[u8]) -> Option<Vec<u8>> {
    match decode::header(record).ok()?.kind {
        kind::HEAD => changed(record, |head: &mut Head| {
            head.header.len = len::<Head>();
            head.data_len = 0;
        }),
        kind::DATAGRAM => changed(record, |datagram: &mut Datagram| {
            datagram.header.len = len::<Datagram>();
            (datagram.captured, datagram.offset, datagram.data_len) = (0, 0, 0);
        }),
        kind::BURST => changed(record, |it: &mut Burst| clear(&mut it.spell)),
        kind::BURSTS => without_first_bytes(record),
        kind::DATAGRAM_BURST => changed(record, |it: &mut DatagramBurst| {
            clear(&mut it.burst.spell);
        }),
        _ => None,
    }
}

fn clear(spell: &mut Spell) {
    spell.data.fill(0);
    spell.data_len = 0;
}

/// Several bursts in one record. What is no whole one is left out.
fn without_first_bytes(record: &[u8]) -> Option<Vec<u8>> {
    let (head, spells) = record.split_at_checked(size_of::<Bursts>())?;
    let mut removed = head.to_vec();
    for spell in spells.chunks_exact(size_of::<Spell>()) {
        removed.extend(changed(spell, clear)?);
    }
    Some(removed)
}

fn len<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

/// The record itself, changed, without what follows it.
fn changed<T: Pod>(record: &[u8], change: impl FnOnce(&mut T)) -> Option<Vec<u8>> {
    let mut value: T = bytemuck::try_pod_read_unaligned(record.get(..size_of::<T>())?).ok()?;
    change(&mut value);
    Some(bytemuck::bytes_of(&value).to_vec())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::capture::recording::{Frame, Reader};
    use crate::decode::Body;

    #[test]
    fn no_payload_of_a_recording_is_left_and_every_record_can_be_read() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/recordings");
        let (mut all, mut shorter) = (0, 0);
        for file in fs::read_dir(dir).expect("it can be listed") {
            let bytes = fs::read(file.expect("it is there").path()).expect("it can be read");
            for frame in Reader::new(&bytes[..]).expect("it is a recording") {
                let Frame::Record(record) = frame.expect("it is whole") else {
                    continue;
                };
                all += 1;
                let before = decode::record(&record).expect("it is a record");
                let Some(after) = removed(&record) else {
                    let has = matches!(
                        before.body,
                        Body::Head(_) | Body::Burst(_) | Body::Datagram(_)
                    );
                    assert!(!has, "{before:?}");
                    continue;
                };
                shorter += 1;
                let after = decode::record(&after.into()).expect("it is a record");
                assert_eq!(after.time, before.time);
                match (after.body, before.body) {
                    (Body::Head(after), Body::Head(before)) => {
                        assert!(after.data.is_empty());
                        assert_eq!(after.segment_left, before.segment_left);
                    }
                    (Body::Burst(after), Body::Burst(before)) => {
                        assert!(after.data.is_empty());
                        assert_eq!(after.bytes, before.bytes);
                    }
                    (after, before) => panic!("{before:?} became {after:?}"),
                }
            }
        }
        assert!(shorter > 100 && all > shorter);
    }

    #[test]
    fn no_record_of_any_kind_keeps_bytes_that_were_said() {
        const SAID: u8 = 0xa5;
        fn record<T: Pod>(kind: u32, more: usize) -> Vec<u8> {
            let mut bytes = vec![SAID; size_of::<T>() + more];
            bytes[..4].copy_from_slice(&kind.to_le_bytes());
            bytes
        }
        // Everything is the byte that was said, payload and counters alike: what may
        // be left of it is the record without its payload.
        let spell = size_of::<Spell>();
        let first_bytes = 64;
        for (bytes, most) in [
            (record::<Head>(kind::HEAD, 100), size_of::<Head>()),
            (
                record::<Datagram>(kind::DATAGRAM, 100),
                size_of::<Datagram>(),
            ),
            (
                record::<Burst>(kind::BURST, 0),
                size_of::<Burst>() - first_bytes,
            ),
            (
                record::<DatagramBurst>(kind::DATAGRAM_BURST, 0),
                size_of::<DatagramBurst>() - first_bytes,
            ),
            (
                record::<Bursts>(kind::BURSTS, 3 * spell),
                size_of::<Bursts>() + 3 * (spell - first_bytes),
            ),
        ] {
            let kind = bytes[0];
            let left = removed(&bytes).expect("it has payload");
            let said = left.iter().filter(|byte| **byte == SAID).count();
            assert!(said < most, "kind {kind}: {said} of at most {most}");
        }
    }
}
