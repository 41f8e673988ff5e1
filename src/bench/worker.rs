//! Workers without machines: they claim through [`Queue::fetch`] and end each job through [`Queue::complete`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::BenchError;
use super::ground::Ground;
use super::jobs;
use super::ledger::Ledger;
use super::window::{Count, Load};
use crate::job::{Incarnation, ServerUid};
use crate::queue::{Claim, Fenced, Front, Heart, Queue, Room, Served};
use crate::shard::Shard;

/// Before a fetcher that found nothing looks again.
const NOTHING: Duration = Duration::from_millis(1);

/// One claim in so many starts from a lower lane: the default of `autobuild worker --lower-share`.
pub(super) const LOWER_SHARE: u32 = 16;

/// One process of a worker as the database sees it.
#[derive(Debug)]
pub(super) struct Process {
    pub queue: Queue,
    heart: Heart,
}

/// What a fetcher needs.
#[derive(Debug, Clone)]
pub(super) struct Fetcher {
    pub queue: Queue,
    pub me: Incarnation,
    pub served: Served,
    pub ledger: Arc<Ledger>,
    pub ended: Count,
    /// Where servers go whose job has ended.
    pub idle: Option<UnboundedSender<ServerUid>>,
}

impl Process {
    /// Enters the registry.
    pub(super) async fn join(ground: &Ground, connections: u32) -> Result<Self, BenchError> {
        let queue = Queue::connect(ground.scratch.url(), connections).await?;
        let heart = queue.join(jobs::SITE, "bench").await?;
        Ok(Self { queue, heart })
    }

    /// A fetcher of this process.
    pub(super) fn fetcher(&self, ground: &Ground, shards: BTreeSet<Shard>, ended: &Count) -> Fetcher {
        Fetcher {
            queue: self.queue.clone(),
            me: self.heart.incarnation(),
            served: Served { site: jobs::SITE.to_owned(), shards },
            ledger: Arc::clone(&ground.ledger),
            ended: ended.clone(),
            idle: None,
        }
    }

    /// Leaves the registry, and closes its connections.
    pub(super) async fn leave(self) -> Result<(), BenchError> {
        self.heart.leave().await?;
        self.queue.close().await;
        Ok(())
    }
}

/// The shards that worker `number` of `workers` serves: every shard is served by two where there are two.
pub(super) fn shards_of(number: usize, workers: usize) -> BTreeSet<Shard> {
    let groups = workers.clamp(1, jobs::all_shards().count());
    let mine = [number % groups, (number + 1) % groups];
    jobs::all_shards().filter(|shard| mine.contains(&(usize::from(shard.0) % groups))).collect()
}

impl Fetcher {
    /// Claims one job, ends it, and claims again.
    pub(super) async fn one_by_one(self, stop: CancellationToken) -> Result<(), BenchError> {
        let mut front = Front::new(self.served.clone(), LOWER_SHARE);
        while !stop.is_cancelled() {
            let claims = self.queue.fetch(&mut front, self.me, Room { any: 1, urgent: 0 }).await?;
            if claims.is_empty() {
                tokio::time::sleep(NOTHING).await;
            }
            for claim in claims {
                self.take(&claim);
                self.clone().end(claim).await?;
            }
        }
        Ok(())
    }

    /// Keeps `slots` filled, half of them with each claim; what is in a slot does nothing but end.
    pub(super) async fn in_batches(self, slots: usize, stop: CancellationToken) -> Result<(), BenchError> {
        let mut front = Front::new(self.served.clone(), LOWER_SHARE);
        let mut running = JoinSet::new();
        while !stop.is_cancelled() {
            while let Some(ended) = running.try_join_next() {
                ended??;
            }
            let free = slots - running.len();
            if free < slots / 2 {
                if let Some(ended) = running.join_next().await {
                    ended??;
                }
                continue;
            }
            let room = Room { any: free as u32, urgent: 0 };
            let claims = self.queue.fetch(&mut front, self.me, room).await?;
            if claims.is_empty() {
                tokio::time::sleep(NOTHING).await;
            }
            for claim in claims {
                self.take(&claim);
                running.spawn(self.clone().end(claim));
            }
        }
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Notes that a claim began.
    pub(super) fn take(&self, claim: &Claim) {
        self.ledger.claimed(claim.uid());
    }

    /// Ends a job, and notes it.
    pub(super) async fn end(self, claim: Claim) -> Result<(), BenchError> {
        let (uid, id) = (claim.uid().clone(), claim.job().id);
        match self.queue.complete(claim, jobs::end(&uid)).await? {
            Fenced::Done(()) => {
                self.ledger.ended(&uid, id);
                self.ended.one();
                if let Some(idle) = &self.idle {
                    // Nobody takes them in once the measurement is over.
                    idle.send(uid).unwrap_or_default();
                }
            }
            Fenced::Lost => self.ledger.given_up(&uid),
        }
        Ok(())
    }
}

/// Workers of the batched path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crew {
    /// Worker processes.
    pub processes: usize,
    /// Connections of each.
    pub connections: u32,
    /// Slots of each; a claim takes half of them or more.
    pub slots: usize,
}

impl Crew {
    /// Starts them; they have to leave after the load has ended.
    pub(super) async fn start(
        self,
        ground: &Ground,
        load: &mut Load,
        ended: &Count,
        idle: Option<&UnboundedSender<ServerUid>>,
    ) -> Result<Vec<Process>, BenchError> {
        let mut processes = Vec::new();
        for number in 0..self.processes {
            let process = Process::join(ground, self.connections).await?;
            let mut fetcher = process.fetcher(ground, shards_of(number, self.processes), ended);
            fetcher.idle = idle.cloned();
            load.add(fetcher.in_batches(self.slots, load.stop()));
            processes.push(process);
        }
        Ok(processes)
    }
}

/// All of them leave.
pub(super) async fn leave(processes: Vec<Process>) -> Result<(), BenchError> {
    for process in processes {
        process.leave().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_is_served_by_two_workers_where_there_are_two() {
        for (workers, wanted) in [(1, 1), (2, 2), (4, 2), (16, 2), (64, 8)] {
            for shard in jobs::all_shards() {
                let serving =
                    (0..workers).filter(|number| shards_of(*number, workers).contains(&shard)).count();
                assert_eq!(serving, wanted, "{workers} workers, {shard:?}");
            }
        }
    }
}
