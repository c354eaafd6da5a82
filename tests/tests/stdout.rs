//! The sink that writes on standard output, in a daemon whose standard output is a pipe.
//! Needs root.

use std::fs::{self, File};
use std::io::{ErrorKind, PipeWriter, Read as _, Write as _, pipe};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::monitor::{SOON, Site};
use agent_monitor_tests::process::checked;
use agent_monitor_tests::wait;
use agent_monitor_tests::world::{SERVER, World};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Backoff of a sink included.
const LIMIT: Duration = Duration::from_secs(30);

/// A daemon. Killed on drop.
struct Daemon(Child);

impl Daemon {
    /// Watches `agent`, with alerts on `stdout` and in the site's file `alerts`.
    fn start(site: &Site, agent: &Agent, stdout: PipeWriter) -> Self {
        let sinks = format!(
            "[[sink]]\nkind = \"stdout\"\nname = \"out\"\n\
             [[sink]]\nkind = \"file\"\nname = \"file\"\npath = \"{}\"\n",
            site.dir().join("alerts").display()
        );
        let config = site.configure(&sinks).unwrap();
        let log = File::options()
            .create(true)
            .append(true)
            .open(site.dir().join("log"))
            .unwrap();
        let selector = agent.selector();
        let mut run = site.command(&["run", "--agent", &selector]).unwrap();
        let run = run.arg("--config").arg(config);
        let run = run.stdin(Stdio::null()).stdout(stdout).stderr(log);
        let daemon = Self(run.spawn().unwrap());
        checked(&mut site.command(&["status", "--wait", "30s"]).unwrap()).unwrap();
        daemon
    }

    fn stop(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        wait::until("the daemon's end", SOON, || Ok(self.0.try_wait()?)).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes into a pipe until nothing more fits.
fn fill(pipe: &mut PipeWriter) {
    let flags = fcntl_getfl(&pipe).unwrap();
    fcntl_setfl(&pipe, flags | OFlags::NONBLOCK).unwrap();
    // Byte by byte: a larger piece may not fit where a smaller one does.
    loop {
        match pipe.write(b"x") {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    fcntl_setfl(&pipe, flags).unwrap();
}

/// Records that a sink has not delivered.
fn behind(site: &Site, sink: &str) -> anyhow::Result<u64> {
    let told = checked(&mut site.command(&["sinks", "status", "--output", "json"])?)?;
    let sinks = told.lines().map(serde_json::from_str::<Value>);
    let sinks = sinks.collect::<Result<Vec<_>, _>>()?;
    let sink = sinks.iter().find(|it| it["name"] == sink);
    Ok(sink.and_then(|it| it["lag"].as_u64()).unwrap_or(u64::MAX))
}

fn alerts(text: &str) -> Vec<Value> {
    let lines = text.lines().map(serde_json::from_str::<Value>);
    lines.collect::<Result<_, _>>().expect(text)
}

#[test]
fn alerts_are_all_that_is_written_and_a_pipe_that_nobody_reads_delays_nothing_else() {
    let world = World::new("stdout").unwrap();
    let agent = Agent::cgroup(&world, "stdout").unwrap();
    let site = Site::new().unwrap();
    let (_unread, mut full) = pipe().unwrap();
    fill(&mut full);
    let daemon = Daemon::start(&site, &agent, full);
    let tunnel = [
        "ssh",
        "-o",
        "BatchMode=yes",
        "-NR",
        "9001:127.0.0.1:8000",
        SERVER,
    ];
    let _tunnel = agent.spawn(&tunnel).unwrap();
    let file = site.dir().join("alerts");
    wait::until("the alert in the file", LIMIT, || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        Ok((text.contains("reverse-ssh-tunnel") && behind(&site, "file")? == 0).then_some(()))
    })
    .unwrap();
    assert!(behind(&site, "out").unwrap() > 0, "the pipe is full");
    assert!(
        daemon.stop().success(),
        "it ends although a line cannot be written"
    );

    // Whoever reads gets what the first daemon could not say, and what comes.
    let (mut reader, pipe) = pipe().unwrap();
    let daemon = Daemon::start(&site, &agent, pipe);
    let _second = agent.spawn(&tunnel).unwrap();
    wait::until("both to be delivered", LIMIT, || {
        let text = fs::read_to_string(&file)?;
        let both = text.matches("\"incident\":\"reverse-ssh-tunnel").count() >= 2;
        let delivered = behind(&site, "file")? == 0 && behind(&site, "out")? == 0;
        Ok((both && delivered).then_some(()))
    })
    .unwrap();
    assert!(daemon.stop().success());
    let mut written = String::new();
    reader.read_to_string(&mut written).unwrap();
    let written = alerts(&written);
    assert!(
        written.iter().all(|it| it["kind"] == "alert"),
        "{written:?}"
    );
    assert_eq!(written, alerts(&fs::read_to_string(&file).unwrap()));
}
