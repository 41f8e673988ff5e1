//! What becomes of a live job: it wakes, gives way, moves and runs to its end.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use super::{Command, decide, fixture as f};
use crate::api::{DeletionPolicy, Power, Reason};
use crate::job::{Action, TokenKind};

#[test]
fn a_job_that_waits_for_what_a_secret_can_cure_wakes_with_a_new_one_and_no_other_does() {
    for (reason, wakes) in [
        (Reason::CredentialsInvalid, true),
        (Reason::BMCPermissionDenied, true),
        (Reason::BMCBusy, false),
        (Reason::Unreachable, false),
    ] {
        let mut seen = f::ready();
        seen.server.spec.power = Some(Power::PoweredOff);
        seen.server.status.as_mut().unwrap().observed_generation = seen.server.metadata.generation;
        seen.job = Some(f::parked(&seen, Action::PowerOff, reason, 1000));
        assert!(matches!(decide(&seen).command, Command::Nothing(_)), "{reason}");
        seen.secret.as_mut().unwrap().resource_version = "8".into();
        assert_eq!(matches!(decide(&seen).command, Command::WakeJob { .. }), wakes, "{reason}");
    }
}

#[test]
fn a_job_of_another_release_holds_everything_but_a_deletion_whose_time_is_over() {
    let mut seen = f::ready();
    seen.server.spec.power = Some(Power::PoweredOff);
    seen.unreadable_job = Some(f::unreadable());
    assert_eq!(decide(&seen).command, Command::Nothing(Reason::UnsupportedJob));
    let (undo, off) = (seen.settings.undo_wait_ms, seen.settings.power_off_wait_ms);
    for (policy, paused, ago, released) in [
        (DeletionPolicy::Retain, true, undo - 1_000, false),
        (DeletionPolicy::Retain, true, undo, true),
        (DeletionPolicy::PowerOff, false, undo + off - 1_000, false),
        (DeletionPolicy::PowerOff, false, undo + off, true),
        (DeletionPolicy::PowerOff, true, undo + off, false),
    ] {
        seen.server.spec.deletion_policy = policy;
        seen.server.spec.paused = Some(paused);
        f::delete(&mut seen, ago);
        let goes = matches!(decide(&seen).command, Command::Release(_));
        assert_eq!(goes, released, "{policy:?}, paused {paused}, deleted {ago} ms ago");
    }
}

#[test]
fn a_job_that_waits_for_its_bmc_wakes_when_a_look_is_asked_for_and_only_once() {
    let mut seen = f::ready();
    seen.server.spec.power = Some(Power::PoweredOff);
    seen.server.status.as_mut().unwrap().observed_generation = seen.server.metadata.generation;
    seen.job = Some(f::parked(&seen, Action::PowerOff, Reason::Unreachable, 1000));
    assert!(matches!(decide(&seen).command, Command::Nothing(_)));
    let asked = k8s_openapi::jiff::Timestamp::from_millisecond(seen.now_ms).unwrap().to_string();
    let annotations = [(crate::api::names::RECONCILE_REQUESTED_AT.to_owned(), asked)];
    seen.server.metadata.annotations = Some(annotations.into());
    assert!(matches!(decide(&seen).command, Command::WakeJob { .. }));
    f::known(&mut seen).last_try_ms = Some(seen.now_ms);
    assert!(matches!(decide(&seen).command, Command::Nothing(_)));
}

#[test]
fn a_look_gives_way_to_work_and_another_priority_moves_the_job() {
    let mut seen = f::ready();
    seen.job = Some(f::job(&seen, Action::Inspect));
    assert!(matches!(decide(&seen).command, Command::Nothing(_)));
    seen.server.spec.power = Some(Power::PoweredOff);
    assert!(matches!(decide(&seen).command, Command::Cancel { reason: Reason::Replaced, .. }));
    seen.job = Some(f::job(&seen, Action::PowerOff));
    assert!(matches!(decide(&seen).command, Command::Nothing(Reason::Queued)));
    seen.server.spec.priority = Some(crate::api::Priority::Urgent);
    assert!(matches!(decide(&seen).command, Command::Reprioritize { lane: crate::job::Lane::Urgent, .. }));
    // As many others of its namespace said so as may: the word changes nothing until there is room.
    seen.urgent_is_full = true;
    assert!(matches!(decide(&seen).command, Command::Nothing(Reason::Queued)));
    seen.job = None;
    assert!(matches!(decide(&seen).command, Command::Enqueue(work) if work.lane == crate::job::Lane::High));
}

#[test]
fn a_reboot_whose_off_was_sent_runs_to_its_end() {
    let mut seen = f::ready();
    seen.server.spec.reboot_token = Some("1".into());
    let mut job = f::started(&seen, Action::Reboot);
    job.request_stored = true;
    seen.job = Some(job);
    f::own(&mut seen);
    f::known(&mut seen).handled.record(TokenKind::Reboot, "1");
    seen.server.spec.power = Some(Power::PoweredOff);
    assert!(matches!(decide(&seen).command, Command::Nothing(Reason::Rebooting)));
}
