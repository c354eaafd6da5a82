//! The syslog sink against a real rsyslog (Debian's package `rsyslog`), which is
//! killed and restarted, and against receivers that break off.

mod common;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use agent_monitor::config::{
    BatchConfig, FilterConfig, Format, SinkConfig, SyslogConfig, TlsConfig, Transport,
};
use agent_monitor::event::Event;
use agent_monitor::sinks::Sinks;
use agent_monitor::store::Store;
use common::{alert, alert_saying, id, id_of, wait_for};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Several times what a loaded machine needs, backoff included.
const LIMIT: Duration = Duration::from_secs(60);

/// rsyslogd on a port of its own. Each start writes a file of its own, so that a
/// line torn by a kill spoils no other.
struct Rsyslog {
    folder: TempDir,
    port: u16,
    starts: u32,
    child: Option<Child>,
}

impl Rsyslog {
    fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        Self {
            folder: tempfile::tempdir().unwrap(),
            port,
            starts: 0,
            child: None,
        }
    }

    fn start(&mut self) {
        self.starts += 1;
        let folder = self.folder.path().display();
        let (port, out) = (self.port, self.output(self.starts));
        let config = self.folder.path().join("rsyslog.conf");
        let text = format!(
            r#"$MaxMessageSize 256k
global(workDirectory="{folder}")
module(load="imtcp")
module(load="mmpstrucdata")
input(type="imtcp" address="127.0.0.1" port="{port}")
template(name="out" type="string" string="%syslogpriority% %timereported:::date-rfc3339% %hostname% %app-name% %msgid%\t%structured-data%\t%$!rfc5424-sd%\t%msg%\n")
action(type="mmpstrucdata")
action(type="omfile" file="{}" template="out")
"#,
            out.display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("/usr/sbin/rsyslogd")
            .arg("-n")
            .arg("-f")
            .arg(&config)
            .arg("-i")
            .arg(self.folder.path().join("pid"))
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
        let _ = std::fs::remove_file(self.folder.path().join("pid"));
    }

    /// It reads nothing from now on; its kernel still takes what is sent.
    fn freeze(&self) {
        let child = self.child.as_ref().expect("it runs");
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    }

    fn output(&self, start: u32) -> PathBuf {
        self.folder.path().join(format!("out-{start}"))
    }

    /// Every whole line so far: its fields.
    fn lines(&self) -> Vec<Vec<String>> {
        let mut lines = Vec::new();
        for start in 1..=self.starts {
            let text = std::fs::read_to_string(self.output(start)).unwrap_or_default();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            lines.extend(
                whole
                    .lines()
                    .map(|line| line.split('\t').map(str::to_owned).collect()),
            );
        }
        lines
    }

    fn ids(&self) -> Vec<String> {
        self.lines()
            .iter()
            .filter_map(|fields| id_of(fields.last()?))
            .collect()
    }

    fn distinct(&self) -> BTreeSet<String> {
        self.ids().into_iter().collect()
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A store with a syslog sink.
struct Monitor {
    store: Store,
    sinks: Arc<Sinks>,
    stop: watch::Sender<bool>,
    runtime: Runtime,
    path: PathBuf,
}

impl Monitor {
    fn start(path: PathBuf, address: String) -> Self {
        let runtime = Runtime::new().unwrap();
        let store = Store::open(&path).unwrap();
        let (stop, stopped) = watch::channel(false);
        let config = SinkConfig::Syslog(SyslogConfig {
            name: "siem".into(),
            address,
            transport: Transport::Tcp,
            format: Format::Json,
            tls: TlsConfig::default(),
            filter: FilterConfig::default(),
            batch: BatchConfig::default(),
        });
        let sinks = {
            let _entered = runtime.enter();
            Sinks::start(&[config], &store, &stopped)
        };
        Self {
            store,
            sinks,
            stop,
            runtime,
            path,
        }
    }

    fn restart(self, address: String) -> Self {
        let path = self.path.clone();
        self.stop();
        Self::start(path, address)
    }

    fn stop(self) {
        self.stop.send_replace(true);
        self.runtime.block_on(self.sinks.join()).unwrap();
    }

    fn append(&self, event: &Event) {
        self.store.append(event).unwrap();
    }
}

fn first_arrivals(ids: &[String]) -> Vec<&String> {
    let mut seen = BTreeSet::new();
    ids.iter().filter(|id| seen.insert(*id)).collect()
}

#[test]
fn every_alert_arrives_in_order_while_rsyslog_is_killed_and_restarted() {
    const ALERTS: u64 = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let mut rsyslog = Rsyslog::new();
    let mut monitor = Monitor::start(folder.path().join("store.db"), rsyslog.address());
    rsyslog.start();
    let mut appended = 0;
    for round in 1..=6_usize {
        // The kill comes while alerts are on their way: some sent, some not yet.
        for _ in 0..100 {
            appended += 1;
            monitor.append(&alert(appended));
        }
        wait_for("some of the round's alerts", LIMIT, || {
            (rsyslog.distinct().len() > (round - 1) * 121 + 20).then_some(())
        });
        // These its kernel acknowledges, and it never sees. There is nothing to wait
        // for: neither side can tell.
        rsyslog.freeze();
        for _ in 0..20 {
            appended += 1;
            monitor.append(&alert(appended));
        }
        std::thread::sleep(Duration::from_millis(200));
        rsyslog.kill();
        appended += 1;
        monitor.append(&alert(appended));
        if round == 3 {
            // Down when agent-monitor itself restarts.
            monitor = monitor.restart(rsyslog.address());
        } else if round % 2 == 0 {
            wait_for("the sink notices", LIMIT, || {
                monitor.sinks.statuses()[0].last_error.clone()
            });
        }
        rsyslog.start();
    }
    while appended < ALERTS {
        appended += 1;
        monitor.append(&alert(appended));
    }
    let all: Vec<String> = (1..=ALERTS).map(id).collect();
    wait_for("all alerts", LIMIT, || {
        (rsyslog.distinct().len() >= all.len()).then_some(())
    });
    assert_eq!(
        first_arrivals(&rsyslog.ids()),
        all.iter().collect::<Vec<_>>()
    );
    let status = wait_for("the cursor's move", LIMIT, || {
        monitor
            .sinks
            .statuses()
            .pop()
            .filter(|status| status.lag == 0)
    });
    assert_eq!(status.cursor, 1_000);
    assert_eq!(status.last_error, None);
    assert_eq!(status.unconfirmed, 0);
    assert!(status.retries > 0);
    monitor.stop();
}

/// A value of a structured-data parameter, by RFC 5424, section 6.3.3.
fn unescape(value: &str) -> String {
    let mut out = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' {
            chars.next().expect("an escaped character")
        } else {
            c
        });
    }
    out
}

