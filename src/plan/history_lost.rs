//! A job of which status says more than the database: a failover or a restore lost its last commits.
//!
//! Most of it is simply derived again. Three things are not:
//! - a live job that status shows as further on, or as ended, is stopped: going on from where the database believes it
//!   to be would do again what was done;
//! - a reboot that status shows as begun and that is gone may have left the machine off: that it has to be on again is
//!   recorded (see `debt`), and so it is of an installation, and of what status says to be left off;
//! - an action that destroys data and that status shows as begun is never done again by itself: it ends as failed, and a
//!   person decides. Which actions those are is [`Effect::Destructive`]. Until workers claim in the other history that
//!   holds whatever the database says of the job: the commits that are lost may be those of its requests, and then its
//!   row looks as if nothing had happened.
//!
//! What failed for good stays failed: where status says so of what is wished still, and the database knows of no failure, that is
//! recorded again.
//!
//! One of them goes on all the same: a job that by its row has only to wait for its machine. Its session says that its script
//! was given, and in which history; in another one it is not given again. What the machine tells comes as before. Where the
//! commits that are lost had the end of it, it waits in vain, and a person is told.
//!
//! What a machine's power state is says nothing about whether a request was sent.

use super::{Command, EventKind, EventNote, Observation, debt, work};
use crate::api::condition::{ConditionType, find};
use crate::api::hardware::PowerState;
use crate::api::{JobStatus, Reason, ServerStatus, names};
use crate::job::{Action, Debt, Effect, FinishedJob, JobId, JobResult, JobState, LiveJob, Problem, Step};

/// The job that status shows as begun, where it may have changed the machine.
fn begun(seen: &Observation) -> Option<(JobId, &JobStatus)> {
    let job = seen.shown()?.job.as_ref()?;
    let begun = job.started_at.is_some() && job.state != JobState::Queued;
    let id = JobId::parse(&job.id)?;
    (begun && job.action.effect() != Effect::ReadOnly).then_some((id, job))
}

fn is_destructive(action: Action) -> bool {
    action.effect() == Effect::Destructive
}

/// Whether a job still has to be told that its history is lost. One that destroys data ends as lost even if it was asked
/// to stop for another reason: it would be done again otherwise.
fn unaware(job: &LiveJob) -> bool {
    if is_destructive(job.action) { job.cancel != Some(Reason::HistoryLost) } else { job.cancel.is_none() }
}

/// The live job, where the database is behind of what status shows of it.
fn behind(seen: &Observation) -> Option<&LiveJob> {
    let job = seen.job.as_ref().filter(|job| job.action.effect() != Effect::ReadOnly)?;
    let status = seen.shown()?;
    let last = status.last_job.as_ref().and_then(|last| JobId::parse(&last.id));
    let further = begun(seen).is_some_and(|(id, shown)| {
        let unknown = seen.another_history && is_destructive(job.action) && !only_waits(job);
        // What is undone goes through its steps in another order.
        let is_further = job.cancel.is_none() && !job.undoing && job.action.is_further(shown.step, job.step);
        id == job.id && (unknown || !job.started() || is_further)
    });
    (last == Some(job.id) || further || forgot_the_token(seen, job)).then_some(job)
}

/// Whether nothing that may be done but once is left to do for a job, whatever became of it in the history that is gone: its
/// machine was started and given its script, which it gets in no other history.
fn only_waits(job: &LiveJob) -> bool {
    let waits = match job.step {
        Step::AwaitBoot
        | Step::ClearBootOverride
        | Step::AwaitInstall
        | Step::EjectMedia
        | Step::AwaitWipe => true,
        Step::SetBootOverride | Step::Off | Step::On | Step::Inspect | Step::OffForGood => false,
    };
    waits && job.script_given && job.started() && !job.undoing && job.cancel.is_none()
}

