//! Talks to the daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// The longest line that is read from a stream: far above any event, whose
/// argv, paths and evidence are all capped.
pub const MAX_LINE: usize = 1024 * 1024;
/// The longest JSON answer.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// The daemon must answer within this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no agent-monitor listens on {}: start it with `agent-monitor run`", .0.display())]
    NotRunning(PathBuf),
    /// The socket's mode keeps this user out.
    #[error("permission denied on {}: be root or a member of the socket's group", .0.display())]
    Denied(PathBuf),
    /// The socket cannot be connected to.
    #[error("cannot connect to {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The daemon says no, in its own words.
    #[error("agent-monitor answers {}: {sentence}", status.as_u16())]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// Why.
        sentence: String,
    },
    /// The daemon is stuck.
    #[error("agent-monitor does not answer on {} within {} s", .0.display(), ANSWER_TIMEOUT.as_secs())]
    TimedOut(PathBuf),
    /// The connection broke.
    #[error("the connection to agent-monitor broke: {0}")]
    Broken(#[from] hyper::Error),
    /// Whatever listens there, it is not this program.
    #[error("{} does not answer like agent-monitor: {reason}", path.display())]
    NotUs {
        /// The socket.
        path: PathBuf,
        /// What was wrong.
        reason: String,
    },
}

/// A client of the daemon on one socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client for the daemon on this socket. Nothing is connected yet.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Asks for one JSON answer.
    ///
    /// # Errors
    /// When there is no daemon, it refuses, or its answer cannot be read.
    pub async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = async {
            let response = self.get(path).await?;
            let body = self.collect(response.into_body()).await?;
            serde_json::from_slice(&body).map_err(|error| self.not_us(error.to_string()))
        };
        tokio::time::timeout(ANSWER_TIMEOUT, answer)
            .await
            .unwrap_or_else(|_| Err(ClientError::TimedOut(self.socket.clone())))
    }

    /// Has something done, and waits for as long as it takes.
    ///
    /// # Errors
    /// When there is no daemon, it refuses, or its answer cannot be read.
    pub async fn post_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(Method::POST, path).await?;
        let body = self.collect(response.into_body()).await?;
        serde_json::from_slice(&body).map_err(|error| self.not_us(error.to_string()))
    }

    /// Opens a stream of lines.
    ///
    /// # Errors
    /// When there is no daemon or it refuses.
    pub async fn stream_lines(&self, path: &str) -> Result<Lines, ClientError> {
        let response = tokio::time::timeout(ANSWER_TIMEOUT, self.get(path))
            .await
            .unwrap_or_else(|_| Err(ClientError::TimedOut(self.socket.clone())))?;
        Ok(Lines {
            client: self.clone(),
            body: response.into_body(),
            buffer: BytesMut::new(),
            searched: 0,
        })
    }

    async fn get(&self, path: &str) -> Result<Response<Incoming>, ClientError> {
        self.send(Method::GET, path).await
    }

    async fn send(&self, method: Method, path: &str) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            let path = self.socket.clone();
            match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning(path)
                }
                io::ErrorKind::PermissionDenied => ClientError::Denied(path),
                _ => ClientError::Connect { path, source },
            }
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the response's body; its errors show there.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "agent-monitor")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.not_us(error.to_string()))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.collect(response.into_body()).await?;
        let sentence = match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => refusal.error,
            Err(_) => String::from_utf8_lossy(&body).into_owned(),
        };
        Err(ClientError::Refused { status, sentence })
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, ClientError> {
        match Limited::new(body, MAX_ANSWER).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(self.not_us(error.to_string())),
        }
    }

    fn not_us(&self, reason: String) -> ClientError {
        ClientError::NotUs {
            path: self.socket.clone(),
            reason,
        }
    }
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// A stream of lines from the daemon.
#[derive(Debug)]
pub struct Lines {
    client: Client,
    body: Incoming,
    buffer: BytesMut,
    /// Bytes of `buffer` that hold no line's end.
    searched: usize,
}

impl Lines {
    /// The next line, without its end, or nothing once the daemon ended the
    /// stream. May be cancelled without losing a line.
    ///
    /// # Errors
    /// When the connection broke, or a line is longer than [`MAX_LINE`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(line) = self.buffered() {
                return Ok(Some(line));
            }
            if self.buffer.len() > MAX_LINE {
                let reason = format!("a line is longer than {MAX_LINE} bytes");
                return Err(self.client.not_us(reason));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    /// The next line if all of it is here already.
    pub fn buffered(&mut self) -> Option<Bytes> {
        let Some(end) = memchr::memchr(b'\n', &self.buffer[self.searched..]) else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + end).freeze();
        self.buffer.advance(1);
        self.searched = 0;
        Some(line)
    }
}
