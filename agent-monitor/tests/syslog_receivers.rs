//! The syslog sink over TLS, UDP and local sockets, and in each format, against real
//! receivers: rsyslog and syslog-ng.

mod common;

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use agent_monitor::config::SinkConfig;
use agent_monitor::sinks::{SinkStatus, Sinks};
use agent_monitor::store::Store;
use common::receivers::{Receiver, certificates, free_port};
use common::{alert, alert_saying, id, id_of, wait_for};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Several times what a loaded machine needs, backoff and settling included.
const LIMIT: Duration = Duration::from_secs(60);

/// A store with one sink.
struct Monitor {
    store: Store,
    sinks: Arc<Sinks>,
    stop: watch::Sender<bool>,
    runtime: Runtime,
    _folder: TempDir,
}

impl Monitor {
    /// `sink` is the sink's TOML, its name and kind aside.
    fn start(sink: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("name = \"siem\"\nkind = \"syslog\"\n{sink}");
        let config: SinkConfig = toml::from_str(&text).unwrap();
        let runtime = Runtime::new().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        let (stop, stopped) = watch::channel(false);
        let sinks = {
            let _entered = runtime.enter();
            Sinks::start(&[config], &store, &stopped)
        };
        Self {
            store,
            sinks,
            stop,
            runtime,
            _folder: folder,
        }
    }

    fn append(&self, numbers: std::ops::RangeInclusive<u64>) {
        for n in numbers {
            self.store.append(&alert(n)).unwrap();
        }
    }

    fn status(&self) -> SinkStatus {
        self.sinks.statuses().pop().unwrap()
    }

    fn wait_until_delivered(&self) {
        wait_for("all delivered", LIMIT, || {
            let status = self.status();
            (status.lag == 0).then_some(())
        });
    }

    fn wait_for_error(&self) -> String {
        wait_for("an error", LIMIT, || self.status().last_error)
    }

    fn stop(self) {
        self.stop.send_replace(true);
        self.runtime.block_on(self.sinks.join()).unwrap();
    }
}

/// The ids of the alerts in JSON that a receiver wrote.
fn ids(receiver: &Receiver) -> BTreeSet<String> {
    let lines = receiver.lines();
    lines
        .iter()
        .filter_map(|line| id_of(line.last()?))
        .collect()
}

fn wait_for_ids(receiver: &Receiver, numbers: std::ops::RangeInclusive<u64>) {
    let expected: BTreeSet<_> = numbers.map(id).collect();
    wait_for("the alerts", LIMIT, || {
        (ids(receiver) == expected).then_some(())
    });
}

/// rsyslog with TLS, which wants a certificate of its CA from those who send.
const RSYSLOG_TLS: &str = r#"
global(
    DefaultNetstreamDriver="gtls"
    DefaultNetstreamDriverCAFile="@/ca.pem"
    DefaultNetstreamDriverCertFile="@/server.pem"
    DefaultNetstreamDriverKeyFile="@/server.key"
)
module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/certvalid")
"#;

#[test]
fn rsyslog_over_tls_gets_what_comes_from_those_it_knows_and_loses_nothing_when_killed() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let port = free_port();
    let input = format!("{RSYSLOG_TLS}input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")");
    let mut receiver = Receiver::rsyslog(folder, &input);
    let sink = |tls: &str| {
        let tls = tls.replace('@', receiver.path("").to_str().unwrap());
        format!("address = \"127.0.0.1:{port}\"\ntransport = \"tls\"\n{tls}")
    };
    let ours =
        "tls = { ca = \"@/ca.pem\", certificate = \"@/client.pem\", key = \"@/client.key\" }";
    let ours = sink(ours);

    // The system's certificates do not know the CA.
    let monitor = Monitor::start(&sink(""));
    monitor.append(1..=1);
    wait_for("it to be refused", LIMIT, || {
        let error = monitor.status().last_error?;
        error.contains("invalid peer certificate").then_some(())
    });
    monitor.stop();

    // It does not let us in without a certificate, and nothing counts as delivered.
    let monitor = Monitor::start(&sink("tls = { ca = \"@/ca.pem\" }"));
    monitor.append(1..=1);
    monitor.wait_for_error();
    assert_eq!((monitor.status().cursor, ids(&receiver).len()), (0, 0));
    monitor.stop();

    let monitor = Monitor::start(&ours);
    monitor.append(1..=100);
    wait_for_ids(&receiver, 1..=100);
    receiver.kill();
    monitor.append(101..=120);
    monitor.wait_for_error();
    receiver.run();
    wait_for_ids(&receiver, 1..=120);
    monitor.wait_until_delivered();
    assert_eq!(monitor.status().dead_letters, 0);
    monitor.stop();
}

