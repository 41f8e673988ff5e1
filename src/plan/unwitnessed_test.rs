//! A row that says of a job that it has begun is obeyed and shown only where something outside the database bears it out.
#![allow(clippy::unwrap_used, missing_docs)]

use super::{Command, Observation, decide, fixture as f, status};
use crate::api::hardware::PowerState;
use crate::api::{ImageKind, ImageWish, Lifecycle, Power, Reason, names};
use crate::job::{
    Action, Contents, Debt, Effect, FinishedJob, InstalledImage, JobId, JobResult, LiveJob, Origin, Problem,
    Step, TokenKind,
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
fn what_only_the_database_has_as_begun_is_stopped_as_lost_and_not_shown() {
    for action in Action::ALL.into_iter().filter(|action| action.effect() != Effect::ReadOnly) {
        let mut seen = converged();
        for row in rows(&seen, action) {
            let is_told = row.cancel == Some(Reason::HistoryLost);
            seen.job = Some(row.clone());
            let decision = decide(&seen);
            let cancels = matches!(decision.command, Command::Cancel { reason: Reason::HistoryLost, .. });
            assert_eq!(cancels, !is_told, "{row:?}: {:?}", decision.command);
            let shown = status(&seen, &decision);
            assert_eq!(shown.job, None, "{row:?}");
            // What is not shown gets no witness by being looked at again.
            seen.server.status = Some(shown);
        }
    }
}

#[test]
fn a_job_that_status_shows_or_that_this_process_enqueued_goes_on() {
    let not_lost = |seen: &Observation| {
        let command = decide(seen).command;
        !matches!(command, Command::Cancel { reason: Reason::HistoryLost, .. })
    };
    for action in [Action::PowerOn, Action::PowerOff, Action::Reboot, Action::Reimage] {
        let mut own = converged();
        own.job = Some(LiveJob { request_stored: true, ..f::started(&own, action) });
        f::own(&mut own);
        // What destroys data is shown before it begins.
        assert!(action.installs() || not_lost(&own), "{action}");
        let mut shown = own.clone();
        shown.server.status = Some(status(&own, &decide(&own)));
        shown.own_job = None;
        assert!(not_lost(&shown), "{action}");
        // Another job than the one that is shown, or the same one with another action, is none of them.
        let job = shown.job.as_mut().unwrap();
        job.id = JobId(job.id.0 + 1);
        assert!(!not_lost(&shown), "{action}");
        own.job.as_mut().unwrap().action = Action::Decommission;
        assert!(!not_lost(&own), "{action}");
    }
}

#[test]
fn what_the_object_asks_for_may_have_begun_before_status_came_to_show_it() {
    let ask = |seen: &mut Observation, action| {
        let spec = &mut seen.server.spec;
        match action {
            Action::PowerOff => spec.power = Some(Power::PoweredOff),
            Action::PowerOn => spec.power = Some(Power::PoweredOn),
            Action::Reboot => spec.reboot_token = Some("new".into()),
            _ => spec.reimage_token = Some("new".into()),
        }
    };
    for action in [Action::PowerOff, Action::PowerOn, Action::Reboot, Action::Reimage] {
        let mut seen = converged();
        seen.job = Some(LiveJob { request_stored: true, ..f::started(&seen, action) });
        assert!(seen.has_unwitnessed_job(), "{action}");
        ask(&mut seen, action);
        assert!(!seen.has_unwitnessed_job(), "{action}");
    }
    // What only a person may ask for has that word, too.
    let mut seen = converged();
    seen.server.spec.lifecycle = Lifecycle::Decommissioned;
    seen.job = Some(LiveJob { step: Step::OffForGood, ..f::started(&seen, Action::Decommission) });
    assert!(seen.has_unwitnessed_job());
    let uid = seen.uid().as_str().to_owned();
    seen.server.metadata.annotations = Some([(names::CONFIRM.to_owned(), uid)].into());
    assert!(!seen.has_unwitnessed_job());
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
    for _ in 0..3 {
        let decision = decide(&seen);
        assert!(matches!(decision.command, Command::Nothing(_)), "{:?}", decision.command);
        seen.server.status = Some(status(&seen, &decision));
    }
    let last = seen.server.status.unwrap().last_job.unwrap();
    assert_eq!(last.why(), Some(Reason::UnexplainedJob));
}
