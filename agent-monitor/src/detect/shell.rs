//! Reverse shells, by what goes over the wire, and by what is run then. Those whose
//! shell has the socket itself are told of at their exec, by the rule alone.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use agent_monitor_common::event::FlowId;

use super::{Detector, Finding, Subject, bytes, who};
use crate::decode::ProcessKey;
use crate::event::{Address, Process};
use crate::flow::Flow;
use crate::protocol::shell::Fact;

/// Somebody outside types into a shell of the agent's.
pub static DETECTOR: Detector = Detector {
    name: "reverse-shell",
    stages: &["dialogue"],
    settings: &[],
};

/// Flows of an agent's on which lines came that are remembered. The one on which none
/// came for longest makes room, first of those of which nothing was run.
const FLOWS_MAX: usize = 32;
/// Lines of a flow's that are remembered: as many as are typed ahead.
const LINES_MAX: usize = 8;
/// Nanoseconds within which a shell runs what it is told; it does so at once, unless it
/// still waits for the command before.
const SOON: u64 = 2_000_000_000;

/// What agents were sent, and what they ran then.
#[derive(Default)]
pub struct Shells {
    agents: HashMap<u64, Vec<Told>>,
    /// Flows that were forgotten because there were too many, although a line may yet
    /// have been run, or one was.
    pub evicted: u64,
}

/// What one flow was sent.
struct Told {
    flow: FlowId,
    remote: Address,
    /// Who has the flow: who made its socket, and who connected it.
    holders: [ProcessKey; 2],
    lines: VecDeque<Line>,
    /// When the last line came: those that were run are no longer among them.
    last: u64,
    /// What was run first, in words, and when.
    ran: Option<(String, u64)>,
    /// Told of already.
    is_found: bool,
}

impl Told {
    /// Whether it may still be half of a proof.
    fn is_of_use(&self, now: u64) -> bool {
        !self.is_found && (self.ran.is_some() || now.saturating_sub(self.last) <= SOON)
    }
}

struct Line {
    text: String,
    words: Vec<String>,
    time: u64,
}

impl Shells {
    /// What a parser saw of a shell, on a flow that the agent began.
    pub fn fact(
        &mut self,
        flow: &Flow,
        fact: &Fact,
        process: Option<&Arc<Process>>,
        time: u64,
    ) -> Option<Finding> {
        let remote = flow.remote.filter(|it| !it.ip.is_loopback())?;
        if !flow.is_outbound() {
            return None;
        }
        match fact {
            Fact::Dialogue { .. } => dialogue(flow, remote, fact, process, time),
            Fact::Line(line) => {
                self.line(flow, remote, line, time);
                None
            }
        }
    }

    fn line(&mut self, flow: &Flow, remote: Address, text: &str, time: u64) {
        let Some(words) = words(text) else { return };
        let agent = self.agents.entry(flow.agent).or_default();
        let place = agent.iter().position(|told| told.flow == flow.id);
        let place = place.unwrap_or_else(|| {
            if agent.len() == FLOWS_MAX {
                let rank = |told: &Told| (told.ran.is_some(), told.last);
                let least = (0..FLOWS_MAX).min_by_key(|place| rank(&agent[*place]));
                let dropped = agent.swap_remove(least.unwrap_or_default());
                self.evicted += u64::from(dropped.is_of_use(time));
            }
            agent.push(Told {
                flow: flow.id,
                remote,
                holders: [flow.owner, flow.connector.unwrap_or(flow.owner)],
                lines: VecDeque::new(),
                last: time,
                ran: None,
                is_found: false,
            });
            agent.len() - 1
        });
        agent[place].last = time;
        let lines = &mut agent[place].lines;
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(Line {
            text: text.to_owned(),
            words,
            time,
        });
    }

    /// A program was started. Twice what somebody outside had said, word by word, below
    /// who has that connection, the second time after the first was run: a shell. `by_key`
    /// gives a process that is known.
    pub fn exec(
        &mut self,
        agent: u64,
        process: &Process,
        key: ProcessKey,
        time: u64,
        by_key: impl Fn(ProcessKey) -> Option<Arc<Process>>,
    ) -> Option<Finding> {
        for told in self.agents.get_mut(&agent)? {
            let is_below = |holder: &ProcessKey| {
                let mut above = process.ancestors.iter();
                holder.pid != 0 && (*holder == key || above.any(|it| it.pid == holder.pid))
            };
            let Some(holder) = told.holders.iter().copied().find(is_below) else {
                continue;
            };
            let said = |line: &Line| {
                time.saturating_sub(line.time) <= SOON && *line.words == *process.argv
            };
            let Some(place) = told.lines.iter().position(said) else {
                continue;
            };
            let line = told.lines.remove(place)?;
            let delay = time.saturating_sub(line.time) as f64 / 1e6;
            let words = format!(
                "{} sent the line \"{}\", and {delay:.1} ms later {}[{}] was started so",
                told.remote,
                bytes::line(line.text.as_bytes()),
                process.comm,
                process.pid
            );
            match &told.ran {
                None => told.ran = Some((words, time)),
                Some((first, at)) if line.time > *at && !told.is_found => {
                    told.is_found = true;
                    let mut subjects = vec![Subject::Flow(told.flow), Subject::Process(holder)];
                    // The shell, which may have been told of at its exec.
                    let between = (process.ancestors.iter())
                        .map(|above| ProcessKey {
                            pid: above.pid,
                            start: 0,
                        })
                        .take_while(|above| above.pid != holder.pid);
                    subjects.extend(between.map(Subject::Process));
                    let process = by_key(holder);
                    return Some(Finding {
                        detector: &DETECTOR,
                        stage: 0,
                        agent,
                        subjects,
                        remote: Some(told.remote),
                        summary: format!(
                            "{} gives {} a shell: it runs what it is sent",
                            who(process.as_ref()),
                            told.remote
                        ),
                        process,
                        evidence: vec![first.clone(), words],
                        time,
                        tells_more: false,
                    });
                }
                Some(_) => {}
            }
        }
        None
    }

