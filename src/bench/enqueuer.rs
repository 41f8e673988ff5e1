//! The controller's part: jobs are enqueued for servers that have none, on the version that is known of each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use super::BenchError;
use super::ground::Ground;
use super::jobs;
use super::ledger::Ledger;
use super::window::{Count, Load};
use crate::job::{Lane, ServerUid};
use crate::queue::measure::Versions;
use crate::queue::{Enqueued, Queue};

/// Versions that are read at once.
const READ_AT_ONCE: usize = 200;
/// Before somebody who found no idle server looks again.
const NOTHING: Duration = Duration::from_millis(1);

/// Servers that have no job, each with the version of what is known of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Idle(Arc<Mutex<VecDeque<(ServerUid, i64)>>>);

impl Idle {
    /// Up to `at_most` servers of a schema.
    pub(super) async fn of(ground: &Ground, at_most: u64) -> Result<Self, BenchError> {
        Ok(Self(Arc::new(Mutex::new(ground.scratch.idle_servers(at_most).await?.into()))))
    }

    /// Takes one.
    pub(super) fn take(&self) -> Option<(ServerUid, i64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn give(&self, servers: Vec<(ServerUid, i64)>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(servers);
    }

    /// Takes servers back in whose jobs have ended, with the versions that they have by then.
    pub(super) async fn refill(
        self,
        ground: Ground,
        mut ended: UnboundedReceiver<ServerUid>,
        stop: CancellationToken,
    ) -> Result<(), BenchError> {
        let mut versions = Versions::of(&ground.scratch).await?;
        let mut uids = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                count = ended.recv_many(&mut uids, READ_AT_ONCE) => if count == 0 { return Ok(()) },
            }
            self.give(versions.read(&uids).await?);
            uids.clear();
        }
    }
}

/// Those who enqueue, all through one connection pool, as a controller does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Enqueuers {
    /// Calls at once.
    pub callers: usize,
    /// Connections.
    pub connections: u32,
}

impl Enqueuers {
    /// Starts them; the queue has to be closed after the load has ended.
    pub(super) async fn start(
        self,
        ground: &Ground,
        load: &mut Load,
        idle: &Idle,
        accepted: &Count,
    ) -> Result<Queue, BenchError> {
        let queue = Queue::connect(ground.scratch.url(), self.connections).await?;
        for _ in 0..self.callers {
            let ledger = Arc::clone(&ground.ledger);
            load.add(enqueue(queue.clone(), idle.clone(), ledger, accepted.clone(), load.stop()));
        }
        Ok(queue)
    }
}

async fn enqueue(
    queue: Queue,
    idle: Idle,
    ledger: Arc<Ledger>,
    accepted: Count,
    stop: CancellationToken,
) -> Result<(), BenchError> {
    while !stop.is_cancelled() {
        let Some((uid, version)) = idle.take() else {
            tokio::time::sleep(NOTHING).await;
            continue;
        };
        let job = jobs::job(&uid, jobs::next_id(), Lane::Low);
        match queue.enqueue(job, version).await? {
            Enqueued::Accepted => {
                ledger.accepted(1);
                accepted.one();
            }
            // Nobody else decides for these servers.
            refused => return Err(BenchError::Refused { uid, refused }),
        }
    }
    Ok(())
}
