//! What can be set, read off the structs that are read into: the commented file
//! that is the default configuration, and the variables of the environment.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::Config;
use super::layers::variable;

/// Values for what has no default, by path; `*` is any kind of sink.
const EXAMPLES: &[(&str, &str)] = &[
    ("agents.select", r#"["docker:agent-*", "cgroup:/agents/*"]"#),
    ("api.group", r#""monitor""#),
    ("metrics.listen", r#""127.0.0.1:9469""#),
    ("rules.dirs", r#"["/etc/agent-monitor/rules"]"#),
    ("sink.elasticsearch.index", r#""alerts-agent-monitor""#),
    ("sink.elasticsearch.url", r#""https://es.example.net:9200""#),
    (
        "sink.file.path",
        r#""/var/log/agent-monitor/alerts.ndjson""#,
    ),
    (
        "sink.otlp.url",
        r#""https://collector.example.net:4318/v1/logs""#,
    ),
    ("sink.splunk.index", r#""security""#),
    ("sink.splunk.url", r#""https://splunk.example.net:8088""#),
    ("sink.syslog.address", r#""siem.example.net:514""#),
    (
        "sink.webhook.template",
        r#"'{"text": {{ alert.summary }}}'"#,
    ),
    (
        "sink.webhook.url",
        r#""https://hooks.example.net/agent-monitor""#,
    ),
    ("sink.*.api_key", r#"{ env = "AGENT_MONITOR_API_KEY" }"#),
    (
        "sink.*.authorization",
        r#"{ file = "/etc/agent-monitor/authorization" }"#,
    ),
    ("sink.*.basic", r#"{ file = "/etc/agent-monitor/basic" }"#),
    ("sink.*.batch.rate", "100"),
    ("sink.*.filter.agents", r#"["web-*"]"#),
    ("sink.*.filter.min_severity", r#""medium""#),
    ("sink.*.filter.rules", r#"["reverse-*", "mining-*"]"#),
    ("sink.*.key", r#"{ file = "/etc/agent-monitor/key" }"#),
    ("sink.*.name", r#""siem""#),
    ("sink.*.tls.ca", r#""/etc/agent-monitor/ca.pem""#),
    (
        "sink.*.tls.certificate",
        r#""/etc/agent-monitor/client.pem""#,
    ),
    ("sink.*.tls.key", r#""/etc/agent-monitor/client.key""#),
    ("sink.*.rotate.age", r#""24h""#),
    ("sink.*.rotate.size", r#""100MiB""#),
    ("sink.*.token", r#"{ file = "/etc/agent-monitor/token" }"#),
];

const HEAD: &str = "\
# agent-monitor: what can be configured. What begins with \"#\" and no space is a
# setting with its default, or an example where there is none. Files in conf.d
# beside this one are read after it, in the order of their names; then variables
# such as $AGENT_MONITOR_STORE_PATH, then the command line. `agent-monitor config
# check` says whether all of it can be used, `config show` where each value is from.
";

/// A setting outside sinks.
#[derive(Debug)]
pub struct Setting {
    /// Its path, such as `store.path`.
    pub path: String,
    list: bool,
    text: bool,
}

impl Setting {
    /// A value as the environment writes it: lists with commas.
    pub fn value(&self, text: &str) -> toml::Value {
        if self.list {
            let parts = text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty());
            return parts.map(toml::Value::from).collect::<Vec<_>>().into();
        }
        // Whole numbers and switches look alike everywhere; all else is text.
        match (self.text, text.parse::<toml::Value>()) {
            (false, Ok(value)) => value,
            _ => text.into(),
        }
    }
}

/// Every setting outside sinks.
pub fn settings() -> Vec<Setting> {
    let schema = schema();
    let mut settings = Vec::new();
    for (section, table) in properties(&schema) {
        if section == "sink" {
            continue;
        }
        for (name, setting) in properties(table) {
            settings.push(Setting {
                path: format!("{section}.{name}"),
                list: has_type(setting, "array"),
                text: has_type(setting, "string"),
            });
        }
    }
    settings
}

/// The default configuration, with every setting, its meaning, and its default or
/// an example, commented out.
pub fn commented() -> String {
    let schema = schema();
    let mut text = HEAD.to_owned();
    for (section, table) in properties(&schema) {
        if section == "sink" {
            continue;
        }
        text.push('\n');
        explain(&mut text, table);
        text += &format!("[{section}]\n");
        for (name, setting) in properties(table) {
            explain(&mut text, setting);
            let path = format!("{section}.{name}");
            text += &format!("# Environment: {}.\n", variable(&path));
            text += &format!("#{name} = {}\n", shown(&path, "", setting));
        }
    }
    for kind in sink_kinds(&schema) {
        let Some(name) = kind
            .pointer("/properties/kind/const")
            .and_then(Value::as_str)
        else {
            continue;
        };
        text.push('\n');
        explain(&mut text, kind);
        text += &format!("#[[sink]]\n#kind = \"{name}\"\n");
        members(&mut text, kind, &format!("sink.{name}"), "");
    }
    text
}

/// The members of a kind of sink: its name, what it must have, what it may.
fn members(text: &mut String, table: &Value, path: &str, prefix: &str) {
    let required = |name: &str| {
        let names = table.get("required").and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|it| it == name))
    };
    let mut sorted: Vec<_> = properties(table)
        .filter(|(name, _)| *name != "kind")
        .collect();
    sorted.sort_by_key(|(name, _)| (*name != "name", !required(name), *name));
    for (name, member) in sorted {
        if properties(member).next().is_some() {
            explain(text, member);
            members(
                text,
                member,
                &format!("{path}.{name}"),
                &format!("{prefix}{name}."),
            );
            continue;
        }
        explain(text, member);
        let any = path
            .split('.')
            .skip(2)
            .fold("sink.*".to_owned(), |any, part| any + "." + part);
        let (path, any) = (format!("{path}.{name}"), format!("{any}.{name}"));
        *text += &format!("#{prefix}{name} = {}\n", shown(&path, &any, member));
    }
}

/// A setting's default, else its example.
fn shown(path: &str, any: &str, setting: &Value) -> String {
    let default = setting.get("default").filter(|it| !it.is_null());
    let empty = |it: &&Value| it.as_array().is_some_and(Vec::is_empty);
    let example = EXAMPLES
        .iter()
        .find(|(example, _)| *example == path)
        .or_else(|| EXAMPLES.iter().find(|(example, _)| *example == any));
    match (default.filter(|it| !empty(it)), example) {
        (Some(default), _) => default.to_string(),
        (None, Some((_, example))) => (*example).to_owned(),
        // A test has every path that there is.
        (None, None) => "[]".to_owned(),
    }
}

fn explain(text: &mut String, schema: &Value) {
    let Some(description) = schema.get("description").and_then(Value::as_str) else {
        return;
    };
    for line in description.lines() {
        *text += format!("# {line}").trim_end();
        text.push('\n');
    }
}

fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|it| it.inline_subschemas = true);
    settings
        .into_generator()
        .into_root_schema_for::<Config>()
        .to_value()
}

fn sink_kinds(schema: &Value) -> impl Iterator<Item = &Value> {
    let kinds = schema.pointer("/properties/sink/items/oneOf");
    kinds.and_then(Value::as_array).into_iter().flatten()
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties
        .into_iter()
        .flat_map(Map::iter)
        .map(|(name, schema)| (name.as_str(), schema))
}

fn has_type(schema: &Value, wanted: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(ty)) => ty == wanted,
        Some(Value::Array(types)) => types.iter().any(|ty| ty == wanted),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The file without its comments: every setting set.
    fn uncommented() -> String {
        let lines = commented();
        let lines = lines
            .lines()
            .filter_map(|line| match line.strip_prefix('#') {
                Some(prose) if prose.is_empty() || prose.starts_with(' ') => None,
                Some(setting) => Some(setting.to_owned()),
                None => Some(line.to_owned()),
            });
        lines.map(|line| line + "\n").collect()
    }

    #[test]
    fn the_commented_file_is_the_default_configuration() {
        let path = Path::new("default");
        assert_eq!(
            Config::parse(&commented(), path).unwrap(),
            Config::default()
        );
    }

    #[test]
    fn every_setting_and_example_of_the_commented_file_is_accepted() {
        let text = uncommented();
        let path = Path::new("examples");
        let (node, sinks) = text.split_once("[[sink]]").unwrap();
        let node = Config::parse(node, path).unwrap();
        assert_eq!(node.api.group.as_deref(), Some("monitor"));
        for sink in sinks.split("[[sink]]") {
            // Two ways to prove who we are exclude each other; certificates are for TLS.
            let lines: String = sink
                .lines()
                .filter(|line| !line.starts_with("basic ="))
                .map(|line| line.replace("\"tcp\"", "\"tls\"") + "\n")
                .collect();
            let config = Config::parse(&format!("[[sink]]\n{lines}"), path);
            let config = config.unwrap_or_else(|error| panic!("{lines}\n{error}"));
            assert_eq!(config.sinks.len(), 1);
        }
    }

    #[test]
    fn no_example_is_without_its_setting_and_no_setting_without_a_value() {
        let text = commented();
        assert!(!text.lines().any(|line| line.ends_with(" = []")), "{text}");
        for (path, example) in EXAMPLES {
            assert!(text.contains(&format!(" = {example}\n")), "{path}");
        }
    }

    #[test]
    fn the_file_that_is_installed_is_the_one_of_these_structs() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config.toml");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, commented()).unwrap();
        }
        let installed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            installed == commented(),
            "{} is out of date: UPDATE_GOLDEN=1 writes it anew",
            path.display()
        );
    }

    #[test]
    fn values_of_the_environment_have_their_setting_s_type() {
        let settings = settings();
        let of = |path: &str| settings.iter().find(|it| it.path == path).unwrap();
        assert_eq!(
            of("rules.dirs").value("/a, /b"),
            toml::Value::from(vec!["/a", "/b"])
        );
        assert_eq!(of("store.path").value("5"), toml::Value::from("5"));
    }
}
