//! What is over before anybody could read it: a job that is young and destroys nothing is not shown yet, so that a quick one
//! is one patch of status and not three.

use super::{Command, Decision, Observation};
use crate::api::condition::ConditionType;
use crate::api::{JobStatus, ServerStatus};
use crate::job::{Action, LiveJob};

/// How old a job is when it is shown.
const IN_PASSING_MS: i64 = 1_000;

/// How long nothing is shown for, milliseconds; `None`: show what there is. `observedGeneration` stays behind the new
/// generation until then, so that `kubectl wait` waits.
pub fn in_passing(seen: &Observation, decision: &Decision) -> Option<i64> {
    let (Command::Nothing(_), Some(job)) = (&decision.command, seen.shown_job()) else { return None };
    let metadata = &seen.server.metadata;
    if !passes(job) || metadata.deletion_timestamp.is_some() || seen.another_history {
        return None;
    }
    let age_ms = seen.now_ms - job.enqueued_at_ms;
    (0..IN_PASSING_MS).contains(&age_ms).then_some(IN_PASSING_MS - age_ms)
}

/// Whether it may go by unseen. What has a token, or destroys data, is shown as soon as it was claimed: status is the second
/// witness of it.
fn passes(job: &LiveJob) -> bool {
    let unseen = match job.action {
        Action::Inspect | Action::PowerOn | Action::PowerOff => true,
        Action::Reboot | Action::Build | Action::Reimage | Action::Wipe | Action::Decommission => {
            job.started_at_ms.is_none()
        }
    };
    unseen && job.cancel.is_none() && job.problem.is_none()
}

/// Whether all that is new is how far the same job is, the power state that it went through included: one patch a second is enough
/// for that. What it did (a token that is handled, what is on the disks, its end) is shown at once.
pub fn only_steps(seen: &Observation, status: &ServerStatus) -> bool {
    let (Some(shown), Some(job)) = (seen.shown(), seen.shown_job()) else { return false };
    let is_same_job = |a: &JobStatus, b: &JobStatus| a.id == b.id && a.started_at == b.started_at;
    let goes_on = matches!((&shown.job, &status.job), (Some(a), Some(b)) if is_same_job(a, b));
    let truths = |status: &ServerStatus| -> Vec<_> {
        let steady = status.conditions.iter().filter(|one| one.type_ != ConditionType::PowerSynced.as_str());
        steady.map(|one| (one.type_.clone(), one.status.clone())).collect()
    };
    let rest = ServerStatus {
        power: status.power,
        job: status.job.clone(),
        conditions: status.conditions.clone(),
        ..shown.clone()
    };
    goes_on
        && job.problem.is_none()
        && job.cancel.is_none()
        && !seen.another_history
        && truths(shown) == truths(status)
        && rest == *status
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::super::fixture as f;
    use super::*;
    use crate::api::Reason;
    use crate::job::{Step, TokenKind, Visibility};

    fn left(action: Action, is_started: bool, age_ms: i64, change: impl Fn(&mut Observation)) -> Option<i64> {
        let mut seen = f::ready();
        let mut job = if is_started { f::started(&seen, action) } else { f::job(&seen, action) };
        job.enqueued_at_ms = seen.now_ms - age_ms;
        seen.job = Some(job);
        seen.visibility = Visibility::Shown;
        change(&mut seen);
        let decision = Decision { command: Command::Nothing(Reason::Queued), recheck_after_ms: None };
        in_passing(&seen, &decision)
    }

    #[test]
    fn a_young_job_that_destroys_nothing_goes_by_unseen() {
        for action in [Action::Inspect, Action::PowerOn, Action::PowerOff] {
            assert_eq!(left(action, false, 100, |_| ()), Some(900), "{action}");
            assert_eq!(left(action, true, 999, |_| ()), Some(1), "{action}");
            assert_eq!(left(action, true, IN_PASSING_MS, |_| ()), None, "{action}");
            assert_eq!(left(action, true, -1, |_| ()), None, "{action}: clocks that disagree hide nothing");
        }
    }

    #[test]
    fn what_has_a_token_or_loses_data_is_shown_once_it_was_claimed() {
        for action in [Action::Reboot, Action::Build, Action::Reimage, Action::Wipe, Action::Decommission] {
            assert_eq!(left(action, false, 100, |_| ()), Some(900), "{action}");
            assert_eq!(left(action, true, 100, |_| ()), None, "{action}");
        }
    }

    #[test]
    fn what_a_person_should_see_is_shown_at_once() {
        let job = |seen: &mut Observation, change: fn(&mut LiveJob)| seen.job.iter_mut().for_each(change);
        assert_eq!(
            left(Action::PowerOff, true, 100, |seen| job(seen, |job| job.cancel = Some(Reason::WishChanged))),
            None
        );
        let failing = f::parked(&f::ready(), Action::PowerOff, Reason::Unreachable, 10).problem;
        assert_eq!(
            left(Action::PowerOff, true, 100, |seen| {
                seen.job.iter_mut().for_each(|job| job.problem.clone_from(&failing));
            }),
            None
        );
        assert_eq!(left(Action::PowerOff, true, 100, |seen| f::delete(seen, 10)), None);
        assert_eq!(left(Action::PowerOff, true, 100, |seen| seen.another_history = true), None);
        assert_eq!(left(Action::Inspect, true, 100, |seen| seen.visibility = Visibility::Quiet), None);
    }

    /// A reimage that is shown, and what its next status would be.
    fn at_work(change: impl Fn(&mut Observation)) -> (Observation, ServerStatus) {
        let mut seen = f::ready();
        seen.visibility = Visibility::Shown;
        seen.job = Some(f::started(&seen, Action::Reimage));
        f::own(&mut seen);
        let decision = Decision { command: Command::Nothing(Reason::Reimaging), recheck_after_ms: None };
        seen.server.status = Some(super::super::status(&seen, &decision));
        change(&mut seen);
        let next = super::super::status(&seen, &decision);
        (seen, next)
    }

    #[test]
    fn another_step_of_the_same_job_may_wait_and_what_it_did_may_not() {
        let job = |seen: &mut Observation, change: fn(&mut LiveJob)| seen.job.iter_mut().for_each(change);
        let step = |seen: &mut Observation| job(seen, |job| job.step = Step::AwaitInstall);
        let (seen, next) = at_work(step);
        assert!(seen.shown() != Some(&next) && only_steps(&seen, &next));
        let changes: [fn(&mut Observation); 5] = [
            |seen| f::known(seen).handled.record(TokenKind::Reimage, "new"),
            |seen| f::known(seen).version += 1,
            |seen| seen.job = Some(f::parked(seen, Action::Reimage, Reason::Unreachable, 10)),
            |seen| seen.job.iter_mut().for_each(|job| job.cancel = Some(Reason::WishChanged)),
            |seen| seen.job = None,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let (seen, next) = at_work(|seen| {
                step(seen);
                change(seen);
            });
            assert_eq!(only_steps(&seen, &next), number == 1, "{number}: {next:?}");
        }
    }
}
