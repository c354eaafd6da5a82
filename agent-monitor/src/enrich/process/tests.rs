use super::*;
use std::fs;

fn key(pid: u32) -> ProcessKey {
    ProcessKey {
        pid,
        start: u64::from(pid),
    }
}

fn fork(parent: u32, child: u32) -> Fork {
    Fork {
        parent: key(parent),
        child: key(child),
        uid: 1000,
        comm: format!("p{child}"),
    }
}

fn exec(pid: u32, parent: u32, name: &str) -> Exec {
    Exec {
        process: key(pid),
        parent: key(parent),
        uid: 1000,
        comm: name.to_owned(),
        exe: Some(format!("/bin/{name}").into()),
        argv: [name.to_owned()].into(),
        euid: None,
    }
}

/// A table over a /proc with these processes: (pid, parent).
fn table(capacity: usize, present: &[(u32, u32)]) -> (Processes, tempfile::TempDir) {
    let root = tempfile::tempdir().expect("a directory");
    for (pid, ppid) in present {
        let dir = root.path().join(pid.to_string());
        fs::create_dir(&dir).expect("a directory");
        let stat =
            format!("{pid} (proc{pid}) S {ppid} 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 {pid} 0 0\n");
        fs::write(dir.join("stat"), stat).expect("a file");
        fs::write(dir.join("status"), "Name:\tx\nUid:\t7\t8\t8\t8\n").expect("a file");
        fs::write(dir.join("cmdline"), "x\0-y\0").expect("a file");
    }
    (Processes::new(Procfs::at(root.path()), capacity), root)
}

fn lineage(process: &Process) -> Vec<u32> {
    process
        .ancestors
        .iter()
        .map(|ancestor| ancestor.pid)
        .collect()
}

#[test]
fn nanoseconds_become_the_ticks_of_proc() {
    assert_eq!(ProcessKey::from_ns(1, 42_420_000_000).start, 4242);
    assert_eq!(ProcessKey::from_ns(1, 42_429_999_999).start, 4242);
}

#[test]
fn a_child_has_its_parent_s_program_and_lineage_until_it_execs() {
    let (mut table, _root) = table(100, &[]);
    table.exec(exec(10, 0, "bash"), 0);
    let child = table.fork(fork(10, 11), 0);
    assert_eq!(
        (child.exe.as_deref(), lineage(&child)),
        (Some("/bin/bash"), vec![10])
    );
    assert_eq!(
        (child.ppid, child.uid, child.comm.as_str()),
        (Some(10), Some(1000), "p11")
    );
    let child = table.exec(exec(11, 10, "curl"), 0);
    assert_eq!(*child.argv, ["curl"]);
    let grandchild = table.fork(fork(11, 12), 0);
    let names: Vec<_> = grandchild
        .ancestors
        .iter()
        .map(|a| (a.pid, a.comm.as_str()))
        .collect();
    assert_eq!(names, [(11, "curl"), (10, "bash")]);
}

#[test]
fn a_process_whose_parent_ended_keeps_the_lineage_it_was_made_in() {
    let (mut table, _root) = table(100, &[(1, 0)]);
    table.exec(exec(10, 1, "bash"), 0);
    table.fork(fork(10, 11), 0);
    table.exit(key(10), 0);
    let orphan = table.exec(exec(11, 1, "miner"), 2 * TOMBSTONE_NS);
    assert_eq!((orphan.ppid, lineage(&orphan)), (Some(1), vec![10, 1]));
}

#[test]
fn a_reused_id_is_another_process() {
    let (mut table, _root) = table(100, &[]);
    table.exec(exec(10, 0, "old"), 0);
    let reused = ProcessKey {
        pid: 10,
        start: 999,
    };
    assert_eq!(table.get(reused), None);
    table.exec(
        Exec {
            process: reused,
            ..exec(10, 0, "new")
        },
        0,
    );
    assert_eq!(
        table.get(key(10)).map(|p| p.comm.clone()).as_deref(),
        Some("old")
    );
    assert_eq!(
        table.get(reused).map(|p| p.comm.clone()).as_deref(),
        Some("new")
    );
}

