//! The file sink through restarts, torn lines, rotation and a full disk.
//! `a_full_disk…` mounts a tmpfs: needs root.

mod common;

use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_monitor::config::{
    BatchConfig, FileConfig, FilterConfig, Format, RotateConfig, SinkConfig, Size, Span,
};
use agent_monitor::event::{Body, Event, Gap, Timestamp};
use agent_monitor::sinks::{SinkStatus, Sinks};
use agent_monitor::store::Store;
use common::{EPOCH_NS, SmallDisk, alert, alert_saying, id, id_of, wait_for};
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
        Self::rotating(folder, output, RotateConfig::default())
    }

    fn rotating(folder: &Path, output: &Path, rotate: RotateConfig) -> Self {
        let runtime = Runtime::new().unwrap();
        let store = Store::open(&folder.join("store.db")).unwrap();
        let (stop, stopped) = watch::channel(false);
        let config = SinkConfig::File(FileConfig {
            name: "archive".into(),
            path: output.to_owned(),
            format: Format::Json,
            rotate,
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

/// Every file that rotation has made, oldest first, and the one that is written to.
fn rotated(output: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(output.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|file| {
            let name = file.file_name().unwrap().to_str().unwrap();
            name.starts_with("alerts.ndjson.")
        })
        .collect();
    files.sort();
    files.push(output.to_owned());
    files
}

/// The id on every line of a file, which may be compressed.
fn ids_in(file: &Path) -> Vec<String> {
    if file.extension().is_none_or(|it| it != "gz") {
        return ids(file);
    }
    // As anybody would read it.
    let gzip = std::process::Command::new("gzip")
        .args(["--decompress", "--stdout"])
        .arg(file)
        .output()
        .expect("gzip runs");
    assert!(gzip.status.success(), "{gzip:?}");
    let text = String::from_utf8(gzip.stdout).unwrap();
    text.lines().map(|line| id_of(line).expect(line)).collect()
}

#[test]
fn a_file_that_is_large_enough_is_rotated_and_compressed_and_no_line_is_lost() {
    let (folder, output) = folder();
    let rotate = RotateConfig {
        size: Some(Size(8 * 1024)),
        keep: NonZeroU32::new(1000).unwrap(),
        ..RotateConfig::default()
    };
    let monitor = Monitor::rotating(folder.path(), &output, rotate);
    for first in (1..=500).step_by(10) {
        monitor.append(first..first + 10);
        monitor.wait_until_delivered();
        assert!(output.metadata().unwrap().len() <= 8 * 1024);
    }
    monitor.stop();
    // A start ends what the stop may have cut short.
    let monitor = Monitor::rotating(folder.path(), &output, rotate);
    monitor.append([501]);
    monitor.wait_until_delivered();
    let files = wait_for("all earlier files to be compressed", LIMIT, || {
        let files = rotated(&output);
        let earlier = &files[..files.len() - 1];
        let done = |file: &PathBuf| file.extension().is_some_and(|it| it == "gz");
        earlier.iter().all(done).then_some(files)
    });
    monitor.stop();
    assert!(files.len() > 10, "{files:?}");
    for file in &files {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    let all: Vec<_> = files.iter().flat_map(|file| ids_in(file)).collect();
    assert_eq!(all, expected(1..=501));
}

#[test]
fn a_file_that_is_old_enough_is_rotated_and_only_so_many_stay() {
    let (folder, output) = folder();
    let rotate = RotateConfig {
        age: Some(Span(Duration::from_millis(50))),
        keep: NonZeroU32::new(2).unwrap(),
        gzip: false,
        ..RotateConfig::default()
    };
    let monitor = Monitor::rotating(folder.path(), &output, rotate);
    for n in 1..=5 {
        monitor.append([n]);
        monitor.wait_until_delivered();
        std::thread::sleep(Duration::from_millis(100));
    }
    wait_for("the oldest to be deleted", LIMIT, || {
        (rotated(&output).len() == 3).then_some(())
    });
    monitor.stop();
    let all: Vec<_> = rotated(&output)
        .iter()
        .flat_map(|file| ids_in(file))
        .collect();
    assert_eq!(all, expected(3..=5));
}

#[test]
fn what_logrotate_took_away_is_let_go_of_when_told_to() {
    let (folder, output) = folder();
    let monitor = Monitor::start(folder.path(), &output);
    monitor.append([1]);
    monitor.wait_until_delivered();
    let held = || {
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        open.filter_map(|it| std::fs::read_link(it.unwrap().path()).ok())
            .any(|file| {
                file.starts_with(folder.path()) && file.to_str().unwrap().contains("alerts.ndjson")
            })
    };
    std::fs::rename(&output, folder.path().join("alerts.ndjson.1")).unwrap();
    assert!(held());
    monitor.sinks.reopen();
    wait_for("it to be let go of", LIMIT, || (!held()).then_some(()));
    monitor.append([2]);
    monitor.wait_until_delivered();
    monitor.stop();
    assert_eq!(ids(&output), expected([2]));
}

/// The `n`th event, a gap.
fn gap(n: u64) -> Event {
    let time = Timestamp(EPOCH_NS + n * 1_000_000_000);
    Event {
        id: id(n).into(),
        time,
        node: "node-1".into(),
        agent: None,
        process: None,
        body: Body::Gap(Gap {
            reason: "it rained".into(),
            from: time,
            to: time,
        }),
    }
}

#[test]
fn events_go_to_sinks_that_want_them_and_the_others_go_past() {
    let folder = tempfile::tempdir().unwrap();
    let monitor = Monitor::start(folder.path(), &folder.path().join("alerts"));
    let file = |name: &str, kinds: &[&str]| {
        let kinds = kinds.iter().map(|kind| kind.parse().unwrap()).collect();
        SinkConfig::File(FileConfig {
            name: name.into(),
            path: folder.path().join(name),
            format: Format::Json,
            rotate: RotateConfig::default(),
            filter: FilterConfig {
                kinds,
                ..FilterConfig::default()
            },
            batch: BatchConfig::default(),
        })
    };
    monitor.sinks.replace(&[
        file("alerts", &["alert"]),
        file("all", &["*"]),
        file("gaps", &["g*"]),
        file("execs", &["exec"]),
    ]);
    // More than are read at a time.
    for n in 1..=1000 {
        let event = if n % 100 == 0 { alert(n) } else { gap(n) };
        monitor.store.append(&event).unwrap();
    }
    let statuses = wait_for("all delivered", LIMIT, || {
        let statuses = monitor.sinks.statuses();
        statuses.iter().all(|it| it.lag == 0).then_some(statuses)
    });
    assert_eq!(statuses[0].cursor, 1000);
    for (name, is_in) in [
        ("alerts", (|n| n % 100 == 0) as fn(u64) -> bool),
        ("all", |_| true),
        ("gaps", |n| n % 100 != 0),
    ] {
        let wanted = (1..=1000).filter(|n| is_in(*n));
        assert_eq!(ids(&folder.path().join(name)), expected(wanted), "{name}");
    }
    assert!(!folder.path().join("execs").exists());
    monitor.stop();
}

#[test]
fn sinks_are_exchanged_while_they_run_and_none_misses_an_alert() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, file: &str| {
        SinkConfig::File(FileConfig {
            name: name.into(),
            path: folder.path().join(file),
            format: Format::Json,
            rotate: RotateConfig::default(),
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
