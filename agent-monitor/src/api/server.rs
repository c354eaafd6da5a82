//! Accepts clients and serves them until told to stop.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use super::routes::{Sources, admitted, refused};
use super::socket::Socket;

/// Clients served at once.
pub const MAX_CLIENTS: usize = 64;
/// Clients told at once that they are not served; more are hung up on.
const MAX_REFUSED: usize = 16;
/// Bytes of a request's head.
const MAX_REQUEST: usize = 16 * 1024;
/// A request's head must be there within this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Clients have this long to take what was still written for them.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves on the socket until `stop`. Then the socket's file is removed, the hub
/// closed, and streams end with what they have.
pub async fn serve(socket: Socket, sources: Sources, stop: impl Future<Output = ()>) {
    let hub = sources.hub.clone();
    let routes = admitted(sources);
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSED));
    let connections = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = socket.listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: clients that leave give some back.
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let answer = socket
            .admit(&stream)
            .map_err(|sentence| (StatusCode::FORBIDDEN, sentence));
        let answer = answer.and_then(|peer| {
            let place = Arc::clone(&places).try_acquire_owned();
            place.map(|place| (peer, place)).map_err(|_| {
                let sentence = format!("{MAX_CLIENTS} clients are served already; try later");
                (StatusCode::SERVICE_UNAVAILABLE, sentence)
            })
        });
        match answer {
            Ok((peer, place)) => {
                let connection = connection(stream, routes.clone().layer(Extension(peer)));
                let connection = connections.watch(connection);
                tokio::spawn(async move {
                    // A client that hangs up is no error of ours.
                    let _ = connection.await;
                    drop(place);
                });
            }
            Err((code, sentence)) => {
                if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
                    let connection = connection(stream, refused(code, sentence));
                    tokio::spawn(async move {
                        let _ = tokio::time::timeout(REQUEST_TIMEOUT, connection).await;
                        drop(place);
                    });
                }
            }
        }
    }
    drop(socket);
    hub.close();
    if tokio::time::timeout(STOP_TIMEOUT, connections.shutdown())
        .await
        .is_err()
    {
        tracing::info!("clients that do not read were hung up on");
    }
}

type Connection = http1::Connection<TokioIo<UnixStream>, TowerToHyperService<Router>>;

fn connection(stream: UnixStream, routes: Router) -> Connection {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(MAX_REQUEST)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
}
