//! What becomes of jobs of which status says more than the database.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use rstest::rstest;

use super::{Command, Observation, decide, events, fixture as f, status};
use crate::api::condition::{ConditionType, find};
use crate::api::{Power, Reason};
use crate::job::{Action, FinishedJob, JobResult, Known, LiveJob, Problem, Step};

/// A server whose status shows `job`, as it was written before the database forgot something.
fn shown(job: impl FnOnce(&Observation) -> LiveJob) -> Observation {
    let mut seen = f::ready();
    seen.server.spec.reboot_token = Some("t".into());
    seen.job = Some(job(&seen));
    f::own(&mut seen);
    seen.server.status = Some(status(&seen, &decide(&seen)));
    seen.own_job = None;
    seen
}

/// The same, and then the job is gone from the database.
fn lost(action: Action) -> Observation {
    let mut seen = shown(|seen| begun(seen, action));
    seen.job = None;
    seen
}

/// A job that runs; actions without steps of their own yet borrow one.
fn begun(seen: &Observation, action: Action) -> LiveJob {
    let of_steps = if action.steps().is_empty() { Action::Reboot } else { action };
    let mut job = f::started(seen, of_steps);
    (job.action, job.intent) = (action, seen.intent(action));
    job
}

fn never_started(job: LiveJob) -> LiveJob {
    LiveJob { started_at_ms: None, state: crate::job::JobState::Queued, ..job }
}

fn handled_in_status(seen: &mut Observation) {
    seen.server.status.as_mut().unwrap().reboot_tokens = vec!["t".into()];
}

fn ended(job: &LiveJob, result: JobResult, reason: Option<Reason>) -> FinishedJob {
    FinishedJob {
        id: job.id,
        action: job.action,
        intent: job.intent.clone(),
        result,
        problem: reason.map(|reason| Problem::new(reason, "why")),
        step: job.step,
        enqueued_at_ms: job.enqueued_at_ms,
        started_at_ms: job.started_at_ms,
        finished_at_ms: f::NOW_MS - 100,
    }
}

/// What is decided, in short.
fn decided(seen: &Observation) -> String {
    match decide(seen).command {
        Command::Enqueue(work) => format!("enqueue {}", work.action),
        Command::Cancel { reason, .. } => format!("cancel {reason}"),
        Command::RecordLost { job, .. } => format!("record {} {}", job.action, job.problem.unwrap().reason),
        Command::RecordDebt { debt } => format!("record debt of {}", debt.unwrap().action),
        Command::Register { .. } => "register".to_owned(),
        Command::Nothing(reason) => format!("nothing {reason}"),
        other => format!("{other:?}"),
    }
}

#[rstest]
#[case::inspect(Action::Inspect, "nothing AsDeclared")]
#[case::power_on(Action::PowerOn, "nothing AsDeclared")]
#[case::power_off(Action::PowerOff, "nothing AsDeclared")]
#[case::reboot(Action::Reboot, "record debt of Reboot")]
#[case::build(Action::Build, "record Build HistoryLost")]
#[case::reimage(Action::Reimage, "record Reimage HistoryLost")]
#[case::wipe(Action::Wipe, "record Wipe HistoryLost")]
#[case::decommission(Action::Decommission, "record Decommission HistoryLost")]
fn a_job_that_status_shows_as_begun_and_that_is_gone(#[case] action: Action, #[case] expected: &str) {
    let mut seen = lost(action);
    handled_in_status(&mut seen);
    assert_eq!(decided(&seen), expected);
    // The history has its end: nothing was lost but the moment in which status would have shown it.
    let was_lost = seen.missing_job().is_some();
    seen.shown_job_ended = true;
    assert_eq!(decided(&seen), "nothing AsDeclared");
    assert_eq!(was_lost, action != Action::Inspect);
}

#[test]
fn a_job_that_never_started_is_derived_again_where_it_is_still_wished() {
    let mut seen = shown(|seen| f::job(seen, Action::Reboot));
    seen.job = None;
    assert_eq!(decided(&seen), "enqueue Reboot");
    let mut seen = shown(|seen| never_started(begun(seen, Action::Wipe)));
    seen.job = None;
    seen.server.spec.reboot_token = None;
    assert_eq!(decided(&seen), "nothing AsDeclared");
}

