//! What was noticed on an SSH flow, for a person.

use super::{Algorithms, Fact};
use crate::protocol::Side;

impl Fact {
    /// The fact in a few words; what the other end sent is in them as received.
    pub fn in_words(&self) -> String {
        match self {
            Self::Banner { side, text } => format!("{}'s banner {text}", name(*side)),
            Self::Kex {
                client,
                algorithms,
                hassh,
                hassh_server,
            } => by(
                *client,
                format!(
                    "key exchange {} (HASSH {hassh} of the client, {hassh_server} of the server)",
                    algorithms.in_words()
                ),
            ),
            Self::Authenticated { client } => by(*client, "authenticated".to_owned()),
            Self::Session {
                client,
                terminal,
                shown_by,
            } => {
                let what = match terminal {
                    true => "with a terminal, as for a shell",
                    false => "without a terminal, as for a command",
                };
                by(*client, format!("opened a session {what} ({shown_by})"))
            }
            Self::ForwardRequested { client, shown_by } => {
                by(*client, format!("asked for a reverse forward ({shown_by})"))
            }
            Self::ForwardedOpen { client, shown_by } => by(
                *client,
                format!("a connection came in through the forward ({shown_by})"),
            ),
        }
    }
}

impl Algorithms {
    fn in_words(&self) -> String {
        let mut words = vec![
            short(&self.kex).to_owned(),
            format!("host key {}", short(&self.host_key)),
            both(&self.cipher_to_server, &self.cipher_to_client),
        ];
        if let (Some(to_server), Some(to_client)) = (&self.mac_to_server, &self.mac_to_client) {
            words.push(both(to_server, to_client));
        }
        let compression = both(&self.compression_to_server, &self.compression_to_client);
        if compression != "none" {
            words.push(format!("compression {compression}"));
        }
        words.join(", ")
    }
}

fn both(to_server: &str, to_client: &str) -> String {
    if to_server == to_client {
        short(to_server).to_owned()
    } else {
        format!("{} out and {} back", short(to_server), short(to_client))
    }
}

/// Without the domain of the project that most extensions come from.
fn short(algorithm: &str) -> &str {
    algorithm.strip_suffix("@openssh.com").unwrap_or(algorithm)
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Initiator => "connecting side",
        Side::Responder => "accepting side",
    }
}

/// Says who the SSH client is where it is not who one expects.
fn by(client: Side, words: String) -> String {
    match client {
        Side::Initiator => words,
        Side::Responder => format!("{words}; the SSH client is the {}", name(client)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn algorithms() -> Algorithms {
        Algorithms {
            kex: "sntrup761x25519-sha512@openssh.com".into(),
            host_key: "ssh-ed25519".into(),
            cipher_to_server: "chacha20-poly1305@openssh.com".into(),
            cipher_to_client: "chacha20-poly1305@openssh.com".into(),
            mac_to_server: None,
            mac_to_client: None,
            compression_to_server: "none".into(),
            compression_to_client: "none".into(),
            strict: true,
            ext_info: true,
        }
    }

    fn kex(client: Side, algorithms: Algorithms) -> String {
        let fact = Fact::Kex {
            client,
            algorithms: Box::new(algorithms),
            hassh: "aa".to_owned(),
            hassh_server: "bb".to_owned(),
        };
        fact.in_words()
    }

    #[test]
    fn facts_read_as_plain_words() {
        let banner = Fact::Banner {
            side: Side::Responder,
            text: "SSH-2.0-OpenSSH_9.2p1".into(),
        };
        assert_eq!(
            banner.in_words(),
            "accepting side's banner SSH-2.0-OpenSSH_9.2p1"
        );
        let asked = Fact::ForwardRequested {
            client: Side::Initiator,
            shown_by: "68 bytes".into(),
        };
        assert_eq!(asked.in_words(), "asked for a reverse forward (68 bytes)");
        assert_eq!(
            kex(Side::Initiator, algorithms()),
            "key exchange sntrup761x25519-sha512, host key ssh-ed25519, chacha20-poly1305 \
             (HASSH aa of the client, bb of the server)"
        );
    }

    #[test]
    fn what_differs_by_direction_or_is_unusual_is_said() {
        let odd = Algorithms {
            cipher_to_client: "aes128-ctr".into(),
            mac_to_server: Some("hmac-sha2-256".into()),
            mac_to_client: Some("hmac-sha2-256".into()),
            compression_to_server: "zlib@openssh.com".into(),
            compression_to_client: "zlib@openssh.com".into(),
            ..algorithms()
        };
        assert_eq!(
            kex(Side::Responder, odd),
            "key exchange sntrup761x25519-sha512, host key ssh-ed25519, \
             chacha20-poly1305 out and aes128-ctr back, hmac-sha2-256, compression zlib \
             (HASSH aa of the client, bb of the server); \
             the SSH client is the accepting side"
        );
    }
}
