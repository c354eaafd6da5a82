//! `[[sink]]`: where alerts go.

use std::num::NonZeroU32;
use std::path::PathBuf;

use globset::Glob;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Size, Span};
use crate::event::{Body, Severity};

/// A `[[sink]]`. Its `name` is what its cursor is kept under: a renamed sink is
/// a new one and gets every alert that is still stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum SinkConfig {
    /// Lines appended to a file.
    File(FileConfig),
    /// Lines on the daemon's standard output, which is silent without such a sink.
    Stdout(StdoutConfig),
    /// RFC 5424 over TCP, TLS or UDP, or to a local socket.
    Syslog(SyslogConfig),
    /// Splunk's HTTP Event Collector.
    Splunk(SplunkConfig),
    /// The `_bulk` interface of Elasticsearch and OpenSearch.
    Elasticsearch(ElasticsearchConfig),
    /// OTLP logs, protobuf over HTTP.
    Otlp(OtlpConfig),
    /// One HTTP request an alert, signed.
    Webhook(WebhookConfig),
}

/// `kind = "file"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// Unique among the sinks.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The shape of a line.
    #[serde(default)]
    pub format: Format,
    /// When a new file is begun.
    #[serde(default)]
    pub rotate: RotateConfig,
    /// Which alerts.
    #[serde(default)]
    pub filter: FilterConfig,
    /// In what portions.
    #[serde(default)]
    pub batch: BatchConfig,
}

/// `rotate = { … }`: when a file is renamed to `PATH.TIME` and a new one begun. Not at
/// all without `size` and `age`; somebody else, such as logrotate, may do it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RotateConfig {
    /// Before it is larger than this, such as `"100MiB"`.
    pub size: Option<Size>,
    /// When it is older than this, such as `"24h"`, and there is something to write.
    pub age: Option<Span>,
    /// How many earlier files stay; the oldest are deleted.
    pub keep: NonZeroU32,
    /// Whether earlier files are compressed.
    pub gzip: bool,
}

impl Default for RotateConfig {
    fn default() -> Self {
        Self {
            size: None,
            age: None,
            keep: NonZeroU32::MIN.saturating_add(6),
            gzip: true,
        }
    }
}

/// `kind = "stdout"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdoutConfig {
    /// Unique among the sinks.
    pub name: String,
    /// The shape of a line.
    #[serde(default)]
    pub format: Format,
    /// Which alerts.
    #[serde(default)]
    pub filter: FilterConfig,
    /// In what portions.
    #[serde(default)]
    pub batch: BatchConfig,
}

/// `kind = "syslog"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyslogConfig {
    /// Unique among the sinks.
    pub name: String,
    /// `host:port`, an IPv6 address in brackets; with `transport = "local"` the path of
    /// a socket, such as `/dev/log`.
    pub address: String,
    /// How it gets there.
    #[serde(default)]
    pub transport: Transport,
    /// The shape of a message's body.
    #[serde(default)]
    pub format: Format,
    /// Certificates, for `transport = "tls"`.
    #[serde(default)]
    pub tls: TlsConfig,
    /// Which alerts.
    #[serde(default)]
    pub filter: FilterConfig,
    /// In what portions.
    #[serde(default)]
    pub batch: BatchConfig,
}

/// How syslog messages get to a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP, octet-counted (RFC 6587).
    #[default]
    Tcp,
    /// TLS (RFC 5425).
    Tls,
    /// UDP, a datagram a message (RFC 5426): what is lost on the way is lost unseen.
    Udp,
    /// A socket of this node, datagrams or a stream.
    Local,
}

