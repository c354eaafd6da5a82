//! The store through crashes, corrupt files, other versions and a full disk.
//! Those about disks mount a tmpfs: need root.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent_monitor::event::{Body, Event, Gap, Timestamp};
use agent_monitor::store::recorder::Events;
use agent_monitor::store::{Limits, Pruned, Reader, Recorder, Store, StoreError, Wanted};
use common::{EPOCH_NS, SmallDisk, alert, alert_saying, id, id_of, wait_for};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(30);
const CHILD_STORE: &str = "AGENT_MONITOR_TEST_STORE";

fn temporary() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("deeper/store.db");
    (folder, path)
}

fn open(path: &Path) -> Store {
    Store::open(path).expect("the store opens")
}

fn ids(store: &Store) -> Vec<String> {
    let records = store
        .read_after(0, u32::MAX, Wanted::Everything)
        .expect("the store can be read");
    records
        .iter()
        .map(|record| id_of(&record.json).expect("every alert has an id"))
        .collect()
}

/// What lies beside the database and has `part` in its name.
fn beside(path: &Path, part: &str) -> Vec<PathBuf> {
    let folder = path.parent().expect("the store is in a folder");
    let entries = folder.read_dir().expect("the folder can be read");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.to_string_lossy().contains(part))
        .collect()
}

#[test]
fn alerts_are_numbered_in_order_and_read_back_whole() {
    let (_folder, path) = temporary();
    let store = open(&path);
    assert_eq!(store.latest(), 0);
    let watch = store.watch();
    for n in 1..=3 {
        assert_eq!(store.append(&alert(n)).unwrap(), i64::try_from(n).unwrap());
    }
    assert_eq!((store.latest(), *watch.borrow()), (3, 3));
    let records = store.read_after(1, 1, Wanted::Alerts).unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].seq, 2);
    assert_eq!(records[0].json, serde_json::to_string(&alert(2)).unwrap());
    drop(store);
    assert_eq!(ids(&open(&path)), [id(1), id(2), id(3)]);
}

#[test]
fn files_are_for_their_owner_alone() {
    let (_folder, path) = temporary();
    let store = open(&path);
    store.append(&alert(1)).unwrap();
    let files = beside(&path, "store.db");
    assert!(
        files.len() >= 3,
        "the database, its WAL and its lock: {files:?}"
    );
    for file in files {
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            file.display()
        );
    }
}

#[test]
fn an_alert_stored_again_keeps_its_number_and_another_cannot_take_its_id() {
    let (_folder, path) = temporary();
    let store = open(&path);
    store.append(&alert(1)).unwrap();
    assert_eq!(store.append(&alert(1)).unwrap(), 1);
    let error = store
        .append(&alert_saying(1, "other", "other"))
        .unwrap_err();
    assert!(matches!(error, StoreError::IdTaken(_)), "{error}");
    assert_eq!(store.append(&alert(2)).unwrap(), 2, "no number is skipped");
}

fn gap(n: u64) -> Event {
    let gap = Gap {
        reason: "start".into(),
        from: Timestamp(1),
        to: Timestamp(2),
    };
    Event {
        id: format!("gap-{n}").into(),
        body: Body::Gap(gap),
        ..alert(n)
    }
}

#[test]
fn alerts_and_events_share_a_sequence_that_is_read_whole_or_by_alerts() {
    let (_folder, path) = temporary();
    let store = open(&path);
    let numbers = store.append_all(&[&gap(1), &alert(2), &gap(3), &gap(1)]);
    assert_eq!(
        numbers.unwrap(),
        [1, 2, 3, 1],
        "what is there keeps its number"
    );
    let read = |wanted| {
        let records = store.read_after(0, 10, wanted).unwrap();
        let each = records.into_iter().map(|it| (it.seq, it.kind));
        each.collect::<Vec<_>>()
    };
    let all = [(1, "gap"), (2, "alert"), (3, "gap")].map(|(seq, kind)| (seq, kind.to_owned()));
    assert_eq!(read(Wanted::Everything), all);
    assert_eq!(read(Wanted::Alerts), all[1..2]);
    assert_eq!(store.latest(), 3);
    drop(store);
    let store = open(&path);
    assert_eq!(store.append(&alert(4)).unwrap(), 4, "whatever came last");
    let behind = |seq, wanted| store.behind(seq, wanted).unwrap();
    assert_eq!(behind(0, Wanted::Everything).records, 4);
    assert_eq!(behind(2, Wanted::Alerts).records, 1);
    assert_eq!(behind(2, Wanted::Everything).oldest, Some(gap(3).time));
    assert_eq!(behind(4, Wanted::Everything).records, 0);
}

