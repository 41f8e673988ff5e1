//! Micro-batches: calls of one kind that are waiting at the same time share a transaction, and each gets its own
//! answer. Nobody waits for a batch to fill: a call that is alone runs alone, at once.

use std::collections::{HashSet, VecDeque};
use std::sync::Weak;

use tokio::sync::{mpsc, oneshot};

use super::many::MOST;
use super::transaction::{Kept, Transaction};
use super::{Inner, Queue, QueueError};
use crate::job::ServerUid;

/// Batches of one kind that run side by side: while one waits for the disk, the next one executes.
const LANES: usize = 2;

/// The answers of one batch, in the order of its items.
pub(super) type Answers<T> = Vec<Result<T, QueueError>>;

/// A transaction that serves several calls. An item that cannot be served gets its own error and takes no other one
/// with it.
pub(super) trait Batch: Transaction<Output = Answers<Self::Answer>> {
    /// What one call asks for.
    type Item: Clone + Send + Sync + 'static;
    /// What it learns.
    type Answer: Send + 'static;

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
    calls: mpsc::UnboundedSender<Call<B>>,
}

impl<B: Batch> std::fmt::Debug for Batcher<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batcher").field("of", &B::NAME).finish()
    }
}

impl<B: Batch> Batcher<B> {
    /// Serves calls until the queue is dropped.
    pub(super) fn start(queue: Weak<Inner>) -> Self {
        let (calls, arrivals) = mpsc::unbounded_channel();
        tokio::spawn(serve::<B>(queue, arrivals));
        Self { calls }
    }

    /// Runs `item` in some transaction, to its end even if the caller goes away.
    pub(super) async fn call(&self, item: B::Item) -> Result<B::Answer, QueueError> {
        let gone = || QueueError::Panicked(format!("{} was not answered", B::NAME));
        let (answer, answered) = oneshot::channel();
        self.calls.send(Call { item, answer }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// A lane in use; it is free again however its task ends.
struct Lane {
    kept: Kept,
    ends: mpsc::Sender<Kept>,
}

impl Lane {
    fn end(mut self, last: bool) {
        if last {
            self.kept = Kept::default();
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // The channel has room for every lane.
        self.ends.try_send(std::mem::take(&mut self.kept)).unwrap_or_default();
    }
}

async fn serve<B: Batch>(queue: Weak<Inner>, mut arrivals: mpsc::UnboundedReceiver<Call<B>>) {
    let (lane_ends, mut free_lanes) = mpsc::channel(LANES);
    for _ in 0..LANES {
        // The channel has room for every lane.
        lane_ends.try_send(Kept::default()).unwrap_or_default();
    }
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            match arrivals.recv().await {
                Some(call) => waiting.push_back(call),
                None => return,
            }
        }
        // What arrives until a lane is free goes along.
        let Some(kept) = free_lanes.recv().await else { return };
        let mut lane = Lane { kept, ends: lane_ends.clone() };
        while let Ok(call) = arrivals.try_recv() {
            waiting.push_back(call);
        }
        let Some(inner) = queue.upgrade() else { return };
        let batch = take_batch(&mut waiting);
        // With nothing more to do the connection goes back to the pool.
        let last = waiting.is_empty() && arrivals.is_empty();
        tokio::spawn(async move {
            run(Queue { inner }, &mut lane.kept, batch).await;
            lane.end(last);
        });
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

async fn run<B: Batch>(queue: Queue, lane: &mut Kept, batch: Vec<Call<B>>) {
    let items: Vec<B::Item> = batch.iter().map(|call| call.item.clone()).collect();
    let answers = match queue.timed(lane, &B::of(items)).await {
        Ok(answers) => answers,
        // Something in one of them is at fault: alone, it harms nobody else.
        Err(error) if batch.len() > 1 && !error.is_transient() => {
            let mut answers = Vec::with_capacity(batch.len());
            for call in &batch {
                let alone = queue.timed(lane, &B::of(vec![call.item.clone()])).await;
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
