//! Slots: claims that run as supervised tasks. A panic fails its job's try and not the process.
#![expect(
    clippy::disallowed_methods,
    reason = "pauses are jittered, and how many there are decides how long they are"
)]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::task::{Id, JoinError, JoinSet};
use tracing::Instrument as _;

use super::lease::Lease;
use super::neighbours::Neighbours;
use super::{Halt, Surroundings, run};
use crate::api::Reason;
use crate::job::{Incarnation, JobId, RetryClass};
use crate::metrics;
use crate::queue::{Claim, Front, OwnedJob, ParkAs, QueueError, Report, Room, ShareBound, Shares};

/// How long a job of an unreachable BMC is put off while its share of the slots is taken, in milliseconds; how much longer for
/// each that is put off already, so that their claims are twenty a second at most; and how long at most.
const PUT_OFF_MS: (i64, i64, i64) = (2_000, 50, 300_000);

/// How a task came to its end.
type Ended = Result<(Id, Result<(), Halt>), JoinError>;

struct Held {
    job: OwnedJob,
    namespace: String,
    silent: bool,
}

/// A job whose step panicked, or met something that no other try will cure.
pub(super) struct Crash {
    job: OwnedJob,
    why: String,
}

/// The slots of one incarnation.
pub(super) struct Slots {
    around: Surroundings,
    lease: Lease,
    me: Incarnation,
    tasks: JoinSet<Result<(), Halt>>,
    held: HashMap<Id, Held>,
    neighbours: Neighbours,
    /// Jobs that are put off, and until when.
    put_off: HashMap<JobId, Instant>,
}

impl Slots {
    /// Empty slots.
    pub(super) fn new(around: Surroundings, lease: Lease, me: Incarnation) -> Self {
        Self {
            around,
            lease,
            me,
            tasks: JoinSet::new(),
            held: HashMap::new(),
            neighbours: Neighbours::default(),
            put_off: HashMap::new(),
        }
    }

    /// Claims what may be taken up now: as long as any namespace may take it up it is whatever comes first.
    pub(super) async fn claim(&mut self, front: &mut Front) -> Result<Vec<Claim>, QueueError> {
        let room = self.room();
        if room.any + room.urgent == 0 {
            return Ok(Vec::new());
        }
        let bound = self.around.settings.slots_per_namespace.map_or(ShareBound::Free, ShareBound::Slots);
        let held = self.held.values().map(|held| held.namespace.as_str());
        let shares = Shares::new(bound, room, held);
        let of_anybody = shares.of_anybody();
        if of_anybody == 0 {
            self.neighbours.ask(&self.around.queue).await;
        }
        front.is_among_others(self.neighbours.are_several());
        let queue = &self.around.queue;
        match of_anybody {
            0 if self.neighbours.are_several() => queue.fetch_within(front, self.me, &shares).await,
            0 => queue.fetch(front, self.me, room).await,
            most => queue.fetch(front, self.me, room.at_most(most)).await,
        }
    }

    fn free(&self) -> usize {
        self.around.settings.slots.saturating_sub(self.held.len())
    }

    /// How many more jobs may run.
    pub(super) fn room(&self) -> Room {
        let free = self.free();
        let any = free.saturating_sub(self.around.settings.urgent_slots);
        Room { any: any as u32, urgent: (free - any) as u32 }
    }

    /// Whether no job runs.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether a slot runs this very claim.
    pub(super) fn runs(&self, job: &OwnedJob) -> bool {
        self.held.values().any(|held| held.job == *job)
    }

    fn silent(&self) -> usize {
        self.held.values().filter(|held| held.silent).count()
    }

    /// Whether another job of a BMC that did not answer before may run: a namespace has slots for them, and all have.
    fn may_be_silent(&self, namespace: &str) -> bool {
        let of_it = self.held.values().filter(|held| held.silent && held.namespace == namespace).count();
        let settings = &self.around.settings;
        of_it < settings.unreachable_slots() && self.silent() < settings.unreachable_slots_in_all()
    }

    /// Runs claims, and puts those off whose BMC did not answer before and of which others like it have their share of the
    /// slots already.
    pub(super) async fn start_all(&mut self, claims: Vec<Claim>) -> Result<(), QueueError> {
        let around = self.around.clone();
        let mut parks = Vec::new();
        for claim in claims {
            self.neighbours.met(claim.namespace());
            let silent = is_silent(claim.job().problem.as_ref().map(|problem| problem.reason));
            if silent && !self.may_be_silent(claim.namespace()) {
                let after_ms = self.put_off_for(claim.job().id);
                parks.push(park(&around, claim, after_ms));
            } else {
                self.start(claim, silent);
            }
        }
        // At once: one after the other they would keep what is claimed next waiting.
        futures::future::try_join_all(parks).await.map(|_| ())
    }

    /// For how long it is put off, in milliseconds.
    fn put_off_for(&mut self, id: JobId) -> i64 {
        let now = Instant::now();
        self.put_off.retain(|other, until| *until > now && *other != id);
        let after_ms = put_off_ms(self.put_off.len()) + i64::from(rand::random_range(0..1000_u16));
        self.put_off.insert(id, now + Duration::from_millis(after_ms.unsigned_abs()));
        after_ms
    }

