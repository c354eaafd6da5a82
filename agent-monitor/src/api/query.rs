//! Which events a reader asks for: `kind=alert&agent=web-*&since=10m`.

use std::time::Duration;

use globset::{Glob, GlobMatcher};
use serde::Deserialize;

use crate::event::{Body, Event, Severity, Timestamp};
use crate::store::Seq;

/// Names of severities, from the least.
pub const SEVERITIES: [&str; 5] = ["info", "low", "medium", "high", "critical"];

/// The query of `GET /v1/events`.
#[derive(Clone, Debug)]
pub struct EventQuery {
    /// Keep streaming; without it the stream ends with the newest event kept.
    pub follow: bool,
    /// Begin with at most this many past events. When not given: every one that
    /// is kept, but none when following without `since`.
    pub n: Option<usize>,
    /// Begin with the events since then.
    pub since: Option<Timestamp>,
    /// Begin after the stored event with this number, and tell numbers.
    pub after: Option<Seq>,
    /// Only these.
    pub filter: Filter,
}

impl EventQuery {
    /// Reads a URL's query. `kind` and `agent` may be repeated, `kind` also
    /// separated by commas.
    ///
    /// # Errors
    /// A sentence that names the member that is unknown or cannot be read.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self {
            follow: true,
            n: None,
            since: None,
            after: None,
            filter: Filter::default(),
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "follow" => {
                    parsed.follow = value
                        .parse()
                        .map_err(|_| format!("follow={value} is neither true nor false"))?;
                }
                "n" => {
                    parsed.n = Some(
                        value
                            .parse()
                            .map_err(|_| format!("n={value} is not a number"))?,
                    );
                }
                "since" => parsed.since = Some(parse_since(&value)?),
                "after" => {
                    let after = value.parse().ok().filter(|after: &Seq| *after >= 0);
                    parsed.after =
                        Some(after.ok_or_else(|| format!("after={value} is not a number"))?);
                }
                "kind" => parsed.filter.add_kinds(&value)?,
                "agent" => parsed.filter.agents.push(AgentPattern::parse(&value)?),
                "min_severity" => parsed.filter.min_severity = Some(parse_severity(&value)?),
                _ => {
                    return Err(format!(
                        "{name} is not known here; known are follow, n, since, after, kind, agent, min_severity"
                    ));
                }
            }
        }
        if parsed.after.is_some() && (parsed.since.is_some() || parsed.n.is_some()) {
            return Err("after= says where to begin: neither since= nor n= can, too".to_owned());
        }
        Ok(parsed)
    }
}

/// What a filter looks at of a stored event.
#[derive(Deserialize)]
struct Head {
    kind: String,
    agent: Option<AgentHead>,
    alert: Option<AlertHead>,
}

#[derive(Deserialize)]
struct AgentHead {
    #[serde(default)]
    id: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct AlertHead {
    severity: Severity,
}

/// Which events a reader wants. An empty filter wants all of them.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    kinds: Vec<&'static str>,
    agents: Vec<AgentPattern>,
    min_severity: Option<Severity>,
}

