//! The terminal while the screen is shown: keys, signals and the daemon's answers are
//! taken as they come, each in its turn.

use std::io;
use std::time::Duration;

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
    /// Of itself and of all agents, with the latest alerts.
    All(Result<(Box<Sample>, Vec<Alert>), ClientError>),
    /// Of the opened agent.
    Of(String, Result<Option<Belongings>, ClientError>),
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
    let mut is_asked = false;
    loop {
        screen.draw(&mut app, theme)?;
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            // One question at a time: a daemon that is slow is not asked more.
            _ = ticks.tick(), if !is_asked => {
                is_asked = true;
                ask(&asked, &app, &tell);
            }
            Some(told) = news.recv() => is_asked &= !take(&mut app, told),
            key = keys.recv() => {
                let mut next = Some(key.context("the terminal is gone")?);
                while let Some(key) = next {
                    match act(&mut app, &key.context("cannot read from the terminal")?) {
                        Action::Show => {}
                        Action::Ask => ask_of_opened(&asked.client, &app, &tell),
                        Action::Quit => return Ok(()),
                        Action::Suspend => screen.suspend()?,
                    }
                    next = keys.try_recv().ok();
                }
            }
        }
    }
}

/// Takes in what the daemon said; `true` if that was all that had been asked for.
fn take(app: &mut App, news: News) -> bool {
    match news {
        News::All(Ok((sample, alerts))) => {
            app.alerts.merge(alerts);
            app.take(*sample);
            true
        }
        News::All(Err(error)) => {
            app.fail(error.to_string());
            true
        }
        News::Of(agent, Ok(has)) => {
            app.take_belongings(&agent, has);
            false
        }
        // The next look at everything tells of it, if it lasts.
        News::Of(_, Err(_)) => false,
    }
}

fn act(app: &mut App, event: &Event) -> Action {
    match event {
        Event::Key(key) => app.key(*key),
        // A new size is taken when next drawn.
        _ => Action::Show,
    }
}

/// Asks for everything that is shown, all at once.
fn ask(asked: &Asked, app: &App, tell: &Sender<News>) {
    let (client, tell_all) = (asked.client.clone(), tell.clone());
    // With patterns the whole store may have to be looked through: only once. What is new
    // is among the latest of all.
    let patterns = match app.overview.status.started.is_empty() || app.trouble.is_some() {
        true => asked.agents.clone(),
        false => Vec::new(),
    };
    tokio::spawn(async move {
        let (sample, alerts) =
            tokio::join!(look::sample(&client), look::alerts(&client, &patterns));
        let told = sample.and_then(|sample| Ok((Box::new(sample), alerts?)));
        // Nobody listens any more when the screen is closed.
        let _ = tell_all.send(News::All(told)).await;
    });
    ask_of_opened(&asked.client, app, tell);
}

fn ask_of_opened(client: &Client, app: &App, tell: &Sender<News>) {
    let Some(opened) = app.opened.as_ref().filter(|opened| !opened.gone) else {
        return;
    };
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