#[test]
fn an_ended_process_is_known_for_30_seconds_more() {
    let (mut table, _root) = table(100, &[]);
    table.exec(exec(10, 0, "bash"), 0);
    table.exit(key(10), 5);
    table.exit(key(10), 6);
    table.exec(exec(11, 0, "x"), 4 + TOMBSTONE_NS);
    assert!(table.get(key(10)).is_some());
    table.exec(exec(12, 0, "x"), 5 + TOMBSTONE_NS);
    assert_eq!(
        (table.get(key(10)), table.len(), table.evicted()),
        (None, 2, 0)
    );
    assert!(table.ended.is_empty());
}

#[test]
fn a_full_table_drops_ended_processes_first_then_the_oldest_and_counts_them() {
    let (mut table, _root) = table(3, &[]);
    for pid in [10, 11, 12] {
        table.exec(exec(pid, 0, "x"), 0);
    }
    table.exit(key(11), 0);
    table.exec(exec(13, 0, "x"), 0);
    assert_eq!((table.get(key(11)), table.evicted()), (None, 1));
    table.exec(exec(14, 0, "x"), 0);
    assert_eq!(
        (table.get(key(10)), table.evicted(), table.len()),
        (None, 2, 3)
    );
    // What was evicted while it ran may still end: nothing is left of it.
    table.exit(key(10), 0);
    assert_eq!((table.running.len(), table.ended.len()), (3, 0));
}

#[test]
fn many_forks_keep_the_table_and_every_lineage_bounded() {
    let (mut table, _root) = table(50, &[]);
    for pid in 1..1000 {
        let child = table.fork(fork(pid, pid + 1), 0);
        assert!(child.ancestors.len() <= MAX_ANCESTORS);
    }
    assert_eq!((table.len(), table.running.len()), (50, 50));
    let last = table.get(key(1000)).expect("the last");
    assert_eq!(last.ancestors.len(), MAX_ANCESTORS);
}

#[test]
fn an_unknown_process_is_taken_over_with_its_ancestors() {
    let (mut table, _root) = table(100, &[(1, 0), (5, 1), (9, 5)]);
    let process = table.get_or_take_over(key(9), 0).expect("a process");
    assert_eq!(
        (process.comm.as_str(), process.uid, lineage(&process)),
        ("proc9", Some(7), vec![5, 1])
    );
    assert_eq!(*process.argv, ["x", "-y"]);
    assert_eq!(table.len(), 1, "ancestors outside of agents are not kept");
    assert_eq!(table.take_over(9, 0).map(|p| p.pid), Some(9));
}

#[test]
fn another_process_with_the_id_is_not_taken_over() {
    let (mut table, _root) = table(100, &[(9, 1)]);
    assert_eq!(
        table.get_or_take_over(ProcessKey { pid: 9, start: 8 }, 0),
        None
    );
    assert_eq!(table.take_over(8, 0), None);
    assert!(table.is_empty());
}

#[test]
fn lineage_ends_where_a_parent_is_younger_than_its_child_or_a_circle_shows() {
    let (mut young, _root) = table(100, &[(5, 50), (50, 1)]);
    assert_eq!(young.take_over(5, 0).map(|p| lineage(&p)), Some(vec![]));
    let (mut circle, _root) = table(100, &[(5, 5)]);
    let process = circle.take_over(5, 0).expect("a process");
    assert_eq!(process.ancestors.len(), MAX_ANCESTORS);
}

#[test]
fn a_lineage_from_proc_joins_the_one_that_is_known() {
    let (mut table, _root) = table(100, &[(5, 1), (9, 5)]);
    table.exec(
        Exec {
            parent: ProcessKey { pid: 0, start: 0 },
            ..exec(5, 0, "bash")
        },
        0,
    );
    let process = table.take_over(9, 0).expect("a process");
    assert_eq!(
        *process.ancestors,
        [Ancestor {
            pid: 5,
            comm: "bash".into(),
            exe: Some("/bin/bash".into())
        }]
    );
}

