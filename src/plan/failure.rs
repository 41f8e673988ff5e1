//! What failed for good: it is not tried again until the intent or the cause differs.

use super::{Observation, Work, word, work};
use crate::api::{FailureScope, Reason};
use crate::job::{Action, Effect, StoredFailure};

/// The stored failures, the last one first.
fn stored(seen: &Observation) -> impl Iterator<Item = &StoredFailure> {
    let last = seen.known.as_ref().and_then(|known| known.failure.as_ref());
    std::iter::successors(last, |failure| failure.behind.as_deref())
}

/// Whether nothing that caused a failure has changed, and no good reading since then shows that it is over.
fn stands(seen: &Observation, failure: &StoredFailure) -> bool {
    let last_read_ms = seen.known.as_ref().and_then(|known| known.last_good_read_ms);
    let read_since = last_read_ms.is_some_and(|at| at > failure.at_ms);
    let over = read_since && failure.problem.reason.failure_scope() == FailureScope::Bmc;
    still_caused(seen, failure) && !over
}

fn standing(seen: &Observation) -> impl Iterator<Item = &StoredFailure> {
    stored(seen).filter(|failure| stands(seen, failure))
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

/// After how long a machine that shall be on and did not come on is switched on again, in milliseconds.
const POWER_ON_AGAIN_MS: i64 = 900_000;

/// When what failed is tried again although nothing changed: switching on harms nothing, and a machine that is off serves
/// nobody.
pub(super) fn tried_again_at_ms(seen: &Observation) -> Option<i64> {
    let failure = standing(seen).find(|failure| failure.action == Action::PowerOn)?;
    (failure.problem.reason.failure_scope() == FailureScope::Intent)
        .then_some(failure.at_ms + POWER_ON_AGAIN_MS)
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
        (FailureScope::Intent, _) => {
            let again = failure.action == Action::PowerOn
                && tried_again_at_ms(seen).is_some_and(|at| seen.now_ms >= at);
            failure.intent == work.intent && !again
        }
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

/// The failure that a person should know of: it concerns the BMC, is in the way of what is wished, or is a wish of one time
/// that did not come true.
pub(super) fn to_show(seen: &Observation) -> Option<&StoredFailure> {
    stored(seen).find(|failure| {
        let stands = stands(seen, failure);
        let pending = || work::pending(seen).is_some_and(|work| work.intent == failure.intent);
        match (failure.problem.reason.failure_scope(), failure.action) {
            (FailureScope::Bmc, _) | (_, Action::Inspect) => stands,
            // Asked for once, by a token perhaps that is handled: told until it comes true or is asked for no more, whatever
            // else changes meanwhile.
            (_, action) if action == Action::Reboot || action.effect() == Effect::Destructive => {
                let live = seen.job.as_ref().is_some_and(|job| job.intent == failure.intent);
                let is_wished = failure.intent == seen.intent(action);
                is_wished && (stands || (word::objection(seen, action).is_none() && !live && !pending()))
            }
            _ => stands && pending(),
        }
    })
}
