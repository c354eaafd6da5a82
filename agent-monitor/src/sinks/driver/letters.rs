//! Dead letters, delivered once more or deleted when a person says so.

use std::slice;

use super::super::orders::{Done, Order, Slip};
use super::super::{Sink, SinkError};
use super::{Driver, Failure};
use crate::store::Seq;

/// Dead letters that are read at a time.
const PAGE: u32 = 100;

impl<S: Sink> Driver<S> {
    /// Does what was ordered and answers. Whoever ordered may be gone.
    pub(super) async fn obey(&mut self, slip: Slip) {
        let done = match slip.order {
            Order::Retry => self.retry().await,
            Order::Drop => self.drop_letters().await,
            Order::Reopen => {
                self.sink.reopen();
                Ok(Done::default())
            }
        };
        self.count_letters().await;
        let _ = slip.answer.send(done.map_err(|failure| match failure {
            Failure::Sink(error) => error.to_string(),
            Failure::Store(error) => error,
        }));
    }

    /// One by one: what the receiver takes is a dead letter no more, what it
    /// refuses stays one, and what it is not there for ends the round.
    async fn retry(&mut self) -> Result<Done, Failure> {
        let mut done = Done::default();
        let mut after: Seq = 0;
        loop {
            let name = self.name.clone();
            let letters = self
                .in_store(move |store| store.dead_letters(&name, after, PAGE))
                .await?;
            if letters.is_empty() {
                return Ok(done);
            }
            for letter in letters {
                after = letter.record.seq;
                match self.sink.deliver(slice::from_ref(&letter.record)).await {
                    Ok(()) => {
                        let name = self.name.clone();
                        self.in_store(move |store| store.unbury(&name, after))
                            .await?;
                        done.delivered += 1;
                    }
                    Err(SinkError::Refused(_)) => done.refused += 1,
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    pub(super) async fn count_letters(&mut self) {
        let name = self.name.clone();
        let letters = self.in_store(move |store| store.count_dead_letters(&name));
        if let Ok(letters) = letters.await {
            self.status
                .send_modify(|status| status.dead_letters = letters);
        }
    }

    async fn drop_letters(&mut self) -> Result<Done, Failure> {
        let name = self.name.clone();
        let dropped = self
            .in_store(move |store| store.drop_dead_letters(&name, Seq::MAX))
            .await?;
        Ok(Done {
            dropped: u64::try_from(dropped).unwrap_or(u64::MAX),
            ..Done::default()
        })
    }
}
