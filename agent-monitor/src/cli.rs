//! The command line: what can be typed. A long file, as help, manual pages and
//! completions are made of it and are read in one piece.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::api::query::{SEVERITIES, check_agent, parse_duration, parse_since};
use crate::commands::filter::Filter;
use crate::config::Flag;
use crate::enrich::selector::{Selector, SelectorError};
use crate::event::{Body, Timestamp};

/// Everything that can be typed.
#[derive(Debug, Parser)]
#[command(
    name = "agent-monitor",
    version,
    about = "Watches what AI agents do on this node",
    long_about = "Watches what AI agents do on this node: programs they run, connections they make, \
                  what those carry. Finds reverse tunnels and miners by their bytes and behaviour.",
    after_help = "\
Examples:
  agent-monitor run --agent 'cgroup:/agents/*'   watch what runs below /agents
  agent-monitor status --wait 10s                wait until it sees everything
  agent-monitor tail                             look on
  agent-monitor top                              the same at a glance
  agent-monitor replay night.agmr                look back; needs neither root nor a daemon

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 alerts found (replay --fail-on-alert).

The package brings manual pages (man agent-monitor-run) and completions. Without it: agent-monitor man
--dir DIR, agent-monitor completions SHELL.",
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch agents, in the foreground, until told to stop
    Run(RunArgs),
    /// Show events as they happen
    Tail(TailArgs),
    /// Show what every agent does at the moment
    Top(TopArgs),
    /// Show stored alerts, the newest revision of each incident
    Alerts(AlertsArgs),
    /// Show how sinks are doing, and see to what a receiver refused
    Sinks(SinksArgs),
    /// Show what the daemon watches, and whether it misses anything
    Status(StatusArgs),
    /// Say whether this machine can run agent-monitor, and what to change if not
    Doctor(DoctorArgs),
    /// Write what the kernel reports to a file, for replay
    Record(RecordArgs),
    /// Find in recordings what the daemon would have found live
    Replay(ReplayArgs),
    /// List, check, test, explain and reload rules
    Rules(RulesArgs),
    /// Check and show the configuration
    Config(ConfigArgs),
    /// Print the script that completes commands and options in a shell
    #[command(hide = true)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write the pages of all commands
    #[command(hide = true)]
    Man(ManArgs),
    /// Print where members of kernel structures lie
    #[command(name = crate::attach::offsets::COMMAND, hide = true)]
    KernelOffsets,
}

