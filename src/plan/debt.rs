//! A machine that a job switched off and that is not on again: it is switched on, whatever failed before and whoever asked
//! the job to stop. Nothing but a machine that reads on, or a wish for off, ends that.

use super::{Command, Observation, Work, claims, lifecycle, situation};
use crate::api::condition::{ConditionType, find, time};
use crate::api::hardware::PowerState;
use crate::api::{Power, Reason};
use crate::job::{Action, Debt, Deleting, JobResult, Problem, TokenKind, Visibility, asks_for_off};

/// The debt that is left of a job which has ended, or of which nothing is known any more.
pub(super) fn standing(seen: &Observation) -> Option<&Debt> {
    let debt = seen.known.as_ref()?.debt.as_ref()?;
    let live = seen.job.as_ref().is_some_and(|job| job.id == debt.job)
        || seen.unreadable_job.as_ref().is_some_and(|job| job.id == Some(debt.job));
    (!live).then_some(debt)
}

/// Whether status bears a debt out; or is about to, with the job that it is of as the last one.
fn is_witnessed(seen: &Observation, debt: &Debt) -> bool {
    let last = seen.known.as_ref().and_then(|known| known.last_job.as_ref());
    let is_last = last.is_some_and(|last| {
        let is_of_it = last.id == debt.job && last.action == debt.action && last.started_at_ms.is_some();
        let is_asked_for = debt.is_asked_for(&seen.server);
        let unexplained =
            last.problem.as_ref().is_some_and(|problem| problem.reason == Reason::UnexplainedJob);
        is_of_it && last.result != JobResult::Succeeded && !unexplained && is_asked_for
            || last.id == debt.job && is_forgotten_by_the_database(seen)
    });
    debt.is_witnessed(&seen.server) || is_last
}

/// Whether what is owed is of the job that ended last, and status, its witness, does not show that one yet.
pub(super) fn is_not_shown_yet(seen: &Observation) -> bool {
    let Some(debt) = standing(seen) else { return false };
    let last = seen.known.as_ref().and_then(|known| known.last_job.as_ref());
    let shown = seen.shown().and_then(|status| status.last_job.as_ref());
    last.is_some_and(|last| last.id == debt.job) && shown.is_none_or(|shown| shown.id != debt.job.to_string())
}

/// Whether status has a reboot as begun that the database knows nothing of: it lost its last commits.
fn is_forgotten_by_the_database(seen: &Observation) -> bool {
    let token = seen.spec().reboot_token.as_deref();
    let known = seen.known.as_ref().is_some_and(|known| known.handled.is_handled(TokenKind::Reboot, token));
    token.is_some() && seen.shown_tokens().is_handled(TokenKind::Reboot, token) && !known
}

/// What is owed, that of a live job included, where something outside the database says so.
pub(super) fn witnessed(seen: &Observation) -> Option<&Debt> {
    let debt = seen.known.as_ref()?.debt.as_ref()?;
    is_witnessed(seen, debt).then_some(debt)
}

/// `status.leftOffBy`: also where it is not to be paid now.
pub(super) fn left_off_by(seen: &Observation) -> Option<String> {
    standing(seen).filter(|debt| is_witnessed(seen, debt)).map(|debt| debt.job.to_string())
}

/// The same where it is to be paid.
pub(super) fn to_pay(seen: &Observation) -> Option<&Debt> {
    standing(seen).filter(|debt| !shall_be_off(seen) && is_witnessed(seen, debt))
}

/// What is said of a debt that only the database knows, of a machine of which nothing else says what it shall be.
pub(super) fn unexplained(seen: &Observation) -> Option<Problem> {
    let debt = standing(seen)
        .filter(|debt| !is_witnessed(seen, debt) && !shall_be_off(seen) && !reads_on(seen, debt))?;
    if seen.spec().power.is_some() {
        return None;
    }
    let message = format!(
        "the database says that job {} ({}) switched the machine off, and nothing in status bears that out: nothing is done. Set \
         spec.power to PoweredOn to have it switched on, or to PoweredOff",
        debt.job, debt.action
    );
    Some(Problem::new(Reason::HistoryLost, message))
}

/// Whether the machine is, or ends, off by somebody's wish.
pub(super) fn shall_be_off(seen: &Observation) -> bool {
    asks_for_off(&seen.server) || lifecycle::is_over(seen)
}

/// Who wishes a machine off takes the debt away. What erases its disks may still fail and leave it in use: that debt
/// sleeps until they are erased.
pub(super) fn rule(seen: &Observation) -> Option<Command> {
    standing(seen)?;
    let for_good = seen.spec().power == Some(Power::PoweredOff) || seen.deleting() == Deleting::PowerOff;
    for_good.then_some(Command::RecordDebt { debt: None })
}

/// Switching on, where that is due.
pub(super) fn wanted(seen: &Observation) -> Option<Work> {
    let debt = to_pay(seen)?;
    if due_at_ms(seen, debt) > seen.now_ms {
        return None;
    }
    Work::new(seen, Action::PowerOn, Visibility::Shown)
}

/// When the next try is due, milliseconds since the Unix epoch.
pub(super) fn decided_again_at_ms(seen: &Observation) -> Option<i64> {
    Some(due_at_ms(seen, to_pay(seen)?))
}

