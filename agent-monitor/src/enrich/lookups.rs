//! A task that asks container runtimes and Kubernetes, so that no event waits for one.
//!
//! Containers go in over a bounded channel and come out, each with an answer,
//! over another. A container may be asked for before its runtime knows it, so
//! failures are tried again for a while.

#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::cgroup_path::ContainerRef;
use super::runtime::{Api, RuntimeInfo};

/// Requests that wait in the channel.
const CHANNEL: usize = 1024;
/// Containers that are being asked for, waits between tries included.
const MAX_PENDING: usize = 1024;
/// Requests on the wire at once.
const MAX_REQUESTS: usize = 8;
/// Answers kept.
const MAX_CACHED: usize = 4096;
/// Wait after the first failure; doubled after each, up to [`MAX_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(50);
const MAX_WAIT: Duration = Duration::from_secs(1);

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The runtime knows it, or at least its pod.
    Found(Arc<RuntimeInfo>),
    /// The runtime answers, but does not know it.
    NotFound,
    /// The runtime does not answer, or cannot be asked; why, in words.
    Unreachable(String),
}

/// How long things last.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the first try to the last.
    pub tries: Duration,
    /// For how long the answer for a container that is gone, or that was not
    /// found, is still given.
    pub tombstone: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: Duration::from_secs(10),
            tombstone: Duration::from_secs(30),
        }
    }
}

/// The way to the task; the task ends when this is dropped.
#[derive(Debug)]
pub struct Lookups {
    requests: mpsc::Sender<Message>,
}

#[derive(Debug)]
enum Message {
    Ask(ContainerRef),
    Gone(ContainerRef),
}

impl Lookups {
    /// Starts the task on the current runtime. Every container that was asked
    /// for comes out once of `answers`, however often it was asked for meanwhile.
    pub fn start(
        api: Api,
        patience: Patience,
        answers: mpsc::Sender<(ContainerRef, Answer)>,
    ) -> Self {
        let (requests, inbox) = mpsc::channel(CHANNEL);
        let task = Task {
            api: Arc::new(api),
            patience,
            on_wire: Arc::new(Semaphore::new(MAX_REQUESTS)),
            pending: HashSet::new(),
            running: JoinSet::new(),
            cache: Cache::default(),
        };
        tokio::spawn(task.run(inbox, answers));
        Self { requests }
    }

    /// Asks for a container; false when too many wait: count it and ask again.
    #[must_use]
    pub fn ask(&self, container: ContainerRef) -> bool {
        self.requests.try_send(Message::Ask(container)).is_ok()
    }

    /// Says that a container's cgroup was removed: its answer expires.
    pub fn gone(&self, container: ContainerRef) {
        // When this is lost, the answer stays until newer ones push it out.
        let _ = self.requests.try_send(Message::Gone(container));
    }
}

struct Task {
    api: Arc<Api>,
    patience: Patience,
    on_wire: Arc<Semaphore>,
    pending: HashSet<ContainerRef>,
    running: JoinSet<(ContainerRef, Answer)>,
    cache: Cache,
}

impl Task {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
        answers: mpsc::Sender<(ContainerRef, Answer)>,
    ) {
        loop {
            let answered = tokio::select! {
                message = inbox.recv(), if self.running.len() < MAX_PENDING => match message {
                    Some(message) => self.handle(message),
                    None => return,
                },
                Some(done) = self.running.join_next() => done.ok().inspect(|(container, answer)| {
                    self.pending.remove(container);
                    self.cache.insert(container, answer, self.patience.tombstone);
                }),
            };
            if let Some(answered) = answered
                && answers.send(answered).await.is_err()
            {
                return;
            }
        }
    }

    fn handle(&mut self, message: Message) -> Option<(ContainerRef, Answer)> {
        let container = match message {
            Message::Ask(container) => container,
            Message::Gone(container) => {
                self.cache.expire(&container, self.patience.tombstone);
                return None;
            }
        };
        if let Some(answer) = self.cache.get(&container) {
            return Some((container, answer));
        }
        if self.pending.insert(container.clone()) {
            let (api, on_wire) = (self.api.clone(), self.on_wire.clone());
            self.running
                .spawn(look_up(api, on_wire, self.patience.tries, container));
        }
        None
    }
}