#[test]
fn a_destructive_job_that_is_gone_ends_as_failed_and_a_person_is_told_what_to_do() {
    let mut seen = lost(Action::Reimage);
    seen.server.spec.reboot_token = None;
    let Command::RecordLost { job, cause, .. } = decide(&seen).command else { panic!("{}", decided(&seen)) };
    assert_eq!(
        (job.result, &job.intent, &cause),
        (JobResult::Failed, &seen.intent(Action::Reimage), &seen.cause(Action::Reimage))
    );
    let failure = f::failure(&seen, Action::Reimage, Reason::HistoryLost);
    let problem = job.problem.clone().unwrap();
    f::known(&mut seen).failure = Some(crate::job::StoredFailure { problem, ..failure });
    f::known(&mut seen).last_job = Some(job);
    assert_eq!(decided(&seen), "nothing AsDeclared");
    let decision = decide(&seen);
    let after = status(&seen, &decision);
    let stalled = find(&after.conditions, ConditionType::Stalled).unwrap();
    assert_eq!(stalled.reason, "HistoryLost");
    assert!(
        stalled.message.contains("look at the machine") && stalled.message.contains("reconcile-requested-at")
    );
    assert!(after.job.is_none(), "it is not shown as running any more");
    assert!(events(&seen, &decision, &after).iter().any(|told| told.reason == Reason::HistoryLost));
    // And it stays like this when status does not show the job any more.
    seen.server.status = Some(after);
    assert_eq!(decided(&seen), "nothing AsDeclared");
}

#[test]
fn a_destructive_job_that_the_database_has_as_not_started_is_stopped_and_then_ends_as_failed() {
    let mut seen = shown(|seen| begun(seen, Action::Wipe));
    let live = never_started(seen.job.clone().unwrap());
    seen.job = Some(live.clone());
    assert_eq!(decided(&seen), "cancel HistoryLost");
    seen.job = None;
    f::known(&mut seen).last_job = Some(ended(&live, JobResult::Cancelled, Some(Reason::HistoryLost)));
    assert_eq!(decided(&seen), "record Wipe HistoryLost");
    // Also when status has shown the end of it meanwhile.
    let after = status(&seen, &decide(&seen));
    seen.server.status = Some(after);
    assert_eq!(decided(&seen), "record Wipe HistoryLost");
}

#[test]
fn a_destructive_job_beside_a_lost_record_is_recorded_after_the_record_was_rebuilt() {
    let mut seen = lost(Action::Decommission);
    seen.known = None;
    assert_eq!(decided(&seen), "register");
    let after = status(&seen, &decide(&seen));
    assert_eq!(after.job, seen.server.status.as_ref().unwrap().job, "it is the only record");
    assert_eq!(after.reboot_tokens, ["t"], "a token that was pending counts as handled");
    seen.server.status = Some(after);
    seen.known = Some(Known { version: 1, ..Known::default() });
    assert_eq!(decided(&seen), "record Decommission HistoryLost");
}

#[test]
fn a_reboot_that_is_gone_is_undone_first_and_done_again_only_if_its_token_is_not_handled() {
    for handled in [true, false] {
        let mut seen = lost(Action::Reboot);
        if handled {
            handled_in_status(&mut seen);
        }
        // Also while it is paused: nothing is sent for it.
        seen.server.spec.paused = Some(true);
        assert_eq!(decided(&seen), "record debt of Reboot");
        let paused = status(&seen, &decide(&seen));
        assert_eq!(paused.job, seen.server.status.as_ref().unwrap().job, "it is the only record");
        seen.server.spec.paused = None;
        record_debt(&mut seen);
        assert_eq!(decided(&seen), "enqueue PowerOn");
        let decision = decide(&seen);
        let after = status(&seen, &decision);
        assert!(after.job.is_none(), "another record is there");
        assert!(events(&seen, &decision, &after).iter().any(|told| told.reason == Reason::HistoryLost));
        let job = LiveJob { id: crate::job::JobId::new(f::NOW_MS, 9), ..f::job(&seen, Action::PowerOn) };
        seen.job = Some(job.clone());
        assert_eq!(decided(&seen), "nothing Queued", "the undo is not displaced");
        seen.server.status = Some(status(&seen, &decide(&seen)));
        seen.job = None;
        f::known(&mut seen).debt = None;
        f::known(&mut seen).last_job = Some(ended(&job, JobResult::Superseded, Some(Reason::AlreadyDone)));
        assert_eq!(decided(&seen), if handled { "nothing AsDeclared" } else { "enqueue Reboot" });
    }
}

