//! The configuration: TOML, unknown names refused. See [`Loaded::read`] for the
//! places it is read from.
//!
//! ```toml
//! [agents]
//! select = ["docker:agent-*", "cgroup:/agents/*"]
//!
//! [store]
//! path = "/var/lib/agent-monitor/store.db"
//!
//! [api]
//! group = "monitor"
//!
//! [rules]
//! dirs = ["/etc/agent-monitor/rules"]
//!
//! [[sink]]
//! name = "archive"
//! kind = "file"
//! path = "/var/log/agent-monitor/alerts.ndjson"
//!
//! [[sink]]
//! name = "siem"
//! kind = "syslog"
//! address = "siem.example.net:6514"
//! transport = "tls"
//! format = "cef"                # json (the default), ocsf, ecs, cef or plain
//! ```

#![forbid(unsafe_code)]

mod layers;
pub mod reference;
mod sink;
mod units;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules::problem::nearest;
use crate::store::Limits;
use crate::store::recorder::Events;

pub use layers::{CONFIG_DIR, Flag, Loaded, Origin};
pub use sink::{
    BatchConfig, ElasticsearchConfig, FileConfig, FilterConfig, Format, Location, OtlpConfig,
    RotateConfig, Secret, SinkConfig, SplunkConfig, StdoutConfig, SyslogConfig, TlsConfig,
    Transport, WebhookConfig,
};
pub use units::{Size, Span};

/// Default of `[store] path`: where systemd's `StateDirectory=agent-monitor` is.
pub const STORE_PATH: &str = "/var/lib/agent-monitor/store.db";

/// Least of `[store] max_bytes`: a tenth of it holds what is written together.
const MIN_STORE_BYTES: u64 = 64 << 20;

/// What a configuration file says; [`Config::default`] is an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which agents to watch.
    pub agents: AgentsConfig,
    /// Where alerts are kept.
    pub store: StoreConfig,
    /// Who may use the socket.
    pub api: ApiConfig,
    /// For Prometheus.
    pub metrics: MetricsConfig,
    /// What is bad.
    pub rules: RulesConfig,
    /// Where alerts go.
    #[serde(rename = "sink")]
    pub sinks: Vec<SinkConfig>,
}

/// Which agents to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AgentsConfig {
    /// Selectors, as for `--agent`; empty: every container that a known runtime's
    /// cgroup path shows.
    pub select: Vec<String>,
}

/// Where alerts are kept until every sink has them, and events to look back at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The database.
    pub path: PathBuf,
    /// Which events are stored besides alerts: "all"; "context": those that an alert
    /// refers to, and agents' coming and going, losses and gaps; or "none".
    pub events: Events,
    /// How long events, and alerts that every sink has, are kept.
    pub max_age: Span,
    /// Bytes that the database does not exceed, from 67108864 (64 MiB). The oldest events make room first,
    /// then alerts that every sink has; others never do, and nothing more is stored then.
    pub max_bytes: u64,
}

impl StoreConfig {
    /// How much is kept.
    pub fn limits(&self) -> Limits {
        Limits {
            max_age: self.max_age.0,
            max_bytes: self.max_bytes,
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            path: STORE_PATH.into(),
            events: Events::default(),
            max_age: Span(limits.max_age),
            max_bytes: limits.max_bytes,
        }
    }
}

/// The socket of `tail`, `status` and other readers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// Where it is.
    pub socket: PathBuf,
    /// A group whose members may read, besides root.
    pub group: Option<String>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            socket: crate::api::DEFAULT_SOCKET.into(),
            group: None,
        }
    }
}

/// `/metrics`, `/livez` and `/readyz` over HTTP, without encryption or password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Address and port to listen on; none: not at all.
    pub listen: Option<SocketAddr>,
}

/// What is bad.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RulesConfig {
    /// Directories of rules, which add to the default pack and replace rules of
    /// it by their id; a later one counts before an earlier one.
    pub dirs: Vec<PathBuf>,
}

