//! What is asked of the daemon, and what is read of its answers. Whatever an answer
//! lacks reads as empty, so that the two may differ in version.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::api::activity::Activity;
use crate::api::client::{Client, ClientError};
use crate::api::status::Status;
use crate::event::Severity;

/// Alerts that are asked for at once, and flows and processes of an agent: what a
/// person scrolls through.
pub const MOST: usize = 200;
/// How long is waited for alerts, which a store that has many may take long to find.
const PATIENCE: Duration = Duration::from_secs(10);

/// The daemon and its agents at one time.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// What the daemon is.
    pub status: Status,
    /// What agents do.
    pub activity: Activity,
}

/// What one agent has.
#[derive(Clone, Debug, Default)]
pub struct Belongings {
    /// Flows that have not ended, most bytes first.
    pub flows: Vec<Flow>,
    /// Processes by id.
    pub processes: Vec<Process>,
}

/// The body of a `flow` event, as far as it is shown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Flow {
    pub flow: String,
    pub direction: String,
    pub transport: String,
    pub remote: Address,
    pub protocol: String,
    pub server_name: String,
    pub result: String,
    pub bytes_out: u64,
    pub bytes_in: u64,
}

/// An address as events have it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Address {
    pub ip: String,
    pub port: u16,
}

/// A process as events have it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Process {
    pub pid: u32,
    pub uid: Option<u32>,
    pub comm: String,
    pub argv: Vec<String>,
}

/// An `alert` event.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Alert {
    pub time: String,
    pub agent: Named,
    pub process: Process,
    pub alert: AlertBody,
}

/// Whom it is about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Named {
    pub id: String,
    pub name: String,
}

/// What it says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AlertBody {
    pub incident: String,
    pub revision: u32,
    pub rule: String,
    pub severity: Option<Severity>,
    pub confidence: String,
    pub summary: String,
    pub evidence: Vec<String>,
    pub attack: Vec<String>,
    pub count: u64,
    pub first_seen: String,
    pub last_seen: String,
    pub coverage: String,
}

/// Asks what the daemon and its agents do.
///
/// # Errors
/// There is no daemon, it is of an earlier version, or it does not answer.
pub async fn sample(client: &Client) -> Result<Sample, ClientError> {
    let (status, activity) = tokio::try_join!(
        client.get_json("/v1/status"),
        client.get_json("/v1/activity")
    )?;
    Ok(Sample { status, activity })
}

/// Asks for the latest alerts of agents that match a pattern; of all if there is none.
///
/// # Errors
/// As [`sample`].
pub async fn alerts(client: &Client, agents: &[String]) -> Result<Vec<Alert>, ClientError> {
    let path = {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("n", &MOST.to_string());
        query.extend_pairs(agents.iter().map(|agent| ("agent", agent)));
        format!("/v1/alerts?{}", query.finish())
    };
    let answer = async {
        let mut lines = client.stream_lines(&path).await?;
        let mut alerts = Vec::new();
        while let Some(line) = lines.next().await? {
            // A line that is no alert of a known shape is nothing that could be shown.
            alerts.extend(serde_json::from_slice::<Alert>(&line));
            alerts.truncate(MOST);
        }
        Ok(alerts)
    };
    tokio::time::timeout(PATIENCE, answer)
        .await
        .unwrap_or_else(|_| Ok(Vec::new()))
}

/// Asks what an agent has; nothing if it is gone.
///
/// # Errors
/// As [`sample`].
pub async fn belongings(client: &Client, agent: &str) -> Result<Option<Belongings>, ClientError> {
    let (flows, processes) = tokio::try_join!(
        list::<Flow>(client, agent, "flows"),
        list::<Process>(client, agent, "processes")
    )?;
    let (Some(mut flows), Some(processes)) = (flows, processes) else {
        return Ok(None);
    };
    flows.sort_by(|one, other| {
        let moved = |flow: &Flow| flow.bytes_out.saturating_add(flow.bytes_in);
        let order = moved(other).cmp(&moved(one));
        order.then_with(|| one.flow.cmp(&other.flow))
    });
    Ok(Some(Belongings { flows, processes }))
}

async fn list<T: DeserializeOwned>(
    client: &Client,
    agent: &str,
    what: &str,
) -> Result<Option<Vec<T>>, ClientError> {
    let id: String = form_urlencoded::byte_serialize(agent.as_bytes()).collect();
    let path = format!("/v1/agents/{id}/{what}?n={MOST}");
    match client.get_json(&path).await {
        Ok(list) => Ok(Some(list)),
        Err(ClientError::Refused { status, .. }) if status.as_u16() == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// The latest alerts, one of each incident.
#[derive(Debug, Default)]
pub struct Alerts(Vec<Alert>);

impl Alerts {
    /// Takes in what was asked for; a later revision takes the place of an earlier one.
    pub fn merge(&mut self, alerts: Vec<Alert>) {
        let known = std::mem::take(&mut self.0);
        let mut newest: BTreeMap<String, Alert> = BTreeMap::new();
        for alert in known.into_iter().chain(alerts) {
            let newer = newest
                .get(&alert.alert.incident)
                .is_none_or(|known| known.alert.revision <= alert.alert.revision);
            if newer {
                newest.insert(alert.alert.incident.clone(), alert);
            }
        }
        self.0.extend(newest.into_values());
        // Times have nine digits and are UTC: as texts they are in order.
        self.0.sort_by(|one, other| other.time.cmp(&one.time));
        self.0.truncate(MOST);
    }

    /// Those of agents that are `wanted`, newest first.
    pub fn of(&self, wanted: impl Fn(&Named) -> bool) -> Vec<&Alert> {
        self.0.iter().filter(|it| wanted(&it.agent)).collect()
    }
}
