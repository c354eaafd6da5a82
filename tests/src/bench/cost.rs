//! What watching costs the work that is watched, subject by subject.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Extent;
use super::judge::{Estimate, Row, Verdict};
use super::subject::{Running, Subject};
use super::work::{Kind, Server, Worker};
use crate::cgroup::Cgroup;
use crate::wait;

/// How often a stream is written to in a round.
const STREAM: u64 = 8_000;
/// A work, and how often it is done in a round.
const WORKS: [(Kind, u64); 5] = [
    (Kind::TcpConnect, 2_000),
    (Kind::UdpConnect, 20_000),
    (Kind::Spawn, 400),
    (Kind::Stream, STREAM),
    (Kind::PingPong, 8_000),
];
/// Pairs of throughput in a round, inside an agent and outside, and by what the work
/// of each is divided.
const PAIRS: u64 = 10;
const PAIR_DIVISOR: u64 = 2;
/// strace stops each system call: it gets a part of the work.
const STRACE_DIVISOR: u64 = 20;

/// Of one subject at one work, a sample a round.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Nanoseconds of wall time an operation.
    pub wall: Vec<f64>,
    /// Nanoseconds of the subject's programs an operation.
    pub programs: Vec<f64>,
    /// Their runs an operation.
    pub runs: Vec<f64>,
    /// Nanoseconds a run of those that are attached to cgroups.
    pub a_run: Vec<f64>,
    /// Runs of those that are attached to cgroups.
    pub at_cgroups: u64,
}

/// Everything that was compared.
#[derive(Debug, Default)]
pub struct Costs {
    /// By work and subject; in an agent.
    pub inside: BTreeMap<(usize, Subject), Samples>,
    /// By work: agent-monitor's, outside any agent.
    pub outside: BTreeMap<usize, Samples>,
    /// Wall times of the same bulk work, in an agent and outside: right after each other,
    /// under the same daemon, none of whose programs runs outside.
    pub streams: Vec<(f64, f64)>,
    /// Who could not be run, and why.
    pub absent: BTreeMap<Subject, String>,
}