impl Filter {
    /// Whether the event is wanted.
    ///
    /// A severity wants alerts only: nothing else has one. A `loss` or `gap`
    /// without an agent concerns every agent, so no agent pattern hides it.
    pub fn matches(&self, event: &Event) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&event.body.kind()))
            && self.matches_severity(&event.body)
            && (self.agents.is_empty() || self.matches_agent(event))
    }

    /// Whether it can want nothing but alerts.
    pub fn wants_alerts_alone(&self) -> bool {
        self.min_severity.is_some() || self.kinds == ["alert"]
    }

    /// As [`Self::matches`], of a stored event's JSON.
    pub fn matches_json(&self, json: &str) -> bool {
        if self.kinds.is_empty() && self.agents.is_empty() && self.min_severity.is_none() {
            return true;
        }
        // What the daemon wrote it can read.
        let Ok(head) = serde_json::from_str::<Head>(json) else {
            return false;
        };
        let severity = head.alert.as_ref().map(|alert| alert.severity);
        let agent = || match &head.agent {
            Some(agent) => {
                let names = [agent.name.as_str(), agent.id.as_str()];
                self.agents.iter().any(|pattern| pattern.matches(names))
            }
            None => matches!(&*head.kind, "loss" | "gap"),
        };
        (self.kinds.is_empty() || self.kinds.contains(&&*head.kind))
            && self
                .min_severity
                .is_none_or(|least| severity.is_some_and(|severity| severity >= least))
            && (self.agents.is_empty() || agent())
    }

    fn matches_severity(&self, body: &Body) -> bool {
        match (self.min_severity, body) {
            (None, _) => true,
            (Some(least), Body::Alert(alert)) => alert.severity >= least,
            (Some(_), _) => false,
        }
    }

    fn matches_agent(&self, event: &Event) -> bool {
        match &event.agent {
            Some(agent) => self
                .agents
                .iter()
                .any(|pattern| pattern.matches([&agent.name, &agent.id])),
            None => matches!(event.body, Body::Loss(_) | Body::Gap(_)),
        }
    }

    fn add_kinds(&mut self, list: &str) -> Result<(), String> {
        for name in list.split(',') {
            let kind = Body::KINDS
                .iter()
                .find(|kind| **kind == name)
                .ok_or_else(|| {
                    format!(
                        "kind={name} is not known; known are {}",
                        Body::KINDS.join(", ")
                    )
                })?;
            self.kinds.push(kind);
        }
        Ok(())
    }
}

/// A pattern for an agent's name or id: a glob when it has one of `*?[{`, else
/// a part of either.
#[derive(Clone, Debug)]
pub(crate) enum AgentPattern {
    Glob(GlobMatcher),
    Part(String),
}

impl AgentPattern {
    pub(crate) fn parse(pattern: &str) -> Result<Self, String> {
        if pattern.contains(['*', '?', '[', '{']) {
            let glob = Glob::new(pattern).map_err(|error| format!("agent={pattern}: {error}"))?;
            Ok(Self::Glob(glob.compile_matcher()))
        } else {
            Ok(Self::Part(pattern.to_owned()))
        }
    }

    /// Whether it matches an agent's name or id.
    pub(crate) fn matches(&self, names: [&str; 2]) -> bool {
        names.into_iter().any(|text| match self {
            Self::Glob(glob) => glob.is_match(text),
            Self::Part(part) => text.contains(part.as_str()),
        })
    }
}

/// Checks an agent's pattern, for the command line.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn check_agent(pattern: &str) -> Result<String, String> {
    AgentPattern::parse(pattern).map(|_| pattern.to_owned())
}

/// Reads a point in time: RFC 3339, or how long ago (`90s`, `10m`, `1h30m`, `2d`).
///
/// # Errors
/// A sentence with examples.
pub fn parse_since(text: &str) -> Result<Timestamp, String> {
    let nanoseconds = match text.parse::<jiff::Timestamp>() {
        Ok(time) => time.as_nanosecond(),
        Err(_) => {
            let ago = parse_duration(text).map_err(|_| {
                format!("{text:?} is neither a time like 2026-01-31T12:00:00Z nor an age like 10m")
            })?;
            jiff::Timestamp::now()
                .as_nanosecond()
                .saturating_sub_unsigned(ago.as_nanos())
        }
    };
    Ok(Timestamp(u64::try_from(nanoseconds).unwrap_or_default()))
}

/// Reads a length of time: `500ms`, `90s`, `10m`, `1h30m`, `2d`.
///
/// # Errors
/// A sentence with examples.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::Span>()
        .and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()))
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| format!("{text:?} is not a length of time like 500ms, 10s or 1h30m"))
}

