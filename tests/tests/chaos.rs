//! Ten thousand alerts while everything dies: receivers are killed, stopped, made to answer
//! errors, and the daemon is killed twenty times, at random. Afterwards each receiver
//! has every alert that the store holds and every one that a reader was shown. Needs root.
//!
//! `AGENT_MONITOR_CHAOS_SEED` repeats the decisions of a run; it is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use agent_monitor::store::{Store, Wanted};
use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::monitor::{Monitor, Site};
use agent_monitor_tests::wait;
use agent_monitor_tests::world::World;
use rustix::process::{Pid, Signal, kill_process};

/// How many alerts there have to be.
const ALERTS: usize = 10_000;
/// How often the daemon is killed.
const KILLS: usize = 20;
/// Rules that each program of the agent breaks: as many alerts for each.
const RULES: usize = 100;
/// For everything to arrive once all is well: several times the longest backoff of a run.
const RECOVERY: Duration = Duration::from_secs(60);

/// How many alerts a daemon has stored; others share their numbers.
fn alerts(store: &Path) -> anyhow::Result<usize> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let store = rusqlite::Connection::open_with_flags(store, flags)?;
    let count: i64 = store.query_row("SELECT count(*) FROM alerts", [], |row| row.get(0))?;
    Ok(usize::try_from(count)?)
}

/// A receiver in a process of its own.
struct Collector {
    kind: &'static str,
    port: u16,
    folder: PathBuf,
    seed: u64,
    child: Mutex<Child>,
}

impl Collector {
    fn start(kind: &'static str, site: &Path, seed: u64) -> Self {
        let folder = site.join(kind);
        fs::create_dir(&folder).unwrap();
        File::create(folder.join("ids")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let child = Mutex::new(run(kind, port, &folder, seed));
        Self {
            kind,
            port,
            folder,
            seed,
            child,
        }
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        kill_process(Pid::from_child(&child), signal).unwrap();
    }

    /// Does to it one of the things that happen to receivers, and undoes it.
    fn suffer(&self, random: &mut fastrand::Rng) -> &'static str {
        let what = random.u8(0..3);
        let pause = Duration::from_millis(random.u64(50..800));
        let pause = || thread::sleep(pause);
        let errors = self.folder.join("errors");
        match what {
            0 => {
                let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
                child.kill().unwrap();
                child.wait().unwrap();
                pause();
                *child = run(self.kind, self.port, &self.folder, self.seed);
                "killed"
            }
            1 => {
                self.signal(Signal::STOP);
                pause();
                self.signal(Signal::CONT);
                "stopped"
            }
            _ => {
                File::create(&errors).unwrap();
                pause();
                fs::remove_file(errors).unwrap();
                "errors"
            }
        }
    }

    /// How often each alert arrived.
    fn arrived(&self) -> BTreeMap<String, usize> {
        count(fs::read_to_string(self.folder.join("ids")).unwrap().lines())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn run(kind: &str, port: u16, folder: &Path, seed: u64) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    Command::new("/usr/bin/python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("receivers/collector.py"))
        .args([kind, &port.to_string()])
        .arg(folder)
        .arg(seed.to_string())
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn count<'a>(ids: impl Iterator<Item = &'a str>) -> BTreeMap<String, usize> {
    let mut arrived = BTreeMap::new();
    for id in ids {
        *arrived.entry(id.to_owned()).or_default() += 1;
    }
    arrived
}

/// The file sink's: what is written to, and what rotation made of it.
fn in_files(site: &Path) -> BTreeMap<String, usize> {
    let mut text = String::new();
    for entry in fs::read_dir(site.join("archive")).unwrap() {
        let file = entry.unwrap().path();
        let compressed = file.extension().is_some_and(|it| it == "gz");
        let program = if compressed { "zcat" } else { "cat" };
        let output = Command::new(program).arg(&file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        text += std::str::from_utf8(&output.stdout).unwrap();
    }
    let ids: Vec<String> = text
        .lines()
        .map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).expect(line);
            event["id"].as_str().unwrap().to_owned()
        })
        .collect();
    count(ids.iter().map(String::as_str))
}

/// Rules that all are broken by a program with this argument.
fn write_rules(dir: &Path) {
    fs::create_dir(dir).unwrap();
    for n in 0..RULES {
        let text = format!(
            "title: Chaos\nid: chaos-{n}\nlevel: medium\nevent: exec\ndetection:\n  \
             sel: {{exec.argv|contains: 'chaos-mark'}}\n  condition: sel\n"
        );
        fs::write(dir.join(format!("chaos-{n}.yaml")), text).unwrap();
    }
}

/// Not kept back by the test harness.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "chaos: {line}");
}