/// `kind = "splunk"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplunkConfig {
    /// Unique among the sinks.
    pub name: String,
    /// Where the collector is, such as `https://splunk.example.net:8088`.
    pub url: String,
    /// The collector's token.
    pub token: Secret,
    /// The index; the token's default without.
    pub index: Option<String>,
    /// Whether to wait until the indexers have acknowledged each batch. The token
    /// has to have acknowledgements enabled.
    #[serde(default)]
    pub ack: bool,
    /// The shape of `event`.
    #[serde(default)]
    pub format: Format,
    /// Certificates.
    #[serde(default)]
    pub tls: TlsConfig,
    /// Which alerts.
    #[serde(default)]
    pub filter: FilterConfig,
    /// In what portions.
    #[serde(default)]
    pub batch: BatchConfig,
}

/// `kind = "elasticsearch"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ElasticsearchConfig {
    /// Unique among the sinks.
    pub name: String,
    /// Where the cluster is, such as `https://es.example.net:9200`.
    pub url: String,
    /// The index or data stream.
    pub index: String,
    /// Base64 of an API key's id and key.
    pub api_key: Option<Secret>,
    /// User and password joined by a colon, instead of an API key.
    pub basic: Option<Secret>,
    /// The shape of a document.
    #[serde(default = "ecs")]
    pub format: Format,
    /// Certificates.
    #[serde(default)]
    pub tls: TlsConfig,
    /// Which alerts.
    #[serde(default)]
    pub filter: FilterConfig,
    /// In what portions.
    #[serde(default)]
    pub batch: BatchConfig,
}

fn ecs() -> Format {
    Format::Ecs
}

/// `kind = "otlp"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// Unique among the sinks.
    pub name: String,
    /// The logs endpoint, such as `https://collector.example.net:4318/v1/logs`.
    pub url: String,
    /// Value of the `Authorization` header.
    pub authorization: Option<Secret>,
    /// Certificates.
    #[serde(default)]
    pub tls: TlsConfig,
    /// Which alerts.
    #[serde(default)]
    pub filter: FilterConfig,
    /// In what portions.
    #[serde(default)]
    pub batch: BatchConfig,
}

/// `kind = "webhook"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Unique among the sinks.
    pub name: String,
    /// Where to: a URL, or where one is kept, for those that are secret.
    pub url: Location,
    /// Key of the HMAC-SHA-256 signature; not signed without.
    pub key: Option<Secret>,
    /// Value of the `Authorization` header.
    pub authorization: Option<Secret>,
    /// The shape of the body, unless there is a template.
    #[serde(default)]
    pub format: Format,
    /// A body in JSON with places such as `{{ alert.summary }}`, which become JSON
    /// values: `{"text": {{ alert.summary }}}`.
    pub template: Option<String>,
    /// Certificates.
    #[serde(default)]
    pub tls: TlsConfig,
    /// Which alerts.
    #[serde(default)]
    pub filter: FilterConfig,
    /// In what portions.
    #[serde(default)]
    pub batch: BatchConfig,
}

/// The shape in which a sink writes events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// agent-monitor's own JSON, one object a line.
    #[default]
    Json,
    /// OCSF 1.8.0, one JSON object a line.
    Ocsf,
    /// Elastic Common Schema 9, one JSON object a line.
    Ecs,
    /// ArcSight's Common Event Format, one line.
    Cef,
    /// A line for people.
    Plain,
}

impl Format {
    /// Whether it is JSON.
    pub fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Ocsf | Self::Ecs)
    }
}

/// `filter = { … }`: which alerts and events a sink gets. Every condition that is there must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FilterConfig {
    /// Globs of kinds, one of which must match. Others than alerts have to be stored: see
    /// `[store] events`.
    #[schemars(with = "Vec<String>")]
    pub kinds: Vec<Glob>,
    /// The least severity of an alert.
    pub min_severity: Option<Severity>,
    /// Globs of alerts' rule ids, one of which must match.
    #[schemars(with = "Vec<String>")]
    pub rules: Vec<Glob>,
    /// Globs of agents' names, one of which must match.
    #[schemars(with = "Vec<String>")]
    pub agents: Vec<Glob>,
}

impl Default for FilterConfig {
    fn default() -> Self {
        Self {
            kinds: Glob::new("alert").into_iter().collect(),
            min_severity: None,
            rules: Vec::new(),
            agents: Vec::new(),
        }
    }
}