#[test]
fn cursors_survive_and_never_move_back() {
    let (_folder, path) = temporary();
    let store = open(&path);
    assert_eq!(store.cursor("a").unwrap(), 0);
    store.advance("a", 5).unwrap();
    store.advance("a", 3).unwrap();
    drop(store);
    let store = open(&path);
    assert_eq!(
        (store.cursor("a").unwrap(), store.cursor("b").unwrap()),
        (5, 0)
    );
}

/// The child of the next test: appends until it is killed, and says which
/// appends have returned.
#[test]
#[ignore = "run by everything_whose_append_returned_survives_a_kill"]
fn child_appends_for_ever() {
    let store = open(Path::new(
        &std::env::var_os(CHILD_STORE).expect("run by its parent"),
    ));
    let first = u64::try_from(store.latest()).unwrap() + 1;
    let mut out = std::io::stdout().lock();
    for n in first..first + 1_000_000 {
        store.append(&alert(n)).expect("the append succeeds");
        writeln!(out, "appended {}", id(n)).expect("the parent listens");
    }
}

#[test]
fn everything_whose_append_returned_survives_a_kill() {
    let (_folder, path) = temporary();
    let mut appended = BTreeSet::new();
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "child_appends_for_ever",
                "--ignored",
                "--nocapture",
            ])
            .env(CHILD_STORE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let said = |line: String| line.strip_prefix("appended ").map(str::to_owned);
        appended.extend(lines.by_ref().filter_map(said).take(20 * round));
        child.kill().unwrap();
        // What it had said by the time it died.
        appended.extend(lines.filter_map(said));
        child.wait().unwrap();
        let stored: BTreeSet<String> = ids(&open(&path)).into_iter().collect();
        assert!(
            appended.is_subset(&stored),
            "round {round}: {:?}",
            appended.difference(&stored)
        );
    }
    assert!(appended.len() >= 300, "{} appends", appended.len());
    assert_eq!(beside(&path, "corrupt"), Vec::<PathBuf>::new());
}

#[test]
fn a_file_that_is_no_database_is_moved_aside() {
    let (_folder, path) = temporary();
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let garbage = vec![b'x'; 20_000];
    std::fs::write(&path, &garbage).unwrap();
    let store = open(&path);
    assert_eq!(store.append(&alert(1)).unwrap(), 1);
    let aside = beside(&path, ".corrupt-");
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(std::fs::read(&aside[0]).unwrap(), garbage);
}

#[test]
fn a_database_with_a_damaged_page_is_moved_aside() {
    let (_folder, path) = temporary();
    let store = open(&path);
    for n in 1..=200 {
        store.append(&alert(n)).unwrap();
    }
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let store = open(&path);
    assert_eq!(ids(&store), Vec::<String>::new());
    assert_eq!(store.append(&alert(201)).unwrap(), 201, "numbers go on");
    assert_eq!(beside(&path, ".corrupt-").len(), 1);
    assert_eq!(store.take_notices().len(), 1);
    drop(store);
    assert_eq!(ids(&open(&path)), [id(201)], "the new one is sound");
}

/// `quick_check` would let this through.
#[test]
fn a_database_whose_index_disagrees_with_its_table_is_moved_aside() {
    let (_folder, path) = temporary();
    let store = open(&path);
    store.append(&alert(1)).unwrap();
    drop(store);
    let connection = rusqlite::Connection::open(&path).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'alerts'";
    let page: u32 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    let page = page as usize;
    drop(connection);
    let mut bytes = std::fs::read(&path).unwrap();
    let index = &mut bytes[(page - 1) * 4096..page * 4096];
    let at = memchr::memmem::find(index, id(1).as_bytes()).expect("the id is in the index");
    index[at] = b'b';
    std::fs::write(&path, bytes).unwrap();
    let store = open(&path);
    assert_eq!(beside(&path, ".corrupt-").len(), 1);
    assert_eq!(store.latest(), 1);
}

#[test]
fn a_newer_database_is_moved_aside_as_it_is() {
    let (_folder, path) = temporary();
    open(&path).append(&alert(1)).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 9).unwrap();
    drop(connection);
    let before = std::fs::read(&path).unwrap();
    let store = open(&path);
    assert_eq!(store.append(&alert(2)).unwrap(), 2, "numbers go on");
    assert_eq!(ids(&store), [id(2)]);
    let notices = store.take_notices();
    assert!(notices[0].contains("version 9 of a newer"), "{notices:?}");
    let aside = beside(&path, ".newer-");
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(std::fs::read(&aside[0]).unwrap(), before);
}

#[test]
fn a_store_in_use_is_refused() {
    let (_folder, path) = temporary();
    let store = open(&path);
    let error = Store::open(&path).err().expect("it is refused");
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    drop(store);
    open(&path);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let error = Store::open(Path::new("/proc/agent-monitor/store.db"))
        .err()
        .expect("it fails");
    assert!(error.to_string().contains("/proc/agent-monitor"), "{error}");
}

