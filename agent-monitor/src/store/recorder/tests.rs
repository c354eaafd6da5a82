//! What is stored, what is told, and in what order.

use std::path::Path;
use std::time::Instant;

use super::*;
use crate::event::{
    Agent, AgentChange, AgentState, Alert, Cgroup, Confidence, Gap, Loss, Severity, Timestamp,
};
use crate::loss::Stage;
use crate::store::{Limits, Wanted};

type Told = Arc<Mutex<Vec<(String, Option<Seq>)>>>;

struct Recording {
    recorder: Option<Recorder>,
    store: Store,
    told: Told,
    folder: tempfile::TempDir,
}

fn start(events: Events) -> Recording {
    let folder = tempfile::tempdir().unwrap();
    start_in(folder, "store.db", events)
}

fn start_in(folder: tempfile::TempDir, name: &str, events: Events) -> Recording {
    let store = Store::closed(&folder.path().join(name)).unwrap();
    store.set_sinks(Vec::new());
    let told = Told::default();
    let tell = {
        let told = told.clone();
        move |event: Arc<Event>, seq| lock(&told).push((event.id.to_string(), seq))
    };
    let recorder = Recorder::start(store.clone(), events, Box::new(tell)).unwrap();
    recorder.wait_until_opened(Duration::from_secs(60));
    Recording {
        recorder: Some(recorder),
        store,
        told,
        folder,
    }
}

impl Recording {
    fn take(&self, events: impl IntoIterator<Item = Event>) {
        let recorder = self.recorder.as_ref().unwrap();
        recorder.take(&mut events.into_iter().collect());
    }

    fn recorder(&self) -> &Recorder {
        self.recorder.as_ref().unwrap()
    }

    /// Ids and numbers that are stored, once the recorder has ended.
    fn stored(&mut self) -> Vec<(String, Seq)> {
        self.recorder = None;
        ids(&self.store)
    }

    fn told(&self) -> Vec<(String, Option<Seq>)> {
        lock(&self.told).clone()
    }

