//! What a live `Server` has against a first request.
#![allow(clippy::unwrap_used, missing_docs)]

use rstest::rstest;

use super::*;
use crate::api::condition::time;
use crate::api::{BmcSpec, JobStatus, LastJobStatus, ServerSpec};
use crate::job::{JobResult, Step};

const ID: JobId = JobId(7);
const OTHER: JobId = JobId(8);

fn uid() -> ServerUid {
    ServerUid("u".into())
}

/// A server whose status shows a job like this.
fn server(shown: Option<(JobId, Action, JobState)>) -> Server {
    let bmc = BmcSpec { address: "redfish+https://192.0.2.1".into(), ..BmcSpec::default() };
    let spec = ServerSpec { bmc, reboot_token: Some("t".into()), ..ServerSpec::default() };
    let mut server = Server::new("a", spec);
    let job = shown.map(|(id, action, state)| JobStatus {
        id: id.to_string(),
        action,
        priority: action.default_lane(),
        state,
        step: Step::Off,
        attempt: None,
        enqueued_at: time(1),
        started_at: (state != JobState::Queued).then(|| time(2)),
        waiting_for: None,
    });
    server.status = Some(ServerStatus { job, ..ServerStatus::default() });
    server
}

/// What is said of the first request of a job with this id, short.
fn said(action: Action, server: &Server, begun: bool, handled: &[&str]) -> String {
    let intent = session::intent(action, &uid(), server);
    let handled = HandledTokens { reboot: handled.iter().map(|token| (*token).to_owned()).collect() };
    let asked = Asked { uid: &uid(), id: ID, action, intent: &intent, begun, handled: &handled };
    match objection(&asked, server) {
        None => "go on".to_owned(),
        Some(StepOutcome::Park { waiting_for, .. }) => format!("wait for {}", waiting_for.as_str()),
        Some(StepOutcome::Superseded { problem }) => format!("superseded {}", problem.reason),
        Some(other) => format!("{other:?}"),
    }
}

#[rstest]
#[case::running(Some((ID, JobState::Running)), true)]
#[case::parked_before(Some((ID, JobState::Waiting)), true)]
#[case::not_shown_as_claimed_yet(Some((ID, JobState::Queued)), false)]
#[case::asked_to_stop(Some((ID, JobState::Cancelling)), false)]
#[case::another_job(Some((OTHER, JobState::Running)), false)]
#[case::no_job(None, false)]
fn what_destroys_data_goes_on_only_while_status_shows_this_very_job_as_running(
    #[case] shown: Option<(JobId, JobState)>,
    #[case] witnessed: bool,
) {
    for action in Action::ALL {
        let server = server(shown.map(|(id, state)| (id, action, state)));
        let needs_it = action.effect() == Effect::Destructive;
        let expected = if witnessed || !needs_it { "go on" } else { "wait for Status" };
        // Also when it is tried again, because a look said that the request did not happen.
        for begun in [false, true] {
            assert_eq!(said(action, &server, begun, &[]), expected, "{action}");
        }
    }
}

#[test]
fn a_server_whose_status_was_never_written_is_no_witness() {
    let mut server = server(None);
    server.status = None;
    assert_eq!(said(Action::Wipe, &server, false, &[]), "wait for Status");
    assert_eq!(said(Action::Reboot, &server, false, &[]), "go on");
}

#[test]
fn a_token_that_is_handled_is_not_acted_on_and_which_side_forgot_it_is_said() {
    let mut server = server(None);
    assert_eq!(said(Action::Reboot, &server, false, &["t"]), "superseded AlreadyDone");
    assert_eq!(said(Action::Reboot, &server, true, &["t"]), "go on", "its own first request handled it");
    server.status.as_mut().unwrap().reboot_tokens = vec!["t".into()];
    assert_eq!(said(Action::Reboot, &server, false, &[]), "superseded HistoryLost");
    assert_eq!(said(Action::Reboot, &server, false, &["t"]), "superseded AlreadyDone");
    assert_eq!(said(Action::PowerOn, &server, false, &["t"]), "go on");
}

#[test]
fn nothing_is_begun_that_is_paused_or_was_shown_to_have_ended() {
    let mut server = server(Some((ID, Action::Wipe, JobState::Running)));
    server.spec.paused = Some(true);
    assert_eq!(said(Action::Wipe, &server, false, &[]), "superseded Paused");
    server.spec.paused = None;
    server.status.as_mut().unwrap().last_job = Some(LastJobStatus {
        id: ID.to_string(),
        action: Action::Wipe,
        result: JobResult::Succeeded,
        reason: None,
        message: None,
        step: Step::Off,
        enqueued_at: time(1),
        started_at: None,
        finished_at: time(3),
    });
    assert_eq!(said(Action::Wipe, &server, false, &[]), "superseded HistoryLost");
}

#[test]
fn another_wish_wins_over_everything() {
    let server = server(None);
    let intent = Intent("another".into());
    let handled = HandledTokens::default();
    let asked =
        Asked { uid: &uid(), id: ID, action: Action::Wipe, intent: &intent, begun: false, handled: &handled };
    assert!(matches!(
        objection(&asked, &server),
        Some(StepOutcome::Superseded { problem }) if problem.reason == Reason::WishChanged
    ));
}
