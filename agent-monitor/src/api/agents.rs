//! What the daemon's main thread knows of one agent at the moment, asked for by the API.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::event::{Flow, Process};

/// Questions that wait for the main thread, which looks ten times a second at least.
const WAITING: usize = 16;

/// What is asked of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Its processes.
    Processes,
    /// Its connections and exchanges of datagrams.
    Flows,
}

/// The answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Of [`About::Processes`].
    Processes(Vec<Arc<Process>>),
    /// Of [`About::Flows`].
    Flows(Vec<Flow>),
}

/// A question about an agent.
#[derive(Debug)]
pub struct Question {
    /// Its id, as in events.
    pub agent: String,
    /// What of it.
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
pub(super) async fn ask(
    asker: &Asker,
    agent: String,
    about: About,
) -> Result<Option<Answer>, &'static str> {
    let (sender, answer) = oneshot::channel();
    let question = Question {
        agent,
        about,
        answer: sender,
    };
    asker
        .try_send(question)
        .map_err(|_| "too many such questions wait; try later")?;
    answer.await.map_err(|_| "agent-monitor is going away")
}
