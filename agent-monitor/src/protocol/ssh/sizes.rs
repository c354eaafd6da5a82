//! How long a record is on the wire, by the length of its payload.
//!
//! Padding is taken to be the least allowed, as OpenSSH, PuTTY, dropbear,
//! paramiko, asyncssh and ssh2 for Node all send it once logged in.

/// The record layout of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes in the padded part besides the payload, at the least.
    header: u32,
    /// The padded part is a multiple of this.
    block: u32,
    /// Bytes outside the padded part: length field if in clear, tag or MAC.
    outside: u32,
}

impl Layout {
    /// The layout of a cipher and MAC, if sizes under it are understood.
    pub fn of(cipher: &str, mac: Option<&str>) -> Option<Self> {
        // Length field outside the padded part, which then has a byte of
        // padding length and at least four of padding.
        let apart = |block, tag| {
            Some(Self {
                header: 5,
                block,
                outside: 4 + tag,
            })
        };
        match cipher {
            "chacha20-poly1305@openssh.com" => return apart(8, 16),
            "aes128-gcm@openssh.com" | "aes256-gcm@openssh.com" => return apart(16, 16),
            "aes128-ctr" | "aes192-ctr" | "aes256-ctr" | "aes128-cbc" | "aes192-cbc"
            | "aes256-cbc" => {}
            _ => return None,
        }
        let mac = mac?;
        let (name, etm) = match mac.strip_suffix("-etm@openssh.com") {
            Some(name) => (name, true),
            None => (mac.strip_suffix("@openssh.com").unwrap_or(mac), false),
        };
        let tag = match name {
            "hmac-sha2-512" => 64,
            "hmac-sha2-256" => 32,
            "hmac-sha1" => 20,
            "hmac-md5" | "umac-128" => 16,
            "hmac-sha1-96" | "hmac-md5-96" => 12,
            "umac-64" => 8,
            _ => return None,
        };
        if etm {
            apart(16, tag)
        } else {
            Some(Self {
                header: 9,
                block: 16,
                outside: tag,
            })
        }
    }

    /// Bytes on the wire of a record with a payload of this length.
    pub fn size(self, payload: u32) -> u32 {
        self.outside + (payload + self.header).div_ceil(self.block) * self.block
    }

    /// Whether `bytes` can be exactly `records` records of at least `least` bytes each.
    pub fn can_be(self, bytes: u32, records: u32, least: u32) -> bool {
        bytes >= records * least.max(self.size(1))
            && (bytes - records * self.outside).is_multiple_of(self.block)
    }

    /// Whether `bytes` can be one record.
    pub fn is_record(self, bytes: u32) -> bool {
        self.can_be(bytes, 1, 0)
    }

    /// Whether `bytes` can be one or more whole records.
    pub fn is_whole(self, bytes: u32) -> bool {
        // The remainder repeats after at most `block` records.
        (1..=self.block).any(|records| self.can_be(bytes, records, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_measured_with_openssh() {
        let chacha = Layout::of("chacha20-poly1305@openssh.com", None).unwrap();
        let gcm = Layout::of("aes128-gcm@openssh.com", None).unwrap();
        let etm = Layout::of("aes128-ctr", Some("hmac-sha2-256-etm@openssh.com")).unwrap();
        let eam = Layout::of("aes128-ctr", Some("hmac-sha2-256")).unwrap();
        // USERAUTH_SUCCESS, CHANNEL_OPEN_CONFIRMATION, session, forward to localhost.
        assert_eq!([1, 17, 24, 36].map(|n| chacha.size(n)), [28, 44, 52, 68]);
        assert_eq!([1, 17, 24, 36].map(|n| gcm.size(n)), [36, 52, 52, 68]);
        assert_eq!([1, 17, 24, 36].map(|n| etm.size(n)), [52, 68, 68, 84]);
        assert_eq!([1, 17, 24, 36].map(|n| eam.size(n)), [48, 64, 80, 80]);
    }

    #[test]
    fn every_size_is_a_whole_record_and_a_cut_one_is_not() {
        let chacha = Layout::of("chacha20-poly1305@openssh.com", None).unwrap();
        for payload in 1..300 {
            assert!(chacha.is_record(chacha.size(payload)));
            assert!(!chacha.is_whole(chacha.size(payload) - 1));
        }
        assert!(chacha.is_whole(68 + 60) && !chacha.is_record(68 + 60));
        assert!(!chacha.is_whole(16) && !chacha.is_whole(0));
    }

    #[test]
    fn unknown_ciphers_have_no_layout() {
        assert_eq!(Layout::of("3des-cbc", Some("hmac-sha1")), None);
        assert_eq!(Layout::of("aes128-ctr", Some("hmac-new")), None);
        assert_eq!(Layout::of("aes128-ctr", None), None);
    }
}
