use std::net::Ipv4Addr;

use super::*;
use crate::event::Direction;

const SECOND: u64 = 1_000_000_000;
const AGENT: u64 = 7;

/// Plays attempts of one agent, and keeps the stages of what was found.
struct Play {
    probes: Probes,
    next: u64,
    found: Vec<Finding>,
}

impl Play {
    fn new() -> Self {
        Self {
            probes: Probes::default(),
            next: 0,
            found: Vec::new(),
        }
    }

    fn flow(&mut self, ip: IpAddr, port: u16, at: u64) -> Flow {
        self.next += 1;
        Flow {
            id: FlowId {
                cookie: self.next,
                generation: 0,
            },
            direction: Some(Direction::Outbound),
            remote: Some(Address { ip, port }),
            begun: at,
            ..Flow::unknown(AGENT)
        }
    }

    fn change(&mut self, flow: &Flow, change: &Change, at: u64) {
        let found = self.probes.change(flow, change, None, at, || false);
        self.found.extend(found);
    }

    fn begin(&mut self, ip: IpAddr, port: u16, at: u64) -> Flow {
        let flow = self.flow(ip, port, at);
        self.change(&flow, &Change::Attempted, at);
        flow
    }

    fn end(&mut self, mut flow: Flow, outcome: Outcome, at: u64) {
        if outcome == Outcome::Established {
            flow.established = Some(at);
            return self.change(&flow, &Change::Opened, at);
        }
        flow.result = Some(outcome);
        self.change(&flow, &Change::Failed, at);
    }

    fn attempt(&mut self, ip: IpAddr, port: u16, outcome: Outcome, at: u64) {
        let flow = self.begin(ip, port, at);
        self.end(flow, outcome, at + 1_000_000);
    }

    fn stages(&self) -> Vec<&'static str> {
        let stages = self.found.iter().map(|it| DETECTOR.stages[it.stage]);
        stages.collect()
    }
}

fn host(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 0).to_bits() + number).into()
}

/// A host that a name stood for, so that first contacts with it tell nothing.
fn named(play: &mut Play, number: u32, outcome: Outcome, at: u64) {
    let mut flow = play.flow(host(number), 80, at);
    flow.resolved_name = Some("service.example".into());
    play.change(&flow, &Change::Attempted, at);
    play.end(flow, outcome, at + 1_000_000);
}

#[test]
fn many_hosts_that_refuse_within_a_minute_are_a_fast_scan() {
    let mut play = Play::new();
    for number in 0..8 {
        named(
            &mut play,
            number,
            Outcome::Refused,
            u64::from(number) * SECOND,
        );
    }
    assert_eq!(play.stages(), ["fast"]);
    assert!(
        play.found[0].evidence[0].contains("8 of 8"),
        "{:?}",
        play.found
    );
    assert!(play.found[0].evidence[1].contains("10.1.0.0:80 (tcp): refused"));
}

#[test]
fn seven_hosts_with_names_are_not_enough() {
    let mut play = Play::new();
    for number in 0..7 {
        named(
            &mut play,
            number,
            Outcome::Refused,
            u64::from(number) * SECOND,
        );
    }
    assert_eq!(play.stages(), [""; 0]);
}

#[test]
fn many_ports_of_one_host_are_a_fast_scan() {
    let mut play = Play::new();
    for port in 0..10 {
        play.attempt(host(1), 1000 + port, Outcome::Refused, u64::from(port));
    }
    assert_eq!(play.stages(), ["fast"]);
    assert!(play.found[0].summary.contains("10 ports of 10.1.0.1"));
}

#[test]
fn a_syn_that_nobody_answers_has_failed_after_three_seconds() {
    let mut play = Play::new();
    for number in 0..8 {
        play.begin(host(number), 22, 0);
    }
    assert_eq!(play.stages(), [""; 0], "not yet");
    play.attempt(host(100), 22, Outcome::Established, SILENT_NS);
    assert_eq!(play.stages(), ["fast"]);
}

#[test]
fn a_slow_answer_takes_the_failure_back() {
    let mut play = Play::new();
    let flows: Vec<_> = (0..4).map(|it| play.begin(host(it), 22, 0)).collect();
    play.attempt(host(100), 22, Outcome::Established, SILENT_NS);
    for flow in flows {
        play.end(flow, Outcome::Established, SILENT_NS + SECOND);
    }
    let counted = play.probes.agents[&AGENT].targets.hosts(0);
    assert_eq!((counted.all, counted.failed), (5, 0));
}

#[test]
fn peers_that_let_in_are_a_cluster_however_many() {
    let mut play = Play::new();
    for number in 0..500 {
        play.attempt(
            host(number),
            6379,
            Outcome::Established,
            u64::from(number) * 1_000_000,
        );
    }
    // A few are not up yet.
    for number in 500..503 {
        play.attempt(host(number), 6379, Outcome::Refused, SECOND);
    }
    assert_eq!(play.stages(), [""; 0]);
}

#[test]
fn a_host_every_two_minutes_is_a_slow_scan() {
    let mut play = Play::new();
    for number in 0..20 {
        named(
            &mut play,
            number,
            Outcome::TimedOut,
            u64::from(number) * 120 * SECOND,
        );
    }
    assert_eq!(play.stages(), ["slow"]);
}

#[test]
fn five_first_contacts_by_address_that_fail_are_a_scanners() {
    let mut play = Play::new();
    for number in 0..4 {
        play.attempt(
            host(number),
            22,
            Outcome::Refused,
            u64::from(number) * 120 * SECOND,
        );
    }
    assert_eq!(play.stages(), [""; 0]);
    play.attempt(host(4), 22, Outcome::Refused, 600 * SECOND);
    assert_eq!(play.stages(), ["slow"]);
}

