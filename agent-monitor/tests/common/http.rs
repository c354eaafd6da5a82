//! A receiver of HTTP on loopback that answers as a test says, and a store with a sink.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_monitor::config::SinkConfig;
use agent_monitor::sinks::{SinkStatus, Sinks};
use agent_monitor::store::Store;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::{alert, wait_for};

/// How long a delivery may take.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A request as a receiver saw it.
#[derive(Clone)]
pub struct Request {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap_or("not ASCII"))
    }

    pub fn lines(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.body).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

type Answer = Box<dyn Fn(usize, &Request) -> Response + Send + Sync>;

/// A receiver on loopback; `answer` gets how many requests came before.
pub struct Receiver {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    _runtime: Runtime,
}

#[derive(Clone)]
struct Shared {
    requests: Arc<Mutex<Vec<Request>>>,
    answer: Arc<Answer>,
}

impl Receiver {
    pub fn start(answer: impl Fn(usize, &Request) -> Response + Send + Sync + 'static) -> Self {
        let runtime = Runtime::new().unwrap();
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let shared = Shared {
            requests: Arc::clone(&requests),
            answer: Arc::new(Box::new(answer)),
        };
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().fallback(receive).with_state(shared);
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Self {
            address,
            requests,
            _runtime: runtime,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

async fn receive(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = Request {
        path: uri.path().to_owned(),
        headers,
        body,
    };
    let before = {
        let mut requests = shared.requests.lock().unwrap();
        requests.push(request.clone());
        requests.len() - 1
    };
    (shared.answer)(before, &request)
}

pub fn answer(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, axum::Json(body.clone())).into_response()
}

/// A sink's configuration from its TOML, its name aside; `$` stands for a secret's file,
/// which is made in the folder.
pub fn config(folder: &Path, sink: &str) -> SinkConfig {
    let secret = folder.join("secret");
    std::fs::write(&secret, "s3cret\n").unwrap();
    let secret = format!("{{ file = \"{}\" }}", secret.display());
    let text = format!("name = \"siem\"\n{}", sink.replace('$', &secret));
    toml::from_str(&text).unwrap()
}

/// A store with one sink.
pub struct Monitor {
    pub store: Store,
    pub sinks: Arc<Sinks>,
    stop: watch::Sender<bool>,
    runtime: Runtime,
    folder: tempfile::TempDir,
    pub config: SinkConfig,
}

impl Monitor {
    /// `sink` is as [`config`] takes it.
    pub fn start(sink: &str, alerts: std::ops::RangeInclusive<u64>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), sink);
        let runtime = Runtime::new().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        for n in alerts {
            store.append(&alert(n)).unwrap();
        }
        let (stop, stopped) = watch::channel(false);
        let sinks = {
            let _entered = runtime.enter();
            Sinks::start(std::slice::from_ref(&config), &store, &stopped)
        };
        Self {
            store,
            sinks,
            stop,
            runtime,
            folder,
            config,
        }
    }

    pub fn status(&self) -> SinkStatus {
        self.sinks.statuses().pop().unwrap()
    }

    pub fn wait_until_delivered(&self) {
        wait_for("all delivered", LIMIT, || {
            (self.status().lag == 0).then_some(())
        });
    }

    pub fn stop(self) -> tempfile::TempDir {
        self.stop.send_replace(true);
        self.runtime.block_on(self.sinks.join()).unwrap();
        drop(self.store);
        self.folder
    }
}
