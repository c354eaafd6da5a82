//! Tunnels through DNS: data goes out in names that are asked for, and comes in
//! as what is answered.
//!
//! A tunnel never asks for the same name twice, or a resolver would answer from
//! its cache. So different names below one registered domain are counted (the
//! domain by the public suffix list, so that all customers of a content network
//! are not one): many in a short time that are long, or of a type that carries
//! data, are a tunnel. How random they look says little: constant data makes
//! names as regular as English, so that only the plainest numbering is left out.

#[cfg(test)]
mod tests;

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::{Detector, Finding, Setting, Settings, Subject, who};
use crate::event::Process;
use crate::flow::Flow;
use crate::protocol::dns::{Fact, Question, Type};

/// What rules see of this.
pub static DETECTOR: Detector = Detector {
    name: "dns-tunnel",
    stages: &["tunnel"],
    settings: &[
        &NAMES,
        &WINDOW,
        &SLOW_NAMES,
        &SLOW_WINDOW,
        &LENGTH,
        &ENTROPY,
        &NULLS,
    ],
};

static NAMES: Setting = Setting {
    name: "names",
    default: 40,
    about: "different names below one registered domain within window_s: dns2tcp and iodine ask for more than that \
            in the second in which they carry a few kilobytes",
};
static WINDOW: Setting = Setting {
    name: "window_s",
    default: 60,
    about: "seconds",
};
static SLOW_NAMES: Setting = Setting {
    name: "slow_names",
    default: 300,
    about: "different names within slow_window_s: iodine asks every 4 s when idle, which is 900",
};
static SLOW_WINDOW: Setting = Setting {
    name: "slow_window_s",
    default: 3600,
    about: "seconds",
};
static LENGTH: Setting = Setting {
    name: "length",
    default: 24,
    about: "characters of the part below the registered domain, on average, unless most questions are of types that \
            carry data (NULL, TXT, KEY and others): names of hosts, hashes of content networks and reversed addresses of block lists \
            are shorter; dns2tcp's had 98 on average",
};
static ENTROPY: Setting = Setting {
    name: "entropy_tenths",
    default: 20,
    about: "tenths of a bit a character, on average: dns2tcp's had 2.5 bits carrying the same byte 3,000 times",
};
static NULLS: Setting = Setting {
    name: "null_names",
    default: 5,
    about: "different names asked for with type NULL or a private one (65280 and above), within window_s: iodine begins \
            with NULL, and nobody else asks for it (RFC 1035 calls it experimental)",
};

/// Domains of an agent that are counted; the one that was asked for longest ago
/// goes first.
const MAX_DOMAINS: usize = 256;
/// Names of a domain that are told apart.
const MAX_NAMES: usize = 2_048;
/// Names that evidence shows, and characters of each.
const MAX_SHOWN: usize = 3;
const MAX_NAME: usize = 100;

#[derive(Clone, Copy)]
struct Limits {
    names: usize,
    window: u64,
    slow_names: usize,
    slow_window: u64,
    length: f64,
    entropy: f64,
    nulls: usize,
}

impl Limits {
    fn new(settings: &Settings) -> Self {
        // More than are kept could never be counted.
        let number = |it| usize::try_from(settings.get(it)).map_or(MAX_NAMES, |n| n.min(MAX_NAMES));
        let time = |it| settings.get(it).saturating_mul(1_000_000_000);
        Self {
            names: number(&NAMES),
            window: time(&WINDOW),
            slow_names: number(&SLOW_NAMES),
            slow_window: time(&SLOW_WINDOW),
            length: settings.get(&LENGTH) as f64,
            entropy: settings.get(&ENTROPY) as f64 / 10.0,
            nulls: number(&NULLS),
        }
    }
}

/// Watches what agents ask for.
pub struct DnsTunnels {
    limits: Limits,
    agents: BTreeMap<u64, HashMap<String, Domain>>,
}

impl Default for DnsTunnels {
    fn default() -> Self {
        Self {
            limits: Limits::new(&Settings::default()),
            agents: BTreeMap::new(),
        }
    }
}