#[test]
fn every_alert_arrives_though_receivers_and_the_daemon_die_at_random() {
    let seed = std::env::var("AGENT_MONITOR_CHAOS_SEED").ok();
    let seed = seed.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    say(&format!("AGENT_MONITOR_CHAOS_SEED={seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    let began = Instant::now();

    let world = World::new("chaos").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let site = Arc::new(Site::new().unwrap());
    let dir = site.dir();
    write_rules(&dir.join("rules"));
    fs::create_dir(dir.join("archive")).unwrap();
    fs::write(dir.join("token"), "s3cret\n").unwrap();
    let collectors = ["hec", "bulk"].map(|kind| Collector::start(kind, dir, seed));
    let config = format!(
        r#"
[rules]
dirs = ["@/rules"]
[[sink]]
name = "hec"
kind = "splunk"
url = "http://127.0.0.1:{}"
token = {{ file = "@/token" }}
[[sink]]
name = "bulk"
kind = "elasticsearch"
url = "http://127.0.0.1:{}"
index = "alerts"
[[sink]]
name = "archive"
kind = "file"
path = "@/archive/alerts"
rotate = {{ size = "1MiB", keep = 1000 }}
"#,
        collectors[0].port, collectors[1].port
    )
    .replace('@', dir.to_str().unwrap());
    let selector = agent.selector();

    let over = AtomicBool::new(false);
    let mut shown = BTreeSet::new();
    thread::scope(|scope| {
        let _stop = OnDrop(&over);
        for collector in &collectors {
            let mut random = random.fork();
            let over = &over;
            scope.spawn(move || {
                let mut suffered = BTreeMap::new();
                while !over.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(random.u64(100..1_500)));
                    *suffered.entry(collector.suffer(&mut random)).or_insert(0) += 1;
                }
                say(&format!("{}: {suffered:?}", collector.kind));
            });
        }

        // A shell that breaks every rule a few times a second, for as long as it lives.
        let mut load = agent
            .spawn(&[
                "sh",
                "-c",
                "while :; do /bin/true chaos-mark; sleep 0.1; done",
            ])
            .unwrap();
        for kill in 1..=KILLS {
            if kill < KILLS && random.u8(0..4) == 0 {
                // Before it has got anywhere, or just when it has.
                let mut daemon = site
                    .command(&["run", "--agent", &selector, "--config"])
                    .unwrap()
                    .arg(site.configure(&config).unwrap())
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                thread::sleep(Duration::from_millis(random.u64(0..1_500)));
                daemon.kill().unwrap();
                daemon.wait().unwrap();
                continue;
            }
            let monitor = Monitor::start_at(&site, &[&selector], &config).unwrap();
            // More alerts in every round, wherever in it the end comes; of the numbers that the
            // store has given, a few are those of programs that alerts refer to.
            let goal = (ALERTS + ALERTS / 10) * kill / KILLS;
            let least = Duration::from_millis(random.u64(0..700));
            let start = Instant::now();
            wait::until("alerts", RECOVERY, || {
                let enough = alerts(&dir.join("store.db"))? >= goal && start.elapsed() >= least;
                Ok(enough.then_some(()))
            })
            .unwrap();
            thread::sleep(Duration::from_millis(random.u64(0..100)));
            let told = monitor.kill().unwrap();
            shown.extend(told.iter().filter(|it| it["kind"] == "alert").map(id_of));
        }
        load.stop().unwrap();
    });
    say(&format!(
        "{KILLS} kills after {:.1} s",
        began.elapsed().as_secs_f64()
    ));

    // All is well again.
    let monitor = Monitor::start_at(&site, &[&selector], &config).unwrap();
    let status = wait::until("all sinks to have caught up", RECOVERY, || {
        let status = monitor.status()?;
        let sinks = status["sinks"].as_array().cloned().unwrap_or_default();
        let well = sinks.iter().all(|it| it["lag"] == 0);
        Ok((sinks.len() == 3 && well).then_some(status))
    });
    let status = status
        .unwrap_or_else(|error| panic!("{error:#}: {:#}", monitor.status().unwrap()["sinks"]));
    for sink in status["sinks"].as_array().unwrap() {
        assert_eq!(sink["dead_letters"], 0, "{sink}");
    }
    let told = monitor.stop().unwrap();
    shown.extend(told.iter().filter(|it| it["kind"] == "alert").map(id_of));

    let store = Store::open(&dir.join("store.db")).unwrap();
    let records = store.read_after(0, u32::MAX, Wanted::Alerts).unwrap();
    let stored: BTreeSet<String> = records
        .iter()
        .map(|record| id_of(&serde_json::from_str(&record.json).unwrap()))
        .filter(|id| !id.is_empty())
        .collect();
    assert!(stored.len() >= ALERTS, "{}", stored.len());
    let unstored: Vec<_> = shown.difference(&stored).collect();
    assert!(unstored.is_empty(), "shown and not stored: {unstored:?}");
    for (name, arrived) in [
        ("hec", collectors[0].arrived()),
        ("bulk", collectors[1].arrived()),
        ("archive", in_files(dir)),
    ] {
        let twice: usize = arrived.values().map(|times| times - 1).sum();
        let arrived: BTreeSet<String> = arrived.into_keys().collect();
        let missing: Vec<_> = stored.difference(&arrived).collect();
        say(&format!(
            "{name}: {} of {} alerts arrived, {} missing, {twice} duplicates",
            arrived.len(),
            stored.len(),
            missing.len()
        ));
        assert!(missing.is_empty(), "{name} lacks {missing:?}");
        let invented: Vec<_> = arrived.difference(&stored).collect();
        assert!(invented.is_empty(), "{name} has {invented:?}");
        assert!(name != "bulk" || twice == 0, "an id is an id");
    }
    say(&format!("{:.1} s", began.elapsed().as_secs_f64()));
}

/// The id of an event.
fn id_of(event: &serde_json::Value) -> String {
    event["id"].as_str().unwrap_or_default().to_owned()
}

/// Becomes true however the scope is left.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