impl FilterConfig {
    /// Whether it lets through events of this kind.
    fn has_kind(&self, kind: &str) -> bool {
        let mut globs = self.kinds.iter();
        globs.any(|glob| glob.compile_matcher().is_match(kind))
    }
}

/// `batch = { … }`: in what portions a sink delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Most alerts in one delivery.
    pub records: NonZeroU32,
    /// How long alerts wait for a delivery to be full, such as `"5s"`.
    pub age: Span,
    /// Most alerts a second.
    pub rate: Option<NonZeroU32>,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            records: NonZeroU32::MIN.saturating_add(255),
            age: Span::default(),
            rate: None,
        }
    }
}

/// A secret that is kept elsewhere: `{ file = "/path" }` or `{ env = "NAME" }`. A file
/// is read again for every delivery, so that it can be exchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Secret {
    /// The first line of a file.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
}

impl Secret {
    /// The secret.
    ///
    /// # Errors
    /// There is none, in a sentence that does not hold it.
    pub fn read(&self) -> Result<String, String> {
        let secret = match self {
            Self::File(path) => std::fs::read_to_string(path).map_err(|error| {
                format!("cannot read the secret in {}: {error}", path.display())
            })?,
            Self::Env(name) => std::env::var(name)
                .map_err(|error| format!("cannot read the secret in ${name}: {error}"))?,
        };
        let secret = secret.lines().next().unwrap_or_default().trim();
        if secret.is_empty() {
            return Err(match self {
                Self::File(path) => format!("the secret in {} is empty", path.display()),
                Self::Env(name) => format!("the secret in ${name} is empty"),
            });
        }
        Ok(secret.to_owned())
    }
}

/// A URL, or where it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "url must be a URL, or { file = \"/path\" } or { env = \"NAME\" }"
)]
pub enum Location {
    /// The URL itself.
    Plain(String),
    /// One that is a secret.
    Secret(Secret),
}

impl Location {
    /// The URL.
    ///
    /// # Errors
    /// As [`Secret::read`].
    pub fn read(&self) -> Result<String, String> {
        match self {
            Self::Plain(url) => Ok(url.clone()),
            Self::Secret(secret) => secret.read(),
        }
    }
}

/// `tls = { … }`: certificates, all in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Who vouches for the receiver, instead of the system's certificates.
    pub ca: Option<PathBuf>,
    /// Our own certificate, with those between it and its root.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

