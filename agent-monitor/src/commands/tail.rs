//! `agent-monitor tail`: shows events as they happen.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::filter::Filter;
use super::pretty::Pretty;
use crate::api::client::{Client, Lines};
use crate::cli::{Output, TailArgs};
use crate::event::Body;

/// Past events shown when nothing is said about where to begin, as `tail` does.
const PAST: usize = 10;

/// Kinds that people see only when they ask: one for each socket tells them
/// nothing that its connection does not.
const QUIET: [&str; 1] = ["socket"];

/// Runs the command until the daemon, the reader of stdout or the user ends it.
///
/// # Errors
/// When there is no daemon, it refuses, or it goes away.
pub fn run(args: TailArgs) -> anyhow::Result<ExitCode> {
    // Lines are written by this thread, and writing blocks while a pager is not
    // scrolled; the other thread still notices Ctrl-C.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            interrupt.recv().await;
            std::process::exit(0);
        });
        let mut lines = Client::new(&args.socket.socket)
            .stream_lines(&format!("/v1/events?{}", query(&args)))
            .await?;
        let filter = args.filter.as_ref();
        let shown = match args.output.format() {
            Output::Json => show(&mut lines, &mut io::stdout().lock(), filter, write_line).await,
            Output::Pretty => {
                let pretty = Pretty::for_stdout();
                let mut stdout = anstream::AutoStream::new(io::stdout().lock(), args.color.into());
                let write = |out: &mut dyn Write, line: &[u8]| write_pretty(&pretty, out, line);
                show(&mut lines, &mut stdout, filter, write).await
            }
        };
        match shown {
            Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(error),
            Ok(()) => bail!("agent-monitor closed the stream"),
        }
    })
}

/// What was typed, as the daemon wants it.
fn query(args: &TailArgs) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let n = args.n.or(if args.since.is_none() {
        Some(PAST)
    } else {
        None
    });
    query.extend_pairs(n.map(|n| ("n", n.to_string())));
    query.extend_pairs(args.since.map(|since| ("since", since.to_string())));
    query.extend_pairs(args.kinds.iter().map(|kind| ("kind", kind)));
    if args.kinds.is_empty() && args.output.format() == Output::Pretty {
        let shown = Body::KINDS.iter().filter(|kind| !QUIET.contains(kind));
        query.extend_pairs(shown.map(|kind| ("kind", kind)));
    }
    query.extend_pairs(args.agents.iter().map(|agent| ("agent", agent)));
    query.extend_pairs(
        args.min_severity
            .iter()
            .map(|severity| ("min_severity", severity)),
    );
    query.finish()
}

/// Writes line by line, together what arrived together, until the stream ends.
async fn show(
    lines: &mut Lines,
    out: &mut impl Write,
    filter: Option<&Filter>,
    mut write: impl FnMut(&mut dyn Write, &[u8]) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut out = BufWriter::new(out);
    let mut show = |out: &mut dyn Write, line: &[u8]| {
        if let Some(filter) = filter
            && !filter.lets_pass(&event(line)?)?
        {
            return Ok(());
        }
        write(out, line).context("cannot write to stdout")
    };
    while let Some(line) = lines.next().await? {
        show(&mut out, &line)?;
        while let Some(line) = lines.buffered() {
            show(&mut out, &line)?;
        }
        out.flush().context("cannot write to stdout")?;
    }
    Ok(())
}

fn write_line(out: &mut dyn Write, line: &[u8]) -> io::Result<()> {
    out.write_all(line)?;
    out.write_all(b"\n")
}

fn write_pretty(pretty: &Pretty, out: &mut dyn Write, line: &[u8]) -> io::Result<()> {
    out.write_all(pretty.show(&event(line)?).as_bytes())
}

fn event(line: &[u8]) -> io::Result<Value> {
    serde_json::from_slice(line)
        .map_err(|error| io::Error::other(format!("agent-monitor sent what is not JSON: {error}")))
}

pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let own = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let json = error.downcast_ref::<serde_json::Error>();
    let kind = own.or_else(|| json.and_then(serde_json::Error::io_error_kind));
    kind == Some(io::ErrorKind::BrokenPipe)
}
