//! Where settings come from, each layer over the one before: the defaults, the
//! configuration file, the files of `conf.d` in the order of their names, the
//! environment, the command line. What a layer does not name stays as it was;
//! a `[[sink]]` replaces the one of its name.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::{Config, ConfigError, reference};

/// Where the configuration is, unless another place is named.
pub const CONFIG_DIR: &str = "/etc/agent-monitor";
/// The file in it, and the directory of files that are read after it.
const FILE: &str = "config.toml";
const DROP_INS: &str = "conf.d";
/// What variables of the environment begin with.
const PREFIX: &str = "AGENT_MONITOR_";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody named it.
    Default,
    /// A line of a file, from 1.
    File(PathBuf, usize),
    /// A variable of the environment.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "${name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// What the command line says of a setting.
#[derive(Clone, Debug)]
pub struct Flag {
    /// Path of the setting, such as `agents.select`.
    pub setting: &'static str,
    /// The flag, such as `--agent`.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
}

/// A configuration, and where each value of it comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// Files that were read, in order.
    pub files: Vec<PathBuf>,
    origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Reads everything. `place` is a file, or a directory with `config.toml` and
    /// `conf.d`; without it, [`CONFIG_DIR`] if that exists.
    ///
    /// # Errors
    /// A file cannot be read or is refused, or so is a value of the environment
    /// or the command line.
    pub fn read(
        place: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[Flag],
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::default();
        for file in files(place)? {
            layers.file(file)?;
        }
        layers.environment(environment)?;
        for flag in flags {
            layers.set(flag.setting, flag.value.clone(), Origin::Flag(flag.name))?;
        }
        Ok(Self {
            config: layers.config()?,
            files: layers.files,
            origins: layers.origins,
        })
    }

    /// Where the value of a setting comes from, by its path: `store.path`, or
    /// `sink.NAME.address`.
    pub fn origin(&self, setting: &str) -> &Origin {
        let mut path = setting;
        loop {
            if let Some(origin) = self.origins.get(path) {
                return origin;
            }
            // A table that was given whole says where its members come from.
            match path.rsplit_once('.') {
                Some((outer, _)) if outer.contains('.') => path = outer,
                _ => return &Origin::Default,
            }
        }
    }
}

/// The files to read, in order.
fn files(place: Option<&Path>) -> Result<Vec<PathBuf>, ConfigError> {
    let dir = match place {
        Some(file) if !file.is_dir() => return Ok(vec![file.to_owned()]),
        Some(dir) => dir,
        None => Path::new(CONFIG_DIR),
    };
    let mut files = Vec::new();
    if dir.join(FILE).exists() {
        files.push(dir.join(FILE));
    }
    let drop_ins = dir.join(DROP_INS);
    let entries = match std::fs::read_dir(&drop_ins) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        Err(cause) => {
            let path = drop_ins;
            return Err(ConfigError::Read { path, cause });
        }
    };
    let mut found = BTreeSet::new();
    for entry in entries {
        let entry = entry.map_err(|cause| ConfigError::Read {
            path: drop_ins.clone(),
            cause,
        })?;
        if entry.path().extension().is_some_and(|it| it == "toml") {
            found.insert(entry.path());
        }
    }
    files.extend(found);
    Ok(files)
}

#[derive(Default)]
struct Layers {
    table: Table,
    files: Vec<PathBuf>,
    origins: BTreeMap<String, Origin>,
}

