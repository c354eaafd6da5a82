//! Rules in SigmaHQ's form: `logsource` instead of `event`, and Sysmon's names
//! of fields. What has a counterpart here is translated; a rule that asks for
//! something else is left out, with the reason.

use super::problem::{Source, quoted};
use super::yaml::{Node, Value};

/// A rule that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmapped {
    /// The file.
    pub file: String,
    /// The rule's title.
    pub title: String,
    /// What correlations may call it.
    pub names: Vec<String>,
    /// Why.
    pub reasons: Vec<String>,
}

impl Unmapped {
    /// A document that was left out.
    pub fn new(node: &Node, source: &Source, reasons: Vec<String>) -> Self {
        let text = |key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
        let names = [text("id"), text("name"), Some(id_of(source))];
        Self {
            file: source.path().display().to_string(),
            title: text("title").unwrap_or_default(),
            names: names.into_iter().flatten().collect(),
            reasons,
        }
    }
}

/// Whether a document is written in SigmaHQ's form.
pub fn is_sigma(node: &Node) -> bool {
    node.get("logsource").is_some()
}

/// A name of Sigma's and what it is here; `%` stands for the kind of event.
type Names = &'static [(&'static str, &'static str)];

const PROCESS: Names = &[
    ("Image", "process.exe"),
    ("User", "process.uid"),
    ("ProcessId", "process.pid"),
    ("ParentProcessId", "process.ppid"),
    ("ParentImage", "process.ancestors.0.exe"),
];
const COMMAND: Names = &[("CommandLine", "exec.argv|joined")];
const NETWORK: Names = &[
    ("CommandLine", "process.argv|joined"),
    ("DestinationIp", "%.remote.ip"),
    ("DestinationPort", "%.remote.port"),
    ("SourceIp", "%.local.ip"),
    ("SourcePort", "%.local.port"),
    ("Protocol", "%.transport"),
    // Only flows have it, which the translation looks out for.
    ("DestinationHostname", "flow.server_name"),
];
const DNS: Names = &[
    ("CommandLine", "process.argv|joined"),
    ("QueryName", "dns.question"),
    ("query", "dns.question"),
    ("QueryResults", "dns.answers"),
    ("answer", "dns.answers"),
    ("answers", "dns.answers"),
    ("record_type", "dns.type"),
    ("QueryType", "dns.type"),
];
/// Why some common names have no counterpart.
const NO_COUNTERPART: &[(&str, &str)] = &[
    ("ParentCommandLine", "of a parent only its program is known"),
    ("CurrentDirectory", "the working directory is not recorded"),
    ("Hashes", "executables are not hashed"),
    ("OriginalFileName", "only Windows programs have one"),
    ("IntegrityLevel", "only Windows has them"),
    ("LogonId", "only Windows has them"),
    ("ParentUser", "of a parent only its program is known"),
];

/// Translates a document.
///
/// # Errors
/// Why it cannot be, every reason with its line.
pub fn translate(node: &Node, source: &Source) -> Result<Node, Vec<String>> {
    let Value::Map(members) = &node.value else {
        return Err(vec!["it is no map".to_owned()]);
    };
    let mut translation = Translation {
        source,
        kind: "",
        names: Vec::new(),
        reasons: Vec::new(),
    };
    translation.choose(node);
    let mut translated = Vec::new();
    for (key, value) in members {
        match key.text().unwrap_or_default() {
            "logsource" => translated.push((plain(key, "event"), plain(value, translation.kind))),
            "detection" => translated.push((key.clone(), translation.detection(value))),
            "id" => translated.push((plain(key, "uuid"), value.clone())),
            name if is_custom(name) => {}
            _ => translated.push((key.clone(), value.clone())),
        }
    }
    let id = id_of(source);
    let start = Node {
        span: node.span.start..node.span.start,
        value: node.value.clone(),
    };
    translated.push((plain(&start, "id"), plain(&start, &id)));
    if translation.reasons.is_empty() {
        Ok(Node {
            span: node.span.clone(),
            value: Value::Map(translated),
        })
    } else {
        Err(translation.reasons)
    }
}

/// Members of a rule that may stand in one of SigmaHQ's form, too.
const MEMBERS: &[&str] = &[
    "title",
    "name",
    "status",
    "description",
    "references",
    "author",
    "date",
    "modified",
    "license",
    "related",
    "fields",
    "taxonomy",
    "scope",
    "tags",
    "level",
    "falsepositives",
    "confidence",
    "summary",
    "incident",
    "stages",
    "exceptions",
    "enabled",
    "tests",
    "action",
];

/// Sigma lets a rule have members of anybody's own, which say nothing here; what is a
/// slip away from a known one is not meant to be one.
fn is_custom(name: &str) -> bool {
    let slips = if name.len() > 6 { 2 } else { 1 };
    !MEMBERS
        .iter()
        .any(|known| strsim::osa_distance(known, name) <= slips)
}

