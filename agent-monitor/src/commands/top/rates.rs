//! Two samples of the daemon's counters make rates, and one row for each agent.

use std::collections::{BTreeMap, HashMap};

use super::look::Sample;
use crate::api::activity::AgentActivity;
use crate::api::query::AgentPattern;
use crate::api::status::{State, Status};
use crate::event::Severity;

/// What is known of the daemon and its agents, with rates if there was a sample before.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// What the daemon says of itself.
    pub status: Status,
    /// Events a second.
    pub events: Option<f64>,
    /// Lost records a second.
    pub losses: Option<f64>,
    /// Records lost since the daemon started.
    pub lost: u64,
    /// What is not covered, each in words; nothing if coverage is complete.
    pub missing: Vec<String>,
    /// The agents that were chosen.
    pub rows: Vec<Row>,
}

/// One agent.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// As in events.
    pub id: String,
    /// As in events.
    pub name: String,
    /// Path below the cgroup2 mount.
    pub cgroup: String,
    /// `watched`, or `tentative` while its selector is undecided.
    pub state: String,
    /// Whether network and device programs cover it.
    pub covered: bool,
    /// Processes.
    pub processes: u64,
    /// Flows that have not ended.
    pub flows: u64,
    /// Calls of connect() a second.
    pub connects: Option<f64>,
    /// Payload bytes a second from it.
    pub bytes_out: Option<f64>,
    /// The same to it.
    pub bytes_in: Option<f64>,
    /// Incidents by severity.
    pub alerts: BTreeMap<Severity, u64>,
    /// Records of it that were lost.
    pub lost: u64,
    /// Things that it could do unseen.
    pub holes: u64,
}

impl Overview {
    /// What was is known, what is is not.
    pub fn forget_rates(&mut self) {
        self.events = None;
        self.losses = None;
        for row in &mut self.rows {
            row.connects = None;
            row.bytes_out = None;
            row.bytes_in = None;
        }
    }
}

impl Row {
    /// The worst severity of its alerts, and how many have it.
    pub fn worst(&self) -> Option<(Severity, u64)> {
        let mut alerts = self.alerts.iter().rev();
        let worst = alerts.find(|(_, count)| **count > 0);
        worst.map(|(severity, count)| (*severity, *count))
    }
}

/// What there is to show of `now`, of the agents that a pattern matches; of all if there
/// is none. Counters that went back, and an agent that was not there, have no rate.
pub fn compare(before: Option<&Sample>, now: &Sample, agents: &[AgentPattern]) -> Overview {
    // Another daemon counts anew.
    let before = before.filter(|it| it.status.started == now.status.started);
    let since = before.map_or(0, |it| it.activity.boot_ns);
    let span = now.activity.boot_ns.saturating_sub(since);
    let rate = |before: Option<u64>, now: u64| {
        let more = now.checked_sub(before?)?;
        (span > 0).then(|| more as f64 * 1e9 / span as f64)
    };
    let lost = |sample: &Sample| sample.status.counters.losses.values().sum::<u64>();
    let earlier = before.map(|it| &it.activity.agents);
    let earlier = by_id(earlier.map_or(&[], Vec::as_slice));
    let current = by_id(&now.activity.agents);
    let nothing = AgentActivity::default();
    let rows = now.status.agents.iter().filter(|agent| {
        let names = [agent.name.as_str(), agent.id.as_str()];
        agents.is_empty() || agents.iter().any(|pattern| pattern.matches(names))
    });
    let rows = rows.map(|agent| {
        let does = current.get(agent.id.as_str()).copied().unwrap_or(&nothing);
        let did = earlier.get(agent.id.as_str()).copied();
        Row {
            id: agent.id.clone(),
            name: agent.name.clone(),
            cgroup: agent.cgroup.clone(),
            state: agent.state.clone(),
            covered: agent.attached,
            processes: does.processes,
            flows: does.flows,
            connects: rate(did.map(|it| it.connects), does.connects),
            bytes_out: rate(did.map(|it| it.bytes_out), does.bytes_out),
            bytes_in: rate(did.map(|it| it.bytes_in), does.bytes_in),
            alerts: does.alerts.clone(),
            lost: agent.lost,
            holes: does.holes,
        }
    });
    Overview {
        rows: rows.collect(),
        events: rate(before.map(|it| it.activity.events), now.activity.events),
        losses: rate(before.map(lost), lost(now)),
        lost: lost(now),
        missing: missing(now),
        status: now.status.clone(),
    }
}

fn by_id(agents: &[AgentActivity]) -> HashMap<&str, &AgentActivity> {
    agents.iter().map(|it| (it.id.as_str(), it)).collect()
}

