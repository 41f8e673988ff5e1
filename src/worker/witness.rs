//! A job that has begun, as its row says. A row may be forged, or of a history that is gone: before anything is sent for it, and
//! before what it came to is recorded, something outside the database has to bear it out: the seal of the worker that wrote its
//! checkpoint or, for what a worker of an earlier release wrote, `status.job`.

use super::Surroundings;
use super::checkpoint::Checkpoint;
use super::confirm;
use super::run::Run;
use super::seal::Sealed;
use super::session::{self, Live, ReadImage};
use crate::api::Reason;
use crate::job::{Effect, JobId, Problem, Step, StepOutcome};
use crate::queue::Claim;

/// For so long status is looked at for a job that it does not show, in milliseconds: a controller that has just become the leader
/// shows what it finds within that.
const PATIENCE_MS: i64 = 20_000;

/// Ids begin with the time by the database's clock, which may differ after a failover.
const CLOCKS_DIFFER_MS: i64 = 60_000;

/// What says that a job has begun as its row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Witness {
    /// It has not begun, or this claim began it.
    Needless,
    /// The seal of the worker that wrote its checkpoint.
    Seal,
    /// Status shows it.
    Status,
    /// Nothing yet.
    Missing,
    /// Something says that it has not, or has ended since: it ends without its undo.
    Refuted,
}

impl Witness {
    /// Whether there is one, where one is needed.
    pub(super) const fn is_there(self) -> bool {
        matches!(self, Self::Needless | Self::Seal | Self::Status)
    }
}

/// The checkpoint of a claim as far as it counts, and whether a worker wrote it.
pub(super) fn judge(around: &Surroundings, claim: &Claim, checkpoint: Checkpoint) -> (Checkpoint, Witness) {
    let job = claim.job();
    if Sealed::of(claim).is_sealed(&around.settings.login_key, claim.checkpoint()) {
        return (checkpoint, if job.has_begun() { Witness::Seal } else { Witness::Needless });
    }
    // What has not begun has nothing that it must keep, and a look never has.
    if !job.request_stored || job.action.effect() == Effect::ReadOnly {
        let in_the_way_since_ms = checkpoint.in_the_way_since_ms;
        let witness = if job.has_begun() { Witness::Missing } else { Witness::Needless };
        return (Checkpoint { in_the_way_since_ms, ..Checkpoint::default() }, witness);
    }
    (checkpoint, Witness::Missing)
}

/// Whether a server whose status has this as its last job has none any more with that id: it ended, or a later one did.
fn is_outlived(id: JobId, last: Option<&str>) -> bool {
    let Some(last) = last.and_then(JobId::parse) else { return false };
    last == id || last.unix_ms() > id.unix_ms() + CLOCKS_DIFFER_MS
}

impl Run<'_> {
    /// The checkpoint as it is stored with the present step.
    pub(super) fn sealed(&self) -> String {
        self.seal(Sealed::of(self.claim()), &self.checkpoint)
    }

    /// The same with the first request.
    pub(super) fn sealed_as_begun(&self) -> String {
        self.seal(Sealed::of(self.claim()).begun(), &self.checkpoint)
    }

    /// The same with the next step.
    pub(super) fn sealed_at(&self, step: Step, checkpoint: &Checkpoint) -> String {
        self.seal(Sealed::of(self.claim()).at(step), checkpoint)
    }

    /// What is not witnessed gets no seal by being parked.
    fn seal(&self, job: Sealed<'_>, checkpoint: &Checkpoint) -> String {
        let text = Checkpoint { seal: None, ..checkpoint.clone() }.text();
        if self.needs_no_witness() { job.seal(&self.around.settings.login_key, &text) } else { text }
    }

    fn needs_no_witness(&self) -> bool {
        self.witness.is_there() || !self.claim().job().has_begun()
    }

    /// Whether a request of this job was let in at its BMC.
    pub(super) fn was_let_in_by_this_job(&self) -> bool {
        let is_known = matches!(self.witness, Witness::Needless | Witness::Seal);
        self.claim().job().request_stored && is_known && self.action().effect() != Effect::ReadOnly
    }

    /// Reads the object where that has to be known. `Some`: the step ends like this.
    pub(super) async fn unwitnessed(&mut self) -> Option<StepOutcome> {
        if self.needs_no_witness() {
            return None;
        }
        if self.asking.is_none() {
            self.asking = match session::read(self.around, self.claim(), ReadImage::No).await {
                Ok(Live::Present(asking)) => Some(asking),
                Ok(Live::Gone) => None,
                Err(away) => return Some(self.retry(away, 0)),
            };
        }
        self.unwitnessed_by_the_object()
    }

    /// The same where the object was just read. Status may come to show the job. A seal says that a worker began it once, and
    /// status whether it has ended since: a row may be of a backup.
    pub(super) fn unwitnessed_by_the_object(&mut self) -> Option<StepOutcome> {
        let (id, action) = (self.claim().job().id, self.action());
        let status = self.server().and_then(|server| server.status.as_ref());
        let last = status.and_then(|status| status.last_job.as_ref());
        if self.claim().job().has_begun() && is_outlived(id, last.map(|last| last.id.as_str())) {
            return Some(self.left_as_it_is("status shows that it has ended"));
        }
        if self.needs_no_witness() {
            return None;
        }
        if status.is_some_and(|status| status.shows(id, action)) {
            self.witness = Witness::Status;
            // What a row alone says of where to is not gone by.
            self.checkpoint.bmc = self.server().map(|server| server.spec.bmc.clone());
            return None;
        }
        let now_ms = self.now_ms();
        let since_ms = *self.checkpoint.in_the_way_since_ms.get_or_insert(now_ms);
        if self.server().is_some() && (0..PATIENCE_MS).contains(&(now_ms - since_ms)) {
            return Some(confirm::wait_for_status());
        }
        Some(self.left_as_it_is("no worker of this installation wrote that, and status does not show it"))
    }

    fn left_as_it_is(&mut self, why: &str) -> StepOutcome {
        self.witness = Witness::Refuted;
        // The controller has said already what it is, and goes on from there.
        let is_lost = self.claim().cancel() == Some(Reason::HistoryLost);
        let reason = if is_lost { Reason::HistoryLost } else { Reason::UnexplainedJob };
        let message = format!(
            "the database has this job as begun, at step {}, and {why}: nothing more was done for it; look at the machine",
            self.step()
        );
        StepOutcome::Superseded { problem: Problem::new(reason, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_ended_or_came_before_the_last_one_is_outlived() {
        let of = |at_ms| JobId::new(at_ms, 7);
        let now_ms = 1_795_000_000_000;
        let outlived = |last: JobId| is_outlived(of(now_ms), Some(&last.to_string()));
        assert!(outlived(of(now_ms)) && outlived(of(now_ms + CLOCKS_DIFFER_MS + 1_000)));
        assert!(!outlived(of(now_ms - 1_000)), "the one before it");
        assert!(!outlived(of(now_ms + 1_000)), "by another clock");
        assert!(!is_outlived(of(now_ms), None) && !is_outlived(of(now_ms), Some("x")));
    }
}
