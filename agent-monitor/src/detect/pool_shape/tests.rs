use bytes::Bytes;

use super::*;
use crate::decode::Way;
use crate::event::Direction;

const S: u64 = 1_000_000_000;

fn flow(protocol: Option<&'static str>, remote: [u8; 4]) -> Flow {
    Flow {
        direction: Some(Direction::Outbound),
        protocol,
        remote: Some(Address {
            ip: remote.into(),
            port: 443,
        }),
        ..Flow::unknown(7)
    }
}

fn tls() -> Flow {
    flow(Some("tls"), [203, 0, 113, 1])
}

/// Messages: milliseconds since the one before, who sends it, and its size.
type Messages = Vec<(u64, Way, u64)>;

fn play(pools: &mut PoolShapes, flow: &Flow, messages: &Messages) -> Vec<Finding> {
    let mut now = S;
    let mut found = Vec::new();
    for (pause, way, bytes) in messages {
        now += pause * 1_000_000;
        let burst = Burst {
            flow: flow.id,
            way: *way,
            first: now,
            last: now,
            bytes: *bytes,
            offset: 0,
            packets: 1,
            data: Bytes::new(),
        };
        found.extend(pools.burst(flow, &burst, None));
    }
    found
}

fn found(messages: &Messages) -> usize {
    play(&mut PoolShapes::default(), &tls(), messages).len()
}

/// Numbers that only look random, from 0 to below `below`.
fn dice(state: &mut u64, below: u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    (*state >> 33) % below
}

/// The handshake, then `next` until `seconds` are over.
fn session(seconds: u64, mut next: impl FnMut(&mut u64) -> Messages) -> Messages {
    let mut messages = vec![(0, Way::Out, 517), (20, Way::In, 1400), (5, Way::Out, 80)];
    let mut state = 1;
    let mut time = 0;
    while time < seconds * 1000 {
        let more = next(&mut state);
        time += more.iter().map(|(pause, ..)| pause).sum::<u64>();
        messages.extend(more);
    }
    messages
}

/// A job or a share, at random, at the pace of XMRig on a public pool.
fn miner(seconds: u64) -> Messages {
    session(seconds, |dice_state| {
        let pause = 2_000 + dice(dice_state, 20_000);
        if dice(dice_state, 2) == 0 {
            return vec![(pause, Way::In, 430 + dice(dice_state, 8))];
        }
        let share = 268 + dice(dice_state, 4);
        vec![(pause, Way::Out, share), (60, Way::In, 85)]
    })
}

#[test]
fn jobs_and_shares_of_constant_size_are_a_pool_s() {
    assert_eq!(found(&miner(7_200)), 1);
}

#[test]
fn it_takes_as_long_as_is_set() {
    assert_eq!(found(&miner(1_500)), 0, "younger than half an hour");
    let mut set = Settings::default();
    set.set(&AGE, 600);
    let mut pools = PoolShapes::default();
    pools.configure(&set, &Settings::default());
    assert_eq!(play(&mut pools, &tls(), &miner(1_500)).len(), 1);
}