/// What `--agent` takes, for the end of a command's help.
macro_rules! selectors {
    () => {
        "\
Selectors:
  cgroup:<path glob below the cgroup2 mount>   cgroup:/agents/*
  docker:<name glob>                           docker:web-agent-*
  label:<key>[=<value glob>]                   label:role=agent
  container:<id or name glob>                  container:3f2a*
  pod:<namespace>/<name glob>                  pod:agents/*
  systemd:<unit glob>                          systemd:agent@*.service
Without any, every container that a known runtime's cgroup path shows is an agent."
    };
}

/// Which processes are agents.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// Watch these agents; may be repeated
    #[arg(long = "agent", value_name = "SELECTOR", value_parser = check_selector)]
    pub agents: Vec<String>,
}

/// A selector as it was typed, if it is one.
fn check_selector(text: &str) -> Result<String, SelectorError> {
    text.parse::<Selector>().map(|_| text.to_owned())
}

/// Where the daemon is.
#[derive(Debug, Args)]
pub struct SocketArgs {
    /// The daemon's socket
    #[arg(
        long,
        value_name = "PATH",
        env = "AGENT_MONITOR_SOCKET",
        default_value = crate::api::DEFAULT_SOCKET
    )]
    pub socket: PathBuf,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = concat!("\
Examples:
  agent-monitor run                                 every container is an agent
  agent-monitor run --agent 'cgroup:/agents/*'      what runs below /agents
  agent-monitor run --pin                           the next run --pin goes on without a hole
  agent-monitor run --config ./try --socket ./sock  a second one, to try a configuration

", selectors!()))]
pub struct RunArgs {
    /// Which processes are agents.
    #[command(flatten)]
    pub agents: AgentArgs,
    /// Configuration: a file, or a directory with config.toml and conf.d
    /// [default: /etc/agent-monitor]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Keep everything attached when this ends, for the next run with --pin to take over; a run
    /// without it, or removing the files, detaches it
    #[arg(long)]
    pub pin: bool,
    /// The socket to listen on [default: the configuration's, /run/agent-monitor.sock]
    #[arg(long, value_name = "PATH", env = "AGENT_MONITOR_SOCKET")]
    pub socket: Option<PathBuf>,
}

impl RunArgs {
    /// What was typed that the configuration can say, too.
    pub fn flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        if !self.agents.agents.is_empty() {
            flags.push(Flag {
                setting: "agents.select",
                name: "--agent",
                value: self.agents.agents.clone().into(),
            });
        }
        if let Some(socket) = &self.socket {
            flags.push(Flag {
                setting: "api.socket",
                name: "--socket",
                value: socket.to_string_lossy().into_owned().into(),
            });
        }
        flags
    }
}

/// Arguments of `tail`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agent-monitor tail                              the last 10 events, then what happens
  agent-monitor tail --kind alert --since 1h      alerts of the last hour, then new ones
  agent-monitor tail --agent 'web-*' --kind exec,connect
  agent-monitor tail --filter \"connect.remote.port in [3333, 4444]\"
  agent-monitor tail --output json | jq -r 'select(.kind == \"exec\") | .exec.filename'

The daemon keeps the last few thousand events in memory; what --since asks for and is no longer
there shows as a gap, what this command was too slow to read as a loss.")]
pub struct TailArgs {
    /// Begin with the events since then: an age (10m, 1h30m, 2d) or an RFC 3339 time
    #[arg(long, value_name = "TIME", value_parser = parse_since, help_heading = "Where to begin")]
    pub since: Option<Timestamp>,
    /// Begin with at most N past events [default: 10, all with --since]
    #[arg(short, value_name = "N", help_heading = "Where to begin")]
    pub n: Option<usize>,
    /// Only agents whose name or id contains this or, with * ? [ {, matches it; may be repeated
    #[arg(
        long = "agent",
        value_name = "PATTERN",
        value_parser = check_agent,
        help_heading = "Filters"
    )]
    pub agents: Vec<String>,
    /// Only events of this kind; may be repeated. For people, `socket` is left
    /// out unless it is named
    #[arg(
        long = "kind",
        value_name = "KIND",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(Body::KINDS),
        help_heading = "Filters"
    )]
    pub kinds: Vec<String>,
    /// Only alerts, of at least this severity
    #[arg(
        long,
        value_name = "SEVERITY",
        value_parser = PossibleValuesParser::new(SEVERITIES),
        help_heading = "Filters"
    )]
    pub min_severity: Option<String>,
    /// Only events of which this expression of CEL (cel.dev) is true: paths of the event's
    /// JSON, such as `connect.remote.port == 443 && process.uid == 0`. An event without what is
    /// named is left out. Past events are counted by -n before they are filtered
    #[arg(long, value_name = "EXPRESSION", help_heading = "Filters")]
    pub filter: Option<Filter>,
    /// How events are shown.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Whether to colour
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Output"
    )]
    pub color: Color,
    /// Where the daemon is.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agent-monitor top
  agent-monitor top --agent 'web-*' --interval 5s
  agent-monitor top | head -20                    one look, in plain text

Keys: arrows or j k to choose, Enter to open an agent or alert, Esc to go back, s to sort, / to
filter, ? for all of them, q to quit.

When stdout is no terminal, one look is printed after one interval, and that is all.")]
pub struct TopArgs {
    /// Only agents whose name or id contains this or, with * ? [ {, matches it; may be repeated
    #[arg(
        long = "agent",
        value_name = "PATTERN",
        value_parser = check_agent
    )]
    pub agents: Vec<String>,
    /// Ask the daemon this often (500ms, 2s, 1m); rates are of this time
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_interval)]
    pub interval: Duration,
    /// Where the daemon is.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Arguments of `alerts`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agent-monitor alerts --since 1d --min-severity high
  agent-monitor alerts reverse-ssh-tunnel-db3d26def6c1516c     all of one incident, with its evidence
  agent-monitor alerts --output json | jq -r .alert.summary

New alerts as they come: agent-monitor tail --kind alert.")]
pub struct AlertsArgs {
    /// Show every revision of this incident, in full
    #[arg(value_name = "INCIDENT")]
    pub incident: Option<String>,
    /// Only what was told since then: an age (10m, 1h30m, 2d) or an RFC 3339 time
    #[arg(long, value_name = "TIME", value_parser = parse_since, help_heading = "Filters")]
    pub since: Option<Timestamp>,
    /// Only agents whose name or id contains this or, with * ? [ {, matches it; may be repeated
    #[arg(
        long = "agent",
        value_name = "PATTERN",
        value_parser = check_agent,
        help_heading = "Filters"
    )]
    pub agents: Vec<String>,
    /// Only this rule's
    #[arg(long, value_name = "ID", help_heading = "Filters")]
    pub rule: Option<String>,
    /// Only of at least this severity
    #[arg(
        long,
        value_name = "SEVERITY",
        value_parser = PossibleValuesParser::new(SEVERITIES),
        help_heading = "Filters"
    )]
    pub min_severity: Option<String>,
    /// At most N, the newest
    #[arg(short, value_name = "N", default_value = "100", help_heading = "Filters",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub n: u16,
    /// How alerts are shown.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Where the daemon is.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Arguments of `sinks`.
#[derive(Debug, Args)]
pub struct SinksArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: SinksCommand,
}

/// What to do with sinks.
#[derive(Debug, Subcommand)]
pub enum SinksCommand {
    /// Show every sink: what it is, and whether it is well
    List(SinksListArgs),
    /// Show how far every sink is, and why one is behind
    Status(SinksListArgs),
    /// Deliver dead letters once more, and go on at once with what waits (root)
    Retry(SinksOrderArgs),
    /// Delete dead letters: alerts that the receiver refused (root)
    DropDeadLetters(SinksOrderArgs),
}

/// Arguments of `sinks list` and `sinks status`.
#[derive(Debug, Args)]
pub struct SinksListArgs {
    /// How sinks are shown.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Where the daemon is.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Arguments of `sinks retry` and `sinks drop-dead-letters`.
#[derive(Debug, Args)]
pub struct SinksOrderArgs {
    /// The sink's name in the configuration
    #[arg(value_name = "SINK")]
    pub name: String,
    /// Where the daemon is.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agent-monitor status
  agent-monitor status --wait 10s && start-the-agents")]
pub struct StatusArgs {
    /// Wait until everything is attached, at most this long (500ms, 10s, 1m)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub wait: Option<Duration>,
    /// How the status is shown.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Where the daemon is.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// How the findings are shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `record`.
#[derive(Debug, Args)]
#[command(after_help = concat!("\
Examples:
  agent-monitor record -o night.agmr --agent 'docker:agent-*'   until Ctrl-C
  agent-monitor record -o sample.agmr --for 10m --max-size 500M
  agent-monitor record -o sizes.agmr --payload none              nothing that agents said
  agent-monitor replay night.agmr                                look at it

", selectors!()))]
pub struct RecordArgs {
    /// The file to write
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub file: PathBuf,
    /// Which processes are agents.
    #[command(flatten)]
    pub agents: AgentArgs,
    /// Stop after this long (500ms, 10s, 1m) instead of at Ctrl-C
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Stop before the file is larger than this (500k, 100M, 2G)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_size: Option<u64>,
    /// What to keep of what agents say: the first bytes that the detectors read, or nothing but
    /// sizes and times, so that a replay recognises no protocol by its bytes
    #[arg(long, value_name = "WHAT", default_value = "heads")]
    pub payload: Payload,
}

/// What a recording keeps of what agents say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Payload {
    /// What the kernel side sends up.
    Heads,
    /// Nothing.
    None,
}

/// Arguments of `replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agent-monitor replay night.agmr
  agent-monitor replay --output json --fail-on-alert night.agmr
  agent-monitor replay --agent-net 10.7.0.0/16 node.pcap.gz

Of packets alone no process is known. Whoever begins a flow is taken for the agent, and what goes
on when the capture begins is taken to have been begun by the end with the higher port. Files are
replayed one after another, each by itself.")]
pub struct ReplayArgs {
    /// What `record` wrote, or a packet capture: pcap or pcapng; either may be gzip'ed
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// In a packet capture agents are at these addresses, and nowhere else; may be repeated
    #[arg(long = "agent-net", value_name = "CIDR", value_parser = parse_net)]
    pub agent_nets: Vec<IpNet>,
    /// How events are shown.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Exit with 3 when there was an alert
    #[arg(long)]
    pub fail_on_alert: bool,
}

/// Arguments of `rules`.
#[derive(Debug, Args)]
pub struct RulesArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: RulesCommand,
}

/// What to do with rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Show every rule
    List(RulesListArgs),
    /// Say whether rules can be used, and what is wrong with them if not
    Check(RulesCheckArgs),
    /// Run the tests that rules carry
    Test(RulesTestArgs),
    /// Show what a rule finds, how, and the fields it can ask for
    Explain(RulesExplainArgs),
    /// Have the daemon read its rules again; SIGHUP does, too
    Reload(RulesReloadArgs),
}

/// Arguments of `rules list`.
#[derive(Debug, Args)]
pub struct RulesListArgs {
    /// Directories of rules, on top of the default pack
    #[arg(value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// How rules are shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `rules check`.
#[derive(Debug, Args)]
pub struct RulesCheckArgs {
    /// Directories of rules, on top of the default pack
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
}

/// Arguments of `rules test`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agent-monitor rules test /etc/agent-monitor/rules --junit report.xml
  agent-monitor rules test --capture night.agmr --expect reverse-ssh-tunnel")]
pub struct RulesTestArgs {
    /// Directories of rules, on top of the default pack
    #[arg(value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Write the outcome as JUnit XML, too
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Replay this instead, and look for alerts
    #[arg(long, value_name = "FILE", requires = "expect")]
    pub capture: Option<PathBuf>,
    /// A rule that has to be found in the capture; may be repeated
    #[arg(long, value_name = "ID", requires = "capture")]
    pub expect: Vec<String>,
}

/// Arguments of `rules explain`.
#[derive(Debug, Args)]
pub struct RulesExplainArgs {
    /// The rule
    #[arg(value_name = "ID")]
    pub id: String,
    /// Directories of rules, on top of the default pack
    #[arg(value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
}

/// Arguments of `rules reload`.
#[derive(Debug, Args)]
pub struct RulesReloadArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Arguments of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether `run` would accept it, with its rules, secrets and certificates
    Check(ConfigCheckArgs),
    /// Show every value in use, and where it is from
    Show(ConfigShowArgs),
    /// Print every setting with its meaning and default, commented out
    Default,
}

/// Arguments of `config check`.
#[derive(Debug, Args)]
pub struct ConfigCheckArgs {
    /// A file, or a directory with config.toml and conf.d [default: /etc/agent-monitor]
    #[arg(value_name = "PATH")]
    pub place: Option<PathBuf>,
}

/// Arguments of `config show`.
#[derive(Debug, Args)]
pub struct ConfigShowArgs {
    /// A file, or a directory with config.toml and conf.d [default: /etc/agent-monitor]
    #[arg(value_name = "PATH")]
    pub place: Option<PathBuf>,
    /// How it is shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agent-monitor completions bash > /usr/share/bash-completion/completions/agent-monitor
  agent-monitor completions zsh > /usr/share/zsh/vendor-completions/_agent-monitor
  agent-monitor completions fish > /usr/share/fish/vendor_completions.d/agent-monitor.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agent-monitor man | man -l -                         read the main page
  agent-monitor man --dir /usr/local/share/man/man1    install all of them")]
pub struct ManArgs {
    /// Write the page of every command into this directory instead, which is made if need be
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// How results are shown.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// For people or for programs [default: pretty on a terminal, else json]
    #[arg(long, value_name = "FORMAT", help_heading = "Output")]
    pub output: Option<Output>,
}

impl OutputArgs {
    /// What was asked for, or what fits where stdout goes.
    pub fn format(&self) -> Output {
        use std::io::IsTerminal as _;
        self.output.unwrap_or(if std::io::stdout().is_terminal() {
            Output::Pretty
        } else {
            Output::Json
        })
    }
}

/// A form of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

impl From<Color> for anstream::ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::AlwaysAnsi,
            Color::Never => Self::Never,
        }
    }
}

/// A length of time that is neither too short for the daemon nor for ever.
fn parse_interval(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(3600);
    let interval = parse_duration(text)?;
    match (SHORTEST..=LONGEST).contains(&interval) {
        true => Ok(interval),
        false => Err(format!("{text:?} is not from 100ms to 1h")),
    }
}

/// A network, or one address.
fn parse_net(text: &str) -> Result<IpNet, String> {
    let address = |_| text.parse::<std::net::IpAddr>().map(IpNet::from);
    text.parse::<IpNet>()
        .or_else(address)
        .map_err(|_| format!("`{text}` is neither a network such as 10.7.0.0/16 nor an address"))
}

/// A number of bytes, in thousands, millions or thousands of millions with k, M or G.
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1_000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        Some((at, 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    let number = digits.parse::<u64>().ok();
    let bytes = number.and_then(|number| number.checked_mul(unit));
    bytes.ok_or_else(|| format!("`{text}` is no size such as 500k, 100M or 2G"))
}