fn record_debt(seen: &mut Observation) {
    let Command::RecordDebt { debt } = decide(seen).command else { panic!("{}", decided(seen)) };
    f::known(seen).debt = debt;
}

#[test]
fn nothing_is_undone_where_the_machine_shall_be_off() {
    let mut seen = lost(Action::Reboot);
    handled_in_status(&mut seen);
    seen.server.spec.power = Some(Power::PoweredOff);
    assert_eq!(decided(&seen), "enqueue PowerOff");
    assert!(status(&seen, &decide(&seen)).job.is_none());
}

#[test]
fn a_reboot_whose_first_request_the_database_forgot_is_stopped_and_then_undone() {
    let mut seen = f::ready();
    seen.server.spec.reboot_token = Some("t".into());
    handled_in_status(&mut seen);
    let live = f::job(&seen, Action::Reboot);
    seen.job = Some(live.clone());
    assert_eq!(decided(&seen), "cancel HistoryLost");
    seen.job = None;
    for (result, started_at_ms) in [(JobResult::Cancelled, None), (JobResult::Superseded, Some(f::NOW_MS))] {
        let end = FinishedJob { started_at_ms, ..ended(&live, result, Some(Reason::HistoryLost)) };
        f::known(&mut seen).last_job = Some(end);
        f::known(&mut seen).debt = None;
        assert_eq!(decided(&seen), "record debt of Reboot");
        record_debt(&mut seen);
        assert_eq!(decided(&seen), "enqueue PowerOn");
    }
    f::known(&mut seen).debt = None;
    // A handled token that the database knows of is no sign: that job is on its way out by itself.
    seen.job = Some(live);
    f::known(&mut seen).handled.record(crate::job::TokenKind::Reboot, "t");
    assert_eq!(decided(&seen), "nothing Queued");
}

#[test]
fn a_live_job_that_status_shows_as_ended_or_as_further_on_is_stopped() {
    let mut seen = shown(|seen| begun(seen, Action::Reboot));
    assert!(decided(&seen).starts_with("nothing"), "both say the same");
    let live = seen.job.clone().unwrap();
    seen.server.status.as_mut().unwrap().job.as_mut().unwrap().step = Step::On;
    assert_eq!(decided(&seen), "cancel HistoryLost");
    // Status that is merely behind is no sign.
    seen.server.status.as_mut().unwrap().job.as_mut().unwrap().step = Step::Off;
    seen.job = Some(LiveJob { step: Step::On, ..live.clone() });
    assert!(decided(&seen).starts_with("nothing"));
    let mut after_its_end = seen.clone();
    after_its_end.job = None;
    f::known(&mut after_its_end).last_job = Some(ended(&live, JobResult::Succeeded, None));
    seen.server.status = Some(status(&after_its_end, &decide(&after_its_end)));
    assert_eq!(decided(&seen), "cancel HistoryLost");
    seen.job.as_mut().unwrap().cancel = Some(Reason::HistoryLost);
    assert_eq!(decided(&seen), "nothing Cancelling");
}

#[test]
fn the_last_job_that_was_shown_is_not_taken_back() {
    let mut seen = f::ready();
    let job = f::started(&seen, Action::Reboot);
    f::known(&mut seen).last_job = Some(ended(&job, JobResult::Succeeded, None));
    let before = status(&seen, &decide(&seen));
    seen.server.status = Some(before.clone());
    let earlier = LiveJob { id: crate::job::JobId::new(1, 1), ..job };
    let end = FinishedJob { finished_at_ms: f::NOW_MS - 60_000, ..ended(&earlier, JobResult::Failed, None) };
    for known in [None, Some(end)] {
        f::known(&mut seen).last_job = known;
        assert_eq!(status(&seen, &decide(&seen)).last_job, before.last_job);
    }
}

