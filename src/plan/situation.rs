//! Which situation a server is in: one row of the table in the documentation of `status`.

use super::image::{self, ImageSync};
use super::lifecycle::{self, Life};
use super::power::PowerSync;
use super::{
    Command, Decision, Farewell, NewRecord, Observation, budget, claims, debt, deletion, failure, live_job,
    power, reboot, word, work,
};
use crate::api::{Phase, Power, Reason, names};
use crate::job::{Action, Deleting, LiveJob, Problem, RetryClass, WaitingFor};

/// What is said of a machine that was read through another address or login than spec has now.
pub(super) const READ_ELSEWHERE: &str =
    "spec.bmc changed: the BMC was not asked yet at the address, or with the login, that it gives now";

/// Whether patience with an unreachable BMC is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    Left,
    Over,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Situation {
    /// Accepted, nothing known yet.
    Pending(Problem),
    /// As declared.
    AsDeclared,
    /// Its life has ended.
    Ended,
    /// Work waits for its turn.
    Queued(Problem),
    /// A step runs or is parked.
    Working(Phase, Problem),
    /// The BMC is unreachable, and there is nothing to do.
    UnreachableIdle,
    /// The BMC is unreachable, and work is pending.
    UnreachableAtWork(Problem, Patience),
    /// A person is needed.
    Stalled(Problem),
    /// Paused, as declared.
    PausedInSync,
    /// Paused, with something to do.
    PausedWithDifference,
    /// Paused, and nothing is known of the machine.
    PausedUnseen,
    /// Paused, and the machine was left off.
    PausedLeftOff(Problem),
    /// Being deleted, and something is being done about it.
    Deleting(Problem),
    /// Being deleted, and a person is needed.
    DeletingStalled(Problem),
}

pub(super) fn situation(seen: &Observation, decision: &Decision) -> Situation {
    match (&seen.unreadable_job, seen.deleting()) {
        (Some(job), Deleting::No) => return Situation::Stalled(job.problem.clone()),
        (Some(job), _) if !matches!(decision.command, Command::Release(_)) => {
            return Situation::DeletingStalled(job.problem.clone());
        }
        _ => {}
    }
    if seen.deleting() != Deleting::No {
        return deleting(seen, decision);
    }
    if lifecycle::life(seen) == Life::Ended && seen.job.is_none() {
        return lifecycle::forgotten_by_spec(seen).map_or(Situation::Ended, Situation::Stalled);
    }
    if seen.paused() {
        if let Some(problem) = debt::left_off(seen) {
            return Situation::PausedLeftOff(problem);
        }
        return match (has_reading(seen), difference(seen)) {
            (false, _) => Situation::PausedUnseen,
            (true, true) => Situation::PausedWithDifference,
            (true, false) => Situation::PausedInSync,
        };
    }
    let stalled = || stalled(seen).map(|problem| debt::beside(seen, problem));
    debt::left_off(seen)
        .or_else(stalled)
        .map(Situation::Stalled)
        .or_else(|| at_work(seen, decision))
        .unwrap_or_else(|| at_rest(seen))
}

fn has_reading(seen: &Observation) -> bool {
    seen.reading().is_some()
}

fn difference(seen: &Observation) -> bool {
    let power = matches!(power::sync(seen), PowerSync::Opposite(_) | PowerSync::NotYet);
    let image = !matches!(image::sync(seen), ImageSync::NoWish | ImageSync::Synced);
    let life = matches!(lifecycle::life(seen), Life::ToEnd | Life::Blocked(_));
    power || image || life || debt::is_off(seen) || work::pending(seen).is_some()
}

/// What only a person can mend.
fn stalled(seen: &Observation) -> Option<Problem> {
    if let Err(problem) = &seen.bmc_address {
        return Some(problem.clone());
    }
    if let Some(refusal) = claims::refusal(seen) {
        return Some(claims::problem(seen, refusal));
    }
    credentials(seen)
        .or_else(|| failure::to_show(seen).map(|failure| failure.problem.clone()))
        .or_else(|| debt::unexplained(seen))
}

