//! Letting a machine go. Every way ends: `Retain` at once or after a bounded undo, `PowerOff` after bounded attempts.

use super::{Command, Farewell, Observation, Work, claims, live_job};
use crate::api::{FailureScope, Reason};
use crate::job::Visibility;
use crate::job::{Action, Deleting, Effect, JobResult, LiveJob};

/// A job of another release is left to that one, whatever is wished: nobody here knows what it has begun. A deletion
/// waits for its end as long as for an undo, and then goes without it.
pub(super) fn unreadable(seen: &Observation) -> Option<Command> {
    let job = seen.unreadable_job.as_ref()?;
    let settings = &seen.settings;
    let over = |patience_ms: i64| seen.has_finalizer() && seen.deleting_for_ms() >= patience_ms;
    Some(match seen.deleting() {
        Deleting::Retain if over(settings.undo_wait_ms) => Command::Release(Farewell::WithoutUndo),
        Deleting::PowerOff if !seen.paused() && over(settings.power_off_wait_ms + settings.undo_wait_ms) => {
            Command::Release(Farewell::WithoutPowerOff)
        }
        _ => Command::Nothing(job.problem.reason),
    })
}

/// With `Retain` nothing else counts, paused or not.
pub(super) fn with_retain(seen: &Observation) -> Option<Command> {
    if seen.deleting() == Deleting::No {
        return None;
    }
    if !seen.has_finalizer() {
        return Some(Command::Nothing(Reason::Deleting));
    }
    (seen.deleting() == Deleting::Retain).then(|| match &seen.job {
        None => Command::Release(Farewell::Clean),
        Some(job) => stop_then(seen, job, seen.settings.undo_wait_ms, Farewell::Clean),
    })
}

/// Stops a job and waits for its undo until `patience_ms` after the deletion was asked for; without its Secret there
/// is no way to undo anything.
fn stop_then(seen: &Observation, job: &LiveJob, patience_ms: i64, farewell: Farewell) -> Command {
    if job.cancel.is_none() {
        return Command::Cancel { id: job.id, reason: Reason::Deleting };
    }
    if seen.secret.is_some() && seen.deleting_for_ms() < patience_ms {
        return Command::Nothing(Reason::Cancelling);
    }
    let begun =
        job.request_stored && !job.action.undo().is_empty() || job.action.effect() == Effect::Destructive;
    Command::Release(if begun { Farewell::WithoutUndo } else { farewell })
}

/// With `PowerOff` the machine is powered off first, within its time.
pub(super) fn with_power_off(seen: &Observation) -> Option<Command> {
    if seen.deleting() != Deleting::PowerOff {
        return None;
    }
    let known = seen.known.as_ref()?;
    let work = Work::new(seen, Action::PowerOff, Visibility::Shown)?;
    let done = known.last_job.as_ref().is_some_and(|last| {
        let already = last.problem.as_ref().is_some_and(|problem| problem.reason == Reason::AlreadyDone);
        last.intent == work.intent && (last.result == JobResult::Succeeded || already)
    });
    if done && seen.job.is_none() {
        return Some(Command::Release(Farewell::Clean));
    }
    if hopeless(seen, &work) {
        return Some(match &seen.job {
            None => Command::Release(Farewell::WithoutPowerOff),
            Some(job) => {
                let patience_ms = seen.settings.power_off_wait_ms + seen.settings.undo_wait_ms;
                stop_then(seen, job, patience_ms, Farewell::WithoutPowerOff)
            }
        });
    }
    // Only a machine whose BMC is claimed for this Server may be switched off.
    if known.claimed_address.as_deref() != Some(seen.address()) {
        return claims::rule(seen);
    }
    Some(live_job::settle(seen, Some(work)))
}

/// Whether powering off cannot come true any more: its time is over, it failed for good, nobody can log in, or the
/// BMC is not this Server's.
fn hopeless(seen: &Observation, work: &Work) -> bool {
    let for_ms = seen.deleting_for_ms();
    let failure = seen.known.as_ref().and_then(|known| known.failure.as_ref());
    let failed = failure.is_some_and(|failure| {
        let bmc =
            failure.problem.reason.failure_scope() == FailureScope::Bmc && failure.cause == seen.cause();
        failure.intent == work.intent || bmc
    });
    failed
        || for_ms >= seen.settings.power_off_wait_ms
        || (seen.secret.is_none() && for_ms >= seen.settings.undo_wait_ms)
        || seen.bmc_address.is_err()
        || claims::refusal(seen).is_some()
}
