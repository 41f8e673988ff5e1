//! What becomes of a job that is there already.

use super::image::{self, ImageSync};
use super::{Command, Observation, Work, budget, word, work};
use crate::api::Reason;
use crate::job::{Action, Effect, JobId, LiveJob};

/// Compares what is wanted with what is live.
pub(super) fn settle(seen: &Observation, wanted: Option<Work>) -> Command {
    match (&seen.job, wanted) {
        (None, None) => Command::Nothing(idle(seen)),
        (None, Some(work)) => Command::Enqueue(work),
        (Some(job), wanted) => match displaced_by(seen, job, wanted.as_ref()) {
            Some(reason) => displace(job, reason),
            None => care_for(seen, job),
        },
    }
}

fn idle(seen: &Observation) -> Reason {
    if seen.secret.is_none() {
        return Reason::CredentialsMissing;
    }
    let waits = work::pending(seen).and_then(|work| budget::in_the_way(seen, &work));
    waits.map_or(Reason::AsDeclared, |problem| problem.reason)
}

/// Why the job should go: its wish is no longer the present one, or something more important came.
fn displaced_by(seen: &Observation, job: &LiveJob, wanted: Option<&Work>) -> Option<Reason> {
    if job.intent != seen.intent(job.action) || word::objection(seen, job.action).is_some() {
        return Some(Reason::WishChanged);
    }
    if is_unexplained(seen, job) {
        return Some(Reason::HistoryLost);
    }
    wanted.filter(|work| rank(work.action) < rank(job.action)).map(|_| Reason::Replaced)
}

/// Whether a row says of a job that destroys data what nothing outside the database bears out: that it has begun, although
/// status never showed it; or that it is due, although the disks are as wished. It is stopped, and undone.
fn is_unexplained(seen: &Observation, job: &LiveJob) -> bool {
    if job.action.effect() != Effect::Destructive {
        return false;
    }
    if job.request_stored {
        let shown = seen.shown().and_then(|status| status.job.as_ref());
        let unseen = shown.and_then(|shown| JobId::parse(&shown.id)) != Some(job.id);
        // Once the disks are given up it goes on, even if somebody took it out of status.
        return unseen && job.action.installs() && image::sync(seen) == ImageSync::Synced;
    }
    let disks = work::about_disks(seen);
    job.action != Action::Wipe && disks.is_none_or(|work| work.intent != job.intent)
}

/// The lower, the more important.
const fn rank(action: Action) -> u8 {
    match action {
        Action::Decommission => 0,
        Action::Wipe => 1,
        Action::Build | Action::Reimage => 2,
        Action::Reboot => 3,
        Action::PowerOn | Action::PowerOff => 4,
        Action::Inspect => 5,
    }
}

/// Makes a job go: the queue deletes it if it never started, and otherwise asks it to stop. A reboot whose off was
/// sent runs to its end, which is also how it is undone; so does what began to erase disks.
pub(super) fn displace(job: &LiveJob, reason: Reason) -> Command {
    let to_the_end = job.action.runs_to_its_end() && job.request_stored;
    match job.cancel {
        Some(_) => Command::Nothing(Reason::Cancelling),
        None if to_the_end => Command::Nothing(in_progress(job)),
        None => Command::Cancel { id: job.id, reason },
    }
}

/// A job that stays: in the right lane, and awake when what it waits for may have come.
fn care_for(seen: &Observation, job: &LiveJob) -> Command {
    if job.cancel.is_some() {
        return Command::Nothing(Reason::Cancelling);
    }
    let lane = work::lane(seen, job.action);
    if lane != job.lane {
        return Command::Reprioritize { id: job.id, lane };
    }
    if worth_waking(seen, job) {
        return Command::WakeJob { id: job.id };
    }
    Command::Nothing(in_progress(job))
}

/// Another Secret version than the last try used, or a spec that changed since then, may be the cure; and somebody may
/// have asked for a look since then.
fn worth_waking(seen: &Observation, job: &LiveJob) -> bool {
    let Some(problem) = job.problem.as_ref().filter(|_| job.waiting_for.is_some()) else { return false };
    let secret = seen.secret.as_ref().map(ToString::to_string);
    let new_secret = secret.is_some() && secret != job.secret_version;
    let new_spec = seen.shown().is_some_and(|status| status.observed_generation < seen.generation());
    new_spec || seen.look_requested() || (problem.reason.is_cured_by_access() && new_secret)
}

/// The reason that stands for a job at work.
pub(super) const fn in_progress(job: &LiveJob) -> Reason {
    match (&job.cancel, job.started_at_ms, job.action) {
        (Some(_), ..) => Reason::Cancelling,
        (None, None, _) => Reason::Queued,
        (None, Some(_), Action::PowerOn) => Reason::PoweringOn,
        (None, Some(_), Action::PowerOff) => Reason::PoweringOff,
        (None, Some(_), Action::Reboot) => Reason::Rebooting,
        (None, Some(_), Action::Build) => Reason::Building,
        (None, Some(_), Action::Reimage) => Reason::Reimaging,
        (None, Some(_), Action::Wipe) => Reason::Wiping,
        (None, Some(_), Action::Decommission) => Reason::Decommissioning,
        (None, Some(_), Action::Inspect) => Reason::Inspecting,
    }
}
