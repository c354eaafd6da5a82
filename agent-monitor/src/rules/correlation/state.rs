//! What a correlation has seen, by group, bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{Correlation, Kind, MAX_RULES, group, hash};
use crate::event::Event;

/// Groups that one correlation follows; those that were quiet longest go first.
const MAX_GROUPS: usize = 4_096;
/// Matches that the groups of one correlation remember together.
const MAX_SEEN: usize = 65_536;
/// Events that an alert names.
const MAX_EVENTS: usize = 32;

/// What became true.
#[derive(Clone, Debug, PartialEq)]
pub struct Fired {
    /// The group, as a number that is the same each time.
    pub group: u64,
    /// The group's values for a person; empty without `group-by`.
    pub shown: String,
    /// How many matches or values it took.
    pub count: usize,
    /// The events that show it, the last ones if they are many.
    pub events: Vec<Arc<str>>,
}

/// What one correlation has seen.
#[derive(Debug, Default)]
pub struct State {
    groups: HashMap<u64, Group>,
    seen: usize,
    /// Matches that were forgotten because there were too many.
    pub forgotten: u64,
}

#[derive(Debug, Default)]
struct Group {
    last: u64,
    seen: VecDeque<Match>,
}

#[derive(Clone, Debug)]
struct Match {
    time: u64,
    /// Place of the rule, or a value as a number.
    what: u64,
    event: Arc<str>,
}

impl State {
    /// Takes a match of the correlation's rule at `place`.
    pub fn take(&mut self, of: &Correlation, place: usize, event: &Event) -> Option<Fired> {
        let (key, shown) = group(&of.groups[place], event);
        let mut whats = Vec::new();
        match of.values.get(place) {
            Some(field) => {
                field.see(event, &mut |value| {
                    whats.push(hash(&value.to_string()));
                    whats.len() >= MAX_EVENTS
                });
            }
            None => whats.push(place as u64),
        }
        let time = event.time.0;
        let since = time.saturating_sub(of.span_ns);
        let mut fired = None;
        for what in whats {
            let group = self.groups.entry(key).or_default();
            let before = group.seen.len();
            group.last = time;
            // In the order of their times, save for events that came a little late.
            while group.seen.front().is_some_and(|it| it.time < since) {
                group.seen.pop_front();
            }
            let next = Match {
                time,
                what,
                event: event.id.clone(),
            };
            let found = group.add(of, next);
            self.seen = (self.seen + group.seen.len()) - before;
            fired = fired.or(found.map(|(count, events)| Fired {
                group: key,
                shown: shown.clone(),
                count,
                // A finding need not have an event.
                events: events.into_iter().filter(|id| !id.is_empty()).collect(),
            }));
        }
        if self.groups.len() > MAX_GROUPS || self.seen > MAX_SEEN {
            self.forget(since);
        }
        fired
    }

    /// Makes room: first what is too old, then the quieter half.
    fn forget(&mut self, since: u64) {
        self.groups.retain(|_, group| group.last >= since);
        if self.groups.len() > MAX_GROUPS / 2 || self.sum() > MAX_SEEN / 2 {
            let mut lasts: Vec<u64> = self.groups.values().map(|group| group.last).collect();
            let middle = lasts.len() / 2;
            let (_, middle, _) = lasts.select_nth_unstable(middle);
            let middle = *middle;
            let before = self.sum();
            self.groups.retain(|_, group| group.last > middle);
            self.forgotten += (before - self.sum()) as u64;
        }
        self.seen = self.sum();
    }

    fn sum(&self) -> usize {
        self.groups.values().map(|group| group.seen.len()).sum()
    }
}

impl Group {
    /// Adds a match; gives how many there are and their events if it is enough,
    /// and begins anew.
    fn add(&mut self, of: &Correlation, next: Match) -> Option<(usize, Vec<Arc<str>>)> {
        match of.kind {
            Kind::EventCount => {
                self.seen.push_back(next);
                self.done(self.seen.len() as u64 >= of.least)
            }
            Kind::ValueCount => {
                self.seen.retain(|it| it.what != next.what);
                self.seen.push_back(next);
                self.done(self.seen.len() as u64 >= of.least)
            }
            Kind::Temporal => {
                self.seen.retain(|it| it.what != next.what);
                self.seen.push_back(next);
                self.done(self.seen.len() == of.rules.len())
            }
            Kind::TemporalOrdered => {
                let last = next.what + 1 == of.rules.len() as u64;
                if self.seen.len() >= 2 * MAX_RULES {
                    // The earliest of the rule that came most is needed least.
                    self.thin();
                }
                self.seen.push_back(next);
                let chain = last.then(|| self.chain(of.rules.len() as u64)).flatten();
                let events = chain?;
                self.seen.clear();
                Some((events.len(), events))
            }
        }
    }

    /// From the last rule back: of each rule the latest match before the next's.
    fn chain(&self, rules: u64) -> Option<Vec<Arc<str>>> {
        let mut wanted = rules;
        let mut events = Vec::new();
        for seen in self.seen.iter().rev() {
            if wanted > 0 && seen.what == wanted - 1 {
                events.push(seen.event.clone());
                wanted -= 1;
            }
        }
        events.reverse();
        (wanted == 0).then_some(events)
    }

    /// Drops the earliest match of the rule that has most.
    fn thin(&mut self) {
        let mut counts: HashMap<u64, usize> = HashMap::new();
        for seen in &self.seen {
            *counts.entry(seen.what).or_default() += 1;
        }
        let most = counts
            .into_iter()
            .max_by_key(|(what, count)| (*count, *what));
        if let Some((what, _)) = most
            && let Some(place) = self.seen.iter().position(|it| it.what == what)
        {
            self.seen.remove(place);
        }
    }

    fn done(&mut self, done: bool) -> Option<(usize, Vec<Arc<str>>)> {
        if !done {
            return None;
        }
        let count = self.seen.len();
        let from = count.saturating_sub(MAX_EVENTS);
        let events = self.seen.iter().skip(from).map(|it| it.event.clone());
        let events = events.collect();
        self.seen.clear();
        Some((count, events))
    }
}
