//! What each path answers.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures_util::stream;
use serde_json::json;

use super::hub::{Hub, Subscription};
use super::query::EventQuery;
use super::socket::Peer;
use super::status::Status;
use crate::event::Event;
use crate::rules::reload::Loaded;

/// Makes the daemon's status when it is asked for.
pub type StatusSource = Arc<dyn Fn() -> Status + Send + Sync>;

/// Has the daemon read its rules again.
pub type Reload = Arc<dyn Fn() -> Result<Loaded, String> + Send + Sync>;

/// Events that wait are written together up to about this many bytes.
const CHUNK: usize = 64 * 1024;

#[derive(Clone)]
struct Sources {
    hub: Hub,
    status: StatusSource,
    reload: Reload,
}

/// The routes of a client that is admitted.
pub(super) fn admitted(hub: Hub, status: StatusSource, reload: Reload) -> Router {
    Router::new()
        .route("/v1/events", get(events))
        .route("/v1/status", get(self::status))
        .route("/v1/metrics", get(metrics))
        .route("/v1/rules/reload", post(reload_rules))
        .fallback(|| async {
            refusal(
                StatusCode::NOT_FOUND,
                "there are only GET /v1/events, GET /v1/status, GET /v1/metrics and POST /v1/rules/reload",
            )
        })
        .with_state(Sources {
            hub,
            status,
            reload,
        })
}

/// One answer to whatever is asked.
pub(super) fn refused(status: StatusCode, sentence: String) -> Router {
    Router::new().fallback(move || async move { refusal(status, &sentence) })
}

async fn status(State(sources): State<Sources>) -> Json<Status> {
    Json((sources.status)())
}

async fn metrics(State(sources): State<Sources>) -> Response {
    super::probes::scrape(State(sources.status)).await
}

/// Who may read everything may not therefore change what is found: root alone.
async fn reload_rules(
    State(sources): State<Sources>,
    Extension(peer): Extension<Peer>,
) -> Response {
    if peer.uid != 0 {
        let sentence = format!("uid {} may not reload rules: be root", peer.uid);
        return refusal(StatusCode::FORBIDDEN, &sentence);
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

async fn events(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    match EventQuery::parse(&query.unwrap_or_default()) {
        Ok(query) => {
            let lines = stream::unfold(sources.hub.subscribe(query), |mut subscription| async {
                let chunk = next_chunk(&mut subscription).await?;
                Some((Ok::<_, Infallible>(chunk), subscription))
            });
            let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
            (kind, Body::from_stream(lines)).into_response()
        }
        Err(sentence) => refusal(StatusCode::BAD_REQUEST, &sentence),
    }
}

/// Waits for an event and takes what else is there.
async fn next_chunk(subscription: &mut Subscription) -> Option<Bytes> {
    let mut chunk = Vec::new();
    write_line(&mut chunk, &*subscription.recv().await?);
    while chunk.len() < CHUNK
        && let Some(event) = subscription.try_recv()
    {
        write_line(&mut chunk, &event);
    }
    Some(chunk.into())
}

fn write_line(chunk: &mut Vec<u8>, event: &Event) {
    let start = chunk.len();
    match serde_json::to_writer(&mut *chunk, event) {
        Ok(()) => chunk.push(b'\n'),
        Err(error) => {
            chunk.truncate(start);
            tracing::error!(id = %event.id, %error, "an event cannot be written as JSON");
        }
    }
}

fn refusal(status: StatusCode, sentence: &str) -> Response {
    (status, Json(json!({ "error": sentence }))).into_response()
}