#[test]
fn a_real_child_is_taken_over_with_this_process_as_its_parent() {
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .expect("sleep");
    let mut table = Processes::default();
    let process = table.take_over(child.id(), 0);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let process = process.expect("a process");
    assert_eq!(
        process.ancestors.first().map(|a| a.pid),
        Some(std::process::id())
    );
    assert_eq!(
        table.take_over(child.id(), 0),
        None,
        "it is gone from /proc"
    );
    let key = ProcessKey {
        pid: process.pid,
        start: process.start,
    };
    assert!(table.get_or_take_over(key, 0).is_some(), "and still known");
}

#[test]
fn a_child_shares_what_it_has_from_its_parent_and_siblings_their_ancestors() {
    let (mut table, _root) = table(100, &[]);
    let parent = table.exec(exec(10, 0, "bash"), 0);
    let one = table.fork(fork(10, 11), 0);
    let other = table.fork(fork(10, 12), 0);
    assert!(Arc::ptr_eq(&parent.argv, &one.argv));
    assert!(Arc::ptr_eq(&one.ancestors, &other.ancestors));
    table.exec(exec(10, 0, "dash"), 0);
    let later = table.fork(fork(10, 13), 0);
    assert_eq!(later.ancestors[0].comm, "dash");
    assert_eq!(one.ancestors[0].comm, "bash");
}

/// An exec with as many and as long arguments as the kernel side sends up.
fn long_exec(pid: u32) -> Exec {
    Exec {
        argv: vec!["x".repeat(15); 256].into(),
        ..exec(pid, 0, "x")
    }
}

#[test]
fn long_arguments_push_out_ended_processes_first_and_are_counted() {
    let (mut table, _root) = table(100_000, &[]);
    table.exec(exec(1, 0, "runs"), 0);
    for pid in 2..5_000 {
        table.exec(long_exec(pid), 0);
        table.exit(key(pid), 0);
    }
    assert!(table.footprint.bytes() <= MAX_BYTES);
    assert!(table.get(key(1)).is_some() && table.get(key(4_999)).is_some());
    assert_eq!(table.get(key(2)), None);
    assert_eq!(table.evicted() + table.len() as u64, 4_999);
}

#[test]
fn arguments_that_only_children_still_have_are_bounded_too() {
    let (mut table, _root) = table(100_000, &[]);
    for child in 2..5_000 {
        table.exec(long_exec(1), 0);
        table.fork(fork(1, child), 0);
    }
    assert!(table.footprint.bytes() <= MAX_BYTES);
    assert!(table.len() < 4_000);
    assert!(table.get(key(1)).is_some(), "it has just run a program");
}

#[test]
fn a_table_that_is_empty_again_takes_nothing() {
    let (mut table, _root) = table(100, &[]);
    table.exec(long_exec(10), 0);
    table.fork(fork(10, 11), 0);
    table.exec(exec(11, 10, "curl"), 0);
    table.exec(exec(10, 0, "bash"), 0);
    table.exit(key(10), 0);
    table.exec(exec(10, 0, "late"), 0);
    table.exit(key(11), 0);
    table.forget_ended(TOMBSTONE_NS);
    assert_eq!((table.len(), table.footprint.bytes()), (0, 0));
    assert!(table.running.is_empty() && table.ended.is_empty());
}

#[test]
fn the_effective_user_is_that_of_the_last_exec_or_of_the_parent() {
    let (mut table, _root) = table(100, &[]);
    let as_user = |pid, euid| Exec {
        euid,
        ..exec(pid, 0, "x")
    };
    table.exec(as_user(1, Some(1000)), 0);
    table.fork(fork(1, 2), 0);
    assert_eq!(table.effective_uid(key(2)), Some(1000));
    table.exec(as_user(2, Some(0)), 0);
    assert_eq!(table.effective_uid(key(2)), Some(0));
    assert_eq!(table.effective_uid(key(1)), Some(1000));
    table.exec(as_user(2, None), 0);
    assert_eq!(table.effective_uid(key(2)), None);
    assert_eq!(table.effective_uid(key(9)), None);
}
