//! A field of spec that an older definition dropped, or a backup does not have, is back at its default: that may destroy
//! nothing, erase nothing, and switch on nothing whose life has ended.
#![allow(clippy::unwrap_used, missing_docs)]

use rstest::rstest;

use super::{Command, Observation, decide, fixture as f, status};
use crate::api::condition::time;
use crate::api::{DeletionPolicy, ImageKind, ImageWish, Lifecycle, Phase, Power, Provisioning, ServerSpec};
use crate::job::{
    Action, Contents, Effect, FinishedJob, InstalledImage, JobResult, Origin, Problem, StoredFailure,
};

/// A machine at rest that runs this image, with everything set that can be set.
fn converged(origin: Origin) -> Observation {
    let mut seen = f::ready();
    seen.server.spec = ServerSpec {
        power: Some(Power::PoweredOn),
        image: Some(ImageWish { name: "debian".into(), ..ImageWish::default() }),
        provisioning: if origin == Origin::Adopted { Provisioning::Adopt } else { Provisioning::Install },
        reimage_token: Some("i".into()),
        reboot_token: Some("r".into()),
        shutdown_mode: crate::api::ShutdownMode::Forced,
        boot_method: crate::api::BootMethod::HTTP,
        boot_mac_address: Some("52:54:00:12:34:56".into()),
        deletion_policy: DeletionPolicy::Wipe,
        ..seen.server.spec.clone()
    };
    (seen.image_digest, seen.image_kind) = (Some("sha256:1".into()), Some(ImageKind::Network));
    let image = InstalledImage { name: "debian".into(), digest: "sha256:1".into(), at_ms: 1, origin };
    let known = f::known(&mut seen);
    known.contents = Some(Contents::Image(image));
    known.handled.reimage = vec!["i".into()];
    known.handled.reboot = vec!["r".into()];
    seen.server.status = Some(status(&seen, &decide(&seen)));
    assert!(matches!(decide(&seen).command, Command::Nothing(_)), "{:?}", decide(&seen).command);
    seen
}

/// The same, decommissioned: off, erased, and told so.
fn decommissioned() -> Observation {
    let mut seen = converged(Origin::Installed);
    seen.server.spec.lifecycle = Lifecycle::Decommissioned;
    let known = f::known(&mut seen);
    known.contents = Some(Contents::Decommissioned { since_ms: 5 });
    known.reading = Some(f::reading(crate::api::hardware::PowerState::PoweredOff));
    seen.server.status = Some(status(&seen, &decide(&seen)));
    assert_eq!(seen.server.status.as_ref().unwrap().phase, Some(Phase::Decommissioned));
    seen
}

fn effect(command: &Command) -> Option<Action> {
    match command {
        Command::Enqueue(work) if work.action.effect() != Effect::ReadOnly => Some(work.action),
        _ => None,
    }
}

#[rstest]
#[case::lifecycle(|s: &mut ServerSpec| s.lifecycle = Lifecycle::InService)]
#[case::power(|s: &mut ServerSpec| s.power = None)]
#[case::image(|s: &mut ServerSpec| s.image = None)]
#[case::provisioning(|s: &mut ServerSpec| s.provisioning = Provisioning::Install)]
#[case::boot_mac_address(|s: &mut ServerSpec| s.boot_mac_address = None)]
#[case::boot_method(|s: &mut ServerSpec| s.boot_method = crate::api::BootMethod::PXE)]
#[case::reimage_token(|s: &mut ServerSpec| s.reimage_token = None)]
#[case::reboot_token(|s: &mut ServerSpec| s.reboot_token = None)]
#[case::shutdown_mode(|s: &mut ServerSpec| s.shutdown_mode = crate::api::ShutdownMode::Graceful)]
#[case::priority(|s: &mut ServerSpec| s.priority = None)]
#[case::paused(|s: &mut ServerSpec| s.paused = None)]
#[case::deletion_policy(|s: &mut ServerSpec| s.deletion_policy = DeletionPolicy::Retain)]
#[case::tls(|s: &mut ServerSpec| s.bmc.tls = None)]
fn a_lost_field_does_nothing_to_a_machine_at_rest_nor_does_its_coming_back(
    #[case] lose: fn(&mut ServerSpec),
) {
    for before in [converged(Origin::Installed), converged(Origin::Adopted), decommissioned()] {
        let mut seen = before.clone();
        lose(&mut seen.server.spec);
        seen.server.metadata.generation = Some(2);
        let decision = decide(&seen);
        assert_eq!(effect(&decision.command), None, "{:?}", decision.command);
        seen.server.status = Some(status(&seen, &decision));
        seen.server.spec = before.server.spec.clone();
        let decision = decide(&seen);
        assert_eq!(effect(&decision.command), None, "back again: {:?}", decision.command);
    }
}