/// What keeps coverage from being complete.
fn missing(now: &Sample) -> Vec<String> {
    let status = &now.status;
    let mut missing = Vec::new();
    match status.state {
        State::Attached => {}
        State::Attaching => missing.push("still attaching".to_owned()),
        State::Stopping => missing.push("the daemon is stopping".to_owned()),
    }
    let uncovered = status.agents.iter().filter(|it| !it.attached);
    let uncovered: Vec<_> = uncovered.map(|it| it.name.as_str()).collect();
    match uncovered[..] {
        [] => {}
        [one] => missing.push(format!("network of {one} not covered")),
        [one, ..] => missing.push(format!(
            "network of {} agents not covered, {one} one of them",
            uncovered.len()
        )),
    }
    let losses = status.counters.losses.iter();
    let stages: Vec<_> = losses.filter(|(_, records)| **records > 0).collect();
    if !stages.is_empty() {
        let records: u64 = stages.iter().map(|(_, records)| **records).sum();
        let stages: Vec<_> = stages.iter().map(|(stage, _)| stage.as_str()).collect();
        let records = super::text::count(records, "record");
        missing.push(format!("{records} lost at {}", stages.join(", ")));
    }
    let holes: u64 = now.activity.agents.iter().map(|it| it.holes).sum();
    match holes {
        0 => {}
        1 => missing.push("1 thing could be done unseen (gap event)".to_owned()),
        holes => missing.push(format!("{holes} things could be done unseen (gap events)")),
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::top::fixture::{SECOND, agent, busy, sample};

    #[test]
    fn two_samples_make_rates_of_the_time_between_them() {
        let [before, now] = busy();
        let overview = compare(Some(&before), &now, &[]);
        assert_eq!(overview.events, Some(1_000.0));
        assert_eq!((overview.losses, overview.lost), (Some(37.0), 37));
        let web = &overview.rows[1];
        let rates = (web.connects, web.bytes_out, web.bytes_in);
        assert_eq!(rates, (Some(10.0), Some(1_200_000.0), Some(34_000.0)));
        let mut later = now.clone();
        later.activity.boot_ns += SECOND;
        later.activity.agents[1].connects += 10;
        let overview = compare(Some(&before), &later, &[]);
        assert_eq!(overview.rows[1].connects, Some(10.0), "20 in two seconds");
    }

    #[test]
    fn one_sample_has_no_rates() {
        let [now, _] = busy();
        let overview = compare(None, &now, &[]);
        assert_eq!((overview.events, overview.losses), (None, None));
        assert!(overview.rows.iter().all(|row| row.connects.is_none()));
        assert_eq!(overview.rows[1].flows, 34, "what is no rate is there");
        // Asked twice at the same time: nothing to divide by.
        assert_eq!(compare(Some(&now), &now, &[]).events, None);
    }

    #[test]
    fn a_counter_that_went_back_has_no_rate_and_spoils_no_other() {
        let [before, mut now] = busy();
        now.activity.agents[1].bytes_out = 3;
        let overview = compare(Some(&before), &now, &[]);
        let web = &overview.rows[1];
        assert_eq!((web.bytes_out, web.connects), (None, Some(10.0)));
        assert_eq!(overview.events, Some(1_000.0));
    }

    #[test]
    fn another_daemon_counts_anew() {
        let [before, mut now] = busy();
        now.status.started = "2026-01-31T12:30:00Z".into();
        let overview = compare(Some(&before), &now, &[]);
        assert_eq!((overview.events, overview.rows[1].connects), (None, None));
    }

    #[test]
    fn an_agent_that_appeared_has_no_rate_yet_and_one_that_vanished_no_row() {
        let before = sample(1, &[agent("a"), agent("b")]);
        let now = sample(2, &[agent("b"), agent("c")]);
        let overview = compare(Some(&before), &now, &[]);
        let rows: Vec<_> = overview
            .rows
            .iter()
            .map(|it| (&*it.id, it.connects))
            .collect();
        assert_eq!(rows, [("b", Some(0.0)), ("c", None)]);
    }

    #[test]
    fn agents_are_chosen_by_part_or_glob_of_name_or_id() {
        let now = sample(1, &[agent("web"), agent("db")]);
        for (pattern, expected) in [("web", "web"), ("agent-d*", "db"), ("d?", "db")] {
            let pattern = AgentPattern::parse(pattern).expect("a pattern");
            let overview = compare(None, &now, &[pattern]);
            let rows: Vec<_> = overview.rows.iter().map(|it| &*it.id).collect();
            assert_eq!(rows, [expected]);
        }
    }

    #[test]
    fn what_is_missing_of_coverage_is_named() {
        assert_eq!(
            compare(None, &sample(1, &[agent("a")]), &[]).missing,
            [""; 0]
        );
        let [_, mut now] = busy();
        let expected = [
            "network of agent-miner not covered",
            "37 records lost at quota",
            "1 thing could be done unseen (gap event)",
        ];
        assert_eq!(compare(None, &now, &[]).missing, expected);
        now.status.state = State::Attaching;
        now.status.agents[0].attached = false;
        let missing = compare(None, &now, &[]).missing;
        let expected = "network of 2 agents not covered, agent-idle one of them";
        assert_eq!(missing[..2], ["still attaching", expected]);
    }
}
