//! `agent-monitor run`: the daemon, in the foreground.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::net::TcpListener;
use tokio::sync::mpsc::Receiver;

use super::privileges;
use super::reconfigure::Reconfigure;
use super::service::Service;
use super::watch;
use crate::api::agents::{self, Question};
use crate::api::hub::Hub;
use crate::api::probes;
use crate::api::routes::Sources;
use crate::api::server;
use crate::api::socket::Socket;
use crate::api::status::{Counters, SinkStatus, State, Status};
use crate::attach::Pins;
use crate::capture::rings::boot_time;
use crate::cli::RunArgs;
use crate::config::Loaded;
use crate::coverage::downtime::Heartbeat;
use crate::enrich::selector::Selector;
use crate::event::{Event, Timestamp};
use crate::live::Live;
use crate::loss::Stage;
use crate::rules::reload::Reloading;
use crate::sinks::Sinks;
use crate::store::{Recorder, Store};

/// How often the status is made anew.
const STATUS_EVERY: Duration = Duration::from_millis(250);
/// How long the daemon waits for its store; a large one that has to be checked may take
/// longer, and is opened meanwhile.
const STORE_WAIT: Duration = Duration::from_secs(2);
/// Threads for clients and sinks; records have one of their own.
const WORKERS: usize = 2;

/// Runs the daemon until SIGINT or SIGTERM.
///
/// # Errors
/// Something it needs is missing or taken; nothing stays attached.
pub fn run(args: RunArgs) -> Result<ExitCode> {
    watch::log_to_stderr();
    watch::need_root()?;
    let loaded = Loaded::read(args.config.as_deref(), std::env::vars_os(), &args.flags())?;
    let config = loaded.config;
    let selectors = config.agents.select.iter();
    let selectors = selectors
        .map(|text| text.parse::<Selector>())
        .collect::<Result<_, _>>()?;
    let (reloading, rules) = Reloading::new(config.rules.dirs.clone())
        .map_err(|problems| anyhow::anyhow!("the rules cannot be used:\n{problems}"))?;
    let reloading = Arc::new(reloading);
    let group = config.api.group.as_deref().map(group_id).transpose()?;
    privileges::drop_unneeded(group.is_some())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .context("cannot start")?;
    let _entered = runtime.enter();
    // The socket comes first: a second daemon must not get as far as attaching.
    let socket = Socket::bind(&config.api.socket, group)?;
    let path = std::path::absolute(&config.api.socket)?;
    if !args.pin {
        Pins::remove_all(&path)?;
    }
    let pinned = args.pin.then_some(path.as_path());
    let store = Store::closed(&config.store.path)?;
    store.set_limits(config.store.limits())?;
    let hub = Hub::new(watch::node().into());
    let recorder = {
        let hub = hub.clone();
        let tell = move |event, seq| hub.publish(event, seq);
        Recorder::start(store.clone(), config.store.events, Box::new(tell))
            .context("cannot start the thread that stores")?
    };
    recorder.wait_until_opened(STORE_WAIT);
    let (stop_sinks, stopping) = tokio::sync::watch::channel(false);
    let sinks = Sinks::start(&config.sinks, &store, &stopping);

    let stop = watch::stop_on_signals()?;
    Reconfigure::new(
        &args,
        config.clone(),
        reloading.clone(),
        sinks.clone(),
        store.clone(),
    )
    .on_hangup()?;
    let status = Arc::new(Mutex::new(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: watch::node(),
        pid: std::process::id(),
        started: Timestamp::now().to_string(),
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        ..Status::default()
    }));
    let source = {
        let (status, sinks, started) = (status.clone(), sinks.clone(), Instant::now());
        let reloading = reloading.clone();
        Arc::new(move || {
            let mut status = lock(&status).clone();
            status.uptime_seconds = started.elapsed().as_secs();
            status.rules = reloading.loaded();
            status.sinks = sinks.statuses().into_iter().map(sink_status).collect();
            status
        })
    };
    let (stop_serving, served) = tokio::sync::oneshot::channel::<()>();
    let reload = {
        let reloading = reloading.clone();
        Arc::new(move || reloading.reload())
    };
    let served = async {
        let _ = served.await;
    };
    if let Some(address) = config.metrics.listen {
        let listener = runtime
            .block_on(TcpListener::bind(address))
            .with_context(|| format!("[metrics] listen: cannot listen on {address}"))?;
        runtime.spawn(probes::serve(listener, source.clone()));
    }
    let (asker, questions) = agents::channel();
    let sources = Sources {
        hub: hub.clone(),
        status: source,
        reload,
        store: store.clone(),
        events: config.store.events,
        asker,
        sinks: sinks.clone(),
    };
    let server = runtime.spawn(server::serve(socket, sources, served));

    let mut events = Vec::new();
    let watched = watch::start(selectors, rules, pinned, &mut events).and_then(|live| {
        give_back();
        let mut outlets = Outlets {
            questions,
            path: &config.store.path,
            store: &store,
            recorder: &recorder,
            hub: &hub,
            status: &status,
        };
        watch_agents(live, events, &reloading, &mut outlets, &stop)
    });

    // What waits is stored, so that sinks get it and readers see it.
    drop(recorder);
    lock(&status).state = State::Stopping;
    let _ = stop_serving.send(());
    let _ = stop_sinks.send(true);
    runtime.block_on(async {
        let _ = server.await;
        if let Err(error) = sinks.join().await {
            tracing::error!("a sink ended badly: {error}");
        }
    });
    watched?;
    Ok(ExitCode::SUCCESS)
}