#[test]
fn a_machine_that_was_decommissioned_stays_so_whoever_still_knows_it() {
    for (what, forget) in [
        ("row and status", (|_| {}) as fn(&mut Observation)),
        ("the row alone", |seen| {
            let status = seen.server.status.as_mut().unwrap();
            (status.decommissioned_at, status.wiped_at, status.phase) = (None, None, Some(Phase::Ready));
        }),
        ("status alone", |seen| f::known(seen).contents = None),
        ("a status of the release before", |seen| {
            f::known(seen).contents = None;
            let status = seen.server.status.as_mut().unwrap();
            (status.decommissioned_at, status.wiped_at) = (None, Some(time(5)));
        }),
    ] {
        let mut seen = decommissioned();
        forget(&mut seen);
        seen.server.spec.lifecycle = Lifecycle::InService;
        seen.server.spec.image.as_mut().unwrap().name = "other".into();
        seen.server.spec.reimage_token = Some("new".into());
        seen.server.metadata.generation = Some(2);
        // Tokens that ask for nothing any more count as handled first.
        for _ in 0..3 {
            if let Command::RecordHandled { token, .. } = decide(&seen).command {
                f::known(&mut seen).handled.record(token.kind, &token.value);
            }
        }
        let decision = decide(&seen);
        assert!(matches!(decision.command, Command::Nothing(_)), "{what}: {:?}", decision.command);
        let shown = status(&seen, &decision);
        let stalled = shown.conditions.iter().find(|one| one.type_ == "Stalled").unwrap();
        assert_eq!(stalled.reason, "LifecycleForgotten", "{what}");
        assert!(stalled.message.contains("lifecycle") && stalled.message.contains("recommission"));
        assert!(shown.decommissioned_at.is_some() && shown.wiped_at.is_some(), "{what}");
        // And with that status, when the row is lost, too.
        seen.server.status = Some(shown);
        seen.known = None;
        let Command::Register { contents, .. } = decide(&seen).command else { unreachable!("{what}") };
        assert!(matches!(contents, Some(Contents::Decommissioned { .. })), "{what}: {contents:?}");
    }
}

#[test]
fn a_lost_adopt_asks_before_what_was_adopted_is_replaced() {
    let mut seen = converged(Origin::Adopted);
    seen.server.spec.provisioning = Provisioning::Install;
    seen.server.spec.image.as_mut().unwrap().name = "other".into();
    seen.image_digest = Some("sha256:2".into());
    let decision = decide(&seen);
    assert_eq!(effect(&decision.command), None);
    let shown = status(&seen, &decision);
    let stalled = shown.conditions.iter().find(|one| one.type_ == "Stalled").unwrap();
    assert_eq!(stalled.reason, "ConfirmBuild");
    assert!(stalled.message.contains("adopted"), "{}", stalled.message);
}

#[test]
fn a_lost_deletion_policy_lets_the_machine_go_as_it_is() {
    for policy in [DeletionPolicy::Wipe, DeletionPolicy::PowerOff] {
        let mut seen = converged(Origin::Installed);
        seen.server.spec.deletion_policy = policy;
        f::delete(&mut seen, 1_000);
        seen.server.spec.deletion_policy = DeletionPolicy::Retain;
        assert!(matches!(decide(&seen).command, Command::Release(_)), "{policy:?}");
    }
}

/// A reimage of this machine that failed for good, as it was told then.
fn failed_reimage(reason: crate::api::Reason) -> Observation {
    let mut seen = converged(Origin::Installed);
    seen.server.spec.image.as_mut().unwrap().name = "other".into();
    seen.image_digest = Some("sha256:2".into());
    let failure = StoredFailure {
        problem: Problem::new(reason, "it failed"),
        ..f::failure(&seen, Action::Reimage, reason)
    };
    f::known(&mut seen).failure = Some(failure);
    seen
}