#[test]
fn after_another_history_a_running_job_is_lost_if_it_destroys_data_whatever_the_database_says_of_it() {
    for action in Action::ALL {
        let mut seen = shown(|seen| begun(seen, action));
        seen.another_history = true;
        let lost = action.effect() == crate::job::Effect::Destructive;
        assert_eq!(decided(&seen) == "cancel HistoryLost", lost, "{action}: {}", decided(&seen));
        // Workers claim again: what runs now has gone on in this history.
        seen.another_history = false;
        assert!(!decided(&seen).contains("HistoryLost"), "{action}: {}", decided(&seen));
    }
}

#[rstest]
#[case::waits_for_its_machine(Step::AwaitInstall, true)]
#[case::was_given_its_script_a_moment_ago(Step::AwaitBoot, true)]
#[case::takes_the_override_back(Step::ClearBootOverride, true)]
#[case::ejects_the_medium(Step::EjectMedia, true)]
#[case::switches_on(Step::On, false)]
#[case::switches_off(Step::Off, false)]
#[case::begins(Step::SetBootOverride, false)]
fn an_installation_whose_machine_has_its_script_goes_on_in_another_history(
    #[case] step: Step,
    #[case] goes_on: bool,
) {
    let running = |seen: &Observation, step| LiveJob {
        step,
        request_stored: true,
        script_given: true,
        ..begun(seen, Action::Reimage)
    };
    let mut seen = shown(|seen| running(seen, step));
    seen.another_history = true;
    assert_eq!(decided(&seen) != "cancel HistoryLost", goes_on, "{}", decided(&seen));
    // Status that is behind of the row says nothing against it, and one that is further does.
    let live = seen.job.clone().unwrap();
    let step_shown = |seen: &mut Observation, step| {
        seen.server.status.as_mut().unwrap().job.as_mut().unwrap().step = step;
    };
    step_shown(&mut seen, Step::SetBootOverride);
    assert_eq!(decided(&seen) != "cancel HistoryLost", goes_on);
    if step != Step::EjectMedia {
        step_shown(&mut seen, Step::EjectMedia);
        assert_eq!(decided(&seen), "cancel HistoryLost");
    }
    step_shown(&mut seen, step);
    for lost in [
        // Nothing says that it was given, or it was given where nobody keeps count of histories.
        LiveJob { script_given: false, ..live.clone() },
        LiveJob { started_at_ms: None, ..live.clone() },
        LiveJob { undoing: true, ..live.clone() },
        LiveJob { cancel: Some(Reason::WishChanged), ..live.clone() },
    ] {
        seen.job = Some(lost);
        assert_eq!(decided(&seen), "cancel HistoryLost");
    }
    // Status has its end.
    seen.job = None;
    f::known(&mut seen).last_job = Some(ended(&live, JobResult::Succeeded, None));
    let after = status(&seen, &decide(&seen));
    seen.server.status = Some(after);
    seen.job = Some(live);
    assert_eq!(decided(&seen), "cancel HistoryLost");
}

#[test]
fn a_wipe_whose_machine_has_its_script_goes_on_and_its_last_off_does_not() {
    for (step, goes_on) in [(Step::AwaitWipe, true), (Step::OffForGood, false)] {
        for action in [Action::Wipe, Action::Decommission] {
            let mut seen = shown(|seen| LiveJob {
                step,
                request_stored: true,
                script_given: true,
                ..begun(seen, action)
            });
            seen.another_history = true;
            assert_eq!(
                decided(&seen) != "cancel HistoryLost",
                goes_on,
                "{action} {step}: {}",
                decided(&seen)
            );
        }
    }
}

