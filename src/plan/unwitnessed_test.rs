//! A row that says of a job that it has begun is shown as a job only where something outside the database bears it out: a worker
//! takes status for that.
#![allow(clippy::unwrap_used, missing_docs)]

use super::{Command, Observation, decide, fixture as f, status};
use crate::api::condition::{ConditionType, find};
use crate::api::hardware::PowerState;
use crate::api::{ImageKind, ImageWish, Reason};
use crate::job::{
    Action, Contents, Debt, Effect, FinishedJob, InstalledImage, JobId, JobResult, LiveJob, Origin, Problem,
    TokenKind,
};

/// A machine that is as declared, with an image and a token of long ago.
fn converged() -> Observation {
    let mut seen = f::ready();
    seen.server.spec.image = Some(ImageWish { name: "debian".into(), ..ImageWish::default() });
    seen.server.spec.reboot_token = Some("t".into());
    (seen.image_digest, seen.image_kind) = (Some("sha256:1".into()), Some(ImageKind::Network));
    let image = InstalledImage {
        name: "debian".into(),
        digest: "sha256:1".into(),
        at_ms: 1,
        origin: Origin::Installed,
    };
    let known = f::known(&mut seen);
    known.contents = Some(Contents::Image(image));
    known.handled.record(TokenKind::Reboot, "t");
    for _ in 0..2 {
        seen.server.status = Some(status(&seen, &decide(&seen)));
    }
    seen
}

/// Every way in which a row can say that a job of this action has begun.
fn rows(seen: &Observation, action: Action) -> Vec<LiveJob> {
    let started = f::started(seen, action);
    let steps = action.steps().iter().chain(action.undo()).copied();
    let mut rows = Vec::new();
    for step in steps {
        for undoing in [false, true] {
            for request_stored in [false, true] {
                for cancel in [None, Some(Reason::WishChanged), Some(Reason::HistoryLost)] {
                    let row = LiveJob { step, cancel, undoing, request_stored, ..started.clone() };
                    rows.extend(row.has_begun().then_some(row));
                }
            }
        }
    }
    rows
}

#[test]
fn what_only_the_database_has_as_begun_is_not_shown_as_the_job_of_a_server() {
    for action in Action::ALL.into_iter().filter(|action| action.effect() != Effect::ReadOnly) {
        let mut seen = converged();
        for row in rows(&seen, action) {
            seen.job = Some(row.clone());
            let shown = status(&seen, &decide(&seen));
            assert_eq!(shown.job, None, "{row:?}");
            // What is not shown gets no witness by being looked at again; that something is under way is said.
            assert_ne!(find(&shown.conditions, ConditionType::Ready).unwrap().status, "True", "{row:?}");
            seen.server.status = Some(shown);
        }
    }
}

#[test]
fn a_job_that_status_shows_or_that_this_process_enqueued_is_shown() {
    for action in [Action::PowerOn, Action::PowerOff, Action::Reboot, Action::Reimage] {
        let is_shown = |seen: &Observation| {
            let id = seen.job.as_ref().map(|job| job.id.to_string());
            status(seen, &decide(seen)).job.map(|job| job.id) == id
        };
        let mut own = converged();
        own.job = Some(LiveJob { request_stored: true, ..f::started(&own, action) });
        f::own(&mut own);
        assert!(is_shown(&own), "{action}");
        let mut shown = own.clone();
        shown.server.status = Some(status(&own, &decide(&own)));
        shown.own_job = None;
        assert!(is_shown(&shown), "{action}");
        // Another job than the one that is shown, or the same one with another action, is none of them.
        let job = shown.job.as_mut().unwrap();
        job.id = JobId(job.id.0 + 1);
        assert!(!is_shown(&shown), "{action}");
        own.job.as_mut().unwrap().action = Action::Decommission;
        assert!(!is_shown(&own), "{action}");
    }
}

/// The last job of this server, as its row and status have it.
fn ended(seen: &mut Observation, id: JobId, result: JobResult) -> FinishedJob {
    let job = f::started(seen, Action::Reboot);
    let last = FinishedJob {
        id,
        action: job.action,
        intent: job.intent,
        result,
        problem: (result != JobResult::Succeeded).then(|| Problem::new(Reason::NotApplicable, "it was off")),
        step: job.step,
        enqueued_at_ms: job.enqueued_at_ms,
        started_at_ms: job.started_at_ms,
        finished_at_ms: f::NOW_MS,
    };
    f::known(seen).last_job = Some(last.clone());
    seen.server.status = Some(status(seen, &decide(seen)));
    last
}