/// SigmaHQ names files like `proc_creation_lnx_base64_decode.yml`.
fn id_of(source: &Source) -> String {
    let stem = source.path().file_stem().unwrap_or_default();
    let stem = stem.to_string_lossy().to_ascii_lowercase();
    let words = stem.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join("-")
}

fn plain(like: &Node, text: &str) -> Node {
    Node {
        span: like.span.clone(),
        value: Value::Scalar {
            text: text.to_owned(),
            plain: false,
        },
    }
}

struct Translation<'s> {
    source: &'s Source,
    kind: &'static str,
    names: Vec<Names>,
    reasons: Vec<String>,
}

impl Translation<'_> {
    fn reason(&mut self, at: &Node, reason: String) {
        let before = self.source.text().get(..at.span.start).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        self.reasons.push(format!("line {line}: {reason}"));
    }

    /// Which kind of event, by the log source.
    fn choose(&mut self, node: &Node) {
        let Some(logsource) = node.get("logsource") else {
            return;
        };
        let get = |key| logsource.get(key).and_then(Node::text).unwrap_or_default();
        let (product, category, service) = (get("product"), get("category"), get("service"));
        if !matches!(product, "linux" | "") {
            self.reason(logsource, format!("it is for {}", quoted(product)));
        }
        (self.kind, self.names) = match (category, service) {
            ("process_creation", "") => ("exec", vec![PROCESS, COMMAND]),
            ("network_connection", "") if names(node, "DestinationHostname") => {
                ("flow", vec![PROCESS, NETWORK])
            }
            ("network_connection", "") => ("connect", vec![PROCESS, NETWORK]),
            ("dns" | "dns_query", "") => ("dns", vec![PROCESS, DNS]),
            _ => {
                let what = [category, service].join(" ");
                self.reason(
                    logsource,
                    format!(
                        "nothing here corresponds to the log source {}",
                        quoted(what.trim())
                    ),
                );
                return;
            }
        };
    }

    fn detection(&mut self, node: &Node) -> Node {
        let Value::Map(members) = &node.value else {
            return node.clone();
        };
        let members = members.iter().map(|(key, value)| {
            let value = match key.text() {
                Some("condition") => value.clone(),
                _ => self.selection(value),
            };
            (key.clone(), value)
        });
        Node {
            span: node.span.clone(),
            value: Value::Map(members.collect()),
        }
    }

    fn selection(&mut self, node: &Node) -> Node {
        let value = match &node.value {
            Value::Map(members) => {
                let fields = members
                    .iter()
                    .filter_map(|(key, value)| self.field(key, value));
                Value::Map(fields.collect())
            }
            Value::List(items) => {
                Value::List(items.iter().map(|item| self.selection(item)).collect())
            }
            other => other.clone(),
        };
        Node {
            span: node.span.clone(),
            value,
        }
    }

    /// `None`: always true, so left out.
    fn field(&mut self, key: &Node, value: &Node) -> Option<(Node, Node)> {
        let text = key.text().unwrap_or_default();
        let (name, modifiers) = text.split_once('|').unwrap_or((text, ""));
        if self.kind.is_empty() {
            // The log source was told of already.
            return Some((key.clone(), value.clone()));
        }
        if name == "Initiated" && matches!(self.kind, "connect" | "flow") {
            if value.text() == Some("true") {
                return None;
            }
            self.reason(
                key,
                "connections that come in are `accept` events here".to_owned(),
            );
        }
        let mut tables = self.names.iter().flat_map(|names| names.iter());
        let Some((_, ours)) = tables.find(|(sigma, _)| *sigma == name) else {
            let why = NO_COUNTERPART.iter().find(|(sigma, _)| *sigma == name);
            let why = why.map_or("there is nothing like it in these events", |(_, why)| why);
            self.reason(key, format!("the field {}: {why}", quoted(name)));
            return Some((key.clone(), value.clone()));
        };
        let ours = ours.replace('%', self.kind);
        let modifiers = match modifiers {
            "" => String::new(),
            some => format!("|{some}"),
        };
        let value = match name {
            "User" => self.users(value),
            _ => value.clone(),
        };
        Some((plain(key, &format!("{ours}{modifiers}")), value))
    }

    /// Users are numbers here; only root's is the same everywhere.
    fn users(&mut self, node: &Node) -> Node {
        for item in node.items() {
            if item.text() != Some("root") {
                let user = quoted(item.text().unwrap_or_default());
                self.reason(
                    item,
                    format!("the user {user}: only the number of root is known"),
                );
            }
        }
        plain(node, "0")
    }
}

/// Whether a selection names a field.
fn names(node: &Node, field: &str) -> bool {
    match &node.value {
        Value::Map(members) => members.iter().any(|(key, value)| {
            let name = key.text().unwrap_or_default();
            name.split('|').next() == Some(field) || names(value, field)
        }),
        Value::List(items) => items.iter().any(|item| names(item, field)),
        Value::Scalar { .. } => false,
    }
}
