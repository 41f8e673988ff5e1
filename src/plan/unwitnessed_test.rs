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
