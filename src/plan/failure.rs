//! What failed for good: it is not tried again until the intent or the cause differs.

use super::{Observation, Work, work};
use crate::api::{FailureScope, Reason};
use crate::job::{Action, Effect, StoredFailure};

/// The stored failure, while nothing that caused it has changed and no good reading since then shows that it is over.
fn standing(seen: &Observation) -> Option<&StoredFailure> {
    let known = seen.known.as_ref()?;
    let failure = known.failure.as_ref()?;
    let read_since = known.last_good_read_ms.is_some_and(|at| at > failure.at_ms);
    let over = read_since && failure.problem.reason.failure_scope() == FailureScope::Bmc;
    (failure.cause == seen.cause() && !over).then_some(failure)
}

/// The failure that keeps `work` from being enqueued.
pub(super) fn in_the_way<'a>(seen: &'a Observation, work: &Work) -> Option<&'a StoredFailure> {
    let failure = standing(seen)?;
    let blocks = match (failure.problem.reason.failure_scope(), work.action) {
        // A look changes nothing, and may find that the failure is over.
        (FailureScope::Bmc, Action::Inspect) => !worth_a_look(failure.problem.reason),
        (FailureScope::Bmc, _) => true,
        (FailureScope::Intent, Action::Inspect) => false,
        (FailureScope::Intent, _) => failure.intent == work.intent,
    };
    blocks.then_some(failure)
}

/// Whether asking the BMC again can do no harm and may help.
const fn worth_a_look(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::CredentialsInvalid
            | Reason::CredentialsMissing
            | Reason::InvalidAddress
            | Reason::BMCClaimed
            | Reason::IdentityConflict
    )
}

/// The failure that a person should know of: it concerns the BMC, is in the way of what is wished, or is a wish of one time
/// that did not come true.
pub(super) fn to_show(seen: &Observation) -> Option<&StoredFailure> {
    let failure = seen.known.as_ref()?.failure.as_ref()?;
    let stands = standing(seen).is_some();
    let pending = || work::pending(seen).is_some_and(|work| work.intent == failure.intent);
    let matters = match (failure.problem.reason.failure_scope(), failure.action) {
        (FailureScope::Bmc, _) | (_, Action::Inspect) => stands,
        // Asked for once, by a token perhaps that is handled: told until it comes true or is asked for no more, whatever else
        // changes meanwhile.
        (_, action) if action == Action::Reboot || action.effect() == Effect::Destructive => {
            let live = seen.job.as_ref().is_some_and(|job| job.intent == failure.intent);
            let is_wished = failure.intent == seen.intent(action);
            is_wished && (stands || (action.is_asked_by(&seen.server) && !live && !pending()))
        }
        _ => stands && pending(),
    };
    matters.then_some(failure)
}
