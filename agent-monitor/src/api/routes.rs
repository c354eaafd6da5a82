//! What each path answers.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures_util::stream;
use serde_json::json;

use super::agents::{About, Answer, Asker, Of, ask};
use super::alerts::AlertQuery;
use super::hub::Hub;
use super::query::EventQuery;
use super::reading::Reading;
use super::socket::Peer;
use super::status::{AgentStatus, Status};
use crate::rules::reload::Loaded;
use crate::sinks::{Order, Sinks};
use crate::store::Store;
use crate::store::recorder::Events;

/// Makes the daemon's status when it is asked for.
pub type StatusSource = Arc<dyn Fn() -> Status + Send + Sync>;

/// Has the daemon read its rules again.
pub type Reload = Arc<dyn Fn() -> Result<Loaded, String> + Send + Sync>;

const NDJSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/x-ndjson");

/// What answers are made of.
#[derive(Clone)]
pub struct Sources {
    /// Events.
    pub hub: Hub,
    /// The status.
    pub status: StatusSource,
    /// Reads rules again.
    pub reload: Reload,
    /// Alerts, and the events that are stored.
    pub store: Store,
    /// Which those are.
    pub events: Events,
    /// Asks the main thread.
    pub asker: Asker,
    /// Takes orders.
    pub sinks: Arc<Sinks>,
}

/// The routes of a client that is admitted.
pub(super) fn admitted(sources: Sources) -> Router {
    Router::new()
        .route("/v1/events", get(events))
        .route("/v1/alerts", get(alerts))
        .route("/v1/status", get(status))
        .route("/v1/activity", get(activity))
        .route("/v1/agents", get(agents))
        .route("/v1/agents/{id}/processes", get(processes))
        .route("/v1/agents/{id}/flows", get(flows))
        .route("/v1/metrics", get(metrics))
        .route("/v1/rules/reload", post(reload_rules))
        .route("/v1/sinks/{name}/{order}", post(order_sink))
        .fallback(|| async {
            refusal(
                StatusCode::NOT_FOUND,
                "there are only GET /v1/events, /v1/alerts, /v1/status, /v1/metrics, /v1/activity, \
                 /v1/agents, /v1/agents/ID/processes, /v1/agents/ID/flows and POST \
                 /v1/rules/reload, /v1/sinks/NAME/retry, /v1/sinks/NAME/drop-dead-letters",
            )
        })
        .with_state(sources)
}

/// One answer to whatever is asked.
pub(super) fn refused(status: StatusCode, sentence: String) -> Router {
    Router::new().fallback(move || async move { refusal(status, &sentence) })
}

async fn status(State(sources): State<Sources>) -> Json<Status> {
    Json((sources.status)())
}

async fn agents(State(sources): State<Sources>) -> Json<Vec<AgentStatus>> {
    Json((sources.status)().agents)
}

async fn activity(State(sources): State<Sources>) -> Response {
    answer(&sources, About::Activity).await
}

async fn processes(
    State(sources): State<Sources>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    of_agent(&sources, id, query, About::Processes).await
}

async fn flows(
    State(sources): State<Sources>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    of_agent(&sources, id, query, About::Flows).await
}

async fn of_agent(
    sources: &Sources,
    agent: String,
    query: Option<String>,
    about: fn(Of) -> About,
) -> Response {
    match most(&query.unwrap_or_default()) {
        Ok(most) => answer(sources, about(Of { agent, most })).await,
        Err(sentence) => refusal(StatusCode::BAD_REQUEST, &sentence),
    }
}

/// How many are asked for: all, unless the query says `n`.
fn most(query: &str) -> Result<usize, String> {
    let mut most = usize::MAX;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "n" => {
                let n = value.parse();
                most = n.map_err(|_| format!("n={value} is not a number"))?;
            }
            _ => return Err(format!("{name} is not known here; known is n")),
        }
    }
    Ok(most)
}

async fn answer(sources: &Sources, about: About) -> Response {
    match ask(&sources.asker, about).await {
        Ok(Some(Answer::Processes(processes))) => Json(processes).into_response(),
        Ok(Some(Answer::Flows(flows))) => Json(flows).into_response(),
        Ok(Some(Answer::Activity(activity))) => Json(activity).into_response(),
        Ok(None) => {
            let sentence = "there is no agent with this id: see /v1/agents";
            refusal(StatusCode::NOT_FOUND, sentence)
        }
        Err(sentence) => refusal(StatusCode::SERVICE_UNAVAILABLE, sentence),
    }
}

async fn metrics(State(sources): State<Sources>) -> Response {
    super::probes::scrape(State(sources.status)).await
}

/// Who may read everything may not therefore change what is found: root alone.
async fn reload_rules(
    State(sources): State<Sources>,
    Extension(peer): Extension<Peer>,
) -> Response {
    if let Some(refused) = not_root(peer, "reload rules") {
        return refused;
    }
    let reload = sources.reload.clone();
    match tokio::task::spawn_blocking(move || reload()).await {
        Ok(Ok(loaded)) => Json(loaded).into_response(),
        Ok(Err(problems)) => {
            let sentence = format!("the rules cannot be used, the old ones stay:\n{problems}");
            refusal(StatusCode::UNPROCESSABLE_ENTITY, &sentence)
        }
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn not_root(peer: Peer, to: &str) -> Option<Response> {
    let sentence = || format!("uid {} may not {to}: be root", peer.uid);
    (peer.uid != 0).then(|| refusal(StatusCode::FORBIDDEN, &sentence()))
}

async fn order_sink(
    State(sources): State<Sources>,
    Extension(peer): Extension<Peer>,
    Path((name, order)): Path<(String, String)>,
) -> Response {
    let order = match order.as_str() {
        "retry" => Order::Retry,
        "drop-dead-letters" => Order::Drop,
        _ => {
            let sentence = "a sink can be told to `retry` or to `drop-dead-letters`";
            return refusal(StatusCode::NOT_FOUND, sentence);
        }
    };
    if let Some(refused) = not_root(peer, "give orders to sinks") {
        return refused;
    }
    match sources.sinks.order(&name, order).await {
        Some(Ok(done)) => Json(done).into_response(),
        Some(Err(error)) => refusal(StatusCode::BAD_GATEWAY, &error),
        None => {
            let sentence = format!("there is no sink {name:?} in the configuration");
            refusal(StatusCode::NOT_FOUND, &sentence)
        }
    }
}

async fn alerts(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    let query = match AlertQuery::parse(&query.unwrap_or_default()) {
        Ok(query) => query,
        Err(sentence) => return refusal(StatusCode::BAD_REQUEST, &sentence),
    };
    let store = sources.store;
    match tokio::task::spawn_blocking(move || query.read(&store)).await {
        Ok(Ok(lines)) => ([NDJSON], lines).into_response(),
        Ok(Err(error)) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn events(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    match EventQuery::parse(&query.unwrap_or_default()) {
        Ok(query) => {
            let Sources {
                store, hub, events, ..
            } = sources;
            let reading = Reading::new(store, hub, events, query);
            let lines = stream::unfold(reading, |mut reading| async {
                let chunk = reading.next_chunk().await?;
                Some((Ok::<_, Infallible>(chunk), reading))
            });
            ([NDJSON], Body::from_stream(lines)).into_response()
        }
        Err(sentence) => refusal(StatusCode::BAD_REQUEST, &sentence),
    }
}

fn refusal(status: StatusCode, sentence: &str) -> Response {
    (status, Json(json!({ "error": sentence }))).into_response()
}
