//! A job that has begun, as its row says. A row may be forged, or of a history that is gone: before anything is sent for it, and
//! before what it came to is recorded, something outside the database has to bear it out: the seal of the worker that wrote its
//! checkpoint or, for what a worker of an earlier release wrote, `status.job`.

use std::cmp::Ordering;

use super::Surroundings;
use super::checkpoint::Checkpoint;
use super::confirm;
use super::run::Run;
use super::seal::Sealed;
use super::session::{self, Live, ReadImage};
use crate::api::Reason;
use crate::job::{Effect, JobId, Problem, Step, StepOutcome};
use crate::queue::Claim;

/// For so long status is looked at for a job that it does not show, in milliseconds, once the controller has heard of its row: it
/// shows what it finds within that.
const PATIENCE_MS: i64 = 20_000;

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
        let Checkpoint { in_the_way_since_ms, unshown_since_ms, .. } = checkpoint;
        let witness = if job.has_begun() { Witness::Missing } else { Witness::Needless };
        return (Checkpoint { in_the_way_since_ms, unshown_since_ms, ..Checkpoint::default() }, witness);
    }
    (checkpoint, Witness::Missing)
}

/// What the last job that status shows says of one that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Nothing: it is an earlier one.
    Earlier,
    /// It is this one: it has ended.
    This,
    /// A later one has ended. A server's jobs come one after the other, so that this one has ended as well.
    Later,
}

impl Last {
    fn of(last: Option<&str>, id: JobId, now_ms: i64) -> Self {
        let last = last.and_then(JobId::parse).filter(|last| !last.is_made_up(now_ms));
        match last.map(|last| last.cmp(&id)) {
            None | Some(Ordering::Less) => Self::Earlier,
            Some(Ordering::Equal) => Self::This,
            Some(Ordering::Greater) => Self::Later,
        }
    }
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
                Ok(Live::Gone) => self.gone(),
                Err(away) => return Some(self.retry(away, 0)),
            };
        }
        self.unwitnessed_by_the_object()
    }

    /// The same where the object was just read. Status may come to show the job. A seal says that a worker began it once, and
    /// status whether it has ended since, or has come further: a row may be of a backup.
    pub(super) fn unwitnessed_by_the_object(&mut self) -> Option<StepOutcome> {
        let (id, action) = (self.claim().job().id, self.action());
        if !self.claim().job().has_begun() {
            return None;
        }
        let status = self.server().and_then(|server| server.status.as_ref());
        let last = status.and_then(|status| status.last_job.as_ref()).map(|last| last.id.as_str());
        let last = Last::of(last, id, self.now_ms());
        if last == Last::This {
            return Some(self.left_as_it_is("status shows that it has ended"));
        }
        if let Some(shown) = status.filter(|status| status.shows(id, action)).and_then(|it| it.job.as_ref()) {
            if !self.undoing() && action.is_further(shown.step, self.step()) {
                // The controller stops it: what was done would be done again.
                return Some(confirm::wait_for_status());
            }
            if !self.needs_no_witness() {
                self.witness = Witness::Status;
                // What a row alone says of where to is not gone by.
                self.checkpoint.bmc = self.server().map(|server| server.spec.bmc.clone());
            }
            self.checkpoint.unshown_since_ms = None;
            return None;
        }
        if last == Last::Earlier && self.needs_no_witness() {
            return None;
        }
        if self.server().is_some() && self.may_still_be_shown() {
            return Some(confirm::wait_for_status());
        }
        Some(self.left_as_it_is(match last {
            Last::Later => "status shows that a later one has ended",
            Last::Earlier | Last::This => {
                "no worker of this installation wrote that, and status does not show it"
            }
        }))
    }

    /// Whether the controller may still come to show it: it has not heard of the last change of this row, or did a moment ago.
    fn may_still_be_shown(&mut self) -> bool {
        if self.is_unheard {
            self.checkpoint.unshown_since_ms = None;
            return true;
        }
        let now_ms = self.now_ms();
        let since_ms = *self.checkpoint.unshown_since_ms.get_or_insert(now_ms);
        (0..PATIENCE_MS).contains(&(now_ms - since_ms))
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
    fn a_job_has_ended_where_status_has_its_end_or_that_of_a_later_one() {
        let now_ms = 1_795_000_000_000;
        let of = |at_ms| JobId::new(at_ms, 7);
        let last = |last: JobId| Last::of(Some(&last.to_string()), of(now_ms), now_ms);
        assert_eq!(last(of(now_ms)), Last::This);
        assert_eq!(last(of(now_ms - 1)), Last::Earlier);
        assert_eq!(last(of(now_ms + 1)), Last::Later);
        assert_eq!(last(JobId(i64::MAX)), Last::Earlier, "which nobody can have made");
        for nothing in [None, Some("x")] {
            assert_eq!(Last::of(nothing, of(now_ms), now_ms), Last::Earlier);
        }
    }
}