/// What reads on may be about to go down as long as an off may take effect.
fn due_at_ms(seen: &Observation, debt: &Debt) -> i64 {
    let read_at_ms = seen.known.as_ref().and_then(|known| known.last_good_read_ms);
    let due = debt.due_at_ms(&seen.cause(Action::PowerOn), read_at_ms);
    if reads_on(seen, debt) { due.max(debt.settles_ms) } else { due }
}

/// Whether the machine was read on since it was switched off.
fn reads_on(seen: &Observation, debt: &Debt) -> bool {
    let Some(known) = &seen.known else { return false };
    let is_on = known.reading.as_ref().is_some_and(|reading| reading.power == PowerState::PoweredOn);
    is_on && known.last_good_read_ms.is_some_and(|at| at > debt.since_ms)
}

/// Whether the machine is let go off although it has to be on: the job that switched it off included. What was read on before the
/// off had its time may have gone down since, however long ago that was.
pub(super) fn is_off(seen: &Observation) -> bool {
    let known = seen.known.as_ref();
    let may_go_down = |debt: &Debt| {
        let read_at_ms = known.and_then(|known| known.last_good_read_ms);
        !debt.seen_off && read_at_ms.is_none_or(|at| at < debt.settles_ms)
    };
    let debt = known.and_then(|known| known.debt.as_ref());
    debt.is_some_and(|debt| !shall_be_off(seen) && (!reads_on(seen, debt) || may_go_down(debt)))
}

/// Whether a job that switches on can be enqueued at all.
pub(super) fn can_be_paid(seen: &Observation) -> bool {
    let claimed = seen.known.as_ref().and_then(|known| known.claimed_address.as_deref());
    let is_ours = claimed.is_some() && claimed == seen.bmc_address.as_deref().ok();
    is_ours && seen.secret.is_some() && !seen.paused() && claims::refusal(seen).is_none()
}

/// What a person is told of a machine that was left off, and what is in the way of switching it on.
pub(super) fn left_off(seen: &Observation) -> Option<Problem> {
    let debt = to_pay(seen).filter(|debt| !reads_on(seen, debt))?;
    let job = seen.shown_job();
    // What ends with a machine that is on is at work; a mere try to switch on is not told as progress.
    let ends_on = job.is_some_and(|job| {
        matches!(job.action, Action::Reboot | Action::Build | Action::Reimage) || debt.tried.is_none()
    });
    if ends_on {
        return None;
    }
    let met = job.and_then(|job| job.problem.clone());
    let last = debt.tried.as_ref().and_then(|tried| tried.problem.clone());
    let why = obstacle(seen).or(met).or(last).map_or_else(
        || "it is switched on as soon as a worker comes to it".to_owned(),
        |problem| problem.message,
    );
    Some(Problem::new(Reason::LeftPoweredOff, format!("{}: {why}", told(debt))))
}

/// That a machine was left off which ends off, or is off in the middle of its job: said before what is in the way of that end,
/// which may be long, and is cut where it is too long.
pub(super) fn beside(seen: &Observation, problem: Problem) -> Problem {
    let owed = match standing(seen) {
        Some(debt) => Some(debt).filter(|_| shall_be_off(seen)),
        None => seen.known.as_ref().and_then(|known| known.debt.as_ref()).filter(|debt| debt.seen_off),
    };
    match owed.filter(|debt| !reads_on(seen, debt)) {
        Some(debt) => Problem::new(problem.reason, format!("{}: {}", told(debt), problem.message)),
        None => problem,
    }
}

fn told(debt: &Debt) -> String {
    let at = time(debt.since_ms).0;
    format!("job {} ({}) switched the machine off at {at}, and it is not on again", debt.job, debt.action)
}

/// What keeps every job from this machine.
fn obstacle(seen: &Observation) -> Option<Problem> {
    let paused = seen.paused().then(|| {
        Problem::new(Reason::Paused, "spec.paused is true: set it to false to have the machine switched on")
    });
    let address = seen.bmc_address.as_ref().err().cloned();
    let refusal = || claims::refusal(seen).map(|refusal| claims::problem(seen, refusal));
    let worker = || situation::no_worker(seen);
    paused.or(address).or_else(refusal).or_else(|| situation::credentials(seen)).or_else(worker)
}

/// The debt that only status remembers: the database lost its last commits, or its record of this server.
pub(super) fn forgotten(seen: &Observation) -> Option<Debt> {
    let known = seen.known.as_ref()?;
    let shown = seen.shown()?;
    let stalled = find(&shown.conditions, ConditionType::Stalled)?;
    if stalled.reason != Reason::LeftPoweredOff.as_str() || known.debt.is_some() || shall_be_off(seen) {
        return None;
    }
    // Read on in this history, it was paid: status follows.
    let is_on = known.reading.as_ref().is_some_and(|reading| reading.power == PowerState::PoweredOn);
    if is_on && !seen.another_history {
        return None;
    }
    let last = shown.last_job.as_ref();
    let id = shown.left_off_by.as_deref().or(last.map(|last| last.id.as_str()));
    let job = id.and_then(crate::job::JobId::parse).unwrap_or(crate::job::JobId(0));
    let action = last.map_or(Action::Reboot, |last| last.action);
    Some(Debt { seen_off: !is_on, ..Debt::begun(job, action, seen.now_ms, 0) })
}