#[rstest]
#[case::a_label_on_the_secret(|s: &mut Observation| s.secret.as_mut().unwrap().resource_version = "8".into())]
#[case::the_secret_created_again(|s: &mut Observation| s.secret.as_mut().unwrap().uid = "t".into())]
#[case::another_power(|s: &mut Observation| s.server.spec.power = None)]
#[case::another_priority(|s: &mut Observation| s.server.spec.priority = Some(crate::api::Priority::Urgent))]
#[case::another_shutdown_mode(|s: &mut Observation| s.server.spec.shutdown_mode = crate::api::ShutdownMode::Graceful)]
#[case::another_deletion_policy(|s: &mut Observation| s.server.spec.deletion_policy = DeletionPolicy::Retain)]
#[case::another_secret(|s: &mut Observation| s.server.spec.bmc.credentials_ref.name = "other".into())]
#[case::a_cause_of_the_release_before(|s: &mut Observation| {
    f::known(s).failure.as_mut().unwrap().cause = crate::job::Cause { named: String::new(), whole: "a39f1ac98571a5388a278ddbd4691efc25f750d4f5383ac3e9bddbd854e0c367".into() };
})]
fn a_failed_installation_is_not_begun_again_by(#[case] change: fn(&mut Observation)) {
    for reason in [
        crate::api::Reason::InstallFailed,
        crate::api::Reason::IdentityMismatch,
        crate::api::Reason::CredentialsInvalid,
    ] {
        let mut seen = failed_reimage(reason);
        change(&mut seen);
        assert_eq!(effect(&decide(&seen).command), None, "{reason}");
    }
}

#[rstest]
#[case::another_image(|s: &mut Observation| s.server.spec.image.as_mut().unwrap().name = "third".into())]
#[case::another_card(|s: &mut Observation| s.server.spec.boot_mac_address = None)]
#[case::another_method(|s: &mut Observation| s.server.spec.boot_method = crate::api::BootMethod::PXE)]
#[case::a_new_token(|s: &mut Observation| s.server.spec.reimage_token = Some("new".into()))]
#[case::a_persons_word(|s: &mut Observation| asks(s, "banana"))]
#[case::a_persons_word_in_the_past(|s: &mut Observation| asks(s, "1999-01-01T00:00:00Z"))]
fn a_failed_installation_is_begun_again_by(#[case] change: fn(&mut Observation)) {
    let mut seen = failed_reimage(crate::api::Reason::InstallFailed);
    change(&mut seen);
    assert_eq!(effect(&decide(&seen).command), Some(Action::Reimage));
}

/// The same, as status shows it.
fn shown_failed_reimage(reason: crate::api::Reason) -> Observation {
    let mut seen = failed_reimage(reason);
    let job = f::started(&seen, Action::Reimage);
    f::known(&mut seen).last_job = Some(FinishedJob {
        id: job.id,
        action: job.action,
        intent: job.intent,
        result: JobResult::Failed,
        problem: Some(Problem::new(reason, "it failed")),
        step: job.step,
        enqueued_at_ms: job.enqueued_at_ms,
        started_at_ms: job.started_at_ms,
        finished_at_ms: f::NOW_MS - 1_000,
    });
    seen.server.status = Some(status(&seen, &decide(&seen)));
    seen
}

#[rstest]
#[case::its_row_forgot_it(|s: &mut Observation| f::known(s).failure = None)]
#[case::a_backup_of_before_its_job(|s: &mut Observation| {
    let known = f::known(s);
    (known.failure, known.last_job) = (None, None);
})]
fn a_failed_installation_that_status_tells_of_is_not_begun_again_where(#[case] forget: fn(&mut Observation)) {
    use crate::api::Reason;
    for reason in [Reason::InstallFailed, Reason::NeverBooted, Reason::ContentsUnknown] {
        let mut seen = shown_failed_reimage(reason);
        let told = seen.server.status.clone().unwrap();
        forget(&mut seen);
        let Command::RecordLost { job, cause, .. } = decide(&seen).command else { unreachable!("{reason}") };
        assert_eq!(job.problem, Some(Problem::new(reason, "it failed")));
        // It stands again as it did.
        let failure = f::failure(&seen, Action::Reimage, reason);
        let problem = job.problem.clone().unwrap();
        let known = f::known(&mut seen);
        (known.failure, known.last_job) =
            (Some(StoredFailure { problem, cause, intent: job.intent.clone(), ..failure }), Some(job));
        let decision = decide(&seen);
        assert_eq!(effect(&decision.command), None, "{reason}");
        assert_eq!(status(&seen, &decision).conditions, told.conditions, "{reason}");
    }
    // What is wished now is not what failed, or somebody asks for another try.
    let mut other = shown_failed_reimage(Reason::InstallFailed);
    forget(&mut other);
    other.server.spec.image.as_mut().unwrap().name = "third".into();
    other.server.metadata.generation = Some(99);
    assert_eq!(effect(&decide(&other).command), Some(Action::Reimage), "{:?}", decide(&other).command);
    let mut asked = shown_failed_reimage(Reason::InstallFailed);
    forget(&mut asked);
    heeded(&mut asked, "", 0);
    asks(&mut asked, "again");
    assert_eq!(effect(&decide(&asked).command), Some(Action::Reimage), "{:?}", decide(&asked).command);
}

