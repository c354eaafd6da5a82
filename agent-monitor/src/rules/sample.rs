//! Events as the tests of rules write them: the event's JSON, in YAML, with
//! what matters; the rest is left out.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::yaml::{Node, Value};
use crate::detect::{DETECTORS, Detector, Finding};
use crate::event::{Agent, AgentChange, Body, Event, Process, Timestamp};

/// What every event has.
struct Common {
    id: Arc<str>,
    time: Timestamp,
    node: Arc<str>,
    /// Of an `agent` event, with its body.
    agent: Option<Json>,
    process: Option<Arc<Process>>,
}

impl Common {
    fn take(members: &mut Map<String, Json>, number: u64) -> Result<Self, String> {
        let mut take = |name: &str| members.remove(name);
        let text = |value: Json| value.as_str().map(Arc::from);
        Ok(Self {
            id: take("id")
                .and_then(text)
                .unwrap_or_else(|| format!("test-{number}").into()),
            time: take("time")
                .map(read)
                .transpose()?
                .unwrap_or(Timestamp(number * 1_000_000)),
            node: take("node").and_then(text).unwrap_or_else(|| "test".into()),
            agent: take("agent"),
            process: take("process").map(read).transpose()?,
        })
    }
}

fn members(node: &Node) -> Result<Map<String, Json>, String> {
    match json(node) {
        Json::Object(members) => Ok(members),
        _ => Err(format!("an event is a map, not {}", node.what())),
    }
}

/// Makes an event of a document's part. `number` tells events without a time apart:
/// they are a millisecond after one another.
///
/// # Errors
/// What cannot be read, in words.
pub fn event(node: &Node, number: u64) -> Result<Event, String> {
    let mut members = members(node)?;
    let Common {
        id,
        time,
        node,
        mut agent,
        process,
    } = Common::take(&mut members, number)?;
    let state = agent
        .as_mut()
        .and_then(Json::as_object_mut)
        .and_then(|agent| agent.remove("state"));
    let mut bodies = members.into_iter();
    let body = match (state, bodies.next(), bodies.next()) {
        (Some(state), None, _) => Body::Agent(AgentChange {
            state: read(state)?,
        }),
        (None, Some((kind, value)), None) => body(&kind, value)?,
        (None, None, _) => return Err("an event needs a body, such as `exec: {…}`".to_owned()),
        (_, Some((one, _)), _) => {
            return Err(format!(
                "an event has one body, and nothing else: not also `{one}`"
            ));
        }
    };
    Ok(Event {
        id,
        time,
        node,
        agent: agent.map(read).transpose()?.map(Arc::new),
        process,
        body,
    })
}

/// A finding, with what [`super::engine::Found`] asks besides.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What was found.
    pub finding: Finding,
    /// When.
    pub time: Timestamp,
    /// On which node.
    pub node: Arc<str>,
    /// The agent.
    pub agent: Option<Arc<Agent>>,
    /// Of the event behind it.
    pub id: Arc<str>,
    /// The other end's name.
    pub name: Option<Arc<str>>,
}

/// A finding of nobody's, for whom only its stage counts.
pub fn nobody(detector: &'static Detector) -> Sample {
    let common = Common {
        id: "test-0".into(),
        time: Timestamp(0),
        node: "test".into(),
        agent: None,
        process: None,
    };
    sample(detector, 0, common, None)
}

/// A finding about `{agent: …, process: …, remote: {ip: …, port: …}, name: …}`.
///
/// # Errors
/// What cannot be read, in words.
pub fn about(detector: &'static Detector, node: &Node) -> Result<Sample, String> {
    let mut members = members(node)?;
    let mut common = Common::take(&mut members, 0)?;
    let agent = common.agent.take().map(read).transpose()?.map(Arc::new);
    let mut made = sample(detector, 0, common, agent);
    made.finding.remote = members.remove("remote").map(read).transpose()?;
    made.name = members.remove("name").map(read).transpose()?;
    match members.keys().next() {
        Some(other) => Err(format!("a finding is about no `{}`", other.escape_debug())),
        None => Ok(made),
    }
}

