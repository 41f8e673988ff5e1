//! When to look again although nothing happened: the next moment at which the answer may differ by time alone.

use super::lifecycle::{self, Life};
use super::{Command, Observation, budget, debt, deletion, failure, inspect, situation, work};
use crate::job::{Action, Deleting};

/// How soon a state in between is looked at again.
pub(super) const IN_BETWEEN_MS: i64 = 3_000;

/// Milliseconds from now; at least a moment, so that a boundary that was just missed does not spin.
pub(super) fn after_ms(seen: &Observation, command: &Command) -> Option<i64> {
    let soon = in_between(seen, command).then_some(IN_BETWEEN_MS);
    next_moment(seen).into_iter().chain(soon).min()
}

/// Whether something waits for the end of a job, or for a job that is not there. Its end is told; should that be lost, or
/// should nobody have to tell it, nobody waits for long.
fn in_between(seen: &Observation, command: &Command) -> bool {
    if !matches!(command, Command::Nothing(_)) {
        return false;
    }
    match &seen.job {
        Some(job) if job.cancel.is_some() => true,
        Some(job) => job.action == Action::Inspect && seen.look_requested(),
        None => situation::not_enqueued_yet(seen, command) || debt::is_not_shown_yet(seen),
    }
}

fn next_moment(seen: &Observation) -> Option<i64> {
    let settings = &seen.settings;
    let deleted_at_ms = seen.now_ms - seen.deleting_for_ms();
    let moments = [
        looked_at(seen).then(|| inspect::decided_again_at_ms(seen)).flatten(),
        seen.last_good_read_ms().map(|at| at + settings.fresh_bound_ms),
        seen.job.as_ref().and_then(|job| job.problem_since_ms).map(|at| at + settings.stalled_after_ms),
        seen.unanswered().map(|silence| silence.since_ms + settings.stalled_after_ms),
        debt::decided_again_at_ms(seen),
        failure::tried_again_at_ms(seen),
        waits_for_the_next_hour(seen).then(|| budget::next_moment_ms(seen)),
    ];
    let deletion = [
        deleted_at_ms + settings.undo_wait_ms,
        deleted_at_ms + settings.power_off_wait_ms,
        deleted_at_ms + settings.power_off_wait_ms + settings.undo_wait_ms,
    ]
    .map(|at| (seen.deleting() != Deleting::No).then_some(at));
    moments
        .into_iter()
        .chain(deletion)
        .flatten()
        .filter(|at| *at > seen.now_ms)
        .map(|at| at - seen.now_ms + 50)
        .min()
}

fn looked_at(seen: &Observation) -> bool {
    !seen.paused() && seen.secret.is_some() && lifecycle::life(seen) != Life::Ended
}

fn waits_for_the_next_hour(seen: &Observation) -> bool {
    let pending = work::pending(seen).and_then(|work| budget::in_the_way(seen, &work));
    pending.or_else(|| deletion::wipe_over_budget(seen)).is_some()
}
