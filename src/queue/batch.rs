//! Micro-batches: calls of one kind that are waiting at the same time share a transaction, and each gets its own
//! answer. A call that is alone runs alone, at once; only where one batch follows the other may the next one wait a moment
//! for more.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::many::MOST;
use super::transaction::{Kept, Transaction};
use super::{Inner, Queue, QueueError};
use crate::job::ServerUid;

/// The answers of one batch, in the order of its items.
pub(super) type Answers<T> = Vec<Result<T, QueueError>>;

/// A transaction that serves several calls. An item that cannot be served gets its own error and takes no other one
/// with it.
pub(super) trait Batch: Transaction<Output = Answers<Self::Answer>> {
    /// What one call asks for.
    type Item: Clone + Send + Sync + 'static;
    /// What it learns.
    type Answer: Send + 'static;
    /// Batches of this kind that run side by side: while one waits for the disk, the next one executes.
    const LANES: usize = 2;
    /// From the begin of a batch to that of the next one in its lane at least.
    const PACE: Duration = Duration::ZERO;

    /// The server that an item is about: a batch has one item of each server.
    fn server(item: &Self::Item) -> &ServerUid;

    /// The transaction for these items.
    fn of(items: Vec<Self::Item>) -> Self;
}

struct Call<B: Batch> {
    item: B::Item,
    answer: oneshot::Sender<Result<B::Answer, QueueError>>,
}

/// Where calls of one kind meet.
pub(super) struct Batcher<B: Batch> {
    waiting: Arc<Waiting<B>>,
    _lanes: DropGuard,
}

struct Waiting<B: Batch> {
    calls: Mutex<VecDeque<Call<B>>>,
    arrived: Notify,
}

impl<B: Batch> Waiting<B> {
    fn with<T>(&self, what: impl FnOnce(&mut VecDeque<Call<B>>) -> T) -> T {
        what(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<B: Batch> std::fmt::Debug for Batcher<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batcher").field("of", &B::NAME).finish()
    }
}

impl<B: Batch> Batcher<B> {
    /// Serves calls until it is dropped.
    pub(super) fn start(queue: &Weak<Inner>) -> Self {
        let waiting = Arc::new(Waiting { calls: Mutex::default(), arrived: Notify::new() });
        let end = CancellationToken::new();
        for _ in 0..B::LANES {
            tokio::spawn(end.clone().run_until_cancelled_owned(serve(queue.clone(), waiting.clone())));
        }
        Self { waiting, _lanes: end.drop_guard() }
    }

    /// Runs `item` in some transaction, to its end even if the caller goes away.
    pub(super) async fn call(&self, item: B::Item) -> Result<B::Answer, QueueError> {
        let (answer, answered) = oneshot::channel();
        self.waiting.with(|calls| calls.push_back(Call { item, answer }));
        self.waiting.arrived.notify_one();
        answered.await.map_err(|_| QueueError::Panicked(format!("{} was not answered", B::NAME)))?
    }
}

/// One lane: takes what is waiting, and again what came meanwhile.
async fn serve<B: Batch>(queue: Weak<Inner>, waiting: Arc<Waiting<B>>) {
    let mut next = Instant::now();
    loop {
        waiting.arrived.notified().await;
        // The connection stays as long as there is something to do.
        let mut kept = Kept::default();
        loop {
            tokio::time::sleep_until(next).await;
            let batch = waiting.with(take_batch);
            let Some(inner) = queue.upgrade().filter(|_| !batch.is_empty()) else { break };
            next = Instant::now() + B::PACE;
            // In a task of its own: what is begun is ended, and a panic ends one batch.
            let task = tokio::spawn(async move {
                run(Queue { inner }, &mut kept, batch).await;
                kept
            });
            kept = task.await.unwrap_or_default();
        }
    }
}

/// The next calls, no two of one server.
fn take_batch<B: Batch>(waiting: &mut VecDeque<Call<B>>) -> Vec<Call<B>> {
    let mut servers = HashSet::new();
    let mut batch: Vec<Call<B>> = Vec::new();
    let mut later = VecDeque::new();
    while let Some(call) = waiting.pop_front() {
        if batch.len() < MOST && servers.insert(B::server(&call.item).clone()) {
            batch.push(call);
        } else {
            later.push_back(call);
        }
    }
    *waiting = later;
    batch
}

async fn run<B: Batch>(queue: Queue, kept: &mut Kept, batch: Vec<Call<B>>) {
    let items: Vec<B::Item> = batch.iter().map(|call| call.item.clone()).collect();
    let answers = match queue.timed(kept, &B::of(items)).await {
        Ok(answers) => answers,
        // Something in one of them is at fault: alone, it harms nobody else.
        Err(error) if batch.len() > 1 && !error.is_transient() => {
            let mut answers = Vec::with_capacity(batch.len());
            for call in &batch {
                let alone = queue.timed(kept, &B::of(vec![call.item.clone()])).await;
                answers.push(alone.and_then(|mut answers| {
                    answers.pop().unwrap_or_else(|| Err(QueueError::Panicked("no answer".to_owned())))
                }));
            }
            answers
        }
        Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
    };
    for (call, answer) in batch.into_iter().zip(answers) {
        // A caller that went away needs no answer.
        let _ = call.answer.send(answer);
    }
}
