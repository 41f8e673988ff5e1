//! What failed for good: it is not tried again until the intent or the cause differs.

use super::{Observation, Work, work};
use crate::api::{FailureScope, Reason};
use crate::job::{Action, Effect, StoredFailure};

/// The stored failures, the last one first, while nothing that caused them has changed and no good reading since then shows
/// that they are over.
fn standing(seen: &Observation) -> impl Iterator<Item = &StoredFailure> {
    let known = seen.known.as_ref();
    let last_read_ms = known.and_then(|known| known.last_good_read_ms);
    let last = known.and_then(|known| known.failure.as_ref());
    std::iter::successors(last, |failure| failure.behind.as_deref()).filter(move |failure| {
        let read_since = last_read_ms.is_some_and(|at| at > failure.at_ms);
        let over = read_since && failure.problem.reason.failure_scope() == FailureScope::Bmc;
        still_caused(seen, failure) && !over
    })
}

/// Whether nothing has changed since that could cure it. What an earlier release stored tells nothing of what caused it: it
/// stands until somebody asks for another try, or wishes something else.
pub(super) fn still_caused(seen: &Observation, failure: &StoredFailure) -> bool {
    let now = seen.cause(failure.action);
    if failure.cause.is_of_earlier_release() {
        let known = seen.known.as_ref().and_then(|known| known.reconcile_request.as_ref());
        return !seen.look_requested() && known.is_none_or(|asked| asked.at_ms <= failure.at_ms);
    }
    let cured = failure.problem.reason.is_cured_by_access() && !failure.cause.same_access(&now);
    let destroys = failure.action.effect() == Effect::Destructive;
    failure.cause.same_wish(&now) && (destroys || !cured)
}

/// Whether what keeps us from the BMC may be over because it is reached in another way now. A look changes nothing; what
/// destroys data begins only after it went well.
pub(super) fn is_worth_a_look_now(seen: &Observation) -> bool {
    standing(seen).any(|failure| {
        failure.problem.reason.failure_scope() == FailureScope::Bmc
            && !failure.cause.same_access(&seen.cause(failure.action))
    })
}

/// The failure that keeps `work` from being enqueued.
pub(super) fn in_the_way<'a>(seen: &'a Observation, work: &Work) -> Option<&'a StoredFailure> {
    standing(seen).find(|failure| match (failure.problem.reason.failure_scope(), work.action) {
        // A look changes nothing, and may find that the failure is over.
        (FailureScope::Bmc, Action::Inspect) => {
            !worth_a_look(failure.problem.reason) && !is_worth_a_look_now(seen)
        }
        (FailureScope::Bmc, _) => true,
        (FailureScope::Intent, Action::Inspect) => false,
        (FailureScope::Intent, _) => failure.intent == work.intent,
    })
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

/// The failure that a person should know of: it concerns the BMC, is in the way of what is wished, or is a reboot
/// that did not come true.
pub(super) fn to_show(seen: &Observation) -> Option<&StoredFailure> {
    standing(seen).find(|failure| match (failure.problem.reason.failure_scope(), failure.action) {
        (FailureScope::Bmc, _) | (_, Action::Reboot | Action::Inspect) => true,
        // Whether it is wished again or not, nobody knows what is on that machine.
        (_, action) if action.effect() == Effect::Destructive => true,
        _ => work::pending(seen).is_some_and(|work| work.intent == failure.intent),
    })
}
