use super::*;
use crate::event::Outcome;
use proptest::prelude::*;

/// One record of every kind, filled with bytes that are not zero.
fn samples() -> Vec<Vec<u8>> {
    fn bytes<T: Pod>(kind: u32, set: impl Fn(&mut T), rest: &[u8]) -> Vec<u8> {
        let mut value: T = bytemuck::Zeroable::zeroed();
        set(&mut value);
        let mut bytes = bytemuck::bytes_of(&value).to_vec();
        bytes.extend_from_slice(rest);
        let header = Header {
            kind,
            len: u32::try_from(bytes.len()).expect("samples are small"),
            time: 7,
            agent: 8,
            cgroup: 9,
            start: 10_000_000,
            tgid: 11,
            tid: 12,
        };
        bytes[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
        bytes
    }
    let ip = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 5];
    let remote = wire::Endpoint {
        ip,
        port: 22,
        pad: 0,
    };
    vec![
        bytes::<wire::Fork>(
            kind::FORK,
            |fork| fork.comm[..2].copy_from_slice(b"sh"),
            &[],
        ),
        bytes::<wire::Exec>(
            kind::EXEC,
            |exec| {
                exec.filename_len = 4;
                exec.exe_len = 8;
                exec.argv_len = 9;
                exec.argv_total = 9;
            },
            b"ssh\0ssh\0bin\0ssh\0-N\0-R",
        ),
        bytes::<wire::Exit>(kind::EXIT, |exit| exit.status = 9, &[]),
        bytes::<wire::Cgroup>(
            kind::CGROUP,
            |cgroup| {
                cgroup.action = cgroup_action::MKDIR;
                cgroup.path_len = 3;
            },
            b"/ab",
        ),
        bytes::<wire::Connect>(kind::CONNECT, |connect| connect.remote = remote, &[]),
        bytes::<wire::Connect>(kind::SEND, |connect| connect.last_rx_time = 5, &[]),
        bytes::<wire::Established>(kind::ESTABLISHED, |e| e.remote = remote, &[]),
        bytes::<wire::Closed>(kind::CLOSED, |closed| closed.old_state = 2, &[]),
        bytes::<wire::Head>(
            kind::HEAD,
            |head| {
                head.data_len = 4;
                head.segment_left = 10;
                head.remote = remote;
            },
            b"SSH-",
        ),
        bytes::<wire::Burst>(kind::BURST, |burst| burst.spell.data_len = 64, &[]),
        bytes::<wire::Bursts>(
            kind::BURSTS,
            |bursts| bursts.count = 2,
            &[0; 2 * size_of::<wire::Spell>()],
        ),
        bytes::<wire::Datagram>(
            kind::DATAGRAM,
            |datagram| {
                datagram.data_len = 4;
                datagram.captured = 4;
                datagram.len = 10;
                datagram.remote = remote;
            },
            b"\0\x01\x01\0",
        ),
        bytes::<wire::DatagramBurst>(kind::DATAGRAM_BURST, |it| it.burst.spell.data_len = 64, &[]),
        bytes::<wire::Released>(kind::RELEASED, |it| it.flow.cookie = 3, &[]),
        bytes::<wire::Segment>(kind::SEGMENT, |segment| segment.bytes = 44, &[]),
        bytes::<wire::Found>(kind::FOUND, |found| found.remote = remote, &[]),
        bytes::<wire::Device>(kind::DEVICE, |device| device.class = 2, &[]),
        bytes::<wire::Sysctl>(
            kind::SYSCTL,
            |it| {
                it.name[..15].copy_from_slice(b"vm/nr_hugepages");
                it.value[..5].copy_from_slice(b"1280\n");
                it.value_len = 5;
            },
            &[],
        ),
        bytes::<wire::Socket>(kind::SOCKET, |socket| socket.kind = 3, &[]),
        bytes::<wire::Bound>(kind::BIND, |bound| bound.protocol = 17, &[]),
        bytes::<wire::Bound>(kind::LISTEN, |bound| bound.protocol = 6, &[]),
        bytes::<wire::Unstarted>(kind::UNSTARTED, |it| it.state = 2, &[]),
    ]
}

#[test]
fn reads_every_kind() {
    for sample in samples() {
        let record = record(&Bytes::from(sample)).expect("samples are whole");
        assert_eq!((record.time, record.agent, record.cgroup), (7, 8, 9));
        assert_eq!(record.process, ProcessKey { pid: 11, start: 1 });
    }
}