fn sample(
    detector: &'static Detector,
    stage: usize,
    common: Common,
    agent: Option<Arc<Agent>>,
) -> Sample {
    Sample {
        finding: Finding {
            detector,
            stage,
            agent: 0,
            process: common.process,
            subjects: Vec::new(),
            remote: None,
            summary: String::new(),
            evidence: Vec::new(),
            time: common.time.0,
            tells_more: false,
        },
        time: common.time,
        node: common.node,
        agent,
        id: common.id,
        name: None,
    }
}

/// Makes a finding of a document's part, `{finding: DETECTOR, stage: NAME, …}` with
/// what every event has.
///
/// # Errors
/// What cannot be read, in words.
pub fn finding(node: &Node, number: u64) -> Result<Sample, String> {
    let mut members = members(node)?;
    let mut common = Common::take(&mut members, number)?;
    let mut word = |name: &str| {
        let word = members.remove(name);
        let word = word.as_ref().and_then(Json::as_str).map(str::to_owned);
        word.ok_or_else(|| format!("a finding names its `{name}`"))
    };
    let (name, stage) = (word("finding")?, word("stage")?);
    let remote = members.remove("remote").map(read).transpose()?;
    let other_end = members.remove("name").map(read).transpose()?;
    if let Some(other) = members.keys().next() {
        return Err(format!("a finding has no `{}`", other.escape_debug()));
    }
    let detector = DETECTORS.iter().find(|detector| detector.name == name);
    let detector = detector.ok_or_else(|| format!("there is no detector `{name}`"))?;
    let place = detector.stages.iter().position(|it| *it == stage);
    let place = place.ok_or_else(|| format!("the detector has no stage `{stage}`"))?;
    let agent = common.agent.take().map(read).transpose()?.map(Arc::new);
    let mut made = sample(detector, place, common, agent);
    (made.finding.remote, made.name) = (remote, other_end);
    Ok(made)
}

fn body(kind: &str, value: Json) -> Result<Body, String> {
    Ok(match kind {
        "exec" => Body::Exec(read(value)?),
        "exit" => Body::Exit(read(value)?),
        "connect" => Body::Connect(read(value)?),
        "accept" => Body::Accept(read(value)?),
        "send" => Body::Send(read(value)?),
        "socket" => Body::Socket(read(value)?),
        "bind" => Body::Bind(read(value)?),
        "listen" => Body::Listen(read(value)?),
        "dns" => Body::Dns(read(value)?),
        "flow" => Body::Flow(read(value)?),
        "device" => Body::Device(read(value)?),
        "sysctl" => Body::Sysctl(read(value)?),
        "cgroup" => Body::Cgroup(read(value)?),
        "loss" => Body::Loss(read(value)?),
        "gap" => Body::Gap(read(value)?),
        _ => return Err(format!("there are no `{}` events", kind.escape_debug())),
    })
}

fn read<T: DeserializeOwned>(value: Json) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// YAML's core schema: what is written without quotes may be a number, a
/// boolean or nothing.
fn json(node: &Node) -> Json {
    match &node.value {
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(members) => {
            let members = members
                .iter()
                .map(|(key, value)| (key.text().unwrap_or_default().to_owned(), json(value)));
            Json::Object(members.collect::<Map<_, _>>())
        }
        Value::Scalar { .. } if node.is_null() => Json::Null,
        Value::Scalar { text, plain: true } => match text.as_str() {
            "true" => Json::Bool(true),
            "false" => Json::Bool(false),
            number => match number.parse::<i64>() {
                Ok(number) => number.into(),
                Err(_) => text.as_str().into(),
            },
        },
        Value::Scalar { text, .. } => text.as_str().into(),
    }
}