#[test]
fn a_row_that_says_that_a_job_of_some_time_ago_owes_an_on_switches_nothing_on() {
    for result in [JobResult::Failed, JobResult::Superseded, JobResult::Cancelled, JobResult::Succeeded] {
        let mut seen = converged();
        // Somebody switched it off by hand since.
        f::known(&mut seen).reading = Some(f::reading(PowerState::PoweredOff));
        seen.server.spec.power = None;
        let last = ended(&mut seen, JobId::new(f::NOW_MS, 7), result);
        let debt = Debt { seen_off: true, ..Debt::begun(last.id, Action::Reboot, f::NOW_MS, 0) };
        f::known(&mut seen).debt = Some(debt.clone());
        let decision = decide(&seen);
        let is_on = matches!(&decision.command, Command::Enqueue(work) if work.action == Action::PowerOn);
        assert!(!is_on, "{result:?}: {:?}", decision.command);
        assert!(!debt.is_witnessed(&seen.server), "{result:?}");
    }
}

#[test]
fn a_row_that_says_which_job_ended_last_is_believed_only_where_that_can_be() {
    let mut seen = converged();
    let now = seen.now_ms;
    let last = ended(&mut seen, JobId::new(now, 7), JobResult::Succeeded);
    let shown = |seen: &Observation| status(seen, &decide(seen)).last_job.unwrap().id;
    // An earlier one, and one that nobody can have made, are not; nor is the end of a job that lives.
    for id in [JobId(1), JobId(i64::MAX)] {
        f::known(&mut seen).last_job = Some(FinishedJob { id, ..last.clone() });
        assert_eq!(shown(&seen), last.id.to_string());
    }
    let live = LiveJob { id: JobId::new(now + 5, 7), ..f::started(&seen, Action::Reboot) };
    seen.job = Some(live.clone());
    f::own(&mut seen);
    f::known(&mut seen).last_job = Some(FinishedJob { id: live.id, ..last.clone() });
    assert_eq!(shown(&seen), last.id.to_string());
    // Its real end is.
    seen.job = None;
    assert_eq!(shown(&seen), live.id.to_string());
}

#[test]
fn the_next_job_comes_after_all_that_are_known_whatever_the_clock_did() {
    let mut seen = converged();
    let ahead = JobId::new(seen.now_ms + 7_200_000, 7);
    ended(&mut seen, ahead, JobResult::Succeeded);
    assert!(seen.next_job_id(0) > ahead);
    // Also where only status remembers it.
    f::known(&mut seen).last_job = None;
    assert!(seen.next_job_id(0) > ahead);
    f::known(&mut seen).last_job = None;
    seen.server.status = None;
    assert_eq!(seen.next_job_id(0), JobId::new(seen.now_ms, 0));
}

#[test]
fn a_job_that_ended_unexplained_owes_nothing() {
    let mut seen = converged();
    let job = LiveJob { request_stored: true, ..f::started(&seen, Action::Reboot) };
    let problem = Problem::new(Reason::UnexplainedJob, "nothing bears it out");
    let known = f::known(&mut seen);
    known.debt = Some(Debt { seen_off: true, ..Debt::begun(job.id, Action::Reboot, f::NOW_MS, 0) });
    known.reading = Some(f::reading(PowerState::PoweredOff));
    known.last_job = Some(FinishedJob {
        id: job.id,
        action: job.action,
        intent: job.intent,
        result: JobResult::Superseded,
        problem: Some(problem),
        step: job.step,
        enqueued_at_ms: job.enqueued_at_ms,
        started_at_ms: job.started_at_ms,
        finished_at_ms: f::NOW_MS,
    });
    // Its machine is looked at, and then nothing is done.
    let decision = decide(&seen);
    assert!(
        matches!(&decision.command, Command::Enqueue(work) if work.action == Action::Inspect),
        "{:?}",
        decision.command
    );
    f::known(&mut seen).last_try_ms = Some(f::NOW_MS + 1);
    seen.now_ms += 2;
    for _ in 0..3 {
        let decision = decide(&seen);
        assert!(matches!(decision.command, Command::Nothing(_)), "{:?}", decision.command);
        seen.server.status = Some(status(&seen, &decision));
    }
    let last = seen.server.status.unwrap().last_job.unwrap();
    assert_eq!(last.why(), Some(Reason::UnexplainedJob));
}
