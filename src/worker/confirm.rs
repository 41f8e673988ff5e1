//! What the live `Server` has against the first request of a job. Pure: it is read right before.
//!
//! A row of the database alone destroys nothing: it may be forged, or lack its last commits. So what destroys data has a
//! second witness, the live status, which has to show this very job as running.

use super::contact::wish_changed;
use super::session::{self, Asking};
use crate::api::hardware::PowerState;
use crate::api::{Reason, Server, ServerStatus};
use crate::job::{
    self, Action, Contents, Debt, Effect, HandledTokens, Intent, JobId, JobState, Objection, Problem,
    ServerUid, Stage, StepOutcome, WaitingFor,
};

/// Between two looks for the second witness: the controller shows what was claimed within about a second.
pub(super) const WITNESS_PAUSE_MS: i64 = 1_000;

/// The job whose first request is about to be stored.
pub(super) struct FirstRequest<'a> {
    pub(super) uid: &'a ServerUid,
    pub(super) id: JobId,
    pub(super) action: Action,
    pub(super) intent: &'a Intent,
    /// Whether a request of it was stored before, of which a look said that it did not happen.
    pub(super) begun: bool,
    /// Whether any request of it may have been carried out: until then a person's word is asked for again.
    pub(super) acted: bool,
    /// The tokens that the database has as handled.
    pub(super) handled: &'a HandledTokens,
    /// What the database knows of the machine's disks.
    pub(super) contents: Option<&'a Contents>,
    /// The power state as it was read last.
    pub(super) power: Option<PowerState>,
    /// That the machine has to be on again, as the database knows it.
    pub(super) debt: Option<&'a Debt>,
}

/// Why nothing may be sent now; the step ends like this.
pub(super) fn objection(asked: &FirstRequest<'_>, asking: &Asking) -> Option<StepOutcome> {
    let server = &asking.server;
    if session::intent(asked.action, asked.uid, asking) != *asked.intent {
        return Some(wish_changed());
    }
    let status = server.status.as_ref();
    let last = status.and_then(|status| status.last_job.as_ref());
    if last.and_then(|last| JobId::parse(&last.id)) == Some(asked.id) {
        return Some(forgotten("status shows that this job has ended"));
    }
    let against = against(asked, asking);
    let already = || if asked.begun { None } else { already_handled(asked, server) };
    let outcome = match against {
        // What is there already needs nobody's word.
        Some(Objection::Unconfirmed(_) | Objection::LifeEnded) | None => {
            already().or_else(|| against.map(ends_as))
        }
        // Status may not show yet what a job left off. What it never will show the controller takes away.
        Some(Objection::NoPowerOn) if asked.debt.is_some() => Some(wait_for_status()),
        Some(against) => Some(ends_as(against)),
    };
    if outcome.is_some() {
        return outcome;
    }
    (!is_witnessed(asked.action, asked.id, status)).then(wait_for_status)
}

pub(super) const fn wait_for_status() -> StepOutcome {
    StepOutcome::Park { after_ms: WITNESS_PAUSE_MS, waiting_for: WaitingFor::Status }
}

/// Whether the token of this action is handled, or its image is installed, without this job having begun.
fn already_handled(asked: &FirstRequest<'_>, server: &Server) -> Option<StepOutcome> {
    if asked.action.wipes() {
        let empty =
            matches!(newest(asked, server), Some(Contents::Decommissioned { .. } | Contents::Wiped { .. }));
        return empty.then(|| done_already("the disks are erased"));
    }
    let kind = asked.action.token()?;
    let token = kind.of(&server.spec);
    let known = asked.handled.is_handled(kind, token);
    let shown = token.is_some() && HandledTokens::shown(server.status.as_ref()).is_handled(kind, token);
    if asked.action.installs() {
        // Another name installs as well, whatever the token says.
        let there = matches!(
            (newest(asked, server), &server.spec.image),
            (Some(Contents::Image(image)), Some(wish)) if image.name == wish.name
        );
        return match (known || shown, there) {
            (true, true) => Some(done_already("the image is installed")),
            (true, false) if !known => Some(forgotten("status has the token as handled")),
            _ => None,
        };
    }
    match (token, known, shown) {
        (None, ..) | (_, false, false) => None,
        (_, true, _) => Some(done_already("the token is recorded as handled")),
        (_, false, true) => Some(forgotten("status has the token as handled")),
    }
}

fn newest(asked: &FirstRequest<'_>, server: &Server) -> Option<Contents> {
    Contents::witnessed(asked.contents, server).contents()
}

fn done_already(sign: &str) -> StepOutcome {
    StepOutcome::Superseded {
        problem: Problem::new(Reason::AlreadyDone, format!("{sign}: nothing was sent")),
    }
}

/// What the object itself has against it, whatever the row of the job says.
fn against(asked: &FirstRequest<'_>, asking: &Asking) -> Option<Objection> {
    let server = &asking.server;
    let contents = newest(asked, server);
    let image = asking.image.as_ref().filter(|_| asked.action.installs());
    let asked = job::Asked {
        action: asked.action,
        stage: if asked.acted { Stage::Again } else { Stage::First },
        server,
        uid: asked.uid,
        contents: contents.as_ref(),
        // A machine that was never read may run anything.
        power: Some(asked.power.unwrap_or(PowerState::Unknown)),
        debt: asked.debt.filter(|debt| debt.is_witnessed(server)),
        image: image.map(|image| image.name.as_str()),
    };
    asked.objection()
}

/// How the step ends where the object has this against it.
fn ends_as(against: Objection) -> StepOutcome {
    let problem = match against {
        Objection::Paused => Problem::new(Reason::Paused, "spec.paused is true: nothing was sent"),
        Objection::Unconfirmed(reason) => Problem::new(
            reason,
            "nobody confirmed that the data on the machine may be given up: nothing was sent",
        ),
        Objection::LifeEnded => Problem::new(Reason::Decommissioned, format!("{against}: nothing was sent")),
        Objection::AnotherServer
        | Objection::Deleted
        | Objection::Decommissioned
        | Objection::NoImage
        | Objection::AnotherImage
        | Objection::Adopted
        | Objection::NoWipe
        | Objection::NoPowerOff
        | Objection::NoPowerOn
        | Objection::NoReboot => return wish_changed(),
    };
    StepOutcome::Superseded { problem }
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
