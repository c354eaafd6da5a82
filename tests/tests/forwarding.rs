//! Alerts on their way out: a file and a real rsyslog (Debian's package `rsyslog`)
//! get exactly what `tail` shows, whoever dies on the way. Needs root.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::monitor::{Monitor, Site};
use agent_monitor_tests::scenario::find;
use agent_monitor_tests::wait;
use agent_monitor_tests::world::World;
use serde_json::Value;

/// Several times what a loaded machine needs, backoff and settling included.
const LIMIT: Duration = Duration::from_secs(60);

/// rsyslogd on a port of its own, which writes the message of every line it gets.
struct Rsyslog {
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Rsyslog {
    fn start(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut rsyslog = Self {
            folder: folder.to_owned(),
            port: listener.local_addr().unwrap().port(),
            child: None,
        };
        drop(listener);
        rsyslog.run();
        rsyslog
    }

    fn run(&mut self) {
        let (folder, port) = (self.folder.display(), self.port);
        let config = self.folder.join("rsyslog.conf");
        let text = format!(
            "$MaxMessageSize 256k\n\
             global(workDirectory=\"{folder}\")\n\
             module(load=\"imtcp\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
             template(name=\"out\" type=\"string\" string=\"%msg%\\n\")\n\
             action(type=\"omfile\" file=\"{folder}/messages\" template=\"out\")\n"
        );
        fs::write(&config, text).unwrap();
        let child = Command::new("/usr/sbin/rsyslogd")
            .arg("-n")
            .arg("-f")
            .arg(&config)
            .arg("-i")
            .arg(self.folder.join("rsyslog.pid"))
            .stdin(Stdio::null())
            .spawn()
            .expect("this test runs rsyslogd: install the package rsyslog");
        self.child = Some(child);
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // Its pid may be another's by now.
        let _ = fs::remove_file(self.folder.join("rsyslog.pid"));
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The whole lines of a file of JSON objects.
fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

/// Waits until a file holds as many alerts as `expected`, and these.
fn holds(file: &Path, expected: &[Value]) {
    let arrived = wait::until("the alerts", LIMIT, || {
        Ok((lines(file).len() >= expected.len()).then_some(()))
    });
    let found = lines(file);
    assert!(
        arrived.is_ok(),
        "{} of {}: {found:#?}",
        found.len(),
        expected.len()
    );
    assert_eq!(found, expected, "{}", file.display());
}

/// Waits until a sink knows that everything has been delivered.
fn caught_up(monitor: &Monitor, sink: &str) {
    wait::until(&format!("{sink} to settle"), LIMIT, || {
        let status = monitor.status()?;
        let sinks = status["sinks"].as_array().cloned().unwrap_or_default();
        let done = sinks.iter().any(|it| it["name"] == sink && it["lag"] == 0);
        Ok(done.then_some(()))
    })
    .unwrap();
}

/// Has the agent mine; gives the alerts of this daemon so far.
fn mine(monitor: &Monitor, agent: &Agent) -> Vec<Value> {
    let before = monitor.alerts().len();
    (find("stratum_monero").unwrap().run)(agent).unwrap();
    monitor.catch_up(agent).unwrap();
    let alerts = monitor.alerts();
    assert_eq!(alerts.len(), before + 2, "{alerts:#?}");
    alerts
}

#[test]
fn a_file_and_rsyslog_get_what_tail_shows_though_rsyslog_and_the_daemon_are_killed() {
    let world = World::new("forwarding").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let site = Arc::new(Site::new().unwrap());
    let mut rsyslog = Rsyslog::start(site.dir());
    let file = site.dir().join("alerts.ndjson");
    let messages = site.dir().join("messages");
    let sinks = format!(
        "[[sink]]\nname = \"archive\"\nkind = \"file\"\npath = \"{}\"\n\
         [[sink]]\nname = \"siem\"\nkind = \"syslog\"\naddress = \"127.0.0.1:{}\"\n",
        file.display(),
        rsyslog.port
    );
    let start = || Monitor::start_at(&site, &[&agent.selector()], &sinks).unwrap();

    let monitor = start();
    let alerts = mine(&monitor, &agent);
    holds(&file, &alerts);
    holds(&messages, &alerts);
    caught_up(&monitor, "siem");

    // While rsyslog is down, it falls behind, and nothing else does.
    rsyslog.kill();
    let alerts = mine(&monitor, &agent);
    holds(&file, &alerts);
    assert_eq!(lines(&messages).len(), 2);
    rsyslog.run();
    holds(&messages, &alerts);
    caught_up(&monitor, "siem");

    // The daemon dies with alerts that rsyslog has not got.
    rsyslog.kill();
    let alerts = mine(&monitor, &agent);
    holds(&file, &alerts);
    caught_up(&monitor, "archive");
    let before = monitor.kill().unwrap();
    let mut all: Vec<_> = before
        .into_iter()
        .filter(|it| it["kind"] == "alert")
        .collect();
    assert_eq!(all, alerts);
    assert_eq!(lines(&messages).len(), 4);

    // The next one says so.
    let monitor = start();
    let killed = monitor.wait_for("the alert of the kill", LIMIT, |it| it["kind"] == "alert");
    let killed = killed.unwrap();
    assert_eq!(killed["alert"]["rule"], "monitoring-loss");
    rsyslog.run();
    holds(&messages, &[&all[..], &[killed]].concat());
    all.extend(mine(&monitor, &agent));
    assert_eq!(all.len(), 9);
    holds(&file, &all);
    holds(&messages, &all);
    let mut ids: Vec<_> = all.iter().map(|it| it["id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 9);
    monitor.stop().unwrap();
    assert_eq!(lines(&file), all);
}

/// Secrets of every kind of sink, from files and the environment, and receivers that fail
/// in every way: none is in a log, however much is logged, nor in what is shown.
#[test]
fn no_secret_is_shown_or_logged() {
    let world = World::new("secrets").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let refuses = Refuses::start();
    let site = Site::new().unwrap();
    let site = site.with("RUST_LOG", "trace").with(
        "HOOK_URL",
        &format!("http://{}/s3cret-hook", refuses.address),
    );
    let site = Arc::new(site.with("API_KEY", "s3cret-api-key"));
    for name in ["token", "authorization", "basic", "key"] {
        fs::write(site.dir().join(name), format!("s3cret-{name}:x\n")).unwrap();
    }
    let sinks = r#"
[[sink]]
name = "splunk"
kind = "splunk"
url = "http://ADDRESS"
token = { file = "@/token" }
[[sink]]
name = "elastic"
kind = "elasticsearch"
url = "http://ADDRESS"
index = "alerts"
api_key = { env = "API_KEY" }
[[sink]]
name = "opensearch"
kind = "elasticsearch"
url = "http://127.0.0.1:1"
index = "alerts"
basic = { file = "@/basic" }
[[sink]]
name = "otlp"
kind = "otlp"
url = "http://ADDRESS/v1/logs"
authorization = { file = "@/authorization" }
[[sink]]
name = "hook"
kind = "webhook"
url = { env = "HOOK_URL" }
key = { file = "@/key" }
"#;
    let sinks = sinks
        .replace('@', site.dir().to_str().unwrap())
        .replace("ADDRESS", &refuses.address);
    let monitor = Monitor::start_at(&site, &[&agent.selector()], &sinks).unwrap();
    mine(&monitor, &agent);
    let status = wait::until("every sink to fail", LIMIT, || {
        let status = monitor.status()?;
        let sinks = status["sinks"].as_array().cloned().unwrap_or_default();
        let failed = |it: &Value| it["last_error"].is_string();
        Ok((sinks.len() == 5 && sinks.iter().all(failed)).then_some(status))
    });
    let mut shown = status.unwrap().to_string();
    let config = site.dir().join("config.toml");
    for command in [
        &["config", "show", config.to_str().unwrap()][..],
        &["status"],
        &["sinks", "list", "--output", "pretty"],
        &["sinks", "status", "--output", "pretty"],
        &["sinks", "retry", "splunk"],
    ] {
        let output = site.command(command).unwrap().output().unwrap();
        shown += &String::from_utf8_lossy(&output.stdout);
        shown += &String::from_utf8_lossy(&output.stderr);
    }
    assert!(
        shown.contains("splunk") && shown.contains("@/token".trim_start_matches('@')),
        "{shown}"
    );
    monitor.stop().unwrap();
    let log = fs::read_to_string(site.dir().join("log")).unwrap();
    assert!(log.contains("TRACE"), "everything is logged: {log}");
    let store = fs::read(site.dir().join("store.db")).unwrap();
    let base64 = "czNjcmV0LWJhc2lj";
    for (place, text) in [
        ("what is shown", shown),
        ("the log", log),
        ("the store", String::from_utf8_lossy(&store).into_owned()),
    ] {
        for secret in ["s3cret", base64] {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "a secret is in {place}");
        }
    }
}

/// Answers 403 to every request.
struct Refuses {
    address: String,
    child: Child,
}

impl Refuses {
    fn start() -> Self {
        let script = r#"
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(403); self.send_header("Content-Length", "6"); self.end_headers()
        self.wfile.write(b"not us")
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut port).unwrap();
        Self {
            address: format!("127.0.0.1:{}", port.trim()),
            child,
        }
    }
}

impl Drop for Refuses {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
