//! One life of a worker: from its row in the registry to its end.
#![expect(clippy::disallowed_methods, reason = "a lease is a matter of time: the monotonic clock decides")]

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::lease::{self, Lease, Over};
use super::reaper;
use super::slots::Slots;
use super::{Settings, Surroundings};
use crate::http::Readiness;
use crate::job::{Incarnation, Lane};
use crate::metrics;
use crate::queue::{ClaimFrom, Head, Heart, Newcomer, PlaceInQueue, QueueError, Served};
use crate::shard::Shard;

/// Between two looks at the front of the queue while slots are free.
const LOOK: Duration = Duration::from_millis(100);
/// Between two comparisons of the jobs that name this worker with those that its slots run.
const COMPARE: Duration = Duration::from_secs(2);
/// Due jobs of one shard that are woken at once.
const WAKE: u32 = 100;

/// How a life ended.
pub(super) enum Life {
    /// The process was asked to end; nothing is left in its hands that it could hand back.
    Asked,
    /// It is over although nobody asked.
    Over(Over),
}

/// What a background part of the worker gives back at its end.
enum Part {
    Beat(Heart, Over),
    Reaper,
}

/// Enters the registry, works, and leaves it. After another history was found nothing is claimed for a while.
pub(super) async fn live(
    around: &Surroundings,
    readiness: &Readiness,
    history_lost: bool,
) -> Result<Life, QueueError> {
    let sent = Instant::now();
    let heart = around.queue.enter(newcomer(&around.settings, history_lost)).await?;
    let (me, quiet_until) = (heart.incarnation(), heart.quiet_until());
    let quiet = quiet_until.saturating_duration_since(Instant::now());
    if !quiet.is_zero() {
        tracing::warn!(worker = %me, quiet_s = quiet.as_secs_f64(), "the database tells another history: claims nothing for a while");
    }
    let lease = Lease::new(&around.settings, sent);
    tracing::info!(worker = %me, site = around.settings.site, slots = around.settings.slots, "in the registry of workers");
    readiness.ready("database");
    let heart_stops = CancellationToken::new();
    let mut parts = JoinSet::new();
    parts.spawn(beat(
        heart,
        lease.clone(),
        around.settings.heartbeat,
        readiness.clone(),
        heart_stops.clone(),
    ));
    let reaping = around.clone();
    parts.spawn(async move {
        reaper::run(&reaping, me).await;
        Part::Reaper
    });
    readiness.ready("lease");

    let mut worker = Worker {
        around: around.clone(),
        me,
        served: Served {
            site: around.settings.site.clone(),
            shards: (0..around.queue.shards()).map(Shard).collect(),
        },
        slots: Slots::new(around.clone(), lease.clone(), me),
        lease,
        rotation: 0,
    };
    let over = worker.work(&mut parts, quiet_until).await;
    if let Some(over) = over {
        readiness.waits("lease", "it was lost");
        worker.slots.abandon().await;
        return Ok(Life::Over(over));
    }
    readiness.waits("lease", "asked to end");
    let drained = worker.drain().await;
    heart_stops.cancel();
    while let Some(part) = parts.join_next().await {
        if let (Ok(Part::Beat(heart, _)), true) = (part, drained) {
            heart.leave().await?;
            tracing::info!(worker = %me, "left the registry of workers");
            break;
        }
    }
    Ok(Life::Asked)
}

fn newcomer(settings: &Settings, history_lost: bool) -> Newcomer<'_> {
    let quiet = settings.lease.max(settings.settle());
    Newcomer { site: &settings.site, host: &settings.host, quiet, history_lost }
}

async fn beat(
    mut heart: Heart,
    lease: Lease,
    every: Duration,
    readiness: Readiness,
    stop: CancellationToken,
) -> Part {
    let over = tokio::select! {
        over = lease::beat(&mut heart, &lease, every, &readiness) => over,
        () = stop.cancelled() => Over::Buried,
    };
    Part::Beat(heart, over)
}

/// How long the front of the queue has waited, by lane.
fn show_ages(heads: &[Head]) {
    for lane in Lane::ALL {
        let waiting = heads.iter().filter(|head| head.lane == lane && head.place != PlaceInQueue::Parked);
        let oldest_ms = waiting.map(|head| head.waiting_ms).max().unwrap_or(0);
        metrics::OLDEST_WAITING.set(&[lane.as_str()], oldest_ms as f64 / 1000.0);
    }
}