#[test]
fn a_destructive_job_that_ran_at_the_time_of_another_history_ends_as_lost_for_whatever_it_was_stopped() {
    let mut seen = shown(|seen| begun(seen, Action::Wipe));
    seen.another_history = true;
    let live = seen.job.clone().unwrap();
    for reason in [Reason::WishChanged, Reason::Paused, Reason::CrashLimit] {
        seen.job = Some(LiveJob { cancel: Some(reason), ..live.clone() });
        assert_eq!(decided(&seen), "cancel HistoryLost");
    }
    seen.job = Some(LiveJob { cancel: Some(Reason::HistoryLost), ..live.clone() });
    assert_eq!(decided(&seen), "nothing Cancelling");
    // A worker takes it out, and then the loss is recorded; by then workers claim again.
    seen.another_history = false;
    let cancelling = status(&seen, &decide(&seen));
    seen.server.status = Some(cancelling);
    seen.job = None;
    f::known(&mut seen).last_job = Some(ended(&live, JobResult::Cancelled, Some(Reason::HistoryLost)));
    assert_eq!(decided(&seen), "record Wipe HistoryLost");
}

#[test]
fn what_status_shows_as_queued_or_the_database_saw_end_is_not_lost_with_another_history() {
    let mut seen = shown(|seen| never_started(begun(seen, Action::Wipe)));
    seen.another_history = true;
    assert_eq!(decided(&seen), "cancel WishChanged", "it has not acted, and nobody asks for it");
    let mut seen = shown(|seen| begun(seen, Action::Wipe));
    seen.another_history = true;
    let live = seen.job.take().unwrap();
    f::known(&mut seen).last_job = Some(ended(&live, JobResult::Succeeded, None));
    assert!(!decided(&seen).contains("HistoryLost"), "{}", decided(&seen));
}

#[test]
fn a_job_that_undoes_what_it_began_is_not_behind_of_a_status_that_is_later_in_the_order_of_its_steps() {
    let mut seen =
        shown(|seen| LiveJob { step: Step::EjectMedia, undoing: true, ..begun(seen, Action::Reimage) });
    let live = seen.job.clone().unwrap();
    seen.job = Some(LiveJob { step: Step::On, ..live.clone() });
    assert!(!decided(&seen).contains("HistoryLost"), "{}", decided(&seen));
    // One that goes forward is.
    seen.job = Some(LiveJob { step: Step::On, undoing: false, ..live });
    assert_eq!(decided(&seen), "cancel HistoryLost");
}

#[test]
fn an_installation_that_is_lost_after_it_switched_off_owes_its_machine_an_on() {
    for (step, owes) in [(Step::SetBootOverride, false), (Step::Off, true), (Step::AwaitInstall, true)] {
        let mut seen = shown(|seen| LiveJob { step, ..begun(seen, Action::Reimage) });
        seen.job = None;
        seen.server.spec.reboot_token = None;
        let Command::RecordLost { debt, .. } = decide(&seen).command else { panic!("{}", decided(&seen)) };
        assert_eq!(debt.is_some(), owes, "{step}");
    }
}

#[test]
fn what_status_says_to_be_left_off_is_remembered_by_a_database_that_forgot_it() {
    let mut seen = f::ready();
    f::known(&mut seen).reading = Some(f::reading(crate::api::hardware::PowerState::PoweredOff));
    let owes = crate::job::Debt::begun(crate::job::JobId(1), Action::Reboot, f::NOW_MS - 60_000, 5_000);
    f::known(&mut seen).debt = Some(owes.tried_again(seen.cause(Action::PowerOn), None, f::NOW_MS));
    seen.server.status.as_mut().unwrap().left_off_by = Some(crate::job::JobId(1).to_string());
    let after = status(&seen, &decide(&seen));
    assert_eq!(find(&after.conditions, ConditionType::Stalled).unwrap().reason, "LeftPoweredOff");
    seen.server.status = Some(after);
    f::known(&mut seen).debt = None;
    assert_eq!(decided(&seen), "record debt of Reboot");
    // The database says that it is on: it was paid, unless that is what an older history believed.
    f::known(&mut seen).reading = Some(f::reading(crate::api::hardware::PowerState::PoweredOn));
    assert_eq!(decided(&seen), "nothing AsDeclared");
    seen.another_history = true;
    assert_eq!(decided(&seen), "record debt of Reboot");
    seen.server.spec.power = Some(Power::PoweredOff);
    assert_eq!(decided(&seen), "enqueue PowerOff");
}