#[test]
fn reads_an_exec_with_path_and_arguments_in_order() {
    let record = record(&Bytes::from(samples().swap_remove(1))).expect("the sample is whole");
    let Body::Exec(exec) = record.body else {
        panic!("not an exec: {record:?}")
    };
    assert_eq!(exec.filename, "ssh");
    assert_eq!(&*exec.exe, "/bin/ssh");
    assert_eq!(*exec.argv, ["ssh", "-N", "-R"]);
    assert!(!exec.argv_truncated);
    assert_eq!(exec.details, None, "the first recordings have none");
}

/// A script's exec, with all that is told of one.
fn detailed() -> Vec<u8> {
    let mut exec: wire::Exec = bytemuck::Zeroable::zeroed();
    let details = wire::ExecDetails {
        gid: 1,
        euid: 2,
        egid: 3,
        mode: 0o104_755,
        pid_ns: 4,
        uts_ns: 5,
        interpreter_len: 8,
        ..wire::ExecDetails::default()
    };
    exec.details_len = u32::try_from(size_of_val(&details)).expect("a small record");
    let text = b"./x\0/bin/sh\0dash\0x\0";
    (exec.filename_len, exec.exe_len) = (4, 5);
    (exec.argv_len, exec.argv_total) = (2, 2);
    let len = size_of_val(&exec) + size_of_val(&details) + text.len();
    exec.header.kind = kind::EXEC;
    exec.header.len = u32::try_from(len).expect("a small record");
    let parts = [
        bytemuck::bytes_of(&exec),
        bytemuck::bytes_of(&details),
        text,
    ];
    parts.concat()
}

#[test]
fn reads_who_runs_a_script_with_whose_rights_and_where() {
    let record = record(&Bytes::from(detailed())).expect("the record is whole");
    let Body::Exec(exec) = record.body else {
        panic!("not an exec: {record:?}")
    };
    assert_eq!(
        (&*exec.filename, &*exec.exe, &*exec.argv[0]),
        ("./x", "/dash", "x")
    );
    let details = exec.details.expect("it has details");
    assert_eq!(details.interpreter.as_deref(), Some("/bin/sh"));
    assert_eq!((details.gid, details.euid, details.egid), (1, 2, 3));
    assert_eq!((details.setuid, details.setgid), (true, false));
    assert_eq!((details.namespaces.pid, details.namespaces.uts), (4, 5));
}