#[test]
fn rsyslog_reads_hostile_names_and_large_messages_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let mut rsyslog = Rsyslog::new();
    rsyslog.start();
    let monitor = Monitor::start(folder.path().join("store.db"), rsyslog.address());
    let names = [
        r#"a"b"#,
        r"a\b",
        r"a\",
        "a]b",
        r#"x" rule="forged"] <0>1 - - - - - ["#,
        r#"\"]\\"]"#,
        "é 𝄞 名",
        "a b=c 'd' %s %n",
    ];
    let mut events: Vec<Event> = (1..)
        .zip(names)
        .map(|(n, name)| alert_saying(n, name, name))
        .collect();
    let control = "line\nfeed \u{1b}[2J\u{0}\u{9b}\u{7f}\u{202e}\t";
    let large = "é\u{1}\"\\".repeat(10_000);
    events.push(alert_saying(100, control, control));
    events.push(alert_saying(101, "large", &large));
    for event in &events {
        monitor.append(event);
    }
    let lines = wait_for("all alerts", LIMIT, || {
        Some(rsyslog.lines()).filter(|lines| lines.len() >= events.len())
    });
    assert_eq!(
        lines.len(),
        events.len(),
        "nothing a name holds begins a message"
    );
    for (event, fields) in events.iter().zip(&lines) {
        let [header, raw, parsed, message] = &fields[..] else {
            panic!("four fields: {fields:?}");
        };
        assert!(header.starts_with("2 2030-01-01T00:0"), "{header}");
        assert!(header.ends_with("node-1 agent-monitor alert"), "{header}");
        assert!(message.is_ascii());
        let sent = serde_json::to_value(event).unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(message).unwrap(),
            sent
        );

        let name = &event.agent.as_ref().unwrap().name;
        let shown: String = name
            .chars()
            .map(|c| {
                if c.is_control() {
                    format!("\\u{:04x}", u32::from(c))
                } else {
                    c.into()
                }
            })
            .collect();
        let raw_name = raw
            .split_once(r#" agent=""#)
            .unwrap()
            .1
            .strip_suffix(r#""]"#)
            .unwrap();
        assert_eq!(unescape(raw_name), shown);
        let parsed: serde_json::Value = serde_json::from_str(parsed).expect(parsed);
        let element = &parsed["agentmonitor@32473"];
        assert_eq!(
            element["agent"],
            shown.as_str(),
            "as rsyslog's own parser reads it"
        );
        assert_eq!(element["rule"], "reverse-shell");
        assert_eq!(element["severity"], "critical");
        assert_eq!(element["revision"], "1");
        assert_eq!(element["incident"], sent["alert"]["incident"]);
    }
    monitor.stop();
}