pub(super) fn parse_severity(name: &str) -> Result<Severity, String> {
    match name {
        "info" => Ok(Severity::Info),
        "low" => Ok(Severity::Low),
        "medium" => Ok(Severity::Medium),
        "high" => Ok(Severity::High),
        "critical" => Ok(Severity::Critical),
        _ => Err(format!(
            "min_severity={name} is not known; known are {}",
            SEVERITIES.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Agent, Cgroup, Loss};

    fn event(agent: Option<(&str, &str)>, body: Body) -> Event {
        let agent = agent.map(|(id, name)| {
            Agent {
                id: id.into(),
                name: name.into(),
                ..Agent::default()
            }
            .into()
        });
        Event {
            id: "1".into(),
            time: Timestamp(1),
            node: "n".into(),
            agent,
            process: None,
            body,
        }
    }

    fn cgroup() -> Body {
        Body::Cgroup(Cgroup {
            action: "created",
            path: "/a".into(),
        })
    }

    fn wants(query: &str, event: &Event) -> bool {
        let filter = EventQuery::parse(query).expect(query).filter;
        let wanted = filter.matches(event);
        let json = serde_json::to_string(event).expect("an event is JSON");
        assert_eq!(filter.matches_json(&json), wanted, "{query} of {json}");
        wanted
    }

    #[test]
    fn kinds_are_repeated_or_separated_by_commas() {
        let event = event(None, cgroup());
        assert!(wants("", &event));
        assert!(wants("kind=exec,cgroup", &event));
        assert!(wants("kind=exec&kind=cgroup", &event));
        assert!(!wants("kind=exec", &event));
    }

    #[test]
    fn agents_match_by_part_or_glob_of_name_or_id() {
        let event = event(Some(("3f2a9c", "web-agent")), cgroup());
        for pattern in ["web", "3f2a", "web-*", "*9c", "we?-agent"] {
            assert!(wants(&format!("agent={pattern}"), &event), "{pattern}");
        }
        for pattern in ["db", "agent-*", "eb*"] {
            assert!(!wants(&format!("agent={pattern}"), &event), "{pattern}");
        }
        assert!(wants("agent=db&agent=web", &event));
    }

    #[test]
    fn what_concerns_every_agent_is_not_hidden_by_an_agent_pattern() {
        let loss = Loss {
            stage: crate::loss::Stage::Ring,
            records: 1,
            kinds: Default::default(),
        };
        assert!(wants("agent=web", &event(None, Body::Loss(loss))));
        assert!(!wants("agent=web", &event(None, cgroup())));
    }

    #[test]
    fn a_severity_wants_alerts_only() {
        assert!(!wants("min_severity=info", &event(None, cgroup())));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for query in [
            "kind=nope",
            "since=yesterdayish",
            "n=-1",
            "after=-1",
            "follow=1",
            "min_severity=bad",
        ] {
            let error = EventQuery::parse(query).expect_err(query);
            let value = query.split('=').nth(1).expect("queries here have a value");
            assert!(error.contains(value), "{error}");
        }
        assert!(EventQuery::parse("agent=[").is_err());
        assert!(EventQuery::parse("color=red").is_err_and(|error| error.contains("color")));
    }

    #[test]
    fn since_is_a_time_or_an_age() {
        assert_eq!(
            parse_since("1970-01-01T00:00:01Z"),
            Ok(Timestamp(1_000_000_000))
        );
        let since = parse_since("1h30m").expect("an age").0;
        let seconds_ago = (Timestamp::now().0 - since) / 1_000_000_000;
        assert!((5400..5460).contains(&seconds_ago), "{seconds_ago}");
        assert_eq!(parse_since("1900-01-01T00:00:00Z"), Ok(Timestamp(0)));
        assert_eq!(parse_duration("2d"), Ok(Duration::from_secs(172_800)));
        assert!(parse_duration("-5s").is_err());
    }
}