async fn look_up(
    api: Arc<Api>,
    on_wire: Arc<Semaphore>,
    tries: Duration,
    container: ContainerRef,
) -> (ContainerRef, Answer) {
    if let Err(reason) = api.can_ask(&container) {
        return (container, Answer::Unreachable(reason));
    }
    let give_up = Instant::now() + tries;
    let mut wait = FIRST_WAIT;
    loop {
        let answer = {
            // The semaphore is never closed; a permit is only held on the wire,
            // so that waits between tries do not hold up other containers.
            let _permit = on_wire.acquire().await;
            api.inspect(&container).await
        };
        let answer = match answer {
            Ok(Some(info)) => {
                let named = !info.name.is_empty();
                let found = Answer::Found(Arc::new(info));
                if named {
                    return (container, found);
                }
                // Its pod at least, should its name not come.
                found
            }
            Ok(None) => Answer::NotFound,
            Err(reason) => Answer::Unreachable(reason),
        };
        if Instant::now() + wait > give_up {
            return (container, answer);
        }
        sleep(wait).await;
        wait = (wait * 2).min(MAX_WAIT);
    }
}

/// Answers, oldest pushed out first. What is unreachable now may be reachable
/// when it is asked for next: that is not kept.
#[derive(Default)]
struct Cache {
    entries: HashMap<ContainerRef, (Answer, Option<Instant>)>,
    /// The keys of `entries`, each once, oldest first.
    order: VecDeque<ContainerRef>,
}

impl Cache {
    fn get(&self, container: &ContainerRef) -> Option<Answer> {
        let (answer, expires) = self.entries.get(container)?;
        expires
            .is_none_or(|at| Instant::now() < at)
            .then(|| answer.clone())
    }

    fn insert(&mut self, container: &ContainerRef, answer: &Answer, tombstone: Duration) {
        let expires = match answer {
            Answer::Found(_) => None,
            Answer::NotFound => Some(Instant::now() + tombstone),
            Answer::Unreachable(_) => return,
        };
        let old = self
            .entries
            .insert(container.clone(), (answer.clone(), expires));
        if old.is_none() {
            self.order.push_back(container.clone());
        }
        if self.entries.len() > MAX_CACHED {
            self.shrink();
        }
    }

    fn expire(&mut self, container: &ContainerRef, tombstone: Duration) {
        if let Some((_, expires)) = self.entries.get_mut(container) {
            expires.get_or_insert(Instant::now() + tombstone);
        }
    }

    /// Drops what has expired; if nothing has, the oldest.
    fn shrink(&mut self) {
        let now = Instant::now();
        self.entries
            .retain(|_, (_, expires)| expires.is_none_or(|at| now < at));
        if self.entries.len() > MAX_CACHED
            && let Some(oldest) = self.order.front()
        {
            self.entries.remove(oldest);
        }
        self.order
            .retain(|container| self.entries.contains_key(container));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::cgroup_path::Runtime;

    fn container(n: usize) -> ContainerRef {
        ContainerRef {
            runtime: Runtime::Docker,
            id: format!("{n:064x}"),
            pod_uid: None,
        }
    }

    fn found() -> Answer {
        Answer::Found(Arc::default())
    }

    #[test]
    fn the_cache_is_bounded_and_pushes_out_the_oldest() {
        let mut cache = Cache::default();
        for n in 0..MAX_CACHED + 10 {
            cache.insert(&container(n), &found(), Duration::from_secs(30));
        }
        assert_eq!(
            (cache.entries.len(), cache.order.len()),
            (MAX_CACHED, MAX_CACHED)
        );
        assert_eq!(cache.get(&container(9)), None);
        assert_eq!(cache.get(&container(10)), Some(found()));
    }

    #[test]
    fn what_has_expired_is_pushed_out_before_what_is_older() {
        let mut cache = Cache::default();
        for n in 0..MAX_CACHED {
            cache.insert(&container(n), &found(), Duration::ZERO);
        }
        cache.expire(&container(5), Duration::ZERO);
        cache.insert(&container(MAX_CACHED), &found(), Duration::ZERO);
        assert_eq!(cache.get(&container(5)), None);
        assert_eq!(cache.get(&container(0)), Some(found()));
    }

    #[test]
    fn the_answer_for_a_container_that_is_gone_is_kept_for_a_while() {
        let mut cache = Cache::default();
        cache.insert(&container(1), &found(), Duration::from_secs(30));
        cache.expire(&container(1), Duration::from_secs(30));
        assert_eq!(cache.get(&container(1)), Some(found()));
        let (_, expires) = &cache.entries[&container(1)];
        let left = expires.expect("an end") - Instant::now();
        assert!(left > Duration::from_secs(29), "{left:?}");
    }

    #[test]
    fn an_unreachable_runtime_is_asked_again() {
        let mut cache = Cache::default();
        cache.insert(
            &container(1),
            &Answer::Unreachable(String::new()),
            Duration::from_secs(30),
        );
        assert_eq!(cache.get(&container(1)), None);
    }
}
