//! KEXINIT, what two of them agree on (RFC 4253, 7.1), and what they tell of the programs.

use std::collections::HashSet;

use md5::{Digest as _, Md5};

/// The name lists of one KEXINIT, in their order on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KexInit {
    pub kex: Vec<String>,
    pub host_key: Vec<String>,
    pub cipher_to_server: Vec<String>,
    pub cipher_to_client: Vec<String>,
    pub mac_to_server: Vec<String>,
    pub mac_to_client: Vec<String>,
    pub compression_to_server: Vec<String>,
    pub compression_to_client: Vec<String>,
    /// Its length.
    bytes: usize,
    /// The sender's fingerprint, if it is the client.
    pub hassh: String,
    /// The sender's fingerprint, if it is the server.
    pub hassh_server: String,
}

impl KexInit {
    /// Bytes of memory that it takes, more or less: a name of some twenty letters
    /// is a text of its own.
    pub fn held(&self) -> usize {
        2 * self.bytes
    }

    /// Reads a payload that begins with the message number 20.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        // The message number and 16 random bytes come first.
        let mut rest = payload.get(17..)?;
        let mut texts = Vec::new();
        let mut list = || -> Option<Vec<String>> {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let text = std::str::from_utf8(after.get(..length)?).ok()?;
            rest = after.get(length..)?;
            texts.push(text);
            Some(
                text.split(',')
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect(),
            )
        };
        let mut kexinit = Self {
            kex: list()?,
            host_key: list()?,
            cipher_to_server: list()?,
            cipher_to_client: list()?,
            mac_to_server: list()?,
            mac_to_client: list()?,
            compression_to_server: list()?,
            compression_to_client: list()?,
            ..Self::default()
        };
        let [
            kex,
            _,
            cipher_c,
            cipher_s,
            mac_c,
            mac_s,
            compression_c,
            compression_s,
        ] = texts[..]
        else {
            return None;
        };
        kexinit.bytes = payload.len();
        kexinit.hassh = hassh([kex, cipher_c, mac_c, compression_c]);
        kexinit.hassh_server = hassh([kex, cipher_s, mac_s, compression_s]);
        Some(kexinit)
    }
}

