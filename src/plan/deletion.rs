//! Letting a machine go. `Retain` ends at once or after a bounded undo, `PowerOff` after bounded attempts; `Wipe` holds
//! until the disks are verified clean, or a person lets it go.

use super::lifecycle::Life;
use super::{
    Command, Farewell, Observation, Work, budget, claims, debt, failure, image, inspect, lifecycle, live_job,
    word,
};
use crate::api::{FailureScope, Reason, names};
use crate::job::{Action, Contents, Deleting, Effect, JobResult, LiveJob, Problem, Visibility};

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
        Deleting::Wipe if word::is_given(seen, names::ABANDON) && over(settings.undo_wait_ms) => {
            Command::Release(Farewell::WithoutWipe)
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
    (seen.deleting() == Deleting::Retain).then(|| {
        let farewell = if debt::is_off(seen) { Farewell::LeftPoweredOff } else { Farewell::Clean };
        match &seen.job {
            _ if is_switched_on_first(seen) => match debt::wanted(seen) {
                Some(work) if seen.job.is_none() => Command::Enqueue(work),
                _ => Command::Nothing(Reason::PoweringOn),
            },
            None => Command::Release(farewell),
            Some(job) => stop_then(seen, job, seen.settings.undo_wait_ms, farewell),
        }
    })
}

/// Whether a machine that a job left off is still being switched on: as long as for an undo.
pub(super) fn is_switched_on_first(seen: &Observation) -> bool {
    let free = seen.job.as_ref().is_none_or(|job| {
        job.action == Action::PowerOn && job.cancel.is_none() && job.intent == seen.intent(Action::PowerOn)
    });
    let within = seen.deleting_for_ms() < seen.settings.undo_wait_ms;
    free && within && debt::is_off(seen) && debt::to_pay(seen).is_some() && debt::can_be_paid(seen)
}

/// Stops a job and waits for its undo until `patience_ms` after the deletion was asked for; without its Secret there
/// is no way to undo anything, and a look has nothing to undo.
fn stop_then(seen: &Observation, job: &LiveJob, patience_ms: i64, farewell: Farewell) -> Command {
    if job.action.effect() == Effect::ReadOnly {
        return Command::Release(farewell);
    }
    if job.cancel.is_none() {
        return Command::Cancel { id: job.id, reason: Reason::Deleting };
    }
    if seen.secret.is_some() && seen.deleting_for_ms() < patience_ms {
        return Command::Nothing(Reason::Cancelling);
    }
    let begun =
        job.request_stored && !job.action.undo().is_empty() || job.action.effect() == Effect::Destructive;
    Command::Release(match farewell {
        Farewell::LeftPoweredOff => farewell,
        _ if begun => Farewell::WithoutUndo,
        _ => farewell,
    })
}

/// With `PowerOff` the machine is powered off first, within its time.
pub(super) fn with_power_off(seen: &Observation) -> Option<Command> {
    if seen.deleting() != Deleting::PowerOff {
        return None;
    }
    let known = seen.known.as_ref()?;
    // What was decommissioned is off, and nothing is done to it any more.
    if lifecycle::life(seen) == Life::Ended && seen.job.is_none() {
        return Some(Command::Release(Farewell::Clean));
    }
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
        let bmc = failure.problem.reason.failure_scope() == FailureScope::Bmc
            && failure::still_caused(seen, failure);
        failure.intent == work.intent || bmc
    });
    failed
        || for_ms >= seen.settings.power_off_wait_ms
        || (seen.secret.is_none() && for_ms >= seen.settings.undo_wait_ms)
        || seen.bmc_address.is_err()
        || claims::refusal(seen).is_some()
}

/// With `Wipe` the disks are erased first. Nothing but that, or a person, lets the machine go.
pub(super) fn with_wipe(seen: &Observation) -> Option<Command> {
    if seen.deleting() != Deleting::Wipe {
        return None;
    }
    let known = seen.known.as_ref()?;
    if word::is_given(seen, names::ABANDON) {
        return Some(match &seen.job {
            None => Command::Release(Farewell::WithoutWipe),
            Some(job) => stop_then(seen, job, seen.settings.undo_wait_ms, Farewell::WithoutWipe),
        });
    }
    if is_clean(seen) && seen.job.is_none() {
        return Some(Command::Release(Farewell::Clean));
    }
    if let Some(problem) = wipe_blocked(seen) {
        let work = seen.job.is_some().then(|| live_job::settle(seen, None));
        return Some(work.unwrap_or(Command::Nothing(problem.reason)));
    }
    // Only a machine whose BMC is claimed for this Server may be erased.
    if known.claimed_address.as_deref() != Some(seen.address()) || claims::refusal(seen).is_some() {
        return claims::rule(seen);
    }
    let wanted = if lifecycle::was_read(seen) { wipe(seen) } else { inspect::wanted(seen) };
    Some(live_job::settle(seen, wanted.filter(|_| seen.secret.is_some())))
}

/// Whether the disks were erased and nothing was seen on the machine since.
fn is_clean(seen: &Observation) -> bool {
    matches!(image::contents(seen), Some(Contents::Wiped { .. } | Contents::Decommissioned { .. }))
}

/// What keeps a deletion with `Wipe` from its wipe, where a person is needed.
pub(super) fn wipe_blocked(seen: &Observation) -> Option<Problem> {
    if is_clean(seen) {
        return None;
    }
    if let Some(reason) = word::missing(seen, Action::Wipe) {
        let message = format!(
            "deletionPolicy is Wipe: the disks are erased before the object goes. If that is meant: {}",
            word::to_confirm(seen)
        );
        return Some(Problem::new(reason, message));
    }
    lifecycle::wipe_image_missing(seen)
}

/// The wipe that a deletion is for, where nothing is in its way.
pub(super) fn wipe(seen: &Observation) -> Option<Work> {
    seen.secret.as_ref()?;
    let work = Work::new(seen, Action::Wipe, Visibility::Shown)?;
    let free = failure::in_the_way(seen, &work).is_none() && budget::in_the_way(seen, &work).is_none();
    free.then_some(work)
}

/// What a wipe that is due waits for, where that is the budget.
pub(super) fn wipe_over_budget(seen: &Observation) -> Option<Problem> {
    let work = Work::new(seen, Action::Wipe, Visibility::Shown)?;
    (seen.deleting() == Deleting::Wipe && seen.job.is_none())
        .then(|| budget::in_the_way(seen, &work))
        .flatten()
}
