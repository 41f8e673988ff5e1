//! A job that has begun, as its row says. A row may be forged, or of a history that is gone: before anything is sent for it, and
//! before what it came to is recorded, something outside the database has to bear it out.

use super::confirm;
use super::run::Run;
use super::session::{self, Live, ReadImage};
use crate::api::Reason;
use crate::job::{Problem, StepOutcome};

impl Run<'_> {
    /// Whether this process began it, a look at the object bore it out before, or it has not begun.
    fn needs_no_witness(&self) -> bool {
        let job = self.claim().job();
        self.is_witnessed || !job.has_begun() || self.around.remembered.began(job.id)
    }

    /// Reads the object where that has to be known. `Some`: the step ends like this.
    pub(super) async fn unwitnessed(&mut self) -> Option<StepOutcome> {
        if self.needs_no_witness() {
            return None;
        }
        if self.asking.is_none() {
            self.asking = match session::read(self.around, self.claim(), ReadImage::No).await {
                Ok(Live::Present(asking)) => Some(asking),
                // It is undone as far as that is possible.
                Ok(Live::Gone) => return None,
                Err(away) => return Some(self.retry(away, 0)),
            };
        }
        self.unwitnessed_by_the_object()
    }

    /// The same where the object was just read. Status may not show the job yet: the controller either comes to show it, or takes
    /// it for one that nothing bears out.
    pub(super) fn unwitnessed_by_the_object(&mut self) -> Option<StepOutcome> {
        if self.needs_no_witness() {
            return None;
        }
        let asking = self.asking.as_ref()?;
        self.is_witnessed = confirm::is_borne_out(&self.first_request(), asking);
        if self.is_witnessed {
            return None;
        }
        if self.claim().cancel() != Some(Reason::HistoryLost) {
            return Some(confirm::wait_for_status());
        }
        let message = format!(
            "the database has this job as begun, at step {}, and nothing in the cluster bears that out: nothing was sent for it",
            self.step()
        );
        Some(StepOutcome::Superseded { problem: Problem::new(Reason::UnexplainedJob, message) })
    }
}
