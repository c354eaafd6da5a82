//! Device nodes as the running kernel's hook shows them, and that watching them
//! changes nothing. Needs root, and for one test Docker.

use std::process::Command;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::cgroup::Cgroup;
use agent_monitor_tests::docker::LABEL;
use agent_monitor_tests::monitor::{Monitor, SOON, Site};
use agent_monitor_tests::watched::{Events, Watched};
use agent_monitor_tests::world::World;
use serde_json::{Value, json};

/// Makes nodes by number and tries to open them; prints what came of it. A device
/// without a driver is "no such device" (ENXIO, ENODEV) once the cgroup has let it pass.
const TRY: &str = "
import errno, os, stat, sys
def attempt(work):
    try:
        return work() or 'ok'
    except OSError as error:
        return errno.errorcode[error.errno]
def node(major, minor, flags, kind=stat.S_IFCHR):
    path = f'/tmp/node-{kind}-{major}-{minor}'
    made = attempt(lambda: os.mknod(path, 0o666 | kind, os.makedev(major, minor)))
    opened = attempt(lambda: os.close(os.open(path, flags | os.O_NONBLOCK)))
    print(major, minor, made, opened)
";

/// What is tried in the tests that compare: nvidia0, nvidiactl, tun, kvm, a disk,
/// and the ordinary ones.
const ALL: &str = "
node(195, 0, os.O_RDWR)
node(195, 255, os.O_RDONLY)
node(10, 200, os.O_RDWR)
node(10, 232, os.O_RDONLY)
node(1, 1, os.O_RDONLY)
node(253, 99, os.O_RDONLY, stat.S_IFBLK)
for name in ('null', 'zero', 'full', 'random', 'urandom'):
    print(name, attempt(lambda: os.close(os.open('/dev/' + name, os.O_RDONLY))))
print('null', attempt(lambda: os.close(os.open('/dev/null', os.O_RDWR))))
print('pty', attempt(lambda: [os.close(fd) for fd in os.openpty()] and None))
print('tty', attempt(lambda: os.close(os.open('/dev/tty', os.O_RDWR))))
";

fn script(body: &str) -> String {
    format!("{TRY}{body}")
}

/// The devices that were told of, in order, without their process.
fn told(events: &Events) -> Vec<Value> {
    let devices = events.of_kind("device");
    devices.iter().map(|it| it["device"].clone()).collect()
}

#[test]
fn a_device_node_is_told_by_its_number_and_ordinary_ones_are_not() {
    let watched = Watched::cgroup("devices").unwrap();
    watched
        .python(
            &script(&format!(
                "{ALL}
node(226, 128, os.O_RDWR)
node(202, 3, os.O_WRONLY)
node(240, 7, os.O_RDWR)
node(1, 3, os.O_RDWR)
node(7, 99, os.O_RDONLY, stat.S_IFBLK)
"
            )),
            &[],
        )
        .unwrap();
    let events = watched.events().unwrap();
    let of = |kind: &str, major: u32, minor: u32| -> Vec<Value> {
        let mut devices = told(&events);
        devices.retain(|it| it["type"] == kind && it["major"] == major && it["minor"] == minor);
        devices
    };
    for (major, minor, access, name) in [
        (195, 0, "rw", Some("nvidia0")),
        (195, 255, "r", Some("nvidiactl")),
        (10, 200, "rw", Some("net/tun")),
        (10, 232, "r", Some("kvm")),
        (1, 1, "r", Some("mem")),
        (226, 128, "rw", Some("dri/renderD128")),
        (202, 3, "w", Some("cpu/3/msr")),
        (240, 7, "rw", None),
    ] {
        let mut found = of("character", major, minor);
        // On an overlay both the overlay's and the layer's inode are checked.
        found.dedup();
        let expected = |access: &str| {
            let mut device = json!({
                "type": "character", "major": major, "minor": minor,
                "access": access, "result": "attempted",
            });
            if let Some(name) = name {
                device["name"] = name.into();
            }
            device
        };
        assert_eq!(found, [expected("m"), expected(access)]);
    }
    let block = of("block", 7, 99);
    assert_eq!(block[0]["access"], "m");
    assert!(block.iter().any(|it| it["access"] == "r"), "{block:?}");
    for device in told(&events) {
        let ordinary = (1, [3, 5, 7, 8, 9].as_slice());
        assert!(
            device["major"] != ordinary.0
                || !ordinary.1.iter().any(|minor| device["minor"] == *minor),
            "{device}"
        );
        assert!(device["major"] != 5 && device["major"] != 136, "{device}");
    }
    let event = events.of_kind("device")[0];
    assert_eq!(event["process"]["comm"], "python3", "{event}");
    assert!(
        event["process"]["exe"]
            .as_str()
            .unwrap()
            .contains("python3")
    );
}