/// Names below a registered domain.
#[derive(Default)]
struct Domain {
    last: u64,
    /// All names of the long window, by their hashes.
    names: HashSet<u64>,
    long: Sums,
    short: Sums,
    told: bool,
    shown: Vec<String>,
}

/// What new names of a window add up to.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    begun: u64,
    names: usize,
    length: usize,
    /// Bits a character, of each name.
    entropy: f64,
    /// Asked for with a type that carries data.
    data: usize,
    nulls: usize,
}

impl Sums {
    fn add(&mut self, label: &Label, kind: Type, now: u64, window: u64) {
        if self.names == 0 || now.saturating_sub(self.begun) >= window {
            *self = Self {
                begun: now,
                ..Self::default()
            };
        }
        self.names += 1;
        self.length += label.length;
        self.entropy += label.entropy;
        self.data += usize::from(carries_data(kind));
        self.nulls += usize::from(is_null(kind));
    }

    fn mean(&self, sum: f64) -> f64 {
        sum / self.names.max(1) as f64
    }

    fn is_tunnel(&self, names: usize, limits: &Limits) -> bool {
        self.names >= names
            && (self.mean(self.length as f64) >= limits.length || 2 * self.data >= self.names)
            && self.mean(self.entropy) >= limits.entropy
    }
}

/// Types whose answers hold what the server likes.
fn carries_data(kind: Type) -> bool {
    /// KEY and CERT (IANA, "Resource Record (RR) TYPEs").
    const OTHERS: [Type; 2] = [Type(25), Type(37)];
    kind == Type::TXT || OTHERS.contains(&kind) || is_null(kind)
}

fn is_null(kind: Type) -> bool {
    // Private use (RFC 6895, 3.1); iodine has one there, too.
    kind == Type::NULL || (65_280..65_535).contains(&kind.0)
}

/// What is below the registered domain.
struct Label {
    length: usize,
    entropy: f64,
}

impl Label {
    /// Counts characters as they are on the wire: `\DDD` and `\.` are one each.
    fn new(text: &str) -> Self {
        let mut counts = [0u32; 256];
        let mut bytes = text.bytes();
        let mut length = 0;
        while let Some(byte) = bytes.next() {
            let byte = match byte {
                b'.' => continue,
                b'\\' => match bytes.next() {
                    Some(first) if first.is_ascii_digit() => {
                        let digits = [
                            first,
                            bytes.next().unwrap_or(b'0'),
                            bytes.next().unwrap_or(b'0'),
                        ];
                        let digits = digits.map(|digit| u32::from(digit.wrapping_sub(b'0')));
                        let number = digits[0] * 100 + digits[1] * 10 + digits[2];
                        number.to_le_bytes()[0]
                    }
                    other => other.unwrap_or(b'\\'),
                },
                byte => byte,
            };
            counts[usize::from(byte)] += 1;
            length += 1;
        }
        let entropy = counts.iter().filter(|count| **count > 0).map(|count| {
            let share = f64::from(*count) / length as f64;
            -share * share.log2()
        });
        Self {
            length,
            entropy: entropy.sum(),
        }
    }
}

/// The registered domain of a name, and what is below it.
fn split(name: &str) -> Option<(&str, &str)> {
    let domain = psl::domain_str(name)?;
    let below = name.strip_suffix(domain)?.strip_suffix('.')?;
    (!below.is_empty()).then_some((domain, below))
}

/// The name that stands for an address: of these there are as many as addresses,
/// and mail servers and loggers ask for them all day.
fn is_reversed_address(domain: &str, below: &str) -> bool {
    let zone = domain.ends_with("in-addr.arpa") || domain.ends_with("ip6.arpa");
    let address = below
        .split('.')
        .all(|label| label.len() <= 3 && label.bytes().all(|it| it.is_ascii_hexdigit()));
    zone && address
}

/// Whether this is below a top-level domain that the internet has not, as `cluster.local`
/// of Kubernetes is, where a resolver tries every name that a program asks for, and as
/// machines of a data centre are called. No server outside is ever asked for it, unless
/// by the agent itself.
fn is_local(name: &str) -> bool {
    !psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix.is_known())
}

