//! What a person has a sink do about its dead letters.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// Orders that may wait for a sink that is busy.
const WAITING: usize = 8;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Deliver dead letters once more, and whatever else waits, without waiting longer.
    Retry,
    /// Delete dead letters.
    Drop,
    /// See [`super::Sink::reopen`].
    Reopen,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Done {
    /// Dead letters that the receiver took now.
    pub delivered: u64,
    /// Those that it refused again.
    pub refused: u64,
    /// Those that were deleted.
    pub dropped: u64,
}

/// An order, and where its outcome goes.
pub(super) struct Slip {
    pub order: Order,
    pub answer: oneshot::Sender<Result<Done, String>>,
}

/// Gives a sink its orders.
#[derive(Clone)]
pub(super) struct Orders(mpsc::Sender<Slip>);

impl Orders {
    pub(super) fn channel() -> (Self, mpsc::Receiver<Slip>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Waits until the sink has done it.
    pub(super) async fn give(&self, order: Order) -> Result<Done, String> {
        let (answer, answered) = oneshot::channel();
        let stopped = || "the sink has stopped".to_owned();
        let given = self.0.send(Slip { order, answer }).await;
        given.map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Nobody waits for this one. A sink with so many orders that it finds no place
    /// has one of the same before it, or is stuck in a delivery and begins anew after it.
    pub(super) fn reopen(&self) {
        let (answer, _) = oneshot::channel();
        let order = Order::Reopen;
        let _ = self.0.try_send(Slip { order, answer });
    }
}