/// The next connection; fails when none comes.
fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let (stream, _) = wait_for("a connection", LIMIT, || listener.accept().ok());
    stream.set_nonblocking(false).unwrap();
    stream
}

/// Reads one octet-counted message and returns its id.
fn read_message(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut length = 0;
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        match byte[0] {
            b' ' => break,
            digit => length = length * 10 + usize::from(digit - b'0'),
        }
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).unwrap();
    let message = String::from_utf8(message).unwrap();
    id_of(message.split_once("] ").unwrap().1).unwrap()
}

/// The receiver had read all of it: nothing but the end of the connection says
/// that it may not have kept it.
#[test]
fn an_alert_whose_receiver_died_is_sent_again_though_nothing_new_comes() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let monitor = Monitor::start(folder.path().join("store.db"), address);
    monitor.append(&alert(1));
    for _ in 0..2 {
        let mut stream = accept(&listener);
        assert_eq!(read_message(&mut stream), id(1));
    }
    let mut stream = accept(&listener);
    assert_eq!(read_message(&mut stream), id(1));
    wait_for("it settles", LIMIT, || {
        (monitor.store.cursor("siem").unwrap() == 1).then_some(())
    });
    monitor.stop();
    assert_eq!(
        stream.read(&mut [0]).unwrap(),
        0,
        "and is not sent on the same connection twice"
    );
}

#[test]
fn an_alert_that_has_not_settled_is_sent_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let monitor = Monitor::start(folder.path().join("store.db"), address.clone());
    monitor.append(&alert(1));
    let mut first = accept(&listener);
    assert_eq!(read_message(&mut first), id(1));
    let monitor = monitor.restart(address);
    let mut second = accept(&listener);
    assert_eq!(read_message(&mut second), id(1));
    monitor.stop();
}

/// Its kernel acknowledges nothing more once its buffer is full.
#[test]
fn a_receiver_that_does_not_read_does_not_count_as_having_it() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 4096).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let monitor = Monitor::start(folder.path().join("store.db"), address);
    let summary = "s".repeat(64 * 1024);
    for n in 1..=20 {
        monitor.append(&alert_saying(n, "a", &summary));
    }
    let mut stream = accept(&listener);
    stream
        .set_read_timeout(Some(Duration::from_secs(8)))
        .unwrap();
    // Longer than an alert takes to settle.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(monitor.store.cursor("siem").unwrap(), 0);
    for n in 1..=20 {
        assert_eq!(read_message(&mut stream), id(n));
    }
    wait_for("it settles", LIMIT, || {
        (monitor.store.cursor("siem").unwrap() == 20).then_some(())
    });
    stream.set_nonblocking(true).unwrap();
    assert_eq!(
        stream.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    monitor.stop();
}