/// The fingerprint that is called HASSH (<https://github.com/salesforce/hassh>):
/// MD5 of four lists as they were sent. A client's are those to the server, a
/// server's those to the client.
fn hassh(lists: [&str; 4]) -> String {
    let digest = Md5::digest(lists.join(";"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What client and server agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Algorithms {
    /// Key exchange.
    pub kex: String,
    /// The server's host key.
    pub host_key: String,
    /// Cipher from client to server.
    pub cipher_to_server: String,
    /// Cipher from server to client.
    pub cipher_to_client: String,
    /// MAC from client to server; none if the cipher authenticates.
    pub mac_to_server: Option<String>,
    /// MAC from server to client; none if the cipher authenticates.
    pub mac_to_client: Option<String>,
    /// Compression from client to server, usually `none`.
    pub compression_to_server: String,
    /// Compression from server to client, usually `none`.
    pub compression_to_client: String,
    /// Both sides offer strict key exchange (OpenSSH's answer to Terrapin).
    pub strict: bool,
    /// The client takes EXT_INFO (RFC 8308).
    pub ext_info: bool,
}

/// Names in a key-exchange list that are signals, not methods.
const SIGNALS: &[&str] = &[
    "ext-info-c",
    "ext-info-s",
    "kex-strict-c-v00@openssh.com",
    "kex-strict-s-v00@openssh.com",
];

/// The first of the client's names that the server has too, list by list.
///
/// The rule for key exchange and host keys also asks whether they fit each
/// other; every method in use fits every signing key, so that is left out.
pub(super) fn negotiate(client: &KexInit, server: &KexInit) -> Option<Algorithms> {
    let first = |ours: &[String], theirs: &[String]| -> Option<String> {
        let theirs: HashSet<&str> = theirs.iter().map(String::as_str).collect();
        ours.iter()
            .find(|name| theirs.contains(name.as_str()) && !SIGNALS.contains(&name.as_str()))
            .cloned()
    };
    let has = |kexinit: &KexInit, name: &str| kexinit.kex.iter().any(|n| n == name);
    let cipher_to_server = first(&client.cipher_to_server, &server.cipher_to_server)?;
    let cipher_to_client = first(&client.cipher_to_client, &server.cipher_to_client)?;
    let mac = |cipher: &str, ours: &[String], theirs: &[String]| {
        if authenticates(cipher) {
            Some(None)
        } else {
            first(ours, theirs).map(Some)
        }
    };
    Some(Algorithms {
        kex: first(&client.kex, &server.kex)?,
        host_key: first(&client.host_key, &server.host_key)?,
        mac_to_server: mac(
            &cipher_to_server,
            &client.mac_to_server,
            &server.mac_to_server,
        )?,
        mac_to_client: mac(
            &cipher_to_client,
            &client.mac_to_client,
            &server.mac_to_client,
        )?,
        cipher_to_server,
        cipher_to_client,
        compression_to_server: first(&client.compression_to_server, &server.compression_to_server)?,
        compression_to_client: first(&client.compression_to_client, &server.compression_to_client)?,
        strict: has(client, "kex-strict-c-v00@openssh.com")
            && has(server, "kex-strict-s-v00@openssh.com"),
        ext_info: has(client, "ext-info-c"),
    })
}

/// Whether a cipher has its own authentication tag, so that no MAC applies.
fn authenticates(cipher: &str) -> bool {
    cipher == "chacha20-poly1305@openssh.com" || cipher.ends_with("-gcm@openssh.com")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<String> {
        list.split(',').map(str::to_owned).collect()
    }

    fn kexinit(kex: &str, cipher: &str, mac: &str) -> KexInit {
        KexInit {
            kex: names(kex),
            host_key: names("ssh-ed25519"),
            cipher_to_server: names(cipher),
            cipher_to_client: names(cipher),
            mac_to_server: names(mac),
            mac_to_client: names(mac),
            compression_to_server: names("none"),
            compression_to_client: names("none"),
            ..KexInit::default()
        }
    }

    #[test]
    fn the_clients_order_decides() {
        let client = kexinit("b,a", "aes256-ctr,aes128-ctr", "hmac-sha2-256");
        let server = kexinit("a,b", "aes128-ctr,aes256-ctr", "hmac-sha1,hmac-sha2-256");
        let agreed = negotiate(&client, &server).unwrap();
        assert_eq!(agreed.kex, "b");
        assert_eq!(agreed.cipher_to_server, "aes256-ctr");
        assert_eq!(agreed.mac_to_client.as_deref(), Some("hmac-sha2-256"));
    }

    #[test]
    fn signals_are_not_methods() {
        let client = kexinit(
            "ext-info-c,kex-strict-c-v00@openssh.com,a",
            "aes128-ctr",
            "m",
        );
        let server = kexinit(
            "ext-info-c,kex-strict-s-v00@openssh.com,a",
            "aes128-ctr",
            "m",
        );
        let agreed = negotiate(&client, &server).unwrap();
        assert_eq!(agreed.kex, "a");
        assert!(agreed.strict && agreed.ext_info);
    }

    #[test]
    fn an_authenticating_cipher_needs_no_mac_in_common() {
        let cipher = "chacha20-poly1305@openssh.com";
        let agreed = negotiate(&kexinit("a", cipher, "x"), &kexinit("a", cipher, "y")).unwrap();
        assert_eq!(agreed.mac_to_server, None);
        assert_eq!(
            negotiate(
                &kexinit("a", "aes128-ctr", "x"),
                &kexinit("a", "aes128-ctr", "y")
            ),
            None
        );
    }

    #[test]
    fn rejects_a_list_longer_than_the_payload() {
        let mut payload = vec![20; 17];
        payload.extend_from_slice(&[0, 0, 0, 9, b'a']);
        assert_eq!(KexInit::parse(&payload), None);
    }
}