/// Whether status has the token of a job as handled whose first request the database does not know.
fn forgot_the_token(seen: &Observation, job: &LiveJob) -> bool {
    let Some(kind) = job.action.token() else { return false };
    let ours = !job.request_stored && job.intent == seen.intent(job.action);
    let Some(token) = kind.of(seen.spec()).filter(|_| ours) else { return false };
    let known = seen.known.as_ref().is_some_and(|known| known.handled.is_handled(kind, Some(token)));
    seen.shown_tokens().is_handled(kind, Some(token)) && !known
}

/// The job that status shows as begun and that the database neither has nor saw end.
fn gone(seen: &Observation) -> Option<(JobId, &JobStatus)> {
    let (id, shown) = begun(seen)?;
    let known = seen.known.as_ref()?;
    let live = seen.job.as_ref().is_some_and(|job| job.id == id)
        || seen.unreadable_job.as_ref().is_some_and(|job| job.id == Some(id));
    let last = known.last_job.as_ref().is_some_and(|last| last.id == id && !is_stopped(last));
    (!live && !last && !seen.shown_job_ended).then_some((id, shown))
}

/// Whether a job was stopped because the database was behind; what has to be done about it was not done yet.
fn is_stopped(last: &FinishedJob) -> bool {
    let reason = last.problem.as_ref().map(|problem| problem.reason);
    reason == Some(Reason::HistoryLost) && last.result != JobResult::Failed
}

/// The last job, where it was stopped because the database was behind: asked by [`rule`], or by itself.
fn stopped(seen: &Observation) -> Option<&FinishedJob> {
    let last = seen.known.as_ref()?.last_job.as_ref()?;
    is_stopped(last).then_some(last)
}

impl Observation {
    /// The job that status shows and that is neither live nor the last one: the history may still have its end.
    pub fn missing_job(&self) -> Option<JobId> {
        gone(self).map(|(id, _)| id)
    }
}

/// What comes before everything else that is decided of a server that stays.
pub(super) fn rule(seen: &Observation) -> Option<Command> {
    if let Some(job) = behind(seen).filter(|job| unaware(job)) {
        return Some(Command::Cancel { id: job.id, reason: Reason::HistoryLost });
    }
    let lost = match (stopped(seen), gone(seen)) {
        _ if seen.job.is_some() => None,
        (Some(last), _) if is_destructive(last.action) => Some(FinishedJob { problem: None, ..last.clone() }),
        (_, Some((id, shown))) if is_destructive(shown.action) => Some(finished(seen, id, shown)),
        _ => forgotten_failure(seen),
    };
    let Some(lost) = lost else {
        return owed(seen).map(|debt| Command::RecordDebt { debt: Some(debt) });
    };
    let debt = switched_off(seen, &lost);
    let job = FinishedJob {
        intent: seen.intent(lost.action),
        result: JobResult::Failed,
        problem: Some(lost.problem.unwrap_or_else(|| what_to_do(lost.action, lost.id))),
        finished_at_ms: seen.now_ms,
        ..lost
    };
    let cause = seen.cause(job.action);
    Some(Command::RecordLost { job, cause, debt })
}

fn finished(seen: &Observation, id: JobId, shown: &JobStatus) -> FinishedJob {
    FinishedJob {
        id,
        action: shown.action,
        intent: seen.intent(shown.action),
        result: JobResult::Failed,
        problem: None,
        step: shown.step,
        enqueued_at_ms: shown.enqueued_at.0.as_millisecond(),
        started_at_ms: shown.started_at.as_ref().map(|at| at.0.as_millisecond()),
        finished_at_ms: seen.now_ms,
    }
}

