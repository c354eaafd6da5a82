//! Events as the tests of rules write them: the event's JSON, in YAML, with
//! what matters; the rest is left out.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::yaml::{Node, Value};
use crate::event::{AgentChange, Body, Event, Timestamp};

/// Makes an event of a document's part. `number` tells events without a time apart:
/// they are a millisecond after one another.
///
/// # Errors
/// What cannot be read, in words.
pub fn event(node: &Node, number: u64) -> Result<Event, String> {
    let Json::Object(mut members) = json(node) else {
        return Err(format!("an event is a map, not {}", node.what()));
    };
    let mut take = |name: &str| members.remove(name);
    let id = take("id").and_then(|id| id.as_str().map(Arc::from));
    let time = take("time").map(read::<Timestamp>).transpose()?;
    let node_name = take("node").and_then(|node| node.as_str().map(Arc::from));
    let mut agent = take("agent");
    let process = take("process").map(read).transpose()?;
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
        id: id.unwrap_or_else(|| format!("test-{number}").into()),
        time: time.unwrap_or(Timestamp(number * 1_000_000)),
        node: node_name.unwrap_or_else(|| "test".into()),
        agent: agent.map(read).transpose()?.map(Arc::new),
        process,
        body,
    })
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
