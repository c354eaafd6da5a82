//! Huge pages, reserved and used by agents on the running kernel: what miners do, and
//! what others do. Needs root, and a kernel with huge pages of 2 MiB. Each test takes at most
//! ten of them, and gives back what it has set.

use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::monitor::{Monitor, SOON, Site};
use agent_monitor_tests::process::Process;
use agent_monitor_tests::watched::Events;
use agent_monitor_tests::world::World;
use serde_json::Value;

const PAGES: &str = "/proc/sys/vm/nr_hugepages";
const OVERCOMMIT: &str = "/proc/sys/vm/nr_overcommit_hugepages";

/// The node's numbers of huge pages as they were, put back on drop. They are the whole
/// machine's, so that one test at a time changes them.
struct Put {
    back: Vec<(&'static str, String)>,
    _alone: MutexGuard<'static, ()>,
}

impl Put {
    fn aside() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let files = [PAGES, OVERCOMMIT];
        let back = files.map(|file| (file, fs::read_to_string(file).unwrap()));
        Self {
            back: back.into(),
            _alone: alone,
        }
    }
}

impl Drop for Put {
    fn drop(&mut self) {
        for (file, value) in &self.back {
            if let Err(error) = fs::write(file, value) {
                eprintln!("{file} is not {} again: {error}", value.trim());
            }
        }
    }
}

fn number(file: &str) -> u64 {
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

/// The alerts of `miner-process`, without later revisions.
fn found(events: &Events) -> Vec<&Value> {
    let alerts = events.of_kind("alert").into_iter();
    alerts
        .filter(|it| it["alert"]["rule"] == "miner-process" && it["alert"]["revision"] == 1)
        .collect()
}

#[test]
fn who_has_huge_pages_reserved_is_told_once_whatever_way_he_takes() {
    let put = Put::aside();
    let world = World::new("reserves").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let monitor = Monitor::of(&agent).unwrap();
    let pages = number(PAGES) + 4;
    let sh = |script: &str| agent.run(&["sh", "-c", script]).unwrap();
    sh(&format!("echo {pages} > {PAGES}"));
    assert_eq!(number(PAGES), pages, "it happens all the same");
    // The command writes the same file: one deed.
    let set = "vm.nr_overcommit_hugepages=4";
    let output = agent.run(&["sysctl", "-w", set]);
    output.unwrap();
    assert_eq!(number(OVERCOMMIT), 4);
    // What is no reservation.
    sh(&format!(
        "cat {PAGES} {OVERCOMMIT}; sysctl -n vm.nr_hugepages"
    ));
    sh(&format!("echo 0 > {OVERCOMMIT}"));
    let stat = "/proc/sys/vm/stat_interval";
    sh(&format!("cat {stat} > {stat}"));
    // Nor is it an agent's.
    fs::write(PAGES, pages.to_string()).unwrap();
    monitor.catch_up(&agent).unwrap();
    let events = Events(monitor.stop().unwrap());
    drop(put);

    let writes: Vec<_> = events.of_kind("sysctl");
    let names = writes
        .iter()
        .map(|it| it["sysctl"]["name"].as_str().unwrap());
    let expected = [
        "vm.nr_hugepages",
        "vm.nr_overcommit_hugepages",
        "vm.nr_overcommit_hugepages",
        "vm.stat_interval",
    ];
    assert_eq!(names.collect::<Vec<_>>(), expected);
    let found = found(&events);
    let comms: Vec<_> = found
        .iter()
        .map(|it| it["process"]["comm"].clone())
        .collect();
    assert_eq!(comms, ["sh", "sysctl"]);
    for alert in &found {
        let alert = &alert["alert"];
        assert_eq!(
            (&alert["severity"], &alert["confidence"]),
            (&"high".into(), &"medium".into())
        );
    }
    let evidence = found[0]["alert"]["evidence"].to_string();
    assert!(
        evidence.contains(&format!("wrote {pages} to vm.nr_hugepages")),
        "{evidence}"
    );
    let about = &found[0]["alert"]["events"];
    assert_eq!(about[0], writes[0]["id"], "{about}");
}

/// Maps and touches so many pages of 2 MiB, then works or sleeps for half a minute.
const HOLD: &str = "
import mmap, sys, time
MAP_HUGETLB = 0x40000
size = int(sys.argv[1]) << 21
held = mmap.mmap(-1, size, flags=getattr(mmap, sys.argv[3]) | mmap.MAP_ANONYMOUS | MAP_HUGETLB)
for page in range(0, size, 1 << 21):
    held[page] = 1
print('holds', flush=True)
end = time.monotonic() + 30
while time.monotonic() < end:
    if sys.argv[2] == 'idle':
        time.sleep(1)
";

fn hold(agent: &Agent, pages: &str, how: &str, flag: &str) -> Process {
    let mut holder = agent
        .spawn(&["python3", "-c", HOLD, pages, how, flag])
        .unwrap();
    holder.wait_for_line("holds", SOON).unwrap();
    holder
}

#[test]
fn who_computes_in_huge_pages_is_told_and_who_only_has_them_is_not() {
    let _put = Put::aside();
    fs::write(PAGES, (number(PAGES) + 10).to_string()).unwrap();
    let world = World::new("holds").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let other = Agent::cgroup(&world, "other").unwrap();
    let site = Arc::new(Site::new().unwrap());
    // A test has no gigabyte of them, no minute, and no core to itself.
    let rules = site.dir().join("rules");
    fs::create_dir(&rules).unwrap();
    let change = "override: miner-process\nsettings: {huge_mib: 4, busy_percent: 5, busy_s: 3}\n";
    fs::write(rules.join("small.yaml"), change).unwrap();
    let config = format!("[rules]\ndirs = [{rules:?}]\n");
    let monitor = Monitor::start_at(&site, &[&agent.selector()], &config).unwrap();

    let _holders = [
        hold(&agent, "2", "idle", "MAP_PRIVATE"),
        hold(&other, "2", "busy", "MAP_PRIVATE"),
        hold(&agent, "1", "busy", "MAP_PRIVATE"),
        // As databases do.
        hold(&agent, "2", "busy", "MAP_SHARED"),
    ];
    let mut miner = hold(&agent, "2", "busy", "MAP_PRIVATE");
    let alert = monitor
        .wait_for("a miner at work", SOON * 2, |it| {
            it["alert"]["rule"] == "miner-process"
        })
        .unwrap();
    let argv = alert["process"]["argv"].as_array().unwrap();
    assert_eq!(argv[3..], ["2", "busy", "MAP_PRIVATE"], "{alert}");
    let text = alert["alert"].to_string();
    assert!(
        text.contains("it holds 4 MiB of huge pages and used "),
        "{text}"
    );
    assert_eq!(alert["alert"]["severity"], "high");
    miner.stop().unwrap();
    monitor.catch_up(&agent).unwrap();
    let events = Events(monitor.stop().unwrap());
    assert_eq!(found(&events).len(), 1);
}
