//! The file sink through restarts, torn lines, rotation and a full disk.
//! `a_full_disk…` mounts a tmpfs: needs root.

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_monitor::config::{BatchConfig, FileConfig, FilterConfig, Format, SinkConfig};
use agent_monitor::sinks::{SinkStatus, Sinks};
use agent_monitor::store::Store;
use common::{SmallDisk, alert, alert_saying, id, id_of, wait_for};
use tokio::runtime::Runtime;
use tokio::sync::watch;

const LIMIT: Duration = Duration::from_secs(60);

/// A store with a file sink.
struct Monitor {
    store: Store,
    sinks: Arc<Sinks>,
    stop: watch::Sender<bool>,
    runtime: Runtime,
}

impl Monitor {
    fn start(folder: &Path, output: &Path) -> Self {
        let runtime = Runtime::new().unwrap();
        let store = Store::open(&folder.join("store.db")).unwrap();
        let (stop, stopped) = watch::channel(false);
        let config = SinkConfig::File(FileConfig {
            name: "archive".into(),
            path: output.to_owned(),
            format: Format::Json,
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
        }
    }

    fn append(&self, numbers: impl IntoIterator<Item = u64>) {
        for n in numbers {
            self.store.append(&alert(n)).unwrap();
        }
    }

    fn status(&self) -> SinkStatus {
        self.sinks.statuses().pop().unwrap()
    }

    fn wait_until_delivered(&self) {
        wait_for("all delivered", LIMIT, || {
            (self.status().lag == 0).then_some(())
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

/// The id on every line; fails when a line is no alert.
fn ids(output: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(output).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| id_of(line).expect(line)).collect()
}

fn expected(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(id).collect()
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("alerts.ndjson");
    (folder, output)
}

#[test]
fn every_alert_is_a_line_and_none_is_twice_after_a_restart() {
    let (folder, output) = folder();
    let monitor = Monitor::start(folder.path(), &output);
    monitor.append(1..=300);
    monitor.wait_until_delivered();
    monitor.stop();
    assert_eq!(
        output.metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    let monitor = Monitor::start(folder.path(), &output);
    monitor.append(301..=310);
    monitor.wait_until_delivered();
    monitor.stop();
    assert_eq!(ids(&output), expected(1..=310));
    let first = std::fs::read_to_string(&output).unwrap();
    assert_eq!(
        first.lines().next().unwrap(),
        serde_json::to_string(&alert(1)).unwrap()
    );
}

#[test]
fn a_line_torn_by_a_crash_is_cut_off() {
    for torn in [
        "{\"schema\":1,\"id\":\"al".to_owned(),
        "x".repeat(200_000),
        "\0".repeat(70_000),
    ] {
        let (folder, output) = folder();
        let whole = serde_json::to_string(&alert(1)).unwrap();
        std::fs::write(&output, format!("{whole}\n{torn}")).unwrap();
        let monitor = Monitor::start(folder.path(), &output);
        monitor.append([2]);
        monitor.wait_until_delivered();
        monitor.stop();
        assert_eq!(ids(&output), expected([1, 2]));
    }
}

#[test]
fn a_file_that_is_nothing_but_a_torn_line_begins_anew() {
    let (folder, output) = folder();
    std::fs::write(&output, "{\"sch").unwrap();
    let monitor = Monitor::start(folder.path(), &output);
    monitor.append([1]);
    monitor.wait_until_delivered();
    monitor.stop();
    assert_eq!(ids(&output), expected([1]));
}

#[test]
fn a_rotated_file_is_followed_by_a_new_one() {
    let (folder, output) = folder();
    let rotated = folder.path().join("alerts.ndjson.1");
    let monitor = Monitor::start(folder.path(), &output);
    monitor.append(1..=5);
    monitor.wait_until_delivered();
    std::fs::rename(&output, &rotated).unwrap();
    monitor.append(6..=7);
    monitor.wait_until_delivered();
    monitor.stop();
    assert_eq!(ids(&rotated), expected(1..=5));
    assert_eq!(ids(&output), expected(6..=7));
}

#[test]
fn a_folder_that_is_not_there_yet_is_waited_for() {
    let (folder, _) = folder();
    let output = folder.path().join("later/alerts.ndjson");
    let monitor = Monitor::start(folder.path(), &output);
    monitor.append(1..=3);
    let error = monitor.wait_for_error();
    assert!(error.contains("later/alerts.ndjson"), "{error}");
    assert_eq!(monitor.status().lag, 3);
    std::fs::create_dir(output.parent().unwrap()).unwrap();
    monitor.wait_until_delivered();
    monitor.stop();
    assert_eq!(ids(&output), expected(1..=3));
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let (folder, _) = folder();
    let monitor = Monitor::start(folder.path(), Path::new("/dev/null"));
    monitor.append([1]);
    let error = monitor.wait_for_error();
    assert!(
        error.contains("/dev/null") && error.contains("regular file"),
        "{error}"
    );
    monitor.stop();
}

#[test]
fn a_full_disk_tears_no_line_loses_none_and_doubles_none() {
    let (folder, _) = folder();
    let disk = SmallDisk::mount();
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 900 * 1024]).unwrap();
    let output = disk.path().join("alerts.ndjson");
    let monitor = Monitor::start(folder.path(), &output);
    let summary = "s".repeat(10_000);
    for n in 1..=50 {
        monitor
            .store
            .append(&alert_saying(n, "a", &summary))
            .unwrap();
    }
    let error = monitor.wait_for_error();
    assert!(error.contains("free space"), "{error}");
    std::fs::remove_file(ballast).unwrap();
    monitor.wait_until_delivered();
    monitor.stop();
    assert_eq!(ids(&output), expected(1..=50));
}

#[test]
fn sinks_are_exchanged_while_they_run_and_none_misses_an_alert() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, file: &str| {
        SinkConfig::File(FileConfig {
            name: name.into(),
            path: folder.path().join(file),
            format: Format::Json,
            filter: FilterConfig::default(),
            batch: BatchConfig::default(),
        })
    };
    let lines = |file: &str| {
        let text = std::fs::read_to_string(folder.path().join(file)).unwrap_or_default();
        text.lines().count()
    };
    let monitor = Monitor::start(folder.path(), &folder.path().join("a"));
    monitor.append(1..=10);
    monitor.wait_until_delivered();
    // One that goes on, one that is new and gets what is stored.
    monitor
        .sinks
        .replace(&[file("archive", "a"), file("other", "b")]);
    monitor.append(11..=20);
    wait_for("both", LIMIT, || {
        (lines("a") == 20 && lines("b") == 20).then_some(())
    });
    // The same cursor, another file: what comes after it.
    monitor.sinks.replace(&[file("archive", "c")]);
    monitor.append(21..=30);
    wait_for("the rest", LIMIT, || (lines("c") == 10).then_some(()));
    assert_eq!((lines("a"), lines("b")), (20, 20));
    let names: Vec<_> = monitor
        .sinks
        .statuses()
        .into_iter()
        .map(|it| it.name)
        .collect();
    assert_eq!(names, ["archive"]);
    monitor.stop();
}