struct Worker {
    around: Surroundings,
    me: Incarnation,
    served: Served,
    slots: Slots,
    lease: Lease,
    rotation: u16,
}

impl Worker {
    /// Fills free slots until the life is over (`Some`) or the process is asked to end.
    async fn work(&mut self, parts: &mut JoinSet<Part>, quiet_until: Instant) -> Option<Over> {
        let stop = self.around.stop.clone();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut compared = Instant::now();
        let mut silent = false;
        loop {
            let mut crash = None;
            tokio::select! {
                biased;
                part = parts.join_next() => return Some(match part {
                    Some(Ok(Part::Beat(_, over))) => over,
                    _ => Over::Broken,
                }),
                () = stop.cancelled() => return None,
                ended = self.slots.one_ended(), if !self.slots.is_empty() => crash = ended,
                _ = looks.tick() => {}
            }
            if let Some(crash) = crash {
                self.slots.record(crash).await;
            }
            if !self.lease.holds() || Instant::now() < quiet_until {
                continue;
            }
            let compare = compared.elapsed() >= COMPARE;
            if compare {
                compared = Instant::now();
            }
            let looked = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                looked = self.look(compare) => looked,
            };
            match looked {
                Err(error) if !silent => {
                    tracing::warn!(reason = error.class(), "cannot look at the queue: {error}");
                    silent = true;
                }
                Err(_) => {}
                Ok(()) => silent = false,
            }
        }
    }

    async fn look(&mut self, compare: bool) -> Result<(), QueueError> {
        if compare {
            self.disown_strays().await?;
        }
        // As long as something was claimed there may be more behind it.
        while self.slots.free() > 0 && self.claim().await? > 0 {}
        Ok(())
    }

    /// One pass over the fronts of all served shards; returns how many jobs were claimed.
    async fn claim(&mut self) -> Result<usize, QueueError> {
        metrics::HEAD_QUERIES.one(&[]);
        let mut heads = self.around.queue.heads(&self.served).await?;
        show_ages(&heads);
        let due: Vec<Shard> =
            heads.iter().filter(|head| head.place == PlaceInQueue::Parked).map(|head| head.shard).collect();
        for shard in &due {
            self.around.queue.wake(&self.served.site, *shard, WAKE).await?;
        }
        if !due.is_empty() {
            heads = self.around.queue.heads(&self.served).await?;
        }
        // From another shard each time, so that none is always last.
        let count = self.around.queue.shards().max(1);
        self.rotation = (self.rotation + 1) % count;
        let turn = |shard: Shard| (shard.0 + count - self.rotation % count) % count;
        heads.retain(|head| head.place != PlaceInQueue::Parked);
        heads.sort_by_key(|head| (head.lane, head.place, turn(head.shard)));
        let mut claimed = 0;
        for head in heads {
            let free = self.slots.free();
            if free == 0 {
                break;
            }
            let from = ClaimFrom {
                site: self.served.site.clone(),
                shard: head.shard,
                place: head.place,
                lane: head.lane,
            };
            for claim in self.around.queue.claim(self.me, from, free as u32).await? {
                claimed += 1;
                self.slots.start(claim).await?;
            }
        }
        Ok(claimed)
    }

    /// Gives back what names this worker as its owner and is in none of its slots: it was claimed in a transaction
    /// whose COMMIT was unknown, or its slot lost the lease for a while.
    async fn disown_strays(&mut self) -> Result<(), QueueError> {
        for job in self.around.queue.owned(self.me).await? {
            if !self.slots.runs(&job) && self.around.queue.disown(self.me, job.clone()).await? {
                tracing::warn!(server = job.uid.as_str(), job = %job.id, "gave back a job that no slot runs");
            }
        }
        Ok(())
    }

    /// Waits for the steps that run, within the grace period. `false`: something may still be in flight, so the lease
    /// is left to expire.
    async fn drain(&mut self) -> bool {
        let grace = self.around.settings.grace;
        let all = async {
            while !self.slots.is_empty() {
                if let Some(crash) = self.slots.one_ended().await {
                    self.slots.record(crash).await;
                }
            }
        };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!(
                grace_s = grace.as_secs(),
                "steps still run after the grace period; the lease is left to expire"
            );
            self.slots.abandon().await;
            return false;
        }
        if let Err(error) = self.disown_strays().await {
            tracing::warn!(reason = error.class(), "cannot give back what is left: {error}");
            return false;
        }
        true
    }
}