impl Layers {
    fn file(&mut self, path: PathBuf) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(&path).map_err(|cause| ConfigError::Read {
            path: path.clone(),
            cause,
        })?;
        // By itself first: what is wrong is then told with its line.
        Config::parse(&text, &path)?;
        let parse_error = |cause| ConfigError::parse(&path, cause);
        let mut table: Table = toml::from_str(&text).map_err(parse_error)?;
        let spanned = DeTable::parse(&text).map_err(parse_error)?;
        if let Some(Value::Array(sinks)) = table.remove("sink") {
            self.sinks(sinks);
        }
        merge(&mut self.table, table);
        let at = |span: usize| {
            let line = 1 + text[..span].matches('\n').count();
            Origin::File(path.clone(), line)
        };
        note(&mut self.origins, "", spanned.get_ref(), &at);
        self.files.push(path);
        Ok(())
    }

    /// Adds sinks; one takes the place of an earlier one of its name.
    fn sinks(&mut self, sinks: Vec<Value>) {
        let entry = self.table.entry("sink");
        let Value::Array(all) = entry.or_insert_with(|| Value::Array(Vec::new())) else {
            return;
        };
        for sink in sinks {
            let name = sink.get("name").cloned();
            match all
                .iter_mut()
                .find(|known| known.get("name") == name.as_ref())
            {
                Some(known) => {
                    if let Some(name) = name.as_ref().and_then(Value::as_str) {
                        let prefix = format!("sink.{name}.");
                        self.origins.retain(|path, _| !path.starts_with(&prefix));
                    }
                    *known = sink;
                }
                None => all.push(sink),
            }
        }
    }

    /// Variables such as `AGENT_MONITOR_STORE_PATH`. Others with the prefix may be
    /// secrets that a sink reads: they are let be.
    fn environment(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), ConfigError> {
        let variables: BTreeMap<_, _> = variables.into_iter().collect();
        for setting in reference::settings() {
            let name = variable(&setting.path);
            let Some(text) = variables.get(&OsString::from(&name)) else {
                continue;
            };
            let refused = |problem: String| ConfigError::Value {
                origin: Origin::Environment(name.clone()).to_string(),
                problem,
            };
            let text = text
                .to_str()
                .ok_or_else(|| refused("it is not UTF-8".into()))?;
            self.set(
                &setting.path,
                setting.value(text),
                Origin::Environment(name.clone()),
            )?;
        }
        Ok(())
    }

    fn set(&mut self, setting: &str, value: Value, origin: Origin) -> Result<(), ConfigError> {
        let mut layer = value;
        for name in setting.rsplit('.') {
            layer = Value::Table(Table::from_iter([(name.to_owned(), layer)]));
        }
        if let Value::Table(layer) = layer {
            merge(&mut self.table, layer);
        }
        // What a file said is known to be right: what is wrong now is this.
        self.config().map_err(|error| ConfigError::Value {
            origin: origin.to_string(),
            problem: error.to_string(),
        })?;
        self.origins.insert(setting.to_owned(), origin);
        Ok(())
    }

    fn config(&self) -> Result<Config, ConfigError> {
        let all = Path::new("of all layers");
        let config: Config = Value::Table(self.table.clone())
            .try_into()
            .map_err(|cause| ConfigError::parse(all, cause))?;
        config.check(all)?;
        Ok(config)
    }
}

/// Name of the variable of a setting.
pub(super) fn variable(setting: &str) -> String {
    format!("{PREFIX}{}", setting.replace('.', "_").to_uppercase())
}

/// Puts a layer over what there is: tables are joined, other values replaced.
fn merge(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// Notes where each value of a file stands.
fn note(
    origins: &mut BTreeMap<String, Origin>,
    prefix: &str,
    table: &DeTable<'_>,
    at: &impl Fn(usize) -> Origin,
) {
    for (key, value) in table {
        let path = format!("{prefix}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => note(origins, &format!("{path}."), inner, at),
            DeValue::Array(sinks) if path == "sink" => {
                for sink in sinks.iter().map(Spanned::get_ref) {
                    let DeValue::Table(sink) = sink else { continue };
                    let name = sink.get("name").and_then(|name| name.get_ref().as_str());
                    let prefix = format!("sink.{}.", name.unwrap_or_default());
                    note(origins, &prefix, sink, at);
                }
            }
            _ => {
                origins.insert(path, at(key.span().start));
            }
        }
    }
}

#[cfg(test)]
mod tests;
