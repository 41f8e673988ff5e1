//! A job that has begun, as the database says, and that nothing in the cluster bears out: a row that somebody wrote, or one of a
//! history that nobody was told of. It is not shown, because what status shows is what its worker goes by, and it has to go.

use super::{Command, Observation, word};
use crate::api::Reason;
use crate::job::LiveJob;

pub(super) fn rule(seen: &Observation) -> Option<Command> {
    let job = seen.job.as_ref().filter(|job| is_unwitnessed(seen, job))?;
    (job.cancel != Some(Reason::HistoryLost))
        .then_some(Command::Cancel { id: job.id, reason: Reason::HistoryLost })
}

/// What this process enqueued or showed needs no other witness: somebody may have taken it out of status.
pub(super) fn is_unwitnessed(seen: &Observation, job: &LiveJob) -> bool {
    job.has_begun() && seen.own_job != Some((job.id, job.action)) && !word::is_witnessed(seen, job)
}