    fn wait_for(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !done(self) {
            assert!(Instant::now() < end, "never: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn ids(store: &Store) -> Vec<(String, Seq)> {
    let records = store.read_after(0, u32::MAX, Wanted::Everything).unwrap();
    let each = records.iter().map(|record| {
        let event: serde_json::Value = serde_json::from_str(&record.json).unwrap();
        assert_eq!(event["kind"], *record.kind);
        (event["id"].as_str().unwrap().to_owned(), record.seq)
    });
    each.collect()
}

fn event(id: &str, agent: u64, body: Body) -> Event {
    Event {
        id: id.into(),
        time: Timestamp::now(),
        node: "node".into(),
        agent: (agent > 0).then(|| {
            Arc::new(Agent {
                id: agent.to_string(),
                name: format!("agent-{agent}"),
                cgroup_id: agent,
                ..Agent::default()
            })
        }),
        process: None,
        body,
    }
}

fn ordinary(id: &str) -> Event {
    of_agent(id, 7)
}

fn of_agent(id: &str, agent: u64) -> Event {
    let body = Body::Cgroup(Cgroup {
        action: "created",
        path: "/a".into(),
    });
    event(id, agent, body)
}

fn appeared(id: &str) -> Event {
    let state = AgentState::Appeared;
    event(id, 7, Body::Agent(AgentChange { state }))
}

fn loss(id: &str) -> Event {
    let kinds = [("exec".into(), 1)].into();
    let loss = Loss {
        stage: Stage::Ring,
        records: 1,
        kinds,
    };
    event(id, 0, Body::Loss(loss))
}

fn gap(id: &str) -> Event {
    let gap = Gap {
        reason: "start".into(),
        from: Timestamp(1),
        to: Timestamp(2),
    };
    event(id, 7, Body::Gap(gap))
}

fn alert(id: &str, events: &[&str]) -> Event {
    let body = Body::Alert(Arc::new(Alert {
        incident: format!("incident-{id}"),
        revision: 1,
        rule: "reverse-shell".into(),
        title: "Reverse shell".into(),
        severity: Severity::High,
        confidence: Confidence::High,
        attack: [].into(),
        summary: "it did".into(),
        evidence: Vec::new(),
        events: events.iter().map(|id| (*id).into()).collect(),
        count: 1,
        first_seen: Timestamp(1),
        last_seen: Timestamp(2),
        coverage: "complete".into(),
    }));
    event(id, 7, body)
}

fn numbered<const N: usize>(ids: [&str; N]) -> Vec<(String, Seq)> {
    ids.into_iter().map(str::to_owned).zip(1..).collect()
}

#[test]
fn all_stores_everything_in_one_sequence_and_tells_the_numbers_in_order() {
    let mut recording = start(Events::All);
    let events = [ordinary("a"), alert("b", &["a"]), loss("c"), ordinary("d")];
    recording.take(events);
    let expected = numbered(["a", "b", "c", "d"]);
    assert_eq!(recording.stored(), expected);
    let told = expected.into_iter().map(|(id, seq)| (id, Some(seq)));
    assert_eq!(recording.told(), told.collect::<Vec<_>>());
}

#[test]
fn context_stores_what_alerts_refer_to_and_agents_losses_and_gaps() {
    let mut recording = start(Events::Context);
    recording.take([appeared("agent"), ordinary("named"), ordinary("other")]);
    recording.take([loss("loss"), gap("gap")]);
    recording.take([alert("first", &["named"]), alert("again", &["named"])]);
    let expected = numbered(["agent", "loss", "gap", "named", "first", "again"]);
    assert_eq!(recording.stored(), expected, "what is named is there once");
    let told = recording.told();
    let seq_of = |id: &str| told.iter().find(|(told, _)| told == id).unwrap().1;
    assert_eq!(seq_of("named"), None, "told before it was stored");
    assert_eq!(seq_of("first"), Some(5));
    assert_eq!(told.len(), 7, "everyone is told of everything, once");
}

#[test]
fn none_stores_alerts_alone() {
    let mut recording = start(Events::None);
    let events = [appeared("a"), ordinary("b"), loss("c"), alert("d", &["b"])];
    recording.take(events);
    assert_eq!(recording.stored(), numbered(["d"]));
    assert_eq!(recording.told().len(), 4);
}

#[test]
fn a_noisy_agent_does_not_displace_what_an_alert_about_a_quiet_one_refers_to() {
    let mut recording = start(Events::Context);
    recording.take([ordinary("quiet")]);
    for round in 0..40 {
        let noise = (0..500).map(|n| of_agent(&format!("noise-{round}-{n}"), 8));
        recording.take(noise);
        recording.wait_for("the queue is empty", |it| it.recorder().queued() == 0);
    }
    recording.take([alert("alert", &["quiet", "never-was"])]);
    recording.wait_for("the alert is told", |it| {
        it.told().iter().any(|(id, _)| id == "alert")
    });
    assert_eq!(recording.recorder().health().context_missing, 1);
    assert_eq!(recording.stored(), numbered(["quiet", "alert"]));
}

/// A folder that is missing where a file is: no store can be there.
fn blocked(events: Events) -> Recording {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    start_in(folder, "file/store.db", events)
}

#[test]
fn without_a_store_everyone_is_told_and_alerts_are_stored_once_there_is_one() {
    let mut recording = blocked(Events::Context);
    recording.take([
        appeared("agent"),
        ordinary("named"),
        alert("alert", &["named"]),
    ]);
    recording.wait_for("all are told", |it| it.told().len() == 3);
    assert!(recording.told().iter().all(|(_, seq)| seq.is_none()));
    recording.wait_for("they wait", |it| it.recorder().health().pending == 3);
    let health = recording.recorder().health();
    assert!(!health.is_well && health.error.is_some(), "{health:?}");
    std::fs::remove_file(recording.folder.path().join("file")).unwrap();
    recording.wait_for("the store is well", |it| it.recorder().health().is_well);
    recording.take([alert("later", &[])]);
    let expected = numbered(["agent", "named", "alert", "later"]);
    assert_eq!(recording.stored(), expected);
    assert_eq!(recording.told().last(), Some(&("later".into(), Some(4))));
}

#[test]
fn what_the_store_loses_is_counted_by_agent_and_kind_but_for_losses() {
    let recording = blocked(Events::All);
    recording.take([ordinary("a"), ordinary("b"), loss("c"), alert("d", &[])]);
    recording.wait_for("all are told", |it| it.told().len() == 4);
    recording.wait_for("the alert waits", |it| it.recorder().health().pending == 1);
    assert_eq!(recording.recorder().take_losses(), [(7, "cgroup", 2)]);
    assert_eq!(recording.recorder().take_losses(), []);
}

#[test]
fn what_waits_is_bounded_and_alerts_have_room_of_their_own() {
    let recording = blocked(Events::All);
    for round in 0..50 {
        let flood = (0..2_000).map(|n| ordinary(&format!("{round}-{n}")));
        recording.take(flood);
        assert!(recording.recorder().queued() <= QUEUE + RESERVED);
    }
    recording.take((0..PENDING + 10).map(|n| alert(&format!("alert-{n}"), &[])));
    let all = 100_000 + PENDING + 10;
    recording.wait_for("all are told", |it| it.told().len() == all);
    recording.wait_for("alerts wait", |it| {
        it.recorder().health().pending == PENDING
    });
    recording.wait_for("the queue is empty", |it| it.recorder().queued() == 0);
    let losses: u64 = recording
        .recorder()
        .take_losses()
        .iter()
        .map(|it| it.2)
        .sum();
    assert_eq!(losses, 100_000 + 10);
}

#[test]
fn a_file_that_becomes_corrupt_is_moved_aside_while_everything_goes_on() {
    let mut recording = start(Events::All);
    recording.take((0..300).map(|n| ordinary(&format!("before-{n}"))));
    recording.wait_for("all are told", |it| it.told().len() == 300);
    let path = recording.folder.path().join("store.db");
    overwrite(&path);
    let mut n = 0;
    recording.wait_for("the store was begun anew", |it| {
        it.take([alert(&format!("after-{n}"), &[])]);
        n += 1;
        !it.store.take_notices().is_empty()
    });
    recording.wait_for("the store is well", |it| it.recorder().health().is_well);
    let stored = recording.stored();
    assert!(
        stored
            .iter()
            .all(|(id, seq)| id.starts_with("after") && *seq > 300)
    );
    assert!(!stored.is_empty());
}

/// Fills every page but the first with nonsense, and empties the WAL that holds better.
fn overwrite(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    connection.query_row(checkpoint, [], |_| Ok(())).unwrap();
    drop(connection);
    let mut bytes = std::fs::read(path).unwrap();
    bytes[4096..].fill(0xa5);
    // In place: the daemon has it open.
    let file = std::fs::File::options().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
}

#[test]
fn a_write_goes_on_within_the_size_that_is_allowed_and_alerts_stay() {
    let mut recording = start(Events::All);
    let limits = Limits {
        max_bytes: 8 << 20,
        ..Limits::default()
    };
    recording.store.set_limits(limits).unwrap();
    recording.take([alert("kept", &[])]);
    for round in 0..40 {
        recording.take((0..1_000).map(|n| ordinary(&format!("{round}-{n}"))));
        recording.wait_for("the queue is empty", |it| it.recorder().queued() == 0);
    }
    recording.wait_for("all are told", |it| it.told().len() == 40_001);
    assert!(recording.recorder().health().bytes <= 8 << 20);
    assert_eq!(recording.recorder().take_losses(), []);
    let stored = recording.stored();
    assert_eq!(stored[0].0, "kept");
    assert_eq!(stored.last().unwrap().1, 40_001);
    assert!((1_000..40_000).contains(&stored.len()), "{}", stored.len());
}