#[test]
fn a_full_disk_fails_appends_until_there_is_space_again() {
    let disk = SmallDisk::mount();
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 256 * 1024]).unwrap();
    let store = open(&disk.path().join("store.db"));
    let summary = "s".repeat(8 * 1024);
    let append = |n| store.append(&alert_saying(n, "a", &summary));
    let mut stored = Vec::new();
    let mut failed = 0;
    for n in 1..=200 {
        match append(n) {
            Ok(_) => stored.push(id(n)),
            Err(error) => {
                assert!(matches!(error, StoreError::Sql(_)), "{error}");
                failed += 1;
            }
        }
    }
    assert!(
        !stored.is_empty() && failed > 0,
        "{} stored, {failed} failed",
        stored.len()
    );
    assert_eq!(ids(&store), stored, "nothing of a failed append remains");
    let latest = store.latest();
    std::fs::remove_file(ballast).unwrap();
    assert_eq!(
        append(201).unwrap(),
        latest + 1,
        "no number is lost to a failed append"
    );
    stored.push(id(201));
    drop(store);
    assert_eq!(ids(&open(&disk.path().join("store.db"))), stored);
}

/// Ids of what was told, and whether with a number.
type Told = Arc<Mutex<Vec<(String, bool)>>>;

/// A recorder over a disk, and what it has told.
fn record_on(disk: &SmallDisk) -> (Recorder, Store, Told) {
    let store = Store::closed(&disk.path().join("store.db")).unwrap();
    store.set_sinks(Vec::new());
    let told = Told::default();
    let tell = {
        let told = told.clone();
        move |event: Arc<Event>, seq: Option<i64>| {
            let mut told = told.lock().unwrap();
            told.push((event.id.to_string(), seq.is_some()));
        }
    };
    let recorder = Recorder::start(store.clone(), Events::All, Box::new(tell)).unwrap();
    recorder.wait_until_opened(SOON);
    (recorder, store, told)
}

#[test]
fn while_the_disk_is_full_everyone_is_told_alerts_wait_and_go_on_by_themselves() {
    let disk = SmallDisk::mount();
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 512 * 1024]).unwrap();
    let (recorder, store, told) = record_on(&disk);
    let summary = "s".repeat(8 * 1024);
    let mut taken = 0;
    wait_for("the disk is full", SOON, || {
        taken += 1;
        recorder.take(&mut vec![alert_saying(taken, "a", &summary)]);
        recorder.health().error
    });
    let since = Instant::now();
    recorder.take(&mut vec![alert(taken + 1), gap(1), alert(taken + 2)]);
    assert!(since.elapsed() < Duration::from_millis(100));
    let all = usize::try_from(taken + 3).unwrap();
    wait_for("all are told", SOON, || {
        (told.lock().unwrap().len() == all).then_some(())
    });
    wait_for("they wait", SOON, || {
        (recorder.health().pending >= 4).then_some(())
    });
    let error = recorder.health().error.unwrap();
    assert!(error.contains("full"), "{error}");
    std::fs::remove_file(ballast).unwrap();
    wait_for("it is well", SOON, || {
        recorder.health().is_well.then_some(())
    });
    assert_eq!(recorder.health().pending, 0);
    drop(recorder);
    let stored = ids(&store);
    assert_eq!(stored.len(), all, "nothing was lost: {stored:?}");
    assert!(
        told.lock()
            .unwrap()
            .iter()
            .all(|(id, _)| stored.contains(id))
    );
}

#[test]
fn on_a_read_only_disk_everyone_is_told_and_the_store_is_opened_once_it_is_not() {
    let disk = SmallDisk::mount();
    drop(record_on(&disk));
    disk.set_read_only(true);
    let (recorder, store, told) = record_on(&disk);
    recorder.take(&mut vec![alert(1)]);
    wait_for("it is told", SOON, || told.lock().unwrap().pop());
    let error = recorder.health().error.unwrap();
    assert!(error.contains("Read-only"), "{error}");
    disk.set_read_only(false);
    wait_for("it is well", SOON, || {
        recorder.health().is_well.then_some(())
    });
    assert_eq!(ids(&store), [id(1)]);
}

fn days_after_epoch(days: u64) -> Timestamp {
    Timestamp(EPOCH_NS + days * 24 * 3600 * 1_000_000_000)
}

fn sinks(store: &Store, names: &[(&str, Wanted)]) {
    let reader = |(name, wanted): &(&str, Wanted)| Reader {
        name: (*name).to_owned(),
        wanted: *wanted,
    };
    store.set_sinks(names.iter().map(reader).collect());
}