/// The job of which status says that it failed for good at what is wished still, and of whose failure the database knows nothing:
/// without it the same would be done once more.
fn forgotten_failure(seen: &Observation) -> Option<FinishedJob> {
    let (known, shown) = (seen.known.as_ref()?, seen.shown()?);
    let last = shown.last_job.as_ref().filter(|last| is_destructive(last.action))?;
    let (id, started_at) = (JobId::parse(&last.id)?, last.started_at.as_ref()?);
    let stalled = find(&shown.conditions, ConditionType::Stalled)?;
    let is_stalled = last.why().is_some_and(|why| stalled.reason == why.as_str());
    let is_same_wish = shown.observed_generation.is_some() && shown.observed_generation == seen.generation();
    let is_known = known.failure.is_some() || known.last_job.as_ref().is_some_and(|known| known.id > id);
    let is_due = work::about_disks(seen).is_some_and(|due| due.action.installs() == last.action.installs());
    let is_forgotten = last.result == JobResult::Failed && is_stalled && is_same_wish && !is_known && is_due;
    (is_forgotten && !seen.look_requested()).then(|| FinishedJob {
        id,
        action: last.action,
        intent: seen.intent(last.action),
        result: JobResult::Failed,
        // Words and remedy are those of before.
        problem: last.why().map(|why| Problem::new(why, last.message.clone().unwrap_or_default())),
        step: last.step,
        enqueued_at_ms: last.enqueued_at.0.as_millisecond(),
        started_at_ms: Some(started_at.0.as_millisecond()),
        finished_at_ms: seen.now_ms,
    })
}

fn what_to_do(action: Action, id: JobId) -> Problem {
    let message = format!(
        "the database was failed over or restored, and lost what became of job {id} ({action}), which had begun: look at \
         the machine; to have it done again set a new token, or the annotation {}",
        names::RECONCILE_REQUESTED_AT
    );
    Problem::new(Reason::HistoryLost, message)
}

/// What a job that destroys data may owe the machine: it was on, as far as this database knows, and the job had come to
/// where it switches off.
fn switched_off(seen: &Observation, lost: &FinishedJob) -> Option<Debt> {
    let known = seen.known.as_ref()?;
    let was_off = known.reading.as_ref().is_some_and(|reading| reading.power == PowerState::PoweredOff);
    let untouched = lost.action.steps().first() == Some(&lost.step);
    let owes = known.debt.is_none() && !was_off && !untouched && !debt::shall_be_off(seen);
    owes.then(|| Debt::begun(lost.id, lost.action, seen.now_ms, 0))
}

/// What a reboot owes that was lost, or a machine that status says to be left off; where it shall be off, nothing is left
/// to undo.
fn owed(seen: &Observation) -> Option<Debt> {
    if seen.known.as_ref()?.debt.is_some() || debt::shall_be_off(seen) {
        return None;
    }
    let gone = gone(seen).filter(|(_, shown)| shown.action == Action::Reboot).map(|(id, _)| id);
    let stopped = stopped(seen).filter(|last| last.action == Action::Reboot && seen.job.is_none());
    let id = gone.or(stopped.map(|last| last.id));
    id.map(|id| Debt::begun(id, Action::Reboot, seen.now_ms, 0)).or_else(|| debt::forgotten(seen))
}

/// The job as status shows it, while it is the only record of what has to be done about its loss.
pub(super) fn kept(seen: &Observation) -> Option<JobStatus> {
    let to_be_rebuilt = seen.known.is_none().then(|| begun(seen)).flatten();
    let (_, shown) = gone(seen).or(to_be_rebuilt)?;
    let is_owed = seen.known.as_ref().is_some_and(|known| known.debt.is_some());
    let keeps = match shown.action.effect() {
        Effect::Destructive => true,
        Effect::Power => shown.action == Action::Reboot && seen.job.is_none() && !is_owed,
        Effect::ReadOnly => false,
    };
    let needless = shown.action == Action::Reboot && debt::shall_be_off(seen);
    (keeps && !needless).then(|| shown.clone())
}

/// Told when a reboot that was lost goes from status.
pub(super) fn event(seen: &Observation, after: &ServerStatus) -> Option<EventNote> {
    let (id, shown) = gone(seen).filter(|(_, shown)| shown.action == Action::Reboot)?;
    let left = after.job.as_ref().is_none_or(|job| job.id != shown.id);
    left.then(|| EventNote {
        kind: EventKind::Warning,
        reason: Reason::HistoryLost,
        action: shown.action.as_str().to_owned(),
        note: format!(
            "the database was failed over or restored, and lost what became of job {id} ({}): the machine is powered on \
             unless it shall be off",
            shown.action
        ),
    })
}