#[test]
fn an_exec_whose_lengths_do_not_add_up_is_refused() {
    let whole = detailed();
    let details_len = std::mem::offset_of!(wire::Exec, details_len);
    let interpreter_len =
        size_of::<wire::Exec>() + std::mem::offset_of!(wire::ExecDetails, interpreter_len);
    for place in [details_len, interpreter_len] {
        for length in [200, u32::MAX] {
            let mut bytes = whole.clone();
            bytes[place..place + 4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(record(&Bytes::from(bytes)), Err(Error::Length));
        }
    }
    let mut short = whole;
    short[details_len..details_len + 4].copy_from_slice(&8u32.to_ne_bytes());
    assert_eq!(record(&Bytes::from(short)), Err(Error::Short));
}

/// What a write of `value`, cut or not, to a file below /proc/sys is read as.
fn written(file: &str, value: &[u8], value_len: u32, truncated: u32) -> Result<Sysctl, Error> {
    let mut sysctl: wire::Sysctl = bytemuck::Zeroable::zeroed();
    sysctl.header.kind = kind::SYSCTL;
    sysctl.header.len = u32::try_from(size_of::<wire::Sysctl>()).expect("it is small");
    sysctl.name[..file.len()].copy_from_slice(file.as_bytes());
    sysctl.value[..value.len()].copy_from_slice(value);
    (sysctl.value_len, sysctl.truncated) = (value_len, truncated);
    let bytes = Bytes::copy_from_slice(bytemuck::bytes_of(&sysctl));
    match record(&bytes)?.body {
        Body::Sysctl(sysctl) => Ok(sysctl),
        other => panic!("not a sysctl: {other:?}"),
    }
}

#[test]
fn a_sysctl_is_named_as_sysctl_8_does_and_its_value_ends_where_its_text_does() {
    for (file, name) in [
        ("vm/nr_hugepages", "vm.nr_hugepages"),
        (
            "net/ipv4/conf/eth0.100/forwarding",
            "net.ipv4.conf.eth0/100.forwarding",
        ),
    ] {
        assert_eq!(written(file, b"1", 1, 0).expect("it is whole").name, name);
    }
    for (value, len, text) in [
        (&b"1280\n"[..], 5, "1280"),
        (b" 4 4\t1 7 \n\0", 11, " 4 4\t1 7"),
        (b"\n", 1, ""),
        (b"", 0, ""),
        (b"\xff\x1b[2J", 5, "\u{fffd}\u{1b}[2J"),
        (b"128", 2, "12"),
    ] {
        let read = written("vm/x", value, len, 0).expect("it is whole");
        assert_eq!((&*read.value, read.truncated), (text, false));
    }
    let cut = written("vm/x", &[b' '; 255], 255, 1).expect("it is whole");
    assert_eq!((&*cut.value, cut.truncated), ("", true));
}

#[test]
fn a_sysctl_s_value_that_is_longer_than_its_room_is_refused() {
    for len in [257, u32::MAX] {
        assert_eq!(written("vm/x", b"1", len, 0), Err(Error::Length));
    }
}

#[test]
fn shows_v4_mapped_addresses_as_v4() {
    let record = record(&Bytes::from(samples().swap_remove(4))).expect("the sample is whole");
    let Body::Connect(connect) = record.body else {
        panic!("not a connect: {record:?}")
    };
    assert_eq!(connect.remote.to_string(), "203.0.113.5:22");
}

#[test]
fn refuses_every_proper_prefix() {
    for sample in samples() {
        let whole = Bytes::from(sample);
        for end in 0..whole.len() {
            assert!(
                record(&whole.slice(..end)).is_err(),
                "a prefix of {end} bytes was read"
            );
        }
    }
}

#[test]
fn takes_a_ring_entry_that_is_longer_than_its_record() {
    for mut sample in samples() {
        sample.extend_from_slice(&[0xaa; 40]);
        assert!(record(&Bytes::from(sample)).is_ok());
    }
}

/// A `closed` record of this many bytes.
fn end(len: usize, old_state: u32, error: u32, segments_out: u32) -> Closed {
    let mut closed: wire::Closed = bytemuck::Zeroable::zeroed();
    closed.header.kind = kind::CLOSED;
    closed.header.len = u32::try_from(len).expect("a small record");
    (closed.old_state, closed.error) = (old_state, error);
    (closed.segments_out, closed.rtt_us) = (segments_out, 9);
    let bytes = Bytes::copy_from_slice(&bytemuck::bytes_of(&closed)[..len]);
    match record(&bytes).expect("it is whole").body {
        Body::Closed(closed) => closed,
        other => panic!("not an end: {other:?}"),
    }
}

#[test]
fn the_error_of_a_connection_says_what_became_of_it() {
    let whole = size_of::<wire::Closed>();
    // include/net/tcp_states.h: 1 established, 2 SYN sent; asm-generic/errno*.h.
    for (old_state, error, sent, result) in [
        (2, 111, 1, Outcome::Refused),
        (2, 110, 7, Outcome::TimedOut),
        (2, 113, 1, Outcome::Unreachable),
        (2, 0, 1, Outcome::Abandoned),
        (2, 0, 0, Outcome::FailedLocally),
        (1, 0, 9, Outcome::Established),
        (1, 104, 9, Outcome::Reset),
        (1, 110, 9, Outcome::TimedOut),
    ] {
        let end = end(whole, old_state, error, sent);
        assert_eq!((end.result, end.unfinished), (result, old_state == 2));
        assert_eq!((end.retransmits, end.rtt_us), (Some(0), Some(9)));
    }
}

#[test]
fn an_end_in_the_first_recordings_is_read_with_what_it_has() {
    let end = end(wire::Closed::FIRST_LEN, 2, 0, 0);
    assert_eq!(end.result, Outcome::Abandoned);
    assert_eq!((end.retransmits, end.rtt_us), (None, None));
}

proptest! {
    #[test]
    fn never_panics_on_mutated_records(
        which in 0..samples().len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..16),
    ) {
        let mut bytes = samples().swap_remove(which);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let _ = record(&Bytes::from(bytes));
    }

    #[test]
    fn never_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = record(&Bytes::from(bytes));
    }
}

#[test]
fn every_kind_of_record_has_counters_and_a_name_for_what_is_lost_of_it() {
    let mut names = std::collections::BTreeSet::new();
    for sample in samples() {
        let kind = header(&sample).expect("samples are whole").kind;
        assert!((kind as usize) < kind::MOST, "kind {kind}");
        let name = kind::name(kind);
        assert!(name != "other" && name != "memory", "kind {kind}");
        names.insert(name);
    }
    assert!(names.len() >= 11, "{names:?}");
}