#[test]
fn successes_and_an_hour_of_quiet_keep_the_walk_down() {
    for (between, outcome) in [
        (SECOND, Outcome::Established),
        (4000 * SECOND, Outcome::Refused),
    ] {
        let mut play = Play::new();
        for number in 0..7 {
            let at = u64::from(number) * 2 * between;
            play.attempt(host(2 * number), 22, Outcome::Refused, at);
            play.attempt(host(2 * number), 22, outcome, at + 1);
            if outcome == Outcome::Established {
                play.attempt(host(2 * number + 1), 22, outcome, at + between);
            }
        }
        assert_eq!(play.stages(), [""; 0], "{outcome:?}");
    }
}

#[test]
fn happy_eyeballs_is_one_attempt_that_succeeds() {
    let mut play = Play::new();
    for number in 0..30 {
        let at = u64::from(number) * SECOND;
        let six = format!("fd00::{number:x}").parse().expect("an address");
        let (first, second) = (play.begin(six, 443, at), play.begin(host(number), 443, at));
        let (failed, opened) = match number % 2 {
            0 => (first, second),
            _ => (second, first),
        };
        // Either may be known first.
        if number % 3 == 0 {
            play.end(failed, Outcome::Abandoned, at + 1000);
            play.end(opened, Outcome::Established, at + 2000);
        } else {
            play.end(opened, Outcome::Established, at + 1000);
            play.end(failed, Outcome::Abandoned, at + 2000);
        }
    }
    assert_eq!(play.stages(), [""; 0]);
}

#[test]
fn one_success_excuses_one_failure_of_the_other_family() {
    let mut play = Play::new();
    play.attempt(
        "fd00::1".parse().expect("an address"),
        22,
        Outcome::Established,
        0,
    );
    for number in 0..9 {
        named(
            &mut play,
            number,
            Outcome::Refused,
            1000 + u64::from(number),
        );
    }
    assert_eq!(play.stages(), ["fast"]);
}

#[test]
fn udp_counts_by_what_was_sent_and_not_answered() {
    for (sent, answered, expected) in [(0, false, 0), (1, true, 0), (1, false, 1)] {
        let mut play = Play::new();
        for number in 0..12 {
            let mut flow = play.flow(host(number), 161, 0);
            flow.transport = Transport::Udp;
            flow.is_datagrams = true;
            play.change(&flow, &Change::Attempted, 0);
            flow.packets[0] = sent;
            flow.established = answered.then_some(1);
            play.change(&flow, &Change::Closed, SECOND);
        }
        assert_eq!(play.found.len(), expected, "{sent} {answered}");
    }
}

#[test]
fn what_is_outside_loopback_local_failures_and_inbound_do_not_count() {
    let mut play = Play::new();
    for number in 0..50 {
        let public = Ipv4Addr::new(198, 51, 100, number).into();
        play.attempt(public, 22, Outcome::Refused, 0);
        let loopback = Ipv4Addr::LOCALHOST.into();
        play.attempt(loopback, u16::from(number) + 1, Outcome::Refused, 0);
        play.attempt(host(number.into()), 22, Outcome::FailedLocally, 0);
        let mut inbound = play.flow(host(number.into()), 22, 0);
        inbound.direction = Some(Direction::Inbound);
        play.change(&inbound, &Change::Attempted, 0);
        play.end(inbound, Outcome::Refused, 1);
    }
    assert_eq!(play.stages(), [""; 0]);
}

#[test]
fn what_an_exception_covers_is_not_counted() {
    let mut probes = Probes::default();
    let mut play = Play::new();
    for number in 0..100 {
        let mut flow = play.flow(host(number), 22, 0);
        assert!(
            probes
                .change(&flow, &Change::Attempted, None, 0, || true)
                .is_none()
        );
        flow.result = Some(Outcome::Refused);
        assert!(
            probes
                .change(&flow, &Change::Failed, None, 0, || true)
                .is_none()
        );
    }
}

#[test]
fn a_port_that_rules_a_cluster_is_told_of_at_once_and_once() {
    for (port, expected) in [(10250, 1), (2379, 1), (2375, 1), (443, 0)] {
        let mut play = Play::new();
        play.attempt(host(1), port, Outcome::Established, 0);
        play.attempt(host(1), port, Outcome::Established, 1);
        assert_eq!(play.stages(), vec!["slow"; expected], "{port}");
    }
}

#[test]
fn rules_set_the_numbers() {
    let mut play = Play::new();
    let mut settings = Settings::default();
    settings.set(&HOSTS, 3);
    play.probes.configure(&settings);
    for number in 0..3 {
        named(&mut play, number, Outcome::Refused, 0);
    }
    assert_eq!(play.stages(), ["fast"]);
}

#[test]
fn a_scan_that_goes_on_is_told_of_again_when_it_has_doubled() {
    let mut play = Play::new();
    for number in 0..40 {
        named(&mut play, number, Outcome::Refused, u64::from(number));
    }
    assert_eq!(play.stages(), ["fast", "fast", "fast"], "at 8, 16 and 32");
}

#[test]
fn tables_are_bounded() {
    let mut play = Play::new();
    for number in 0..5_000 {
        for port in 0..3 {
            play.begin(host(number), port, u64::from(number) * 1000);
        }
    }
    let agent = &play.probes.agents[&AGENT];
    assert!(agent.pending.len() <= MAX_PENDING);
    assert!(agent.targets.hosts(0).all <= MAX_HOSTS);
}