/// Gives memory back to the system that loading took: the kernel's types alone
/// are some megabytes, which the allocator would keep as long as the daemon runs.
fn give_back() {
    // SAFETY: no pointers, and may be called from any thread (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Where the daemon tells what it knows.
struct Outlets<'a> {
    /// Of the store.
    path: &'a Path,
    store: &'a Store,
    recorder: &'a Recorder,
    hub: &'a Hub,
    status: &'a Mutex<Status>,
    questions: Receiver<Question>,
}

/// The daemon's work, on this thread, until `stop`: whatever way it ends,
/// everything is detached when the watch is dropped, but for what is pinned.
fn watch_agents(
    mut live: Live,
    mut events: Vec<Event>,
    reloading: &Reloading,
    outlets: &mut Outlets<'_>,
    stop: &AtomicBool,
) -> Result<()> {
    let Outlets {
        path,
        store,
        recorder,
        hub,
        status,
        ref mut questions,
    } = *outlets;
    let (mut heartbeat, before) = Heartbeat::begin(path, boot_time());
    if let Some(before) = before {
        live.was_down(before, &mut events);
    }
    recorder.take(&mut events);
    lock(status).state = State::Attached;
    let agents = live.agents().count();
    tracing::info!("attached: {agents} agents so far");
    let service = Service::ready(agents);
    let mut told = None;
    while !stop.load(Ordering::Relaxed) {
        if told.is_none_or(|told: Instant| told.elapsed() >= STATUS_EVERY) {
            for (agent, kind, records) in recorder.take_losses() {
                live.not_stored(agent, kind, records);
            }
            for notice in store.take_notices() {
                live.store_begun_anew(notice, &mut events);
            }
            refresh(&mut lock(status), &live, hub, recorder);
            told = Some(Instant::now());
        }
        if let Some(rules) = reloading.take() {
            live.replace_rules(rules);
        }
        live.step(&mut events)?;
        while let Ok(question) = questions.try_recv() {
            let answer = live.answer(&question.about);
            // Who asked may be gone.
            let _ = question.answer.send(answer);
        }
        heartbeat.beat(boot_time());
        service.alive();
        recorder.take(&mut events);
    }
    service.stopping();
    live.take_rest(&mut events)?;
    live.stop(&mut events);
    recorder.take(&mut events);
    heartbeat.end(boot_time());
    match live.pins() {
        Some(pins) => tracing::info!(pins = %pins.display(), "stopped; everything stays attached"),
        None => tracing::info!("detached"),
    }
    Ok(())
}

fn refresh(status: &mut Status, live: &Live, hub: &Hub, recorder: &Recorder) {
    let stats = live.pipeline().stats();
    let mut losses = BTreeMap::new();
    for (stage, records) in live.losses().chain([(Stage::Tail, hub.lost())]) {
        *losses.entry(stage.name().to_owned()).or_default() += records;
    }
    losses.retain(|_, records| *records > 0);
    status.counters = Counters {
        records: stats.records,
        events: stats.events,
        losses,
    };
    status.programs = live
        .programs()
        .map(|(name, places)| (name.to_owned(), places))
        .collect();
    status.agents = live.agents().collect();
    let times = live.run_times();
    status.run_times = times.map(|(name, time)| (name.to_owned(), time)).collect();
    status.store = recorder.health().into();
    let queues = [
        ("held", live.held()),
        ("store", recorder.queued()),
        ("tail", hub.queued()),
    ];
    status.queues = queues
        .map(|(name, depth)| (name.to_owned(), u64::try_from(depth).unwrap_or(u64::MAX)))
        .into();
    status.seen = Some(Instant::now());
    status.pinned = live.pins().map(|pins| pins.display().to_string());
}

fn sink_status(sink: crate::sinks::SinkStatus) -> SinkStatus {
    SinkStatus {
        name: sink.name,
        kind: sink.kind.to_owned(),
        cursor: u64::try_from(sink.cursor).unwrap_or(0),
        lag: sink.lag,
        lag_seconds: sink.lag_seconds,
        retries: sink.retries,
        unconfirmed: sink.unconfirmed,
        dead_letters: sink.dead_letters,
        last_error: sink.last_error,
    }
}

/// The id of a group, from /etc/group (group(5)).
pub(super) fn group_id(name: &str) -> Result<u32> {
    let groups = std::fs::read_to_string("/etc/group").context("cannot read /etc/group")?;
    let id = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    });
    match id {
        Some(id) => Ok(id),
        None => bail!("[api] group: there is no group `{name}`; make it or name another"),
    }
}

fn lock(status: &Mutex<Status>) -> std::sync::MutexGuard<'_, Status> {
    // A status is whole after every assignment, so a poisoned one is still good.
    status.lock().unwrap_or_else(PoisonError::into_inner)
}