/// Why a configuration file is refused. The message is whole: there is no
/// [`source`](std::error::Error::source) to print after it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// It is not TOML, or says what there is not.
    #[error("the configuration {} is not valid: {cause}{}", path.display(), help.as_deref().unwrap_or_default())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Names the line and what was expected, and shows it.
        cause: Box<toml::de::Error>,
        /// The name that may be meant.
        help: Option<String>,
    },
    /// A value from elsewhere than a file is wrong.
    #[error("the configuration, {origin}: {problem}")]
    Value {
        /// Where it is from.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// A directory of rules depends on where the daemon was started.
    #[error("the configuration {}, [rules] dirs: {} must begin with \"/\"", path.display(), dir.display())]
    RulesDir {
        /// The file.
        path: PathBuf,
        /// The directory.
        dir: PathBuf,
    },
    /// The store may hold next to nothing.
    #[error("the configuration {}, [store] max_bytes: {bytes} is less than {MIN_STORE_BYTES}", path.display())]
    StoreBytes {
        /// The file.
        path: PathBuf,
        /// What it says.
        bytes: u64,
    },
    /// A sink contradicts itself or another.
    #[error("the configuration {}, sink \"{sink}\": {problem}", path.display())]
    Sink {
        /// The file.
        path: PathBuf,
        /// The sink's name.
        sink: String,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
}

impl ConfigError {
    fn parse(path: &Path, cause: toml::de::Error) -> Self {
        // "unknown field `a`, expected one of `b`, `c`" is serde's way to say it.
        let mut names = cause.message().split('`').skip(1).step_by(2);
        let help = match names.next() {
            Some(unknown) if cause.message().starts_with("unknown ") => nearest(unknown, names),
            _ => None,
        };
        Self::Parse {
            path: path.to_owned(),
            cause: Box::new(cause),
            help,
        }
    }
}

impl Config {
    /// Reads a configuration from `text`; `path` is for messages.
    ///
    /// # Errors
    /// It is not TOML, has names that do not exist or lacks some that must, two
    /// sinks share a name, or an address has no port.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|cause| ConfigError::parse(path, cause))?;
        config.check(path)?;
        Ok(config)
    }

    /// Whether its values go together.
    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        if let Some(dir) = self.rules.dirs.iter().find(|dir| !dir.is_absolute()) {
            let (path, dir) = (path.to_owned(), dir.clone());
            return Err(ConfigError::RulesDir { path, dir });
        }
        if self.store.max_bytes < MIN_STORE_BYTES {
            let (path, bytes) = (path.to_owned(), self.store.max_bytes);
            return Err(ConfigError::StoreBytes { path, bytes });
        }
        let mut names = BTreeSet::new();
        for sink in &self.sinks {
            let problem = if sink.name().is_empty() {
                Some("give it a name that is not empty")
            } else if !names.insert(sink.name()) {
                Some("another sink has this name: give each its own")
            } else if self.store.events == Events::None && sink.wants_events() {
                Some("filter.kinds names events, and [store] events = \"none\" stores none")
            } else {
                sink.problem()
            };
            if let Some(problem) = problem {
                let (path, sink) = (path.to_owned(), sink.name().to_owned());
                return Err(ConfigError::Sink {
                    path,
                    sink,
                    problem,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/am.toml")).map_err(|error| error.to_string())
    }

    fn refusal(text: &str) -> String {
        parse(text).expect_err("it should be refused")
    }

    #[test]
    fn reads_the_documented_example() {
        let example: String = include_str!("config.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//!"))
            .skip_while(|line| !line.ends_with("```toml"))
            .skip(1)
            .take_while(|line| !line.ends_with("```"))
            .map(|line| format!("{}\n", line.trim_start()))
            .collect();
        let config = parse(&example).unwrap();
        assert_eq!(config.agents.select, ["docker:agent-*", "cgroup:/agents/*"]);
        assert_eq!(config.store.path, Path::new(STORE_PATH));
        assert_eq!(config.api.group.as_deref(), Some("monitor"));
        assert_eq!(config.rules.dirs, [Path::new("/etc/agent-monitor/rules")]);
        assert_eq!(config.sinks.len(), 2);
        assert_eq!(
            config.sinks[1],
            SinkConfig::Syslog(SyslogConfig {
                name: "siem".into(),
                address: "siem.example.net:6514".into(),
                transport: Transport::Tls,
                format: Format::Cef,
                tls: TlsConfig::default(),
                filter: FilterConfig::default(),
                batch: BatchConfig::default(),
            })
        );
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(Config::default().store.path, Path::new(STORE_PATH));
    }

    #[test]
    fn refuses_unknown_names_everywhere_and_says_where() {
        for (text, line) in [
            ("\nsinks = []", 2),
            ("[agents]\nselectt = []", 2),
            ("[store]\npaht = '/x'", 2),
            ("[api]\ngruop = 'x'", 2),
            ("[rules]\ndir = '/x'", 2),
            (
                "[[sink]]\nname = 'a'\nkind = 'file'\npath = '/a'\nmode = 1",
                1,
            ),
            ("[[sink]]\nname = 'a'\nkind = 'flie'\npath = '/a'", 3),
            ("[[sink]]\nname = 'a'\nkind = 'syslog'", 1),
        ] {
            let message = refusal(text);
            assert!(message.contains("/etc/am.toml"), "{message}");
            assert!(
                message.contains(&format!("line {line}")),
                "{text}: {message}"
            );
        }
        let message = refusal("[[sink]]\nname = 'a'\nkind = 'file'\npath = '/a'\nmode = 1");
        assert!(message.contains("unknown field `mode`"), "{message}");
    }

    #[test]
    fn refuses_sinks_that_share_a_name_or_have_none() {
        let file = |name: &str| format!("[[sink]]\nkind = 'file'\nname = '{name}'\npath = '/a'\n");
        assert!(refusal(&(file("a") + &file("a"))).contains("give each its own"));
        assert!(refusal(&file("")).contains("not empty"));
        assert!(parse(&(file("a") + &file("b"))).is_ok());
    }

    #[test]
    fn refuses_addresses_without_a_port_and_relative_paths() {
        let syslog = |to: &str| format!("[[sink]]\nkind = 'syslog'\nname = 's'\naddress = '{to}'");
        for bad in [
            "",
            "host",
            ":514",
            "host:",
            "host:0",
            "host:99999",
            "2001:db8::1:514",
        ] {
            assert!(refusal(&syslog(bad)).contains("host:port"), "{bad}");
        }
        for good in ["host:514", "192.0.2.1:514", "[2001:db8::1]:514"] {
            assert!(parse(&syslog(good)).is_ok(), "{good}");
        }
        let local = |path: &str| syslog(path) + "\ntransport = 'local'";
        assert!(parse(&local("/dev/log")).is_ok());
        assert!(refusal(&local("host:514")).contains("path of a socket"));
        let relative = refusal("[[sink]]\nkind = 'file'\nname = 'f'\npath = 'a'");
        assert!(relative.contains("begin with"), "{relative}");
    }

    #[test]
    fn refuses_kinds_that_there_are_not_or_that_are_not_stored() {
        let file = |kinds: &str| {
            format!(
                "[[sink]]\nkind = 'file'\nname = 'f'\npath = '/a'\nfilter = {{ kinds = {kinds} }}\n"
            )
        };
        for good in ["['*']", "['alert', 'exec']", "['a*']"] {
            assert!(parse(&file(good)).is_ok(), "{good}");
        }
        for bad in ["[]", "['alerts']", "['exec', 'x*']"] {
            assert!(refusal(&file(bad)).contains("kinds of events"), "{bad}");
        }
        let none = "[store]\nevents = 'none'\n";
        assert!(refusal(&(none.to_owned() + &file("['exec']"))).contains("stores none"));
        assert!(parse(&(none.to_owned() + &file("['alert']"))).is_ok());
    }

    #[test]
    fn refuses_what_would_send_in_the_clear_or_show_a_password() {
        let syslog =
            "[[sink]]\nkind = 'syslog'\nname = 's'\naddress = 'h:514'\ntls = { ca = '/ca' }";
        assert!(refusal(syslog).contains("nothing is encrypted"));
        assert!(parse(&format!("{syslog}\ntransport = 'tls'")).is_ok());
        let hook = |url: &str| format!("[[sink]]\nkind = 'webhook'\nname = 'w'\nurl = '{url}'");
        let message = refusal(&hook("https://user:s3cret@example.net/hook"));
        assert!(message.contains("password"), "{message}");
        assert!(!message.contains("s3cret"), "{message}");
        assert!(parse(&hook("https://example.net/@hook")).is_ok());
    }

    #[test]
    fn refuses_directories_of_rules_that_depend_on_where_it_is_started() {
        let message = refusal("[rules]\ndirs = ['rules']");
        assert!(message.contains("rules must begin with"), "{message}");
    }
}
