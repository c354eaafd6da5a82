//! What agents' resolvers answered: the names behind addresses.
//!
//! An agent chooses its resolver, so a name is a hint for people and what the
//! agent was told, not proof of who the other end is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Names that are kept of one agent, and of all.
const MAX_NAMES: usize = 1_024;
const MAX_NAMES_IN_ALL: usize = 16_384;
/// Shortest and longest time for which a name is kept, whatever the answer says:
/// programs use an address for longer than a short time to live, such as the
/// seconds of a content network, allows.
const FLOOR_NS: u64 = 3_600_000_000_000;
const CEILING_NS: u64 = 24 * FLOOR_NS;

/// Names by agent and address.
#[derive(Default)]
pub struct Names {
    agents: HashMap<u64, HashMap<IpAddr, Name>>,
    len: usize,
}

struct Name {
    name: Arc<str>,
    /// Nanoseconds since boot.
    until: u64,
}

impl Names {
    /// The name that an agent was last told for an address.
    pub fn get(&self, agent: u64, ip: IpAddr, now: u64) -> Option<Arc<str>> {
        let known = self.agents.get(&agent)?.get(&ip)?;
        (known.until >= now).then(|| known.name.clone())
    }

    /// An agent was answered that `name` is at `ip`, for `ttl` seconds.
    pub fn learn(&mut self, agent: u64, ip: IpAddr, name: &str, ttl: u32, now: u64) {
        // Block lists answer so for many names; it would misname what is inside.
        if ip.is_loopback() || ip.is_unspecified() {
            return;
        }
        let ttl = u64::from(ttl).saturating_mul(1_000_000_000);
        let until = now.saturating_add(ttl.clamp(FLOOR_NS, CEILING_NS));
        let names = self.agents.entry(agent).or_default();
        if let Some(known) = names.get_mut(&ip) {
            if *known.name != *name {
                known.name = name.into();
            }
            known.until = until;
            return;
        }
        let name = Name {
            name: name.into(),
            until,
        };
        names.insert(ip, name);
        self.len += 1;
        if names.len() > MAX_NAMES {
            self.drop_first_to_end(agent);
        } else if self.len > MAX_NAMES_IN_ALL {
            let most = self.agents.iter().max_by_key(|(_, names)| names.len());
            if let Some((agent, _)) = most {
                self.drop_first_to_end(*agent);
            }
        }
    }

    /// Forgets an agent.
    pub fn forget(&mut self, agent: u64) {
        if let Some(names) = self.agents.remove(&agent) {
            self.len -= names.len();
        }
    }

    fn drop_first_to_end(&mut self, agent: u64) {
        let Some(names) = self.agents.get_mut(&agent) else {
            return;
        };
        let first = names.iter().min_by_key(|(ip, name)| (name.until, **ip));
        if let Some(ip) = first.map(|(ip, _)| *ip) {
            names.remove(&ip);
            self.len -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const DAY: u32 = 86_400;

    fn ip(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    fn name(names: &Names, agent: u64, number: u32, now: u64) -> Option<String> {
        names
            .get(agent, ip(number), now)
            .map(|name| name.to_string())
    }

    #[test]
    fn a_name_is_its_agent_s_and_the_last_one_answered() {
        let mut names = Names::default();
        names.learn(1, ip(7), "one.example", 60, 0);
        names.learn(2, ip(7), "two.example", 60, 0);
        names.learn(1, ip(7), "three.example", 60, 5);
        assert_eq!(name(&names, 1, 7, 9).as_deref(), Some("three.example"));
        assert_eq!(name(&names, 2, 7, 9).as_deref(), Some("two.example"));
        assert_eq!(name(&names, 3, 7, 9), None);
        names.forget(1);
        assert_eq!((name(&names, 1, 7, 9), names.len), (None, 1));
    }

    #[test]
    fn a_name_lasts_an_hour_at_least_and_a_day_at_most() {
        let mut names = Names::default();
        names.learn(1, ip(1), "short.example", 0, 10);
        names.learn(1, ip(2), "long.example", u32::MAX, 10);
        for (number, until) in [(1, 10 + FLOOR_NS), (2, 10 + CEILING_NS)] {
            assert!(name(&names, 1, number, until).is_some());
            assert_eq!(name(&names, 1, number, until + 1), None);
        }
    }

    #[test]
    fn an_agent_that_asks_for_much_forgets_its_own_names() {
        let mut names = Names::default();
        names.learn(1, ip(0), "quiet.example", DAY, 0);
        for agent in 2..40 {
            for number in 0..2 * MAX_NAMES as u32 {
                names.learn(agent, ip(number), "loud.example", 60, u64::from(number));
            }
        }
        assert_eq!(names.len, MAX_NAMES_IN_ALL);
        assert!(names.agents.values().all(|names| names.len() <= MAX_NAMES));
        assert!(name(&names, 1, 0, 1).is_some());
    }

    #[test]
    fn what_block_lists_answer_names_nothing() {
        let mut names = Names::default();
        for ip in ["127.0.0.1", "0.0.0.0", "::1", "::"] {
            names.learn(1, ip.parse().expect("an address"), "ads.example", 60, 0);
        }
        assert_eq!(names.len, 0);
    }
}