#[test]
fn sessions_of_honest_programs_have_another_shape() {
    let cases: [(&str, Messages); 8] = [
        (
            "a chat",
            session(7_200, |it| {
                let pause = 2_000 + dice(it, 20_000);
                let way = [Way::In, Way::Out][usize::from(dice(it, 2) == 0)];
                vec![(pause, way, 60 + dice(it, 400))]
            }),
        ),
        ("a ticker", session(7_200, |_| vec![(5_000, Way::In, 190)])),
        (
            "a broker whose messages are acknowledged",
            session(7_200, |_| vec![(15_000, Way::In, 210), (30, Way::Out, 90)]),
        ),
        (
            "a server that asks whether somebody is there",
            session(7_200, |it| {
                vec![
                    (30_000, Way::In, 140),
                    (30, Way::Out, 130),
                    (8_000, Way::In, 60 + dice(it, 400)),
                ]
            }),
        ),
        (
            "a model whose answers are longer than questions",
            session(7_200, |it| {
                vec![
                    (20_000, Way::Out, 900),
                    (900, Way::In, 3_000 + dice(it, 4_000)),
                ]
            }),
        ),
        (
            "metrics that are asked for",
            session(7_200, |_| {
                vec![(15_000, Way::Out, 120), (30, Way::In, 6_000)]
            }),
        ),
        (
            "a worker that answers each job in turn",
            session(7_200, |_| {
                vec![
                    (9_000, Way::In, 400),
                    (4_000, Way::Out, 260),
                    (40, Way::In, 80),
                ]
            }),
        ),
        (
            "keepalives of two bytes beside readings",
            session(7_200, |it| {
                if dice(it, 2) == 0 {
                    return vec![(9_000, Way::In, 210)];
                }
                vec![(9_000, Way::Out, 24), (40, Way::In, 24)]
            }),
        ),
    ];
    for (what, messages) in cases {
        assert_eq!(found(&messages), 0, "{what}");
    }
}

#[test]
fn what_can_be_read_or_stays_inside_is_left_to_others() {
    for flow in [
        flow(Some("ssh"), [203, 0, 113, 1]),
        flow(Some("tls"), [10, 0, 0, 1]),
        Flow {
            direction: Some(Direction::Inbound),
            ..tls()
        },
    ] {
        assert!(play(&mut PoolShapes::default(), &flow, &miner(7_200)).is_empty());
    }
}

#[test]
fn a_busy_processor_makes_it_a_miner_at_work() {
    let mut pools = PoolShapes::default();
    assert_eq!(pools.suspects().count(), 0);
    play(&mut pools, &tls(), &miner(7_200));
    assert_eq!(pools.suspects().collect::<Vec<_>>(), [7]);
    let mut used =
        |seconds: u64, percent: u64| pools.used(7, seconds * S * percent / 100, seconds * S);
    assert!(used(0, 0).is_none(), "nothing to compare with");
    assert!(used(50, 90).is_none(), "too short");
    let finding = used(61, 90).expect("busy for long enough");
    assert_eq!((finding.detector.name, finding.stage), ("miner-process", 0));
    assert!(used(200, 90).is_none(), "told before");
}

#[test]
fn an_idle_processor_corroborates_nothing() {
    let mut pools = PoolShapes::default();
    play(&mut pools, &tls(), &miner(7_200));
    for minute in 0..10 {
        assert!(pools.used(7, minute * 6 * S, minute * 61 * S).is_none());
    }
}

#[test]
fn a_gpu_that_was_opened_before_or_after_makes_it_a_miner_at_work() {
    let mut pools = PoolShapes::default();
    assert!(pools.device(7, "nvidia0", 0).is_none());
    let names = play(&mut pools, &tls(), &miner(7_200));
    let names: Vec<_> = names.iter().map(|it| it.detector.name).collect();
    assert_eq!(names, ["mining-pool-protocol", "miner-process"]);
    let mut pools = PoolShapes::default();
    play(&mut pools, &tls(), &miner(7_200));
    assert!(pools.device(7, "null", 9).is_none());
    assert!(pools.device(7, "nvidia0", 9).is_some());
}

#[test]
fn an_end_clears_the_suspicion() {
    let mut pools = PoolShapes::default();
    play(&mut pools, &tls(), &miner(7_200));
    pools.forget(&tls());
    assert_eq!(pools.suspects().count(), 0);
    assert!(pools.flows.is_empty());
}

#[test]
fn writing_to_a_processor_s_registers_is_what_miners_do() {
    let key = ProcessKey { pid: 5, start: 1 };
    let opened = |name, access| registers(7, None, key, name, access, 0).is_some();
    assert!(opened("cpu/0/msr", "rw") && opened("cpu/12/msr", "w"));
    assert!(!opened("cpu/0/msr", "r"), "as turbostat does");
    assert!(!opened("null", "w"));
}