#[test]
fn syslog_ng_over_tls_gets_every_alert() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let port = free_port();
    let source = format!(
        r#"syslog(transport("tls") ip("127.0.0.1") port({port}) tls(
            ca-file("@/ca.pem") cert-file("@/server.pem") key-file("@/server.key")
            peer-verify(required-trusted)));"#
    );
    let receiver = Receiver::syslog_ng(folder, &source);
    let monitor = Monitor::start(
        &r#"address = "127.0.0.1:PORT"
        transport = "tls"
        tls = { ca = "@/ca.pem", certificate = "@/client.pem", key = "@/client.key" }"#
            .replace("PORT", &port.to_string())
            .replace('@', receiver.path("").to_str().unwrap()),
    );
    monitor.append(1..=300);
    wait_for_ids(&receiver, 1..=300);
    monitor.wait_until_delivered();
    monitor.stop();
}

#[test]
fn syslog_ng_reads_every_format_and_the_structured_data() {
    let hostile = r#"a"b]c\d=e|f"#;
    for (format, begins) in [
        ("json", "{\"schema\":1"),
        ("ocsf", "{"),
        ("ecs", "{"),
        ("cef", "CEF:0|agent-monitor|agent-monitor|"),
        ("plain", "critical reverse-shell "),
    ] {
        let port = free_port();
        let source = format!("syslog(transport(\"tcp\") ip(\"127.0.0.1\") port({port}));");
        let receiver = Receiver::syslog_ng(tempfile::tempdir().unwrap(), &source);
        let monitor = Monitor::start(&format!(
            "address = \"127.0.0.1:{port}\"\nformat = \"{format}\""
        ));
        let event = alert_saying(1, hostile, "it did = | \\ what it should not");
        monitor.store.append(&event).unwrap();
        let lines = wait_for("the alert", LIMIT, || {
            Some(receiver.lines()).filter(|lines| !lines.is_empty())
        });
        let [line] = &lines[..] else {
            panic!("one message: {lines:?}");
        };
        let [header, data, message] = &line[..] else {
            panic!("three parts: {line:?}");
        };
        assert_eq!(
            header,
            "crit 2030-01-01T00:00:01+00:00 node-1 agent-monitor alert"
        );
        assert_eq!(
            data,
            r#"[agentMonitor@32473 rule="reverse-shell" severity="critical" incident="incident-1" revision="1" agent="a\"b\]c\\d=e|f"]"#
        );
        assert!(message.starts_with(begins), "{format}: {message}");
        monitor.stop();
    }
}

#[test]
fn local_receivers_get_every_alert_by_datagrams_and_by_stream() {
    for source in ["unix-dgram", "unix-stream"] {
        let source = format!("{source}(\"@/socket\" flags(syslog-protocol));");
        let receiver = Receiver::syslog_ng(tempfile::tempdir().unwrap(), &source);
        let path = receiver.path("socket");
        let monitor = Monitor::start(&format!(
            "address = \"{}\"\ntransport = \"local\"",
            path.display()
        ));
        monitor.append(1..=500);
        wait_for_ids(&receiver, 1..=500);
        monitor.wait_until_delivered();
        monitor.stop();
    }
}

#[test]
fn a_local_receiver_that_does_not_read_does_not_count_as_having_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(LIMIT)).unwrap();
    let monitor = Monitor::start(&format!(
        "address = \"{}\"\ntransport = \"local\"",
        path.display()
    ));
    monitor.append(1..=3);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(monitor.status().cursor, 0);
    let mut buffer = [0; 64 * 1024];
    for n in 1..=3 {
        let length = receiver.recv(&mut buffer).unwrap();
        let message = std::str::from_utf8(&buffer[..length]).unwrap();
        assert!(
            message.ends_with('}') && message.contains(&id(n)),
            "{message}"
        );
    }
    monitor.wait_until_delivered();
    monitor.stop();
}

#[test]
fn rsyslog_over_udp_gets_every_alert_but_what_no_datagram_takes() {
    let port = free_port();
    let input = format!(
        "module(load=\"imudp\")\ninput(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\")"
    );
    // Nobody listens yet: loopback says so.
    let monitor = Monitor::start(&format!(
        "address = \"127.0.0.1:{port}\"\ntransport = \"udp\""
    ));
    monitor.append(1..=10);
    let error = monitor.wait_for_error();
    assert!(error.contains("refused"), "{error}");
    assert_eq!(monitor.status().cursor, 0);
    let receiver = Receiver::rsyslog(tempfile::tempdir().unwrap(), &input);
    monitor
        .store
        .append(&alert_saying(11, "a", &"s".repeat(70_000)))
        .unwrap();
    monitor.append(12..=20);
    let expected: BTreeSet<_> = (1..=20).filter(|n| *n != 11).map(id).collect();
    wait_for("the alerts", LIMIT, || {
        (ids(&receiver) == expected).then_some(())
    });
    monitor.wait_until_delivered();
    let letters = monitor.store.dead_letters("siem", 0, 10).unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].record.seq, 11);
    assert!(
        letters[0].error.contains("no datagram"),
        "{}",
        letters[0].error
    );
    monitor.stop();
}
