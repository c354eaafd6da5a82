//! What the daemon's main thread knows of agents at the moment, asked for by the API.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::activity::Activity;
use crate::event::{Flow, Process};

/// Questions that wait for the main thread, which looks ten times a second at least.
const WAITING: usize = 16;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// Processes of an agent.
    Processes(Of),
    /// Connections and exchanges of datagrams of an agent.
    Flows(Of),
    /// What every agent does, in numbers.
    Activity,
}

/// Which agent is asked about, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Of {
    /// Its id, as in events.
    pub agent: String,
    /// At most so many: the latest.
    pub most: usize,
}

/// The answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Of [`About::Processes`].
    Processes(Vec<Arc<Process>>),
    /// Of [`About::Flows`].
    Flows(Vec<Flow>),
    /// Of [`About::Activity`].
    Activity(Activity),
}

/// A question, and who asks.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub about: About,
    /// Where the answer goes; nothing: there is no such agent.
    pub answer: oneshot::Sender<Option<Answer>>,
}

/// Where questions are put.
pub type Asker = mpsc::Sender<Question>;

/// A way for questions.
pub fn channel() -> (Asker, mpsc::Receiver<Question>) {
    mpsc::channel(WAITING)
}

/// Asks, and waits for the answer.
///
/// # Errors
/// Too many questions wait, or the daemon is going away; a sentence.
pub(super) async fn ask(asker: &Asker, about: About) -> Result<Option<Answer>, &'static str> {
    let (sender, answer) = oneshot::channel();
    let question = Question {
        about,
        answer: sender,
    };
    asker
        .try_send(question)
        .map_err(|_| "too many such questions wait; try later")?;
    answer.await.map_err(|_| "agent-monitor is going away")
}
