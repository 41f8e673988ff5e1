//! What a live `Server` has against a first request.
#![allow(clippy::unwrap_used, missing_docs)]

use rstest::rstest;

use super::*;
use crate::api::condition::time;
use crate::api::{
    BmcSpec, DeletionPolicy, ImageKind, ImageStatus, ImageWish, JobStatus, LastJobStatus, Lifecycle,
    Provisioning, ServerSpec, names,
};
use crate::job::{InstalledImage, JobResult, Origin, Step};
use crate::worker::session::BootImage;

const ID: JobId = JobId(7);
const OTHER: JobId = JobId(8);
const DIGEST: &str = "sha256:1";

fn boot_image() -> BootImage {
    BootImage { name: "debian".into(), digest: DIGEST.into(), kind: ImageKind::Network, flaw: None }
}

fn uid() -> ServerUid {
    ServerUid("u".into())
}

/// A server whose status shows a job like this.
fn server(shown: Option<(JobId, Action, JobState)>) -> Server {
    let bmc = BmcSpec { address: "redfish+https://192.0.2.1".into(), ..BmcSpec::default() };
    let spec = ServerSpec { bmc, reboot_token: Some("t".into()), ..ServerSpec::default() };
    let mut server = Server::new("a", spec);
    server.metadata.uid = Some(uid().0);
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
        progress: None,
    });
    server.status = Some(ServerStatus { job, ..ServerStatus::default() });
    server
}

/// What is said of the first request of a job with this id, short. Its machine was only ever seen off.
fn said(action: Action, server: &Server, begun: bool, handled: &[&str]) -> String {
    said_of(action, server, begun, handled, None, PowerState::PoweredOff)
}

/// The same server where it asks for this action, with a person's word.
fn asking_for(action: Action, mut server: Server) -> Server {
    server.spec.image.get_or_insert_with(|| ImageWish { name: "debian".into(), ..ImageWish::default() });
    match action {
        Action::Decommission => server.spec.lifecycle = Lifecycle::Decommissioned,
        Action::PowerOn => server.spec.power = Some(crate::api::Power::PoweredOn),
        Action::PowerOff => server.spec.power = Some(crate::api::Power::PoweredOff),
        Action::Wipe => {
            server.spec.deletion_policy = DeletionPolicy::Wipe;
            server.metadata.deletion_timestamp = Some(time(3));
        }
        _ => {}
    }
    if action.wipes() {
        server.metadata.annotations = Some([(names::CONFIRM.to_owned(), uid().0)].into());
    }
    server
}