impl DnsTunnels {
    /// Goes by these numbers from now on.
    pub fn configure(&mut self, settings: &Settings) {
        self.limits = Limits::new(settings);
    }

    /// Forgets an agent.
    pub fn forget(&mut self, agent: u64) {
        self.agents.remove(&agent);
    }

    /// Takes a message. `lets_pass` says whether this name need not be counted.
    pub fn message(
        &mut self,
        flow: &Flow,
        fact: &Fact,
        process: Option<&Arc<Process>>,
        now: u64,
        lets_pass: impl FnOnce(&str) -> bool,
    ) -> Option<Finding> {
        let asked = fact.message.question.as_ref();
        let question = asked.filter(|_| !fact.message.is_response && flow.is_outbound())?;
        let name = question.name.to_ascii_lowercase();
        let (domain, below) = split(&name)?;
        let asked_inside = flow.is_inside() && is_local(&name);
        if asked_inside || is_reversed_address(domain, below) || lets_pass(&name) {
            return None;
        }
        let limits = self.limits;
        let domains = self.agents.entry(flow.agent).or_default();
        if !domains.contains_key(domain) && domains.len() >= MAX_DOMAINS {
            let oldest = domains.iter().min_by_key(|(_, domain)| domain.last);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                domains.remove(&oldest);
            }
        }
        let counted = domains.entry(domain.to_owned()).or_default();
        if !counted.add(question, below, now, &limits) || counted.told {
            return None;
        }
        let (why, sums, window) = counted.judge(&limits)?;
        counted.told = true;
        let seconds = now.saturating_sub(sums.begun) as f64 / 1e9;
        let mut evidence = vec![format!(
            "{} different names below {domain} within {seconds:.1} s (of {} s): {:.0} characters and {:.1} bits a character \
             on average, {} with a type that carries data",
            sums.names,
            window / 1_000_000_000,
            sums.mean(sums.length as f64),
            sums.mean(sums.entropy),
            sums.data,
        )];
        evidence.extend(counted.shown.iter().map(|name| format!("asked for {name}")));
        let mut hash = DefaultHasher::new();
        domain.hash(&mut hash);
        Some(Finding {
            detector: &DETECTOR,
            stage: 0,
            agent: flow.agent,
            process: process.cloned(),
            subjects: vec![Subject::Group(hash.finish())],
            remote: flow.remote,
            summary: format!(
                "{} carries data in names below {domain}: {why}",
                who(process)
            ),
            evidence,
            time: now,
            tells_more: false,
        })
    }
}

impl Domain {
    /// Counts a name; whether it is new.
    fn add(&mut self, question: &Question, below: &str, now: u64, limits: &Limits) -> bool {
        self.last = now;
        if now.saturating_sub(self.long.begun) >= limits.slow_window {
            // A tunnel that goes on is told of once in a long window.
            *self = Self {
                last: now,
                ..Self::default()
            };
        }
        let mut hash = DefaultHasher::new();
        (below, question.kind.0).hash(&mut hash);
        if self.names.len() >= MAX_NAMES || !self.names.insert(hash.finish()) {
            return false;
        }
        if self.shown.len() < MAX_SHOWN {
            let name: String = question.name.chars().take(MAX_NAME).collect();
            self.shown.push(format!("{} {name}", question.kind.name()));
        }
        let label = Label::new(below);
        self.long
            .add(&label, question.kind, now, limits.slow_window);
        self.short.add(&label, question.kind, now, limits.window);
        true
    }

    /// Whether it is a tunnel, by which window.
    fn judge(&self, limits: &Limits) -> Option<(&'static str, Sums, u64)> {
        if self.short.nulls >= limits.nulls {
            return Some(("records of type NULL", self.short, limits.window));
        }
        let tiers = [
            (self.short, limits.names, limits.window),
            (self.long, limits.slow_names, limits.slow_window),
        ];
        let (sums, _, window) = tiers
            .into_iter()
            .find(|(sums, names, _)| sums.is_tunnel(*names, limits))?;
        let why = match sums.mean(sums.length as f64) >= limits.length {
            true => "many long ones, none of them twice",
            false => "many of a type that carries data, none of them twice",
        };
        Some((why, sums, window))
    }
}
