//! Compressed WebSocket messages (permessage-deflate, RFC 7692), put back.
//!
//! A message refers to those before it, so they are remembered: as what they said, since
//! an idle decompressor would take 43 KiB. The next one's window is filled from that.

use flate2::{Decompress, FlushDecompress};

/// Bytes of one side's compressed messages, put back, that are looked at: what matters
/// is said at the beginning. Also the longest message, as it is sent.
const INFLATED_MAX: usize = 16 * 1024;
/// Messages of one side that are put back. Before each the window is filled again, which
/// costs 10 µs whatever it says: of empty ones 64 KiB hold twenty thousand.
const MESSAGES_MAX: u32 = 256;
/// What ends every message and is not sent (RFC 7692, 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// What remains, with that, of a message whose last block says that it is the last: a block
/// with nothing in it (RFC 7692, 7.2.3.4).
const AFTER_LAST: &[u8] = &[0, 0, 0, 0xff, 0xff];

/// One side's compressed messages.
#[derive(Default)]
pub(super) struct Inflate {
    /// What messages have said so far.
    said: Vec<u8>,
    /// The message that is being received, compressed.
    message: Vec<u8>,
    /// How many have ended.
    messages: u32,
    /// It was damaged, or enough was seen.
    over: bool,
}

impl Inflate {
    /// Takes bytes of a message.
    pub fn take(&mut self, bytes: impl Iterator<Item = u8>) {
        if self.over {
            return;
        }
        let room = INFLATED_MAX + 1 - self.message.len();
        self.message.extend(bytes.take(room));
        if self.message.len() > INFLATED_MAX {
            self.stop();
        }
    }

    /// The message is whole; gives what it says, if it can be put back.
    pub fn end(&mut self) -> Option<&[u8]> {
        let before = self.said.len();
        self.messages += 1;
        self.message.extend(TAIL);
        if self.over || self.messages > MESSAGES_MAX || self.put_back().is_none() {
            self.stop();
            return None;
        }
        self.message.clear();
        Some(&self.said[before..])
    }

    /// Whether no later message can be put back.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Later messages cannot be put back.
    pub fn stop(&mut self) {
        *self = Self {
            over: true,
            ..Self::default()
        };
    }

    /// Bytes of memory that it takes.
    pub fn held(&self) -> usize {
        self.said.capacity() + self.message.capacity()
    }

    fn put_back(&mut self) -> Option<()> {
        let mut inflate = Decompress::new(false);
        let mut all = Vec::with_capacity(INFLATED_MAX);
        // A block that is not compressed (RFC 1951, 3.2.4) makes it known.
        let length = u16::try_from(self.said.len()).ok()?;
        let mut known = vec![0];
        known.extend(length.to_le_bytes());
        known.extend((!length).to_le_bytes());
        known.extend(&self.said);
        for input in [&known, &self.message] {
            let before = inflate.total_in();
            let flush = FlushDecompress::Sync;
            inflate.decompress_vec(input, &mut all, flush).ok()?;
            let taken = usize::try_from(inflate.total_in() - before).ok()?;
            let is_whole = matches!(input.get(taken..)?, [] | AFTER_LAST);
            // What is as long as there is room for may be longer.
            if !is_whole || all.len() == INFLATED_MAX {
                return None;
            }
        }
        all.shrink_to_fit();
        self.said = all;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    fn deflated(compress: &mut Compress, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 100);
        let done = compress.compress_vec(text, &mut out, FlushCompress::Sync);
        done.expect("there is room");
        let end = out.len() - TAIL.len();
        assert_eq!(out.split_off(end), TAIL);
        out
    }

    #[test]
    fn messages_are_put_back_however_they_are_cut_and_refer_to_each_other() {
        let texts = [
            &b"{\"method\":\"mining.subscribe\"}"[..],
            b"",
            b"{\"method\":\"mining.authorize\"}",
        ];
        for cut in 0..40 {
            let mut compress = Compress::new(Compression::best(), false);
            let mut inflate = Inflate::default();
            for text in texts {
                let sent = deflated(&mut compress, text);
                let (a, b) = sent.split_at(cut.min(sent.len()));
                inflate.take(a.iter().copied());
                inflate.take(b.iter().copied());
                assert_eq!(inflate.end(), Some(text));
            }
        }
    }

    /// The example of RFC 7692, 7.2.3.4.
    #[test]
    fn a_message_whose_block_says_that_it_is_the_last_ends_nothing() {
        let mut inflate = Inflate::default();
        for _ in 0..3 {
            let hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
            inflate.take(hello.into_iter());
            assert_eq!(inflate.end(), Some(&b"Hello"[..]));
        }
    }

    #[test]
    fn messages_without_end_are_put_back_no_more() {
        let mut inflate = Inflate::default();
        let mut end = |message: &[u8]| {
            inflate.take(message.iter().copied());
            inflate.end().map(<[u8]>::to_vec)
        };
        // A block with nothing in it (RFC 7692, 7.2.3.6).
        for _ in 0..MESSAGES_MAX {
            assert_eq!(end(&[0]), Some(Vec::new()));
        }
        assert_eq!(end(&[0]), None);
        assert!(inflate.is_over());
        assert_eq!(inflate.held(), 0);
    }

    #[test]
    fn what_is_too_long_or_damaged_ends_it_and_takes_no_memory() {
        let bomb = deflated(
            &mut Compress::new(Compression::best(), false),
            &[0; 1 << 20],
        );
        let long = vec![0x55; INFLATED_MAX + 1];
        for message in [&bomb[..], &long, &[0x07; 9]] {
            let mut inflate = Inflate::default();
            inflate.take(message.iter().copied());
            assert_eq!(inflate.end(), None);
            let hello = deflated(&mut Compress::new(Compression::best(), false), b"hello");
            inflate.take(hello.into_iter());
            assert_eq!(inflate.end(), None);
            assert_eq!(inflate.held(), 0);
        }
    }
}