#[test]
fn prune_keeps_what_is_young_and_what_a_sink_has_not_delivered() {
    let (_folder, path) = temporary();
    let store = open(&path);
    for n in 1..=10 {
        store.append(&alert(n)).unwrap();
    }
    store
        .append(&Event {
            time: days_after_epoch(20),
            ..alert(11)
        })
        .unwrap();
    let keep = Limits::default().max_age.as_secs() / 86_400;
    let pruned = |days| store.prune(days_after_epoch(days)).unwrap().alerts;
    assert_eq!(pruned(keep + 1), 0, "it is not known which sinks there are");
    sinks(
        &store,
        &[("fast", Wanted::Alerts), ("slow", Wanted::Alerts)],
    );
    store.advance("fast", 11).unwrap();
    store.advance("slow", 4).unwrap();
    store.advance("removed", 1).unwrap();
    assert_eq!(pruned(keep - 1), 0, "all are young");
    assert_eq!(pruned(keep + 1), 4, "slow has 4");
    store.advance("slow", 11).unwrap();
    assert_eq!(pruned(keep + 1), 6, "11 is young");
    assert_eq!(ids(&store), [id(11)]);
    sinks(&store, &[]);
    assert_eq!(pruned(keep + 21), 1);
    drop(store);
    let store = open(&path);
    assert_eq!(store.latest(), 11);
    assert_eq!(
        store.append(&alert(12)).unwrap(),
        12,
        "numbers are not used again"
    );
}

#[test]
fn old_events_go_though_a_sink_has_not_delivered_them_and_that_is_counted() {
    let (_folder, path) = temporary();
    let store = open(&path);
    store
        .append_all(&[&gap(1), &gap(2), &alert(3), &gap(4)])
        .unwrap();
    sinks(
        &store,
        &[("all", Wanted::Everything), ("alerts", Wanted::Alerts)],
    );
    store.advance("all", 1).unwrap();
    let pruned = store.prune(days_after_epoch(60)).unwrap();
    let expected = Pruned {
        alerts: 0,
        events: 3,
        undelivered: 2,
    };
    assert_eq!(pruned, expected);
    assert_eq!(ids(&store), [id(3)]);
}

#[test]
fn events_make_room_first_then_delivered_alerts_and_others_never() {
    let (_folder, path) = temporary();
    let store = open(&path);
    sinks(&store, &[("siem", Wanted::Alerts)]);
    let max_bytes = 4 << 20;
    let limits = Limits {
        max_bytes,
        ..Limits::default()
    };
    store.set_limits(limits).unwrap();
    let summary = "s".repeat(2_000);
    let alerts = |numbers: std::ops::Range<u64>| {
        for n in numbers {
            store.append(&alert_saying(n, "a", &summary)).unwrap();
            store.make_room().unwrap();
        }
    };
    for n in 0..500 {
        store.append(&gap(n)).unwrap();
    }
    alerts(0..200);
    store.advance("siem", store.latest()).unwrap();
    assert_eq!(ids(&store).len(), 700, "all fit");
    alerts(1_000..1_800);
    let left = ids(&store);
    assert!(left.iter().all(|id| !id.starts_with("gap")), "{left:?}");
    assert!(left.contains(&id(1_799)) && left.contains(&id(1_000)));
    assert!(!left.contains(&id(0)), "it was delivered, and oldest");
    assert!(store.bytes().unwrap() <= max_bytes);
    let append = |n| store.append(&alert_saying(n, "a", &summary));
    let full = (2_000..4_000).find_map(|n| {
        let result = append(n);
        store.make_room().unwrap();
        result.err()
    });
    let full = full.expect("undelivered alerts fill it").to_string();
    assert!(full.contains("full"), "{full}");
    assert!(ids(&store).contains(&id(1_000)), "nothing undelivered went");
    store.advance("siem", store.latest()).unwrap();
    store.make_room().unwrap();
    append(5_000).expect("there is room again");
}

#[test]
fn the_documented_queries_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = Store::open(&path).unwrap();
    // Two alerts of 2030, which is after "a day ago".
    store.append_all(&[&alert(1), &alert(2)]).unwrap();
    store.advance("siem", 1).unwrap();
    let reader = rusqlite::Connection::open(&path).unwrap();
    let text = include_str!("../../docs/store.md");
    let queries: Vec<&str> = text
        .split("```sql")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    let rows = |query: &str| -> Vec<Vec<String>> {
        let mut statement = reader.prepare(query).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            (0..columns)
                .map(|column| Ok(format!("{:?}", row.get_ref(column)?)))
                .collect()
        });
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(queries.len(), 3);
    assert_eq!(rows(queries[0]).len(), 2, "one for each incident");
    assert_eq!(rows(queries[1]).len(), 1);
    assert_eq!(rows(queries[1])[0][2], "Integer(2)");
    assert_eq!(rows(queries[2])[0][1..], ["Integer(1)", "Integer(0)"]);
}
