//! What the live `Server` has against the first request of a job. Pure: it is read right before.
//!
//! A row of the database alone destroys nothing: it may be forged, or lack its last commits. So what destroys data has a
//! second witness, the live status, which has to show this very job as running.

use super::contact::wish_changed;
use super::session;
use crate::api::{Reason, Server, ServerStatus};
use crate::job::{
    Action, Effect, HandledTokens, Intent, JobId, JobState, Problem, ServerUid, StepOutcome, WaitingFor,
};

/// Between two looks for the second witness: the controller shows what was claimed within about a second.
const WITNESS_PAUSE_MS: i64 = 1_000;

/// The job whose first request is about to be stored.
pub(super) struct Asked<'a> {
    pub(super) uid: &'a ServerUid,
    pub(super) id: JobId,
    pub(super) action: Action,
    pub(super) intent: &'a Intent,
    /// Whether a request of it was stored before, of which a look said that it did not happen.
    pub(super) begun: bool,
    /// The tokens that the database has as handled.
    pub(super) handled: &'a HandledTokens,
}

/// Why nothing may be sent now; the step ends like this.
pub(super) fn objection(asked: &Asked<'_>, server: &Server) -> Option<StepOutcome> {
    if session::intent(asked.action, asked.uid, server) != *asked.intent {
        return Some(wish_changed());
    }
    let status = server.status.as_ref();
    let last = status.and_then(|status| status.last_job.as_ref());
    if last.and_then(|last| JobId::parse(&last.id)) == Some(asked.id) {
        return Some(forgotten("status shows that this job has ended"));
    }
    if server.spec.paused == Some(true) {
        let problem = Problem::new(Reason::Paused, "spec.paused is true: nothing was sent");
        return Some(StepOutcome::Superseded { problem });
    }
    let token = server.spec.reboot_token.as_deref().filter(|_| asked.action == Action::Reboot);
    let shown = status.map(|status| status.reboot_tokens.as_slice()).unwrap_or_default();
    if let (Some(token), false) = (token, asked.begun) {
        if asked.handled.reboot_is_handled(Some(token)) {
            let message = "the token is recorded as handled: nothing was sent";
            return Some(StepOutcome::Superseded { problem: Problem::new(Reason::AlreadyDone, message) });
        }
        if shown.iter().any(|handled| handled == token) {
            return Some(forgotten("status has the token as handled"));
        }
    }
    (!is_witnessed(asked.action, asked.id, status))
        .then_some(StepOutcome::Park { after_ms: WITNESS_PAUSE_MS, waiting_for: WaitingFor::Status })
}

/// Whether this job may act: one that destroys data only while the live status shows this very job as running. Parked
/// counts: a claim after a pause is not shown by itself.
fn is_witnessed(action: Action, id: JobId, status: Option<&ServerStatus>) -> bool {
    if action.effect() != Effect::Destructive {
        return true;
    }
    let Some(shown) = status.and_then(|status| status.job.as_ref()) else { return false };
    let running = matches!(shown.state, JobState::Running | JobState::Waiting) && shown.started_at.is_some();
    JobId::parse(&shown.id) == Some(id) && running
}

/// The database lost what became of this job: it is not done again.
fn forgotten(sign: &str) -> StepOutcome {
    let message = format!("{sign}: the database forgot it, and nothing was sent");
    StepOutcome::Superseded { problem: Problem::new(Reason::HistoryLost, message) }
}

#[cfg(test)]
#[path = "confirm_test.rs"]
mod tests;
