//! When to look again although nothing happened: the next moment at which the answer may differ by time alone.

use super::{Observation, inspect};
use crate::job::Deleting;

/// Milliseconds from now; at least a moment, so that a boundary that was just missed does not spin.
pub(super) fn after_ms(seen: &Observation) -> Option<i64> {
    let settings = &seen.settings;
    let known = seen.known.as_ref();
    let deleted_at_ms = seen.now_ms - seen.deleting_for_ms();
    let moments = [
        (!seen.paused() && seen.secret.is_some()).then(|| inspect::decided_again_at_ms(seen)).flatten(),
        known.and_then(|known| known.last_good_read_ms).map(|at| at + settings.fresh_bound_ms),
        seen.job.as_ref().and_then(|job| job.problem_since_ms).map(|at| at + settings.stalled_after_ms),
        known
            .and_then(|known| known.unanswered.as_ref())
            .map(|silence| silence.since_ms + settings.stalled_after_ms),
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