/// What is wrong with the credentials, whoever met it.
pub(super) fn credentials(seen: &Observation) -> Option<Problem> {
    if seen.secret.is_none() {
        let name = &seen.spec().bmc.credentials_ref.name;
        return Some(Problem::new(
            Reason::CredentialsMissing,
            format!(
                "there is no Secret {name:?} of type {} in this namespace: create it with the keys username and password (the type of one \
                 that is there cannot be changed: delete that one first)",
                crate::api::names::CREDENTIALS_SECRET_TYPE
            ),
        ));
    }
    let met = seen.job.as_ref().and_then(|job| job.problem.as_ref());
    let stored = failure::to_show(seen).map(|failure| &failure.problem);
    met.into_iter()
        .chain(stored)
        .find(|problem| {
            matches!(
                problem.reason,
                Reason::CredentialsInvalid | Reason::CredentialsMissing | Reason::BMCPermissionDenied
            )
        })
        .cloned()
}

fn at_work(seen: &Observation, decision: &Decision) -> Option<Situation> {
    if let Some(job) = seen.shown_job() {
        return Some(with_job(seen, job));
    }
    let pending = match &decision.command {
        Command::Enqueue(work) => (work.visibility == crate::job::Visibility::Shown).then_some(work.action),
        _ => work::pending(seen).map(|work| work.action),
    }?;
    Some(match (pending, silence(seen)) {
        (Action::Inspect, None) => in_queue(seen, first_look()),
        (_, Some(silence)) => silence,
        (_, None) => match over_budget(seen, decision) {
            Some(problem) => Situation::Queued(problem),
            None if matches!(decision.command, Command::Enqueue(_)) => {
                in_queue(seen, Situation::Queued(waits_for_a_worker(seen)))
            }
            None => in_queue(seen, Situation::Queued(waits_to_be_enqueued(seen))),
        },
    })
}

/// What is due and waits for the next hour.
fn over_budget(seen: &Observation, decision: &Decision) -> Option<Problem> {
    let enqueues = matches!(&decision.command, Command::Enqueue(work) if work.action != Action::Inspect);
    let pending = work::pending(seen).filter(|_| !enqueues)?;
    budget::in_the_way(seen, &pending)
}

fn with_job(seen: &Observation, job: &LiveJob) -> Situation {
    if let Some(problem) = job.problem.as_ref().filter(|problem| is_silence(problem)) {
        return Situation::UnreachableAtWork(problem.clone(), patience(seen, job.problem_since_ms));
    }
    if let Some(problem) = job.problem.as_ref().filter(|problem| problem.reason == Reason::UnsupportedJob) {
        return Situation::Stalled(problem.clone());
    }
    let reason = live_job::in_progress(job);
    let first = job.action == Action::Inspect;
    match reason {
        Reason::Queued if first => in_queue(seen, first_look()),
        // It was looked at, gave its permit back while it waited for its witness, and has begun nothing.
        _ if job.waiting_for == Some(WaitingFor::Permit) && job.cancel.is_none() => {
            in_queue(seen, Situation::Queued(waits_for_a_permit()))
        }
        Reason::Queued => in_queue(seen, Situation::Queued(waits_for_a_worker(seen))),
        _ if first => Situation::Pending(at_step(job, reason)),
        _ => in_queue(seen, Situation::Working(phase(job.action), at_step(job, reason))),
    }
}

/// A job in a site without workers waits for one, whatever it was about to do.
fn in_queue(seen: &Observation, otherwise: Situation) -> Situation {
    no_worker(seen).map_or(otherwise, Situation::Queued)
}

/// What is said of a site without workers.
pub(super) fn no_worker(seen: &Observation) -> Option<Problem> {
    let site = &seen.spec().site;
    (seen.site != super::SiteWorkers::Live).then(|| {
        Problem::new(
            Reason::NoWorkerForSite,
            format!("no live worker serves site {site:?}: start one with `autobuild worker --site {site}`"),
        )
    })
}

fn waits_for_a_worker(seen: &Observation) -> Problem {
    let message = if seen.another_history {
        "the database was failed over or restored: workers claim again once every Server was looked at again (/readyz of the controller \
         says how far that is), and then the job waits for a free one"
    } else {
        "the job waits for a free worker"
    };
    Problem::new(Reason::Queued, message)
}

