//! When to look again although nothing happened: the next moment at which the answer may differ by time alone.

use super::lifecycle::{self, Life};
use super::{Observation, budget, debt, deletion, failure, inspect, work};
use crate::job::Deleting;

/// Milliseconds from now; at least a moment, so that a boundary that was just missed does not spin.
pub(super) fn after_ms(seen: &Observation) -> Option<i64> {
    let settings = &seen.settings;
    let known = seen.known.as_ref();
    let deleted_at_ms = seen.now_ms - seen.deleting_for_ms();
    let moments = [
        looked_at(seen).then(|| inspect::decided_again_at_ms(seen)).flatten(),
        known.and_then(|known| known.last_good_read_ms).map(|at| at + settings.fresh_bound_ms),
        seen.job.as_ref().and_then(|job| job.problem_since_ms).map(|at| at + settings.stalled_after_ms),
        known
            .and_then(|known| known.unanswered.as_ref())
            .map(|silence| silence.since_ms + settings.stalled_after_ms),
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
