//! One life of a worker: from its row in the registry to its end.
#![expect(clippy::disallowed_methods, reason = "a lease is a matter of time: the monotonic clock decides")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::lease::{self, Lease, Over};
use super::reaper;
use super::slots::Slots;
use super::{Settings, Surroundings};
use crate::http::Readiness;
use crate::job::{Incarnation, PermitClass};
use crate::queue::{Front, Heart, Newcomer, Past, QueueError, Served};
use crate::shard::Shard;

/// Between two looks at the front of the queue while slots are free.
const LOOK: Duration = Duration::from_millis(100);
/// Between two comparisons of the jobs that name this worker with those that its slots run.
const COMPARE: Duration = Duration::from_secs(2);
/// Claims one after the other before jobs that have ended are looked at.
const FILLS: usize = 64;
/// Between two looks at the shards of others while nothing waits in one's own.
const LOOK_AT_ALL: Duration = Duration::from_secs(1);

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
    Waker,
}

/// Enters the registry, works, and leaves it. After another history was found nothing is claimed for a while, and not
/// before the controller has derived every job again.
pub(super) async fn live(
    around: &Surroundings,
    readiness: &Readiness,
    past: Past,
) -> Result<Life, QueueError> {
    let sent = Instant::now();
    let heart = around.queue.enter(newcomer(&around.settings, past)).await?;
    let (me, quiet_until) = (heart.incarnation(), heart.quiet_until());
    let quiet = quiet_until.saturating_duration_since(Instant::now());
    if !quiet.is_zero() {
        tracing::warn!(worker = %me, quiet_s = quiet.as_secs_f64(), "the database tells another history: claims nothing for a while");
    }
    let (claims, may_claim) = watch::channel(true);
    lease::tell_derived(heart.derived(), &claims, readiness);
    around.queue.set_permits(&around.settings.site, PermitClass::Install, around.settings.installs).await?;
    let lease = Lease::new(&around.settings, sent);
    tracing::info!(worker = %me, site = around.settings.site, slots = around.settings.slots, "in the registry of workers");
    readiness.ready("database");
    let heart_stops = CancellationToken::new();
    let mut parts = JoinSet::new();
    parts.spawn(beat(
        heart,
        lease.clone(),
        around.settings.heartbeat,
        claims,
        readiness.clone(),
        heart_stops.clone(),
    ));
    let reaping = around.clone();
    // Until the others are known it serves every shard.
    let everywhere = Served {
        site: around.settings.site.clone(),
        shards: (0..around.queue.shards()).map(Shard).collect(),
    };
    let (serves, shards) = watch::channel(everywhere.shards.clone());
    parts.spawn(async move {
        reaper::run(&reaping, me, &serves).await;
        Part::Reaper
    });
    let waking = around.clone();
    parts.spawn(async move {
        waking.turns.wake(&waking.queue).await;
        Part::Waker
    });
    readiness.ready("lease");

    let mut worker = Worker {
        around: around.clone(),
        me,
        shards,
        may_claim,
        front: Front::new(everywhere.clone(), around.settings.lower_share),
        all: Front::new(everywhere, around.settings.lower_share),
        looked_at_all: sent,
        slots: Slots::new(around.clone(), lease.clone(), me),
        lease,
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

fn newcomer(settings: &Settings, past: Past) -> Newcomer<'_> {
    let quiet = settings.lease.max(settings.longest_settle());
    Newcomer { site: &settings.site, host: &settings.host, quiet, past }
}

async fn beat(
    mut heart: Heart,
    lease: Lease,
    every: Duration,
    claims: watch::Sender<bool>,
    readiness: Readiness,
    stop: CancellationToken,
) -> Part {
    let over = tokio::select! {
        over = lease::beat(&mut heart, &lease, every, &claims, &readiness) => over,
        () = stop.cancelled() => Over::Buried,
    };
    Part::Beat(heart, over)
}

struct Worker {
    around: Surroundings,
    me: Incarnation,
    /// The shards that this worker serves, as the registry last said.
    shards: watch::Receiver<BTreeSet<Shard>>,
    /// Whether the history that it works in was derived.
    may_claim: watch::Receiver<bool>,
    front: Front,
    all: Front,
    looked_at_all: Instant,
    slots: Slots,
    lease: Lease,
}

/// Claims as long as there is room and something to claim, and not too often; returns how many jobs.
async fn fill(front: &mut Front, slots: &mut Slots) -> Result<usize, QueueError> {
    let mut claimed = 0;
    // What is put off takes no slot: without an end nobody would empty those whose jobs have ended.
    for _ in 0..FILLS {
        let claims = slots.claim(front).await?;
        if claims.is_empty() {
            break;
        }
        claimed += claims.len();
        slots.start_all(claims).await?;
    }
    Ok(claimed)
}

/// None of the parts ends by itself while the life goes on.
fn why_over(part: Option<&Result<Part, JoinError>>) -> Over {
    match part {
        Some(Ok(Part::Beat(_, over))) => *over,
        _ => Over::Broken,
    }
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
            let mut crashes = Vec::new();
            tokio::select! {
                biased;
                part = parts.join_next() => return Some(why_over(part.as_ref())),
                () = stop.cancelled() => return None,
                ended = self.slots.ended(), if !self.slots.is_empty() => crashes = ended,
                () = self.around.turns.woken() => {}
                _ = looks.tick() => {}
            }
            for crash in crashes {
                self.slots.record(crash).await;
            }
            if !self.lease.holds() || Instant::now() < quiet_until || !*self.may_claim.borrow() {
                continue;
            }
            let compare = compared.elapsed() >= COMPARE;
            if compare {
                compared = Instant::now();
            }
            let looked = tokio::select! {
                biased;
                // A look may wait for a connection that it does not get: the heart knows better.
                part = parts.join_next() => return Some(why_over(part.as_ref())),
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
        if self.shards.has_changed().unwrap_or(false) {
            let shards = self.shards.borrow_and_update().clone();
            tracing::info!(shards = shards.len(), "serves other shards: a worker of the site came or went");
            self.front.serve(shards);
        }
        let claimed = fill(&mut self.front, &mut self.slots).await?;
        // Shards are an affinity: what their own workers have no slot for is not left lying while this one idles.
        if claimed == 0 && self.looked_at_all.elapsed() >= LOOK_AT_ALL {
            self.looked_at_all = Instant::now();
            if self.front.served() != self.all.served() {
                fill(&mut self.all, &mut self.slots).await?;
            }
        }
        Ok(())
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
                for crash in self.slots.ended().await {
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