fn said_of(
    action: Action,
    server: &Server,
    begun: bool,
    handled: &[&str],
    contents: Option<&Contents>,
    power: PowerState,
) -> String {
    let server = &asking_for(action, server.clone());
    let asking = Asking { server: server.clone(), image: Some(boot_image()) };
    let intent = session::intent(action, &uid(), &asking);
    let values = || handled.iter().map(|token| (*token).to_owned()).collect();
    let handled = HandledTokens { reboot: values(), reimage: values() };
    let asked = FirstRequest {
        uid: &uid(),
        id: ID,
        action,
        intent: &intent,
        begun,
        acted: begun,
        handled: &handled,
        contents,
        power: Some(power),
        debt: None,
    };
    match objection(&asked, &asking) {
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
        exact_reason: None,
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
    let asked = FirstRequest {
        uid: &uid(),
        id: ID,
        action: Action::Wipe,
        intent: &intent,
        begun: false,
        acted: false,
        handled: &handled,
        contents: None,
        power: None,
        debt: None,
    };
    assert!(matches!(
        objection(&asked, &Asking { server, image: None }),
        Some(StepOutcome::Superseded { problem }) if problem.reason == Reason::WishChanged
    ));
}

/// A server that wishes an image, and whose status shows this job as running.
fn wishing(action: Action) -> Server {
    let mut server = server(Some((ID, action, JobState::Running)));
    server.spec.image = Some(ImageWish { name: "debian".into(), ..ImageWish::default() });
    server.spec.reboot_token = None;
    server
}

fn image(name: &str, at_ms: i64) -> Contents {
    let (name, digest) = (name.to_owned(), DIGEST.to_owned());
    Contents::Image(InstalledImage { name, digest, at_ms, origin: Origin::Installed })
}

#[rstest]
#[case::only_ever_off(None, PowerState::PoweredOff, "go on")]
#[case::running_and_never_recorded(None, PowerState::PoweredOn, "superseded ConfirmBuild")]
#[case::ran_before(Some(Contents::Foreign { since_ms: 5 }), PowerState::PoweredOff, "superseded ConfirmBuild")]
#[case::half_installed(Some(Contents::Unknown { since_ms: 5 }), PowerState::PoweredOn, "go on")]
#[case::another_image(Some(image("older", 5)), PowerState::PoweredOn, "go on")]
#[case::the_same_image(Some(image("debian", 5)), PowerState::PoweredOn, "superseded AlreadyDone")]
fn a_machine_that_ran_before_is_installed_on_a_persons_word_alone(
    #[case] contents: Option<Contents>,
    #[case] power: PowerState,
    #[case] expected: &str,
) {
    for action in [Action::Build, Action::Reimage] {
        let mut server = wishing(action);
        assert_eq!(said_of(action, &server, false, &[], contents.as_ref(), power), expected, "{action}");
        // The word of another object is none.
        let confirm = |uid: &str| Some([(names::CONFIRM.to_owned(), uid.to_owned())].into());
        server.metadata.annotations = confirm("another");
        assert_eq!(said_of(action, &server, false, &[], contents.as_ref(), power), expected, "{action}");
        server.metadata.annotations = confirm("u");
        let confirmed = if expected == "superseded ConfirmBuild" { "go on" } else { expected };
        assert_eq!(said_of(action, &server, false, &[], contents.as_ref(), power), confirmed, "{action}");
    }
}

#[test]
fn an_installation_that_status_shows_as_done_is_not_done_again() {
    let mut server = wishing(Action::Reimage);
    server.spec.reimage_token = Some("t".into());
    let off = PowerState::PoweredOff;
    let say = |server: &Server, handled: &[&str], contents: Option<&Contents>| {
        said_of(Action::Reimage, server, false, handled, contents, off)
    };
    let before = image("debian", 5_000);
    assert_eq!(say(&server, &[], Some(&before)), "go on", "a new token");
    assert_eq!(say(&server, &["t"], Some(&before)), "superseded AlreadyDone");
    // The database lost its last commits.
    let status = server.status.as_mut().unwrap();
    status.reimage_tokens = vec!["t".into()];
    assert_eq!(say(&server, &[], Some(&Contents::Unknown { since_ms: 4_000 })), "superseded HistoryLost");
    server.status.as_mut().unwrap().image = Some(ImageStatus {
        name: "debian".into(),
        digest: DIGEST.into(),
        installed_at: time(9_000),
        adopted: false,
    });
    assert_eq!(say(&server, &[], Some(&Contents::Unknown { since_ms: 4_000 })), "superseded AlreadyDone");
}

/// Why nothing is sent for this object as it stands, to a machine that is off.
fn superseded(action: Action, server: Server, contents: Option<&Contents>) -> Option<Reason> {
    let asking = Asking { server, image: Some(boot_image()) };
    let (uid, handled) = (uid(), HandledTokens::default());
    let asked = FirstRequest {
        uid: &uid,
        id: ID,
        action,
        intent: &session::intent(action, &uid, &asking),
        begun: false,
        acted: false,
        handled: &handled,
        contents,
        power: Some(PowerState::PoweredOff),
        debt: None,
    };
    match objection(&asked, &asking) {
        Some(StepOutcome::Superseded { problem }) => Some(problem.reason),
        _ => None,
    }
}

#[test]
fn what_destroys_data_is_asked_for_by_the_object_itself_whatever_intent_a_row_has() {
    for action in Action::ALL.into_iter().filter(|action| action.effect() == Effect::Destructive) {
        let mut server = asking_for(action, server(Some((ID, action, JobState::Running))));
        match action {
            Action::Decommission => server.spec.lifecycle = Lifecycle::InService,
            Action::Wipe => server.spec.deletion_policy = DeletionPolicy::Retain,
            _ => server.spec.provisioning = Provisioning::Adopt,
        }
        assert_eq!(superseded(action, server, None), Some(Reason::WishChanged), "{action}");
    }
}

#[test]
fn no_disk_is_erased_without_a_persons_word_and_none_twice() {
    let foreign = Contents::Foreign { since_ms: 1 };
    for (action, reason) in
        [(Action::Decommission, Reason::ConfirmDecommission), (Action::Wipe, Reason::ConfirmWipe)]
    {
        let mut server = asking_for(action, server(Some((ID, action, JobState::Running))));
        assert_eq!(superseded(action, server.clone(), Some(&foreign)), None);
        let wiped = Contents::Wiped { since_ms: 1 };
        assert_eq!(superseded(action, server.clone(), Some(&wiped)), Some(Reason::AlreadyDone));
        let another = "of-another-object".to_owned();
        server.metadata.annotations = Some([(names::CONFIRM.to_owned(), another)].into());
        assert_eq!(superseded(action, server, Some(&foreign)), Some(reason));
    }
}

/// What is said of a first request to switch on a machine with this debt.
fn switched_on(server: Server, debt: Option<&Debt>) -> String {
    let asking = Asking { server, image: None };
    let (uid, handled) = (uid(), HandledTokens::default());
    let asked = FirstRequest {
        uid: &uid,
        id: ID,
        action: Action::PowerOn,
        intent: &session::intent(Action::PowerOn, &uid, &asking),
        begun: false,
        acted: false,
        handled: &handled,
        contents: None,
        power: Some(PowerState::PoweredOff),
        debt,
    };
    match objection(&asked, &asking) {
        None => "go on".to_owned(),
        Some(StepOutcome::Park { waiting_for, .. }) => format!("wait for {}", waiting_for.as_str()),
        Some(StepOutcome::Superseded { problem }) => format!("superseded {}", problem.reason),
        Some(other) => format!("{other:?}"),
    }
}

#[test]
fn a_machine_is_switched_on_by_a_wish_or_for_what_status_shows_to_have_been_left_off() {
    let debt = Debt::begun(OTHER, Action::Reboot, 1_000, 5_000);
    assert_eq!(switched_on(server(None), None), "superseded WishChanged");
    assert_eq!(switched_on(server(None), Some(&debt)), "wait for Status");
    let shown = server(Some((OTHER, Action::Reboot, JobState::Running)));
    assert_eq!(switched_on(shown.clone(), None), "superseded WishChanged");
    assert_eq!(switched_on(shown, Some(&debt)), "go on");
    let mut wished = server(None);
    wished.spec.power = Some(crate::api::Power::PoweredOn);
    assert_eq!(switched_on(wished, None), "go on");
}

#[test]
fn a_machine_that_was_switched_on_while_every_request_was_refused_is_built_on_a_persons_word() {
    let server = asking_for(Action::Build, server(Some((ID, Action::Build, JobState::Running))));
    let asking = Asking { server, image: Some(boot_image()) };
    let intent = session::intent(Action::Build, &uid(), &asking);
    let handled = HandledTokens::default();
    let reason = |acted, power| {
        let asked = FirstRequest {
            uid: &uid(),
            id: ID,
            action: Action::Build,
            intent: &intent,
            begun: true,
            acted,
            handled: &handled,
            contents: None,
            power: Some(power),
            debt: None,
        };
        match objection(&asked, &asking) {
            Some(StepOutcome::Superseded { problem }) => problem.reason.to_string(),
            other => format!("{other:?}"),
        }
    };
    assert_eq!(reason(false, PowerState::PoweredOff), "None");
    assert_eq!(reason(false, PowerState::PoweredOn), "ConfirmBuild");
    // What runs then may be what was begun.
    assert_eq!(reason(true, PowerState::PoweredOn), "None");
}

#[test]
fn the_worker_sends_what_the_object_asks_for_and_nothing_else() {
    for row in crate::job::asked_table::rows() {
        let mut server = server(Some((ID, row.action, JobState::Running)));
        server.spec.reboot_token = None;
        let server = row.server(server);
        let asking = Asking { server: server.clone(), image: Some(boot_image()) };
        let intent = session::intent(row.action, &uid(), &asking);
        for (begun, expected) in [(false, row.expected[0]), (true, row.expected[1])] {
            let asked = FirstRequest {
                uid: &uid(),
                id: ID,
                action: row.action,
                intent: &intent,
                begun,
                acted: begun,
                handled: &HandledTokens::default(),
                contents: row.contents.as_ref(),
                power: Some(PowerState::PoweredOn),
                debt: None,
            };
            let outcome = objection(&asked, &asking);
            assert_eq!(outcome.is_none(), expected.is_none(), "{} begun {begun}: {outcome:?}", row.what);
        }
    }
}