    /// A flow is over, or no longer followed.
    pub fn closed(&mut self, agent: u64, flow: FlowId) {
        if let Some(told) = self.agents.get_mut(&agent) {
            told.retain(|told| told.flow != flow);
        }
    }

    /// Forgets an agent.
    pub fn forget_agent(&mut self, agent: u64) {
        self.agents.remove(&agent);
    }
}

/// What a shell would start for this line first, if that can be told without being one:
/// words up to an operator, none of which the shell would change.
fn words(line: &str) -> Option<Vec<String>> {
    let command = line.split([';', '|', '&']).next()?;
    let is_plain = !command.contains([
        '$', '`', '"', '\'', '\\', '*', '?', '[', '{', '~', '<', '>', '(', '#',
    ]);
    let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    (is_plain && !words.is_empty()).then_some(words)
}

/// What a shell's dialogue says.
fn dialogue(
    flow: &Flow,
    remote: Address,
    fact: &Fact,
    process: Option<&Arc<Process>>,
    time: u64,
) -> Option<Finding> {
    let key = flow.connector.unwrap_or(flow.owner);
    let process_too = (key.pid != 0).then_some(Subject::Process(key));
    Some(Finding {
        detector: &DETECTOR,
        stage: 0,
        agent: flow.agent,
        process: process.cloned(),
        subjects: [Some(Subject::Flow(flow.id)), process_too]
            .into_iter()
            .flatten()
            .collect(),
        remote: Some(remote),
        summary: format!("{} gives {remote} a shell", who(process)),
        evidence: vec![fact.in_words()?],
        time,
        tells_more: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Ancestor, Direction};

    const AGENT: u64 = 7;
    /// Of who has the flow, and of a shell below it.
    const HOLDER: u32 = 50;
    const SHELL: u32 = 51;
    const MS: u64 = 1_000_000;

    fn key(pid: u32) -> ProcessKey {
        ProcessKey { pid, start: 1 }
    }

    fn flow() -> Flow {
        let mut flow = Flow::unknown(AGENT);
        flow.direction = Some(Direction::Outbound);
        flow.owner = key(HOLDER);
        flow.remote = Some(Address {
            ip: [203, 0, 113, 1].into(),
            port: 4444,
        });
        flow
    }

    /// Lines that came, and programs that were started, in milliseconds.
    enum Step {
        Line(u64, &'static str),
        Exec(u64, &'static [&'static str]),
    }
    use Step::{Exec, Line};

    fn run(flow: &Flow, above: &[u32], steps: &[Step]) -> Vec<Finding> {
        let mut shells = Shells::default();
        let ancestors = above.iter().map(|pid| Ancestor {
            pid: *pid,
            comm: "sh".to_owned(),
            exe: None,
        });
        let ancestors: Arc<[Ancestor]> = ancestors.collect();
        let holder = Process {
            pid: HOLDER,
            comm: "ncat".to_owned(),
            ..Process::default()
        };
        let by_key = |_: ProcessKey| Some(Arc::new(holder.clone()));
        let findings = steps.iter().filter_map(|step| match step {
            Line(ms, line) => shells.fact(flow, &Fact::Line((*line).to_owned()), None, ms * MS),
            Exec(ms, argv) => {
                let process = Process {
                    pid: 60,
                    comm: argv[0].to_owned(),
                    argv: argv.iter().map(|word| (*word).to_owned()).collect(),
                    ancestors: ancestors.clone(),
                    ..Process::default()
                };
                shells.exec(AGENT, &process, key(60), ms * MS, by_key)
            }
        });
        findings.collect()
    }

    #[test]
    fn what_runs_the_lines_that_it_is_sent_is_a_shell() {
        let steps = [
            Line(0, "id"),
            Exec(3, &["id"]),
            Line(500, "cd /tmp"),
            Line(900, "ls -l /usr | head"),
            Exec(902, &["ls", "-l", "/usr"]),
            Exec(902, &["head"]),
            Line(1500, "uname -a"),
            Exec(1502, &["uname", "-a"]),
        ];
        let findings = run(&flow(), &[SHELL, HOLDER], &steps);
        let [finding] = &findings[..] else {
            panic!("{findings:?}");
        };
        assert_eq!(
            finding.summary,
            "ncat[50] gives 203.0.113.1:4444 a shell: it runs what it is sent"
        );
        assert_eq!(
            finding.evidence,
            [
                "203.0.113.1:4444 sent the line \"id\", and 3.0 ms later id[60] was started so",
                "203.0.113.1:4444 sent the line \"ls -l /usr | head\", and 2.0 ms later ls[60] was started so",
            ]
        );
        assert_eq!(
            run(&flow(), &[SHELL, 1], &steps).len(),
            0,
            "somebody else runs them"
        );
        let mut inside = flow();
        inside.remote = Some(Address {
            ip: [127, 0, 0, 1].into(),
            port: 4444,
        });
        assert_eq!(run(&inside, &[SHELL, HOLDER], &steps).len(), 0);
        let mut served = flow();
        served.direction = Some(Direction::Inbound);
        assert_eq!(run(&served, &[SHELL, HOLDER], &steps).len(), 0);
    }

    #[test]
    fn what_is_run_once_or_late_or_otherwise_or_all_at_once_is_none() {
        let cases: [&[Step]; 5] = [
            &[
                Line(0, "id"),
                Exec(1, &["id"]),
                Line(9, "date"),
                Exec(10, &["date", "-u"]),
            ],
            &[
                Line(0, "id"),
                Exec(1, &["id"]),
                Line(9, "date"),
                Exec(2500, &["date"]),
            ],
            &[Line(0, "id"), Exec(1, &["id"]), Exec(2, &["id"])],
            // A script that is fetched, then run.
            &[
                Line(0, "id"),
                Line(0, "date"),
                Exec(1, &["id"]),
                Exec(2, &["date"]),
            ],
            &[
                Line(0, "echo $x"),
                Exec(1, &["echo", "$x"]),
                Line(9, "ls *"),
                Exec(10, &["ls", "*"]),
            ],
        ];
        for (case, steps) in cases.iter().enumerate() {
            assert_eq!(run(&flow(), &[SHELL, HOLDER], steps).len(), 0, "{case}");
        }
    }

    #[test]
    fn evidence_shows_less_of_the_lines_than_may_be_shown_of_payload() {
        let long = Vec::from([b'a'; 200]);
        let line: &'static str = String::from_utf8(long).expect("letters").leak();
        let argv: &'static [&'static str] = Box::leak(Box::new([line]));
        let steps = [Line(0, line), Exec(1, argv), Line(9, line), Exec(10, argv)];
        let findings = run(&flow(), &[SHELL, HOLDER], &steps);
        let shown: usize = (findings[0].evidence.iter())
            .filter_map(|it| it.split('"').nth(1))
            .map(str::len)
            .sum();
        assert!((200..=256).contains(&shown), "{shown}");
    }

    #[test]
    fn a_shell_whose_lines_were_run_makes_room_after_others_and_those_that_may_be_shells_are_counted()
     {
        let mut shells = Shells::default();
        let shell = flow();
        let mut other = flow();
        let say = |shells: &mut Shells, flow: &Flow, ms: u64| {
            shells.fact(flow, &Fact::Line("id".to_owned()), None, ms * MS)
        };
        let run = |shells: &mut Shells, ms: u64| {
            let process = Process {
                pid: HOLDER,
                argv: ["id".to_owned()].into(),
                ..Process::default()
            };
            shells.exec(AGENT, &process, key(HOLDER), ms * MS, |_| None)
        };
        for number in 1..FLOWS_MAX as u64 {
            other.id.cookie = number;
            other.owner = key(1000);
            say(&mut shells, &other, 0);
        }
        say(&mut shells, &shell, 1);
        assert!(run(&mut shells, 2).is_none());
        // They may have been sent what is run in a moment, and later not.
        for (number, ms, evicted) in [(100, 3, 1), (101, 4_000, 1), (102, 4_001, 1)] {
            other.id.cookie = number;
            say(&mut shells, &other, ms);
            assert_eq!(shells.agents[&AGENT].len(), FLOWS_MAX);
            assert_eq!(shells.evicted, evicted, "at {ms}");
        }
        say(&mut shells, &shell, 4_002);
        assert!(run(&mut shells, 4_003).is_some());
    }

    #[test]
    fn memory_is_bounded_and_what_is_over_is_forgotten() {
        let mut shells = Shells::default();
        let mut flow = flow();
        for number in 0..2 * FLOWS_MAX as u64 {
            flow.id.cookie = number;
            for line in 0..2 * LINES_MAX as u64 {
                let said = Fact::Line("id".to_owned());
                shells.fact(&flow, &said, None, number + line);
            }
        }
        let told = &shells.agents[&AGENT];
        assert_eq!(told.len(), FLOWS_MAX);
        assert!(told.iter().all(|told| told.lines.len() == LINES_MAX));
        assert!(told.iter().any(|told| told.flow == flow.id), "the last one");
        shells.closed(AGENT, flow.id);
        assert_eq!(shells.agents[&AGENT].len(), FLOWS_MAX - 1);
        shells.forget_agent(AGENT);
        assert!(shells.agents.is_empty());
    }
}
