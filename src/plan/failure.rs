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

/// After how long a machine that shall be on and did not come on is switched on again, in milliseconds.
const POWER_ON_AGAIN_MS: i64 = 900_000;

/// When what failed is tried again although nothing changed: switching on harms nothing, and a machine that is off serves
/// nobody.
pub(super) fn tried_again_at_ms(seen: &Observation) -> Option<i64> {
    let failure = standing(seen).filter(|failure| failure.action == Action::PowerOn)?;
    (failure.problem.reason.failure_scope() == FailureScope::Intent)
        .then_some(failure.at_ms + POWER_ON_AGAIN_MS)
}

/// The failure that keeps `work` from being enqueued.
pub(super) fn in_the_way<'a>(seen: &'a Observation, work: &Work) -> Option<&'a StoredFailure> {
    let failure = standing(seen)?;
    let blocks = match (failure.problem.reason.failure_scope(), work.action) {
        // A look changes nothing, and may find that the failure is over.
        (FailureScope::Bmc, Action::Inspect) => !worth_a_look(failure.problem.reason),
        (FailureScope::Bmc, _) => true,
        (FailureScope::Intent, Action::Inspect) => false,
        (FailureScope::Intent, _) => {
            let again = tried_again_at_ms(seen).is_some_and(|at| seen.now_ms >= at);
            failure.intent == work.intent && !again
        }
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

/// The failure that a person should know of: it concerns the BMC, is in the way of what is wished, or is a reboot
/// that did not come true.
pub(super) fn to_show(seen: &Observation) -> Option<&StoredFailure> {
    let failure = standing(seen)?;
    let matters = match (failure.problem.reason.failure_scope(), failure.action) {
        (FailureScope::Bmc, _) | (_, Action::Reboot | Action::Inspect) => true,
        // Whether it is wished again or not, nobody knows what is on that machine.
        (_, action) if action.effect() == Effect::Destructive => true,
        _ => work::pending(seen).is_some_and(|work| work.intent == failure.intent),
    };
    matters.then_some(failure)
}
