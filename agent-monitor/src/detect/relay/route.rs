//! Exchanges of many connections between the same two ends.
//!
//! A tunnel that opens a connection for each visitor relays one exchange on
//! each: no pair of flows shows two. So exchanges are added up by where they
//! lead, from an address outside to an address inside, and count where most of
//! the inside connections are relayed, and relayed in the same manner.

use std::collections::VecDeque;

use super::pair::Exchange;

/// Inside connections that are remembered of a route.
const REMEMBERED: usize = 32;
/// By how much the framing of two exchanges may differ: records are padded to a
/// cipher's blocks of 16 bytes (TLS in CBC mode, RFC 5246 section 6.2.3.2) or less.
const PADDING: u64 = 16;

/// The request and the answer of one inside connection that was relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Relayed {
    pub request: Exchange,
    pub answer: Exchange,
}

impl Relayed {
    fn is_copied(&self) -> bool {
        self.request.copied && self.answer.copied
    }

    /// Whether both were relayed in the same manner: copied, or with the same framing.
    fn is_like(&self, other: &Self) -> bool {
        let alike =
            |one: Exchange, other: Exchange| one.framing().abs_diff(other.framing()) <= PADDING;
        (self.is_copied() && other.is_copied())
            || (alike(self.request, other.request) && alike(self.answer, other.answer))
    }

    /// Whether it has the sizes of another: then its framing is the same whatever it is.
    fn repeats(&self, other: &Self) -> bool {
        self.request.inside == other.request.inside && self.answer.inside == other.answer.inside
    }
}

/// What became of the last inside connections of a route.
#[derive(Clone, Debug, Default)]
pub(super) struct Route {
    /// Of those that matched nothing: nothing.
    connections: VecDeque<Option<Relayed>>,
}

impl Route {
    /// An inside connection was relayed, or ended without having matched anything.
    pub fn push(&mut self, relayed: Option<Relayed>) {
        if self.connections.len() == REMEMBERED {
            self.connections.pop_front();
        }
        self.connections.push_back(relayed);
    }

    /// Exchanges in the manner of the newest, itself included, as far as one does not
    /// repeat another; none unless most connections were relayed so. What was copied
    /// counts twice: it is no chance.
    pub fn exchanges(&self) -> u32 {
        let relayed = || self.connections.iter().flatten();
        let Some(newest) = relayed().next_back() else {
            return 0;
        };
        let alike: Vec<&Relayed> = relayed().filter(|other| newest.is_like(other)).collect();
        if alike.len() * 2 <= self.connections.len() {
            return 0;
        }
        let counted = alike.iter().enumerate().map(|(n, relayed)| {
            if relayed.is_copied() {
                return 2;
            }
            let again = alike[..n].iter().any(|earlier| earlier.repeats(relayed));
            u32::from(!again)
        });
        counted.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Way;

    fn relayed(inside: [u64; 2], framing: [u64; 2], copied: bool) -> Option<Relayed> {
        let exchange = |way, n: usize| Exchange {
            way,
            outside: inside[n] + framing[n],
            inside: inside[n],
            copied,
        };
        Some(Relayed {
            request: exchange(Way::In, 0),
            answer: exchange(Way::Out, 1),
        })
    }

    fn exchanges(connections: &[Option<Relayed>]) -> u32 {
        let mut route = Route::default();
        for connection in connections {
            route.push(*connection);
        }
        route.exchanges()
    }

    #[test]
    fn connections_with_the_same_framing_around_other_sizes_add_up() {
        let tls = |request, answer| relayed([request, answer], [22, 22], false);
        assert_eq!(exchanges(&[tls(500, 900)]), 1);
        assert_eq!(exchanges(&[tls(500, 900), tls(510, 4_000), tls(80, 20)]), 3);
    }

    #[test]
    fn the_same_sizes_again_prove_nothing_unless_the_bytes_are_the_same() {
        let same = relayed([500, 900], [22, 22], false);
        assert_eq!(exchanges(&[same; 8]), 1);
        assert_eq!(exchanges(&[relayed([500, 900], [0, 0], true); 3]), 6);
    }

    #[test]
    fn other_framing_each_time_is_chance() {
        let jobs = [
            relayed([100, 50], [20, 90], false),
            relayed([130, 60], [80, 10], false),
            relayed([90, 55], [150, 40], false),
        ];
        assert_eq!(exchanges(&jobs), 0);
    }

    #[test]
    fn most_connections_have_to_be_relayed() {
        let tls = |request| relayed([request, 900], [22, 22], false);
        assert_eq!(exchanges(&[None, tls(500), tls(80), None]), 0);
        assert_eq!(exchanges(&[None, tls(500), tls(80)]), 2);
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let mut route = Route::default();
        for n in 0..10 * REMEMBERED as u64 {
            route.push(relayed([500 + n, 900], [22, 22], false));
        }
        assert_eq!(route.exchanges() as usize, REMEMBERED);
        for _ in 0..REMEMBERED {
            route.push(None);
        }
        assert_eq!(route.exchanges(), 0);
    }
}