impl SinkConfig {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::File(config) => &config.name,
            Self::Stdout(config) => &config.name,
            Self::Syslog(config) => &config.name,
            Self::Splunk(config) => &config.name,
            Self::Elasticsearch(config) => &config.name,
            Self::Otlp(config) => &config.name,
            Self::Webhook(config) => &config.name,
        }
    }

    /// As `kind` names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Stdout(_) => "stdout",
            Self::Syslog(_) => "syslog",
            Self::Splunk(_) => "splunk",
            Self::Elasticsearch(_) => "elasticsearch",
            Self::Otlp(_) => "otlp",
            Self::Webhook(_) => "webhook",
        }
    }

    /// Which alerts it gets, in what portions.
    pub fn delivery(&self) -> (&FilterConfig, BatchConfig) {
        match self {
            Self::File(config) => (&config.filter, config.batch),
            Self::Stdout(config) => (&config.filter, config.batch),
            Self::Syslog(config) => (&config.filter, config.batch),
            Self::Splunk(config) => (&config.filter, config.batch),
            Self::Elasticsearch(config) => (&config.filter, config.batch),
            Self::Otlp(config) => (&config.filter, config.batch),
            Self::Webhook(config) => (&config.filter, config.batch),
        }
    }

    /// The secrets that it needs.
    pub fn secrets(&self) -> Vec<&Secret> {
        let secrets = match self {
            Self::File(_) | Self::Stdout(_) | Self::Syslog(_) => Vec::new(),
            Self::Splunk(config) => vec![Some(&config.token)],
            Self::Elasticsearch(config) => vec![config.api_key.as_ref(), config.basic.as_ref()],
            Self::Otlp(config) => vec![config.authorization.as_ref()],
            Self::Webhook(config) => {
                let url = match &config.url {
                    Location::Secret(secret) => Some(secret),
                    Location::Plain(_) => None,
                };
                vec![url, config.key.as_ref(), config.authorization.as_ref()]
            }
        };
        secrets.into_iter().flatten().collect()
    }

    fn url(&self) -> Option<&str> {
        match self {
            Self::File(_) | Self::Stdout(_) | Self::Syslog(_) => None,
            Self::Splunk(config) => Some(&config.url),
            Self::Elasticsearch(config) => Some(&config.url),
            Self::Otlp(config) => Some(&config.url),
            Self::Webhook(config) => match &config.url {
                Location::Plain(url) => Some(url),
                Location::Secret(_) => None,
            },
        }
    }

    fn tls(&self) -> Option<&TlsConfig> {
        match self {
            Self::File(_) | Self::Stdout(_) => None,
            Self::Syslog(config) => Some(&config.tls),
            Self::Splunk(config) => Some(&config.tls),
            Self::Elasticsearch(config) => Some(&config.tls),
            Self::Otlp(config) => Some(&config.tls),
            Self::Webhook(config) => Some(&config.tls),
        }
    }

    /// Whether it gets more than alerts.
    pub(super) fn wants_events(&self) -> bool {
        let (filter, _) = self.delivery();
        let mut kinds = Body::KINDS.iter().filter(|kind| **kind != "alert");
        kinds.any(|kind| filter.has_kind(kind))
    }

    /// What is wrong with it beyond its form, and what to do.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let kinds = &self.delivery().0.kinds;
        let is_kind = |glob: &Glob| {
            let glob = glob.compile_matcher();
            Body::KINDS.iter().any(|kind| glob.is_match(kind))
        };
        if kinds.is_empty() || !kinds.iter().all(is_kind) {
            return Some(
                "filter.kinds must name kinds of events, such as \"alert\", \"exec\", \"connect\", \"gap\", or \"*\" for all",
            );
        }
        if let Some(url) = self.url() {
            let rest = url.strip_prefix("https://");
            let Some(rest) = rest.or_else(|| url.strip_prefix("http://")) else {
                return Some("url must begin with \"https://\" or \"http://\"");
            };
            // It would be shown and logged with the rest of the address.
            if rest
                .split('/')
                .next()
                .is_some_and(|host| host.contains('@'))
            {
                return Some(
                    "url must not hold a user or password: each kind has a setting for a secret",
                );
            }
        }
        if let Some(tls) = self.tls()
            && tls.certificate.is_some() != tls.key.is_some()
        {
            return Some("tls certificate and key go together: give both, or none");
        }
        match self {
            Self::File(config) if !config.path.is_absolute() => Some("path must begin with \"/\""),
            Self::Syslog(config) => config.problem(),
            Self::Elasticsearch(config) if !config.format.is_json() => {
                Some("format must be json, ocsf or ecs: documents are JSON")
            }
            Self::Elasticsearch(config) if config.api_key.is_some() && config.basic.is_some() => {
                Some("api_key and basic exclude each other: give one")
            }
            _ => None,
        }
    }
}

impl SyslogConfig {
    fn problem(&self) -> Option<&'static str> {
        if self.transport != Transport::Tls && self.tls != TlsConfig::default() {
            return Some("tls is given, but nothing is encrypted without transport = \"tls\"");
        }
        match self.transport {
            Transport::Local => (!self.address.starts_with('/'))
                .then_some("address must be the path of a socket, such as \"/dev/log\""),
            _ => (!has_port(&self.address)).then_some(
                "address must be host:port, such as \"siem.example.net:514\" or \"[2001:db8::1]:514\"",
            ),
        }
    }
}

fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        let whole = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        !host.is_empty() && whole && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}