/// What comes before the job of a wish: no worker is to blame for that.
fn waits_to_be_enqueued(seen: &Observation) -> Problem {
    let message = match &seen.job {
        Some(job) if job.action == Action::Inspect => {
            "the machine is being looked at; the job is enqueued when that look has ended"
        }
        Some(_) => "the job before this one has to end first",
        None if reboot::token(seen).is_some() && work::pending(seen).is_none() => {
            "whether the machine is on or off is not certain yet: it is read again soon, and what follows is decided then"
        }
        None => "the controller looks again within seconds",
    };
    Problem::new(Reason::NotEnqueuedYet, message)
}

/// Whether status says that something waits and no job is there that could wait.
pub(super) fn not_enqueued_yet(seen: &Observation, command: &Command) -> bool {
    let decision = Decision { command: command.clone(), recheck_after_ms: None };
    match situation(seen, &decision) {
        Situation::Queued(problem) => problem.reason == Reason::NotEnqueuedYet,
        _ => false,
    }
}

fn waits_for_a_permit() -> Problem {
    Problem::new(
        Reason::Queued,
        "as many machines of this site are being installed as may be: the job waits for its turn",
    )
}

fn first_look() -> Situation {
    Situation::Pending(Problem::new(Reason::Pending, "the first inspection waits for a free worker"))
}

fn at_step(job: &LiveJob, reason: Reason) -> Problem {
    let waiting = job.waiting_for.map(|what| format!(", waits for {}", what.as_str())).unwrap_or_default();
    let met = job.problem.as_ref().map(|problem| format!(": {}", problem.message)).unwrap_or_default();
    Problem::new(reason, format!("{} is at step {}{waiting}{met}{}", job.action, job.step, progress(job)))
}

fn progress(job: &LiveJob) -> String {
    match &job.progress {
        Some(told) if told.line.is_empty() => format!(", {} % done", told.percent),
        Some(told) => format!(", {} % done: {}", told.percent, told.line),
        None => String::new(),
    }
}

const fn phase(action: Action) -> Phase {
    match action {
        Action::PowerOn => Phase::PoweringOn,
        Action::PowerOff => Phase::PoweringOff,
        Action::Reboot => Phase::Rebooting,
        Action::Build => Phase::Building,
        Action::Reimage => Phase::Reimaging,
        Action::Wipe => Phase::Wiping,
        Action::Decommission => Phase::Decommissioning,
        Action::Inspect => Phase::Queued,
    }
}

fn is_silence(problem: &Problem) -> bool {
    RetryClass::of(problem.reason) == Some(RetryClass::Unreachable)
}

fn patience(seen: &Observation, since_ms: Option<i64>) -> Patience {
    let over = since_ms.is_some_and(|since| seen.now_ms - since >= seen.settings.stalled_after_ms);
    if over { Patience::Over } else { Patience::Left }
}

/// The BMC did not answer the last time that it was asked.
fn silence(seen: &Observation) -> Option<Situation> {
    let silence = seen.unanswered().filter(|silence| is_silence(&silence.problem))?;
    Some(Situation::UnreachableAtWork(silence.problem.clone(), patience(seen, Some(silence.since_ms))))
}

fn at_rest(seen: &Observation) -> Situation {
    let silent = seen.unanswered().is_some();
    match (has_reading(seen), power::sync(seen)) {
        (false, _) => never_read(seen),
        (true, PowerSync::NotYet) => Situation::Working(
            if seen.spec().power == Some(Power::PoweredOn) { Phase::PoweringOn } else { Phase::PoweringOff },
            Problem::new(
                Reason::OutOfSync,
                "the power state is not the wished one yet; it is read again soon",
            ),
        ),
        (true, _) if reboot::token(seen).is_some() => Situation::Queued(waits_to_be_enqueued(seen)),
        (true, _) => match (lifecycle::life(seen), image::sync(seen)) {
            (Life::Blocked(problem), _) | (_, ImageSync::Blocked(problem)) => Situation::Stalled(problem),
            _ if silent => Situation::UnreachableIdle,
            _ => Situation::AsDeclared,
        },
    }
}

fn never_read(seen: &Observation) -> Situation {
    let rebuilt = seen.known.is_none() && seen.shown().is_some_and(crate::api::ServerStatus::was_written);
    match silence(seen) {
        Some(silence) => silence,
        None if seen.is_read_elsewhere() => {
            in_queue(seen, Situation::Pending(Problem::new(Reason::Pending, READ_ELSEWHERE)))
        }
        None if rebuilt => Situation::Pending(record(NewRecord::Rebuilt)),
        None => in_queue(
            seen,
            Situation::Pending(Problem::new(Reason::Pending, "the machine was not looked at yet")),
        ),
    }
}

