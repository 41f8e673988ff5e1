//! Looking at a machine: first of all, then once per period, sooner where a power state is in transition.

use sha2::{Digest, Sha256};

use super::lifecycle::{self, Life};
use super::power::{self, PowerSync};
use super::{Observation, Work, failure, reboot};
use crate::api::Reason;
use crate::api::hardware::PowerState;
use crate::job::Action;
use crate::job::Visibility;

/// Between two looks at a machine of which nothing is known yet through the address and login that spec gives now: one that
/// was begun with those before may end in between.
const ELSEWHERE_PAUSE_MS: i64 = 2_000;

/// Whether the BMC was asked, and not through the address and login that spec gives now.
fn is_elsewhere(seen: &Observation) -> bool {
    let silent = seen.known.as_ref().is_some_and(|known| known.unanswered.is_some());
    (seen.is_read_elsewhere() || silent && seen.reading().is_none()) && seen.unanswered().is_none()
}

/// When the next look is due; `None`: at once, nothing is known yet.
pub(super) fn due_at_ms(seen: &Observation) -> Option<i64> {
    let known = seen.known.as_ref()?;
    let last_try_ms = known.last_try_ms?;
    if is_elsewhere(seen) {
        return Some(last_try_ms + ELSEWHERE_PAUSE_MS);
    }
    let asked = (seen.look_requested() || failure::is_worth_a_look_now(seen)).then_some(last_try_ms);
    // Nobody knows what was done to the machine of a job that nobody began.
    let unexplained = known.last_job.as_ref().is_some_and(|last| {
        let reason = last.problem.as_ref().map(|problem| problem.reason);
        reason == Some(Reason::UnexplainedJob) && last.finished_at_ms > last_try_ms
    });
    let unexplained = unexplained.then_some(last_try_ms);
    let soon = in_transition(seen).then_some(last_try_ms + seen.settings.transition_period_ms);
    let regular = next_turn_ms(seen, last_try_ms);
    Some([asked, unexplained, soon].into_iter().flatten().fold(regular, i64::min))
}

/// When to decide about a look again. One that is under way ends without a word if it finds nothing new, so nothing but
/// time brings up the one after it.
pub(super) fn decided_again_at_ms(seen: &Observation) -> Option<i64> {
    let due = due_at_ms(seen)?;
    let late = seen.now_ms - due;
    if late < 0 {
        return Some(due);
    }
    let settings = &seen.settings;
    let every = match (is_elsewhere(seen), in_transition(seen)) {
        (true, _) => ELSEWHERE_PAUSE_MS,
        (false, true) => settings.transition_period_ms,
        (false, false) => settings.inspect_period_ms,
    };
    Some(due + (late / every.max(1) + 1) * every.max(1))
}

/// Whether a decision hangs on a power state that is about to change or was not told.
fn in_transition(seen: &Observation) -> bool {
    let unsettled = seen.reading().is_some_and(|reading| {
        matches!(reading.power, PowerState::PoweringOn | PowerState::PoweringOff | PowerState::Unknown)
    });
    let hangs_on_it = power::sync(seen) == PowerSync::NotYet || reboot::token(seen).is_some();
    unsettled && hangs_on_it || reboot::waits_for_a_look(seen)
}

/// Each server has its own moment in the period, by a hash of its uid, so that a fleet is looked at evenly; at least
/// half a period lies between two looks.
fn next_turn_ms(seen: &Observation, last_try_ms: i64) -> i64 {
    let period = seen.settings.inspect_period_ms.max(1);
    let digest = Sha256::digest(seen.uid().as_str().as_bytes());
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let moment = i64::from(number) % period;
    let earliest = last_try_ms + period / 2;
    earliest + (moment - earliest).rem_euclid(period)
}

/// The look that is due.
pub(super) fn wanted(seen: &Observation) -> Option<Work> {
    // A machine whose life has ended may be gone: nobody asks for it any more.
    if lifecycle::life(seen) == Life::Ended || due_at_ms(seen).is_some_and(|due| due > seen.now_ms) {
        return None;
    }
    // One that failed is repeated quietly: it shows when it finds something else.
    let first = seen.known.as_ref().is_none_or(|known| seen.reading().is_none() && known.failure.is_none());
    Work::new(seen, Action::Inspect, if first { Visibility::Shown } else { Visibility::Quiet })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::fixture;

    #[test]
    fn a_look_that_is_under_way_is_followed_by_the_next_one_although_nobody_tells_of_its_end() {
        let mut seen = fixture::ready();
        let due = due_at_ms(&seen).unwrap();
        let period = seen.settings.inspect_period_ms;
        for (now, again) in [(due - 1, due), (due, due + period), (due + period + 7, due + 2 * period)] {
            seen.now_ms = now;
            assert_eq!(decided_again_at_ms(&seen), Some(again));
        }
    }

    proptest! {
        #[test]
        fn a_look_follows_the_last_one_by_half_a_period_to_one_and_a_half(last in 0_i64..2_000_000_000_000, uid: u64) {
            let mut seen = fixture::ready();
            seen.server.metadata.uid = Some(uid.to_string());
            let due = next_turn_ms(&seen, last);
            let period = seen.settings.inspect_period_ms;
            prop_assert!(due >= last + period / 2 && due < last + period / 2 + period);
            // From then on exactly one period lies between two looks, whatever each of them took.
            prop_assert_eq!(next_turn_ms(&seen, due + 1000), due + period);
        }
    }
}