fn asks(seen: &mut Observation, value: &str) {
    let annotation = (crate::api::names::RECONCILE_REQUESTED_AT.to_owned(), value.to_owned());
    seen.server.metadata.annotations = Some([annotation].into());
}

fn heeded(seen: &mut Observation, value: &str, at_ms: i64) {
    let request = crate::job::ReconcileRequest { value: value.into(), at_ms };
    f::known(seen).reconcile_request = Some(request);
}

#[test]
fn a_failure_of_the_release_before_stands_until_somebody_asks() {
    let mut seen = failed_reimage(crate::api::Reason::InstallFailed);
    let failure = f::known(&mut seen).failure.as_mut().unwrap();
    failure.cause = crate::job::Cause { named: String::new(), whole: "a".repeat(64) };
    let failed_at = failure.at_ms;
    // What was there at the upgrade asks for nothing, whether it was counted yet or not.
    asks(&mut seen, "2020-01-01T00:00:00Z");
    assert_eq!(effect(&decide(&seen).command), None);
    heeded(&mut seen, "2020-01-01T00:00:00Z", 0);
    assert_eq!(effect(&decide(&seen).command), None);
    asks(&mut seen, "again");
    assert_eq!(effect(&decide(&seen).command), Some(Action::Reimage));
    // A look was faster than the installation.
    heeded(&mut seen, "again", failed_at + 1);
    assert_eq!(effect(&decide(&seen).command), Some(Action::Reimage));
}

#[test]
fn taking_the_word_back_is_no_word() {
    let mut seen = converged(Origin::Installed);
    asks(&mut seen, "once");
    heeded(&mut seen, "once", 1);
    seen.server.spec.image.as_mut().unwrap().name = "other".into();
    seen.image_digest = Some("sha256:2".into());
    let failure = f::failure(&seen, Action::Reimage, crate::api::Reason::InstallFailed);
    f::known(&mut seen).failure = Some(failure);
    seen.server.metadata.annotations = None;
    assert_eq!(effect(&decide(&seen).command), None);
    asks(&mut seen, "once");
    assert_eq!(effect(&decide(&seen).command), None, "nor is the same word again");
}

#[test]
fn every_new_value_asks_for_a_look_whatever_it_says() {
    for value in ["banana", "1999-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "", " ", "ä"] {
        let mut seen = converged(Origin::Installed);
        heeded(&mut seen, "", 0);
        asks(&mut seen, value);
        let looks = matches!(decide(&seen).command, Command::Enqueue(work) if work.action == Action::Inspect);
        assert_eq!(looks, !value.is_empty(), "{value:?}");
        heeded(&mut seen, &crate::job::ReconcileRequest::bounded(value), 1);
        assert!(matches!(decide(&seen).command, Command::Nothing(_)), "{value:?} was acted on");
        let shown = status(&seen, &decide(&seen));
        assert_eq!(shown.last_handled_reconcile_at.is_some(), !value.is_empty(), "{value:?}");
    }
}

#[test]
fn another_secret_leads_to_a_look_where_the_bmc_was_in_the_way() {
    for reason in [crate::api::Reason::TLSConfigInvalid, crate::api::Reason::CredentialsInvalid] {
        let mut seen = failed_reimage(reason);
        assert!(matches!(decide(&seen).command, Command::Nothing(_)), "{reason}");
        seen.secret.as_mut().unwrap().resource_version = "8".into();
        let looks = matches!(decide(&seen).command, Command::Enqueue(work) if work.action == Action::Inspect);
        assert!(looks, "{reason}: {:?}", decide(&seen).command);
    }
}

#[test]
fn what_fails_later_does_not_begin_a_failed_installation_again() {
    let mut seen = failed_reimage(crate::api::Reason::InstallFailed);
    let installation = f::known(&mut seen).failure.take();
    for (action, reason) in [
        (Action::Inspect, crate::api::Reason::IdentityMismatch),
        (Action::PowerOff, crate::api::Reason::RequestRefused),
        (Action::Reboot, crate::api::Reason::PowerStateMismatch),
    ] {
        let before = installation.clone();
        let later = f::failure(&seen, action, reason).after(before);
        // And one more of its kind after that.
        let later = f::failure(&seen, action, reason).after(Some(later));
        f::known(&mut seen).failure = Some(later);
        f::known(&mut seen).last_good_read_ms = Some(f::NOW_MS + 1);
        assert_eq!(effect(&decide(&seen).command), None, "{action}");
    }
}
