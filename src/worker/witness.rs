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

/// How often status is looked at for a job that it does not show, about once a second: the controller shows within one what it knows of.
const TRIES: u32 = 3;

/// The checkpoint of a claim as far as it counts, and whether a worker wrote it, or nobody anything yet.
pub(super) fn judge(around: &Surroundings, claim: &Claim, checkpoint: Checkpoint) -> (Checkpoint, bool) {
    let job = claim.job();
    if Sealed::of(claim).is_sealed(&around.settings.login_key, claim.checkpoint()) {
        return (checkpoint, true);
    }
    // What has not begun has nothing that it must keep, and a look never has.
    if !job.request_stored || job.action.effect() == Effect::ReadOnly {
        return (Checkpoint::default(), !job.has_begun());
    }
    (checkpoint, false)
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
        self.is_witnessed || !self.claim().job().has_begun()
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

    /// The same where the object was just read. Status may come to show the job.
    pub(super) fn unwitnessed_by_the_object(&mut self) -> Option<StepOutcome> {
        if self.needs_no_witness() {
            return None;
        }
        let (id, action) = (self.claim().job().id, self.action());
        let status = self.server().and_then(|server| server.status.as_ref());
        let shown = status.and_then(|status| status.job.as_ref());
        self.is_witnessed =
            shown.is_some_and(|shown| JobId::parse(&shown.id) == Some(id) && shown.action == action);
        if self.is_witnessed {
            // What a row alone says of where to is not gone by.
            self.checkpoint.bmc = self.server().map(|server| server.spec.bmc.clone());
            self.is_sealed = true;
            return None;
        }
        if self.server().is_some() && self.claim().job().attempt < TRIES {
            return Some(confirm::wait_for_status());
        }
        let message = format!(
            "the database has this job as begun, at step {}, no worker of this installation wrote that, and status does not show it: \
             nothing more was done for it; look at the machine",
            self.step()
        );
        Some(StepOutcome::Superseded { problem: Problem::new(Reason::UnexplainedJob, message) })
    }
}
