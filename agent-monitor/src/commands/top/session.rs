//! The terminal while the screen is shown: keys, signals and the daemon's answers are
//! taken as they come, each in its turn.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::MissedTickBehavior;

use super::app::{Action, App};
use super::look::{self, Alert, Belongings, Sample};
use super::view::{self, Theme};
use crate::api::client::{Client, ClientError};

/// Keys that wait to be taken, and answers.
const WAITING: usize = 64;

/// Whom to ask for what, and how often.
pub struct Asked {
    /// The daemon.
    pub client: Client,
    /// How agents are chosen.
    pub agents: Vec<String>,
    /// Time between two questions.
    pub interval: Duration,
}

/// What the daemon said.
enum News {
    /// Of itself and of all agents.
    Sample(Result<Box<Sample>, ClientError>),
    /// The latest alerts. If it did not say them, it tells why with the sample.
    Alerts(Vec<Alert>),
    /// Of the opened agent.
    Of(String, Result<Option<Belongings>, ClientError>),
}

/// What was asked and not answered yet: nothing is asked twice at a time, so that a daemon
/// that is slow is not asked more.
#[derive(Default)]
struct Open {
    sample: Option<Instant>,
    alerts: bool,
    /// Of the opened agent.
    belongings: bool,
}

/// Shows the screen until the user or a signal ends it.
///
/// # Errors
/// There is no terminal, or it is gone.
pub async fn run(asked: Asked, mut app: App) -> Result<()> {
    let mut ends = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ];
    let [interrupt, terminate, hangup] = &mut ends;
    let mut screen = Screen::open()?;
    let mut keys = keys();
    let (tell, mut news) = mpsc::channel(WAITING);
    let theme = Theme::of_environment();
    let mut ticks = tokio::time::interval(asked.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = Open::default();
    loop {
        screen.draw(&mut app, theme)?;
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            _ = ticks.tick() => ask(&asked, &mut app, &mut open, &tell),
            Some(told) = news.recv() => take(&mut app, &mut open, told),
            key = keys.recv() => {
                let mut next = Some(key.context("the terminal is gone")?);
                while let Some(key) = next {
                    match act(&mut app, &key.context("cannot read from the terminal")?) {
                        Action::Show => {}
                        Action::Ask => ask_of_opened(&asked.client, &app, &mut open, &tell),
                        Action::Quit => return Ok(()),
                        Action::Suspend => screen.suspend()?,
                    }
                    next = keys.try_recv().ok();
                }
            }
        }
    }
}

/// Takes in what the daemon said.
fn take(app: &mut App, open: &mut Open, news: News) {
    match news {
        News::Sample(sample) => {
            open.sample = None;
            app.waiting = Duration::ZERO;
            match sample {
                Ok(sample) => app.take(*sample),
                Err(error) => app.fail(error.to_string()),
            }
        }
        News::Alerts(alerts) => {
            open.alerts = false;
            app.take_alerts(alerts);
        }
        News::Of(agent, has) => {
            open.belongings = false;
            // If it could not be had, the next sample tells of it, if that lasts.
            if let Ok(has) = has {
                app.take_belongings(&agent, has);
            }
        }
    }
}

fn act(app: &mut App, event: &Event) -> Action {
    match event {
        Event::Key(key) => app.key(*key),
        // A new size is taken when next drawn.
        _ => Action::Show,
    }
}

/// Asks for everything that is shown, all at once, unless it was asked and is not there yet.
fn ask(asked: &Asked, app: &mut App, open: &mut Open, tell: &Sender<News>) {
    // Nobody listens any more when the screen is closed: what is sent then is of no use.
    if let Some(since) = open.sample {
        app.waiting = since.elapsed();
        return;
    }
    open.sample = Some(Instant::now());
    let (client, told) = (asked.client.clone(), tell.clone());
    tokio::spawn(async move {
        let sample = look::sample(&client).await.map(Box::new);
        let _ = told.send(News::Sample(sample)).await;
    });
    if !open.alerts {
        open.alerts = true;
        // With patterns the whole store may have to be looked through: only once. What is
        // new is among the latest of all.
        let is_first = app.overview.status.started.is_empty() || app.trouble.is_some();
        let patterns = match is_first {
            true => asked.agents.clone(),
            false => Vec::new(),
        };
        let (client, told) = (asked.client.clone(), tell.clone());
        tokio::spawn(async move {
            let alerts = look::alerts(&client, &patterns).await;
            let _ = told.send(News::Alerts(alerts.unwrap_or_default())).await;
        });
    }
    if !open.belongings {
        ask_of_opened(&asked.client, app, open, tell);
    }
}

fn ask_of_opened(client: &Client, app: &App, open: &mut Open, tell: &Sender<News>) {
    let Some(opened) = app.opened.as_ref().filter(|opened| !opened.gone) else {
        return;
    };
    open.belongings = true;
    let (client, tell, agent) = (client.clone(), tell.clone(), opened.id.clone());
    tokio::spawn(async move {
        let has = look::belongings(&client, &agent).await;
        let _ = tell.send(News::Of(agent, has)).await;
    });
}

/// Keys and changes of the terminal's size, read by a thread that waits for them.
fn keys() -> Receiver<io::Result<Event>> {
    let (tell, keys) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        loop {
            let event = event::read();
            let is_over = event.is_err();
            if tell.blocking_send(event).is_err() || is_over {
                return;
            }
        }
    });
    keys
}

/// The terminal, in raw mode on its alternate screen; as it was when dropped, and when
/// something panics.
struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    fn open() -> Result<Self> {
        let terminal = ratatui::try_init().context("cannot use the terminal")?;
        Ok(Self { terminal })
    }

    fn draw(&mut self, app: &mut App, theme: Theme) -> Result<()> {
        let drawn = self.terminal.draw(|frame| view::draw(frame, app, theme));
        drawn.context("cannot write to the terminal")?;
        Ok(())
    }

    /// Stops this program as Ctrl-Z does, and takes the terminal again when it goes on.
    fn suspend(&mut self) -> Result<()> {
        self.terminal.show_cursor()?;
        ratatui::try_restore()?;
        kill_process(getpid(), Signal::TSTP)?;
        self.terminal = ratatui::try_init()?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.terminal.show_cursor();
        // A terminal that is gone needs nothing.
        let _ = ratatui::try_restore();
    }
}
