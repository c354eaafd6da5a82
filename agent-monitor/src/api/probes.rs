//! `/metrics`, `/livez` and `/readyz` over TCP, for Prometheus and Kubernetes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State as Source;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::metrics;
use super::routes::StatusSource;
use super::status::State;

/// Clients served at once; others wait to be accepted.
const MAX_CLIENTS: usize = 16;
/// Bytes of a request's head.
const MAX_REQUEST: usize = 16 * 1024;
/// How long a connection may last: a scrape takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The daemon looks at its work at least every fraction of a second.
const STUCK: Duration = Duration::from_secs(10);

/// Serves the three on `listener`, for ever.
pub async fn serve(listener: TcpListener, status: StatusSource) {
    let routes = Router::new()
        .route("/metrics", get(scrape))
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .with_state(status);
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: clients that leave give some back.
                tracing::warn!(%error, "cannot accept a client of the metrics");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(routes.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(TIMEOUT)
                .max_buf_size(MAX_REQUEST)
                .serve_connection(TokioIo::new(stream), service);
            // A client that hangs up is no error of ours.
            let _ = tokio::time::timeout(TIMEOUT, connection).await;
            drop(place);
        });
    }
}

/// Answers with the metrics; on the Unix socket, too.
pub(super) async fn scrape(Source(status): Source<StatusSource>) -> Response {
    match metrics::encode(&status()) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Whether the thread that takes records still does.
async fn alive(Source(status): Source<StatusSource>) -> Response {
    match status().seen.map(|seen| seen.elapsed()) {
        Some(age) if age > STUCK => {
            let sentence = format!("nothing was read from the kernel for {} s\n", age.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, sentence).into_response()
        }
        _ => "alive\n".into_response(),
    }
}

/// Whether everything is attached.
async fn ready(Source(status): Source<StatusSource>) -> Response {
    match status().state {
        State::Attached => "ready\n".into_response(),
        state => {
            let sentence = format!("{state:?}\n").to_lowercase();
            (StatusCode::SERVICE_UNAVAILABLE, sentence).into_response()
        }
    }
}