    fn start(&mut self, claim: Claim, silent: bool) {
        let namespace = claim.namespace().to_owned();
        let job = claim.owned();
        let span = tracing::info_span!(
            "job",
            namespace = claim.namespace(),
            name = claim.name(),
            job_id = %claim.job().id,
            action = claim.job().action.as_str(),
            step = claim.job().step.as_str(),
        );
        let (around, lease) = (self.around.clone(), self.lease.clone());
        let work = async move {
            let deadline = around.settings.slot_deadline;
            let ended =
                lease.during(tokio::time::timeout(deadline, Box::pin(run::run(&around, claim)))).await;
            match ended {
                Some(Ok(ended)) => ended,
                Some(Err(_)) => Err(Halt::Stuck(deadline)),
                None => {
                    tracing::warn!("the lease is over: stopped where it stood");
                    Err(Halt::Lost)
                }
            }
        };
        let id = self.tasks.spawn(work.instrument(span)).id();
        self.held.insert(id, Held { job, namespace, silent });
        self.count();
    }

    /// Waits until a job has left its slot, and empties the slots of all that have; returns those whose step crashed, for
    /// [`Slots::record`]. May be dropped and called again.
    pub(super) async fn ended(&mut self) -> Vec<Crash> {
        let Some(first) = self.tasks.join_next_with_id().await else { return Vec::new() };
        let mut crashes = Vec::from_iter(self.leave(first));
        // One at a time, with a claim between two of them, a worker of a thousand slots ended sixty jobs a second.
        while let Some(next) = self.tasks.try_join_next_with_id() {
            crashes.extend(self.leave(next));
        }
        self.count();
        crashes
    }

    /// Empties the slot of a task that has ended.
    fn leave(&mut self, ended: Ended) -> Option<Crash> {
        let (id, why) = match ended {
            Ok((id, Ok(()))) => (id, None),
            Ok((id, Err(Halt::Lost | Halt::Again))) => {
                metrics::FENCED.one(&[]);
                tracing::warn!("a job was lost to another worker, or with the lease");
                (id, None)
            }
            Ok((id, Err(Halt::Database(error)))) if error.is_transient() => {
                tracing::warn!(reason = error.class(), "a job is left for later: {error}");
                (id, None)
            }
            Ok((id, Err(Halt::Database(error)))) => (id, Some(error.to_string())),
            Ok((id, Err(Halt::Stuck(deadline)))) => {
                (id, Some(format!("it held its slot for {} s and was stopped", deadline.as_secs_f64())))
            }
            Err(error) => (error.id(), Some(error.to_string())),
        };
        let held = self.held.remove(&id);
        Some(Crash { job: held?.job, why: why? })
    }

    /// Counts a crash and gives its job back. Where this fails the job stays ours and is given back by the next
    /// comparison.
    pub(super) async fn record(&self, crash: Crash) {
        let Crash { job, why } = crash;
        tracing::error!(server = job.uid.as_str(), job = %job.id, "a step crashed: {why}");
        if let Err(error) = self.around.queue.crashed(self.me, job).await {
            tracing::warn!(reason = error.class(), "the crash could not be recorded: {error}");
        }
    }

    /// Stops everything where it stands. Nothing is written: the jobs are taken over once the lease has expired.
    pub(super) async fn abandon(&mut self) {
        self.tasks.shutdown().await;
        self.held.clear();
        self.count();
    }

    fn count(&self) {
        metrics::SLOTS.set(&["busy"], self.held.len() as f64);
        metrics::SLOTS.set(&["free"], self.free() as f64);
        metrics::UNREACHABLE.set(&[], self.silent() as f64);
    }
}

/// Whether a BMC may take all of its time again: it did not answer before, or was busy, which some are for as long as a request
/// may last.
fn is_silent(reason: Option<Reason>) -> bool {
    matches!(reason.and_then(RetryClass::of), Some(RetryClass::Unreachable | RetryClass::Busy))
}

/// How long a job is put off while so many others are, in milliseconds.
fn put_off_ms(others: usize) -> i64 {
    let (first, each, longest) = PUT_OFF_MS;
    each.saturating_mul(i64::try_from(others).unwrap_or(i64::MAX)).saturating_add(first).min(longest)
}

async fn park(around: &Surroundings, claim: Claim, after_ms: i64) -> Result<(), QueueError> {
    let how = ParkAs {
        after_ms,
        waiting_for: crate::job::WaitingFor::Bmc,
        problem: claim.job().problem.clone(),
        secret_version: claim.job().secret_version.clone(),
        checkpoint: claim.checkpoint().to_owned(),
        report: Report::Nothing,
    };
    around.queue.park(claim, how).await.map(|_| ())
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn what_may_take_all_of_its_time_again_has_its_share_of_the_slots_alone() {
        for reason in [Reason::Unreachable, Reason::TLSFailed, Reason::BMCProtocolError, Reason::BMCBusy] {
            assert!(is_silent(Some(reason)), "{reason}");
        }
        for reason in [Reason::APIUnavailable, Reason::CredentialsInvalid, Reason::BMCPermissionDenied] {
            assert!(!is_silent(Some(reason)), "{reason}");
        }
        assert!(!is_silent(None));
    }

    #[test]
    fn the_more_are_put_off_the_more_seldom_each_looks_again() {
        assert_eq!([0, 1, 300, 1_000_000].map(put_off_ms), [2_000, 2_050, 17_000, 300_000]);
    }
}