/// Lets each subject watch each work once a round, in turn.
///
/// # Errors
/// When the work cannot be done, or agent-monitor does not run.
pub fn measure(extent: Extent) -> Result<Costs> {
    let agent = Own(Cgroup::create("bench")?);
    // Not below the rig's parent, where every cgroup is an agent.
    let outside = Own(Cgroup::create_at("/agent-monitor-bench-outside")?);
    let (close, serve) = (Server::Close.start()?, Server::Serve.start()?);
    let port = |kind| match kind {
        Kind::Stream | Kind::PingPong => serve,
        _ => close,
    };
    let mut costs = Costs::default();
    for round in 1..=extent.rounds {
        for subject in Subject::ALL {
            if costs.absent.contains_key(&subject) {
                continue;
            }
            eprintln!("round {round} of {}: {}", extent.rounds, subject.name());
            let running = match subject.start(&agent.0) {
                Ok(running) => running,
                Err(error) if subject > Subject::AgentMonitor => {
                    costs.absent.insert(subject, format!("{error:#}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            for (index, (kind, count)) in WORKS.into_iter().enumerate() {
                let mut count = count / extent.divisor;
                if subject == Subject::Strace {
                    count /= STRACE_DIVISOR;
                }
                let measure = |cgroup: &Cgroup, samples: &mut Samples| -> Result<()> {
                    let mut worker = Worker::start(kind, cgroup, port(kind), subject.wrapper())?;
                    let before = running.programs()?;
                    let wall = worker.run(count)?;
                    let (all, at_cgroups) = running.programs()?.since(&before);
                    samples.add(count, wall, all, at_cgroups);
                    Ok(())
                };
                measure(&agent.0, costs.inside.entry((index, subject)).or_default())
                    .with_context(|| format!("{kind:?} under {}", subject.name()))?;
                if subject == Subject::AgentMonitor {
                    settle(&running)?;
                    measure(&outside.0, costs.outside.entry(index).or_default())?;
                }
            }
            if subject == Subject::AgentMonitor {
                let start = |cgroup| Worker::start(Kind::Stream, cgroup, serve, &[]);
                let (mut inside, mut outside) = (start(&agent.0)?, start(&outside.0)?);
                let count = STREAM / extent.divisor / PAIR_DIVISOR;
                for pair in 0..PAIRS {
                    // Each is first as often as second.
                    let first = (pair % 2 == 1).then(|| outside.run(count)).transpose()?;
                    let within = inside.run(count)?;
                    let without = first.map_or_else(|| outside.run(count), Ok)?;
                    costs.streams.push((within as f64, without as f64));
                }
            }
        }
    }
    Ok(costs)
}

/// Waits until no more packets come of what an agent did: its connections end after it.
fn settle(running: &Running) -> Result<()> {
    wait::until("quiet", Duration::from_secs(10), || {
        let before = running.programs()?;
        thread::sleep(Duration::from_millis(100));
        let (_, at_cgroups) = running.programs()?.since(&before);
        Ok((at_cgroups.runs == 0).then_some(()))
    })
}

impl Samples {
    fn add(
        &mut self,
        count: u64,
        wall: u64,
        all: super::kernel::Spent,
        at_cgroups: super::kernel::Spent,
    ) {
        let count = count as f64;
        self.wall.push(wall as f64 / count);
        self.programs.push(all.ns as f64 / count);
        self.runs.push(all.runs as f64 / count);
        // A few are of something else.
        if at_cgroups.runs as f64 >= count / 2.0 {
            self.a_run
                .push(at_cgroups.ns as f64 / at_cgroups.runs as f64);
        }
        self.at_cgroups += at_cgroups.runs;
    }
}

impl Costs {
    /// Names of the works, by their index.
    pub fn works() -> impl Iterator<Item = (usize, Kind)> {
        WORKS.into_iter().map(|(kind, _)| kind).enumerate()
    }

    /// What was sampled of agent-monitor at a work.
    fn own(&self, kind: Kind) -> Option<&Samples> {
        self.of(kind, Subject::AgentMonitor)
    }

    fn of(&self, kind: Kind, subject: Subject) -> Option<&Samples> {
        let (index, _) = Self::works().find(|(_, it)| *it == kind)?;
        self.inside.get(&(index, subject))
    }

    /// Wall time with a subject over without, pair by pair of one round.
    pub fn ratio(&self, kind: Kind, subject: Subject) -> Option<Estimate> {
        let (with, without) = (
            self.of(kind, subject)?,
            self.of(kind, Subject::Unmonitored)?,
        );
        let ratios: Vec<f64> = with
            .wall
            .iter()
            .zip(&without.wall)
            .map(|(with, without)| with / without)
            .collect();
        Estimate::of(&ratios)
    }

    /// The rows of the table of budgets that are about the cost of being watched.
    pub fn rows(&self) -> Vec<Row> {
        let inside = |kind| self.operation(self.own(kind), kind);
        vec![
            row(
                "TCP connect() to close, in an agent",
                1_500.0,
                inside(Kind::TcpConnect),
            ),
            row(
                "UDP connect(), in an agent",
                500.0,
                inside(Kind::UdpConnect),
            ),
            row(
                "spawn (fork, exec, exit), in an agent",
                6_000.0,
                inside(Kind::Spawn),
            ),
            row(
                "TCP segment after the head, stream",
                150.0,
                self.run(Kind::Stream),
            ),
            row(
                "TCP segment after the head, 64-byte ping-pong",
                150.0,
                self.run(Kind::PingPong),
            ),
            self.throughput(),
            self.runs_outside(),
            row(
                "spawn outside agents",
                300.0,
                self.operation(self.outside(Kind::Spawn), Kind::Spawn),
            ),
        ]
    }

    /// Nanoseconds an operation of agent-monitor's programs.
    fn operation(&self, own: Option<&Samples>, kind: Kind) -> Option<Counted> {
        let (own, nothing) = (own?, self.of(kind, Subject::Floor)?);
        let a_run = nothing.programs.iter().zip(&nothing.runs);
        let counting: Vec<f64> = own
            .runs
            .iter()
            .zip(a_run)
            .map(|(runs, (ns, of_nothing))| runs * ns / of_nothing)
            .collect();
        Counted::of(&own.programs, &counting)
    }

    /// Nanoseconds a run of those of agent-monitor's programs that are attached to
    /// cgroups.
    fn run(&self, kind: Kind) -> Option<Counted> {
        let nothing = self.of(kind, Subject::Floor)?;
        Counted::of(&self.own(kind)?.a_run, &nothing.a_run)
    }

    fn outside(&self, kind: Kind) -> Option<&Samples> {
        let (index, _) = Self::works().find(|(_, it)| *it == kind)?;
        self.outside.get(&index)
    }

    /// What is lost of the throughput, pair by pair.
    fn throughput(&self) -> Row {
        let (what, budget) = ("bulk TCP throughput", "at most 3 % less");
        let pairs = self.streams.iter();
        let lost: Vec<f64> = pairs
            .map(|(inside, outside)| (1.0 - outside / inside) * 100.0)
            .collect();
        let Some(lost) = Estimate::of(&lost) else {
            return Row::at_most(what, budget, 0.0, "", None);
        };
        let figure = format!("{:.1} ± {:.1} % less", lost.mean, lost.half);
        Row::new(what, budget, figure, lost.at_most(3.0))
    }

    fn runs_outside(&self) -> Row {
        let runs: u64 = self
            .outside
            .values()
            .map(|samples| samples.at_cgroups)
            .sum();
        let measured = !self.outside.is_empty();
        Row::new(
            "network and device programs outside agents",
            "0 runs",
            format!("{runs} runs"),
            match runs {
                0 if measured => Verdict::Met,
                0 => Verdict::Inconclusive,
                _ => Verdict::Missed,
            },
        )
    }
}

/// Nanoseconds of programs.
struct Counted {
    /// By the kernel's statistics.
    gross: Estimate,
    /// Without the cost of counting them.
    net: Estimate,
}

impl Counted {
    /// `counting` is what the kernel counts for as many runs of programs that do
    /// nothing, round by round as `gross`.
    fn of(gross: &[f64], counting: &[f64]) -> Option<Self> {
        let net: Vec<f64> = gross.iter().zip(counting).map(|(a, b)| a - b).collect();
        Some(Self {
            gross: Estimate::of(gross)?,
            net: Estimate::of(&net)?,
        })
    }
}

/// A row about nanoseconds, judged by those without the counting.
fn row(what: &str, most: f64, counted: Option<Counted>) -> Row {
    let budget = format!("≤ {most} ns of our programs");
    let Some(Counted { gross, net }) = counted else {
        return Row::at_most(what, &budget, most, "ns", None);
    };
    let figure = format!("{net} ns; with the cost of counting {gross}");
    Row::new(what, &budget, figure, net.at_most(most))
}

/// A cgroup that is removed on drop, with what is in it.
struct Own(Cgroup);

impl Drop for Own {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove() {
            eprintln!("{error:#}");
        }
    }
}