#[test]
fn a_containers_own_rules_for_devices_stay_as_they_were() {
    let world = World::new("rules").unwrap();
    let unwatched = Agent::docker(&world, "unwatched").unwrap();
    let outcome = |agent: &Agent| agent.run(&["python3", "-c", &script(ALL)]).unwrap();
    let before = outcome(&unwatched);
    assert!(before.contains("195 0 ok EPERM"), "{before}");
    assert!(before.contains("null ok"), "{before}");
    {
        let monitor = Monitor::of(&unwatched).unwrap();
        assert_eq!(outcome(&unwatched).replace("EEXIST", "ok"), before);
        monitor
            .wait_for("a device", SOON, |it| it["device"]["name"] == "nvidia0")
            .unwrap();
        monitor.stop().unwrap();
    }
    assert_eq!(outcome(&unwatched).replace("EEXIST", "ok"), before);

    // Watched at birth: the runtime's rules come after ours.
    let site = Site::new().unwrap().asking(unwatched.docker_host());
    let selector = format!("label:{LABEL}={}", world.id());
    let monitor = Monitor::start_at(&site.into(), &[&selector], "").unwrap();
    let born = Agent::docker(&world, "born").unwrap();
    assert_eq!(outcome(&born), before);
    let event = monitor
        .wait_for("a device", SOON, |it| {
            it["device"]["name"] == "nvidia0" && it["agent"]["name"] == born.name()
        })
        .unwrap();
    assert_eq!(event["agent"]["container"]["runtime"], "docker");
    monitor.stop().unwrap();
    assert_eq!(outcome(&born).replace("EEXIST", "ok"), before);
}

/// Attaches to a cgroup, with these flags, a device program that refuses major 10,
/// as container runtimes attach theirs (BPF_PROG_ATTACH). It stays as long as the cgroup.
fn refuse_major_10(group: &Cgroup, flags: u32) {
    let attach = r"
import ctypes, os, struct, sys
code = [(0x61, 0x12, 4, 0), (0xb7, 0, 0, 1), (0x55, 0x02, 1, 10), (0xb7, 0, 0, 0), (0x95, 0, 0, 0)]
code = ctypes.create_string_buffer(b''.join(struct.pack('=BBhi', *it) for it in code))
license = ctypes.create_string_buffer(b'GPL')
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, attributes):
    attributes = ctypes.create_string_buffer(attributes, 128)
    result = libc.syscall(321, command, attributes, 128)
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
BPF_PROG_LOAD, BPF_PROG_ATTACH, TYPE_DEVICE, AT_DEVICE = 5, 8, 15, 6
program = bpf(BPF_PROG_LOAD, struct.pack('=IIQQ', TYPE_DEVICE, 5, ctypes.addressof(code), ctypes.addressof(license)))
group = os.open(sys.argv[1], os.O_RDONLY)
bpf(BPF_PROG_ATTACH, struct.pack('=IIII', group, program, AT_DEVICE, int(sys.argv[2])))
";
    let status = Command::new("python3")
        .args(["-c", attach])
        .arg(group.dir())
        .arg(flags.to_string())
        .status()
        .unwrap();
    assert!(status.success());
}

/// linux/bpf.h
const BPF_F_ALLOW_MULTI: u32 = 2;

#[test]
fn what_another_device_program_of_the_cgroup_refuses_is_told_as_refused() {
    let world = World::new("refused").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    refuse_major_10(agent.group(), BPF_F_ALLOW_MULTI);
    let monitor = Monitor::of(&agent).unwrap();
    let said = agent
        .run(&[
            "python3",
            "-c",
            &script("node(10, 232, 0); node(195, 0, 0)"),
        ])
        .unwrap();
    assert!(said.contains("10 232 EPERM"), "{said}");
    assert!(said.contains("195 0 ok"), "{said}");
    monitor.catch_up(&agent).unwrap();
    let events = Events(monitor.stop().unwrap());
    let results = |major: u32| -> Vec<Value> {
        let mut devices = told(&events);
        devices.retain(|it| it["major"] == major);
        devices.iter().map(|it| it["result"].clone()).collect()
    };
    assert_eq!(results(10)[0], "refused");
    assert!(results(195).iter().all(|it| it == "attempted"));
}

#[test]
fn a_cgroup_whose_device_program_allows_no_other_is_watched_but_for_its_devices() {
    let world = World::new("alone").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    refuse_major_10(agent.group(), 0);
    let monitor = Monitor::of(&agent).unwrap();
    let work = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))";
    let said = agent
        .run(&[
            "python3",
            "-c",
            &script(&format!("node(10, 232, 0)\n{work}")),
        ])
        .unwrap();
    assert!(said.contains("10 232 EPERM"), "{said}");
    monitor.catch_up(&agent).unwrap();
    let events = Events(monitor.stop().unwrap());
    let gap = events.only("gap", |it| {
        let reason = it["gap"]["reason"].as_str().unwrap_or_default();
        reason.contains("cgroup dev") && reason.contains("device events")
    });
    gap.unwrap();
    assert!(!events.of_kind("connect").is_empty());
    assert!(events.of_kind("device").is_empty());
}