/// What is told of a record that had to be made.
pub(super) fn record(why: NewRecord) -> Problem {
    match why {
        NewRecord::FirstSight => Problem::new(Reason::Pending, "the machine was not looked at yet"),
        NewRecord::Rebuilt => Problem::new(
            Reason::RecordRebuilt,
            "the database had no record of this server; it was rebuilt from status, and a pending token counts as \
             handled: set a new one if it is still wanted",
        ),
    }
}

fn deleting(seen: &Observation, decision: &Decision) -> Situation {
    let say = |message: &str| Situation::Deleting(Problem::new(Reason::Deleting, message));
    match &decision.command {
        Command::Release(Farewell::Clean) => say("the server is let go"),
        Command::Release(Farewell::WithoutUndo) => {
            say("the server is let go; what a job had begun is not undone")
        }
        Command::Release(Farewell::LeftPoweredOff) => say(
            "the server is let go; a job had switched its machine off, or was about to, and it could not be switched on again",
        ),
        Command::Release(Farewell::WithoutPowerOff) => {
            say("the server is let go; it could not be powered off")
        }
        Command::Release(Farewell::WithoutWipe) => {
            say("the server is let go; nothing says that its disks were erased")
        }
        Command::Nothing(Reason::Deleting) => say("another finalizer keeps this object"),
        _ if seen.paused() && seen.deleting() == Deleting::PowerOff => {
            Situation::DeletingStalled(Problem::new(
                Reason::Paused,
                "deletionPolicy is PowerOff and spec.paused is true: set paused to false, or deletionPolicy to Retain to \
             let the machine go as it is",
            ))
        }
        _ if seen.deleting() == Deleting::Wipe => wiping_first(seen),
        _ => match credentials(seen).or_else(|| met(seen)).or_else(|| no_worker(seen)) {
            Some(problem) => {
                let otherwise = match seen.deleting() {
                    Deleting::Retain => "",
                    _ => ", or at once with deletionPolicy Retain",
                };
                let message =
                    format!("{}; the server is let go when its time is over{otherwise}", problem.message);
                Situation::DeletingStalled(Problem::new(problem.reason, message))
            }
            None if seen.deleting() == Deleting::PowerOff => say("the machine is powered off first"),
            None if deletion::is_switched_on_first(seen) => {
                say("the machine, which a job had switched off, is switched on first")
            }
            None => say("waits until what a job had begun is undone"),
        },
    }
}

/// A deletion with `Wipe`: it holds until the disks are clean, and says what it waits for and how it is given up.
fn wiping_first(seen: &Observation) -> Situation {
    if seen.paused() {
        let message = "deletionPolicy is Wipe and spec.paused is true: set paused to false, or deletionPolicy to Retain to \
                       let the machine go as it is";
        return Situation::DeletingStalled(debt::beside(seen, Problem::new(Reason::Paused, message)));
    }
    let claim = claims::refusal(seen).map(|refusal| claims::problem(seen, refusal));
    let in_the_way =
        seen.bmc_address.as_ref().err().cloned().or(claim).or_else(|| deletion::wipe_blocked(seen));
    let failed = || failure::to_show(seen).map(|failure| failure.problem.clone());
    if let Some(problem) = in_the_way.or_else(|| credentials(seen)).or_else(failed).or_else(|| met(seen)) {
        let problem = debt::beside(seen, problem);
        let message = format!(
            "{} ; the object stays until the disks are erased. To let the machine go as it is, set deletionPolicy to Retain; or, \
             with a line in the history: {}",
            problem.message,
            word::command(seen, names::ABANDON, seen.uid().as_str())
        );
        return Situation::DeletingStalled(Problem::new(problem.reason, message));
    }
    Situation::Deleting(match (&seen.job, deletion::wipe_over_budget(seen)) {
        (None, Some(problem)) => problem,
        (Some(job), _) if job.action == Action::Wipe && job.started() => at_step(job, Reason::Wiping),
        _ => Problem::new(Reason::Deleting, "the disks are erased first"),
    })
}

fn met(seen: &Observation) -> Option<Problem> {
    seen.job.as_ref().and_then(|job| job.problem.clone())
}
