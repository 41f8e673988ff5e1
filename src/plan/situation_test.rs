//! The table of situations: phase, Ready, the other conditions, and what kstatus makes of them.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use rstest::rstest;

use super::kstatus::{Kstatus, kstatus};
use super::{Command, Farewell, Observation, SiteWorkers, decide, fixture as f, status};
use crate::api::condition::{ConditionType, find};
use crate::api::hardware::PowerState;
use crate::api::{BmcTls, DeletionPolicy, Power, Reason, TlsVerify};
use crate::job::Visibility;
use crate::job::{Action, ClaimRefusal, Debt, JobId, Problem};

fn change(mut seen: Observation, how: impl FnOnce(&mut Observation)) -> Observation {
    how(&mut seen);
    seen
}

fn with_job(seen: Observation, job: impl FnOnce(&Observation) -> crate::job::LiveJob) -> Observation {
    let job = job(&seen);
    change(seen, |seen| seen.job = Some(job))
}

fn wished_off() -> Observation {
    change(f::ready(), |seen| seen.server.spec.power = Some(Power::PoweredOff))
}

fn registered() -> Observation {
    change(f::new(), |seen| {
        seen.known =
            Some(crate::job::Known { claimed_address: Some(f::ADDRESS.into()), ..Default::default() });
    })
}

fn failed(reason: Reason) -> Observation {
    let seen = wished_off();
    let failure = f::failure(&seen, Action::PowerOff, reason);
    change(seen, |seen| f::known(seen).failure = Some(failure))
}

/// A reboot that could not switch on again has ended.
fn left_off() -> Observation {
    let mut seen = f::ready();
    let cause = seen.cause(Action::PowerOn);
    let known = f::known(&mut seen);
    known.reading = Some(f::reading(PowerState::PoweredOff));
    let debt = Debt::begun(JobId(7), Action::Reboot, f::NOW_MS - 60_000, 5_000);
    let problem = Problem::new(Reason::RequestRefused, "the BMC refuses it");
    known.debt = Some(debt.tried_again(cause, Some(problem), f::NOW_MS - 500));
    seen.server.status.as_mut().unwrap().left_off_by = Some(JobId(7).to_string());
    seen
}

/// What is in the way may fill all that a condition says (seen: a wipe that met another machine, told twice).
#[test]
fn that_a_machine_was_left_off_is_said_however_long_it_takes_to_say_what_is_in_the_way() {
    let wiped = change(left_off(), |seen| {
        f::delete(seen, 1_000);
        seen.server.spec.deletion_policy = DeletionPolicy::Wipe;
    });
    let long = Problem::new(Reason::IdentityMismatch, "another machine answers there. ".repeat(100));
    let message = super::debt::beside(&wiped, long).message;
    assert!(
        message.contains("switched the machine off at") && message.contains("another machine"),
        "{message}"
    );
}

#[test]
fn a_machine_that_was_left_off_says_what_switched_it_off_and_what_is_in_the_way() {
    let said = |seen: &Observation| {
        let shown = status(seen, &decide(seen));
        let stalled = shown.conditions.into_iter().find(|one| one.type_ == "Stalled").unwrap();
        assert_eq!(stalled.reason, "LeftPoweredOff");
        stalled.message
    };
    let message = said(&left_off());
    assert!(
        message.contains("(Reboot) switched the machine off at") && message.contains("refuses it"),
        "{message}"
    );
    let message = said(&change(left_off(), |seen| seen.secret = None));
    assert!(message.contains("there is no Secret"), "{message}");
    let message = said(&change(left_off(), |seen| seen.site = SiteWorkers::None));
    assert!(message.contains("start one with"), "{message}");
    // The same text later: a machine that stays off is not written again and again.
    let later = change(left_off(), |seen| seen.now_ms += 3_000);
    assert_eq!(said(&later), said(&left_off()));
}

#[test]
fn nothing_but_an_on_or_a_wish_for_off_ends_what_is_owed() {
    use super::Command;
    let decided = |seen: &Observation| decide(seen).command;
    assert!(matches!(decided(&left_off()), Command::Nothing(_)), "it pauses");
    assert!(decide(&left_off()).recheck_after_ms.is_some_and(|after| after <= 30_000));
    for at_once in [
        change(left_off(), |seen| {
            seen.server.metadata.annotations =
                Some([("autobuild.dev/reconcile-requested-at".into(), "x".into())].into());
        }),
        change(left_off(), |seen| f::known(seen).last_good_read_ms = Some(f::NOW_MS)),
        change(left_off(), |seen| seen.now_ms += 31_000),
        change(left_off(), |seen| seen.server.spec.power = Some(Power::PoweredOn)),
    ] {
        let command = decided(&at_once);
        assert!(matches!(&command, Command::Enqueue(work) if work.action == Action::PowerOn), "{command:?}");
    }
    let off = change(left_off(), |seen| seen.server.spec.power = Some(Power::PoweredOff));
    assert_eq!(decided(&off), Command::RecordDebt { debt: None });
    // What reboots has to wait for it, and is not forgotten.
    let token = change(left_off(), |seen| seen.server.spec.reboot_token = Some("new".into()));
    assert!(!matches!(decided(&token), Command::RecordHandled { .. }));
    // A failure of the very same wish keeps nobody from trying.
    let failed = change(left_off(), |seen| {
        seen.now_ms += 31_000;
        let failure = f::failure(seen, Action::PowerOn, Reason::PowerStateMismatch);
        f::known(seen).failure = Some(failure);
    });
    assert!(matches!(decided(&failed), Command::Enqueue(work) if work.action == Action::PowerOn));
}

#[test]
fn a_machine_that_shall_be_on_and_failed_to_come_on_is_switched_on_again_after_a_while() {
    use super::Command;
    let mut seen = change(f::ready(), |seen| seen.server.spec.power = Some(Power::PoweredOn));
    f::known(&mut seen).reading = Some(f::reading(PowerState::PoweredOff));
    f::known(&mut seen).last_try_ms = Some(f::NOW_MS + 3_000_000);
    let failure = f::failure(&seen, Action::PowerOn, Reason::PowerStateMismatch);
    f::known(&mut seen).failure = Some(failure);
    assert!(matches!(decide(&seen).command, Command::Nothing(_)));
    assert!(decide(&seen).recheck_after_ms.is_some_and(|after| after <= 900_100));
    seen.now_ms += 900_000;
    assert!(matches!(decide(&seen).command, Command::Enqueue(work) if work.action == Action::PowerOn));
}

#[rstest]
#[case::accepted(f::new(), "Pending Unknown Reconciling", Kstatus::InProgress)]
#[case::registered(registered(), "Pending Unknown Reconciling", Kstatus::InProgress)]
#[case::first_inspection_queued(with_job(registered(), |s| f::job(s, Action::Inspect)), "Pending Unknown Reconciling", Kstatus::InProgress)]
#[case::first_inspection_runs(with_job(registered(), |s| f::started(s, Action::Inspect)), "Pending Unknown Reconciling", Kstatus::InProgress)]
#[case::unreadable_job(change(f::ready(), |s| s.unreadable_job = Some(f::unreadable())), "Stalled False Reachable Fresh Stalled", Kstatus::Failed)]
#[case::unreadable_job_deleted(change(f::ready(), |s| { s.unreadable_job = Some(f::unreadable()); f::delete(s, 1_000); }), "Deleting False Reachable Fresh Stalled", Kstatus::Terminating)]
#[case::as_declared(f::ready(), "Ready True Reachable Fresh", Kstatus::Current)]
#[case::as_declared_and_power_wished(change(f::ready(), |s| s.server.spec.power = Some(Power::PoweredOn)), "Ready True Reachable Fresh PowerSynced", Kstatus::Current)]
#[case::later_inspection(change(with_job(f::ready(), |s| f::started(s, Action::Inspect)), |s| s.visibility = Visibility::Quiet), "Ready True Reachable Fresh", Kstatus::Current)]
#[case::about_to_enqueue(wished_off(), "Queued False Reachable Fresh Reconciling", Kstatus::InProgress)]
#[case::queued(with_job(wished_off(), |s| f::job(s, Action::PowerOff)), "Queued False Reachable Fresh Reconciling", Kstatus::InProgress)]
#[case::no_worker(change(with_job(registered(), |s| f::job(s, Action::Inspect)), |s| s.site = SiteWorkers::None), "Queued False Reconciling", Kstatus::InProgress)]
#[case::a_step_runs(with_job(wished_off(), |s| f::started(s, Action::PowerOff)), "PoweringOff False Reachable Fresh Reconciling", Kstatus::InProgress)]
#[case::a_reboot_runs(with_job(change(f::ready(), |s| s.server.spec.reboot_token = Some("1".into())), |s| f::started(s, Action::Reboot)), "Rebooting False Reachable Fresh Reconciling", Kstatus::InProgress)]
#[case::power_in_transition(change(wished_off(), |s| f::known(s).reading = Some(f::reading(PowerState::PoweringOff))), "PoweringOff False Reachable Fresh Reconciling", Kstatus::InProgress)]
#[case::unreachable_nothing_to_do(change(f::ready(), |s| f::known(s).unanswered = Some(f::silence(1000))), "Unreachable True Fresh", Kstatus::Current)]
#[case::unreachable_past_the_bound(change(f::ready(), |s| { f::known(s).unanswered = Some(f::silence(1000)); f::known(s).last_good_read_ms = Some(0); }), "Unreachable True", Kstatus::Current)]
#[case::unreachable_work_pending(change(with_job(wished_off(), |s| f::parked(s, Action::PowerOff, Reason::Unreachable, 1000)), |s| f::known(s).unanswered = Some(f::silence(1000))), "Unreachable False Fresh Reconciling", Kstatus::InProgress)]
#[case::unreachable_work_pending_for_long(change(with_job(wished_off(), |s| f::parked(s, Action::PowerOff, Reason::Unreachable, 600_000)), |s| f::known(s).unanswered = Some(f::silence(600_000))), "Unreachable False Fresh Stalled", Kstatus::Failed)]
#[case::never_reached(change(with_job(registered(), |s| f::parked(s, Action::Inspect, Reason::Unreachable, 1000)), |s| f::known(s).unanswered = Some(f::silence(1000))), "Unreachable False Reconciling", Kstatus::InProgress)]
#[case::wrong_credentials(with_job(registered(), |s| f::parked(s, Action::Inspect, Reason::CredentialsInvalid, 1000)), "Stalled False Stalled", Kstatus::Failed)]
#[case::wrong_credentials_stored(
    failed(Reason::CredentialsInvalid),
    "Stalled False Fresh Stalled",
    Kstatus::Failed
)]
#[case::missing_credentials(change(f::new(), |s| s.secret = None), "Stalled False Stalled", Kstatus::Failed)]
#[case::step_deadline(
    failed(Reason::PowerStateMismatch),
    "Stalled False Reachable Fresh Stalled",
    Kstatus::Failed
)]
#[case::left_off(left_off(), "Stalled False Reachable Fresh Stalled", Kstatus::Failed)]
#[case::left_off_and_being_switched_on(with_job(left_off(), |s| f::started(s, Action::PowerOn)), "Stalled False Reachable Fresh Stalled", Kstatus::Failed)]
#[case::left_off_and_paused(change(left_off(), |s| s.server.spec.paused = Some(true)), "Paused False Reachable Fresh Stalled Paused", Kstatus::Failed)]
#[case::left_off_and_deleted(change(left_off(), |s| f::delete(s, 1000)), "Deleting False Reachable Fresh Reconciling", Kstatus::Terminating)]
#[case::left_off_and_claimed_by_another(change(left_off(), |s| f::known(s).refusal = Some(ClaimRefusal { reason: Reason::BMCClaimed, holder: None, address: f::ADDRESS.into(), machine: None })), "Stalled False Reachable Fresh Stalled", Kstatus::Failed)]
#[case::identity(failed(Reason::IdentityMismatch), "Stalled False Reachable Fresh Stalled", Kstatus::Failed)]
#[case::invalid_address(change(f::new(), |s| s.bmc_address = Err(Problem::new(Reason::InvalidAddress, "no host"))), "Stalled False Stalled", Kstatus::Failed)]
#[case::claimed_by_another(change(registered(), |s| f::known(s).refusal = Some(ClaimRefusal { reason: Reason::BMCClaimed, holder: None, address: f::ADDRESS.into(), machine: None })), "Stalled False Stalled", Kstatus::Failed)]
#[case::paused(change(f::ready(), |s| s.server.spec.paused = Some(true)), "Paused True Reachable Fresh Paused", Kstatus::Current)]
#[case::paused_with_a_difference(change(wished_off(), |s| s.server.spec.paused = Some(true)), "Paused False Reachable Fresh Paused", Kstatus::InProgress)]
#[case::paused_unseen(change(registered(), |s| s.server.spec.paused = Some(true)), "Paused Unknown Paused", Kstatus::InProgress)]
#[case::deleted(change(f::ready(), |s| f::delete(s, 1000)), "Deleting False Reachable Fresh Reconciling", Kstatus::Terminating)]
#[case::deleted_with_power_off_and_paused(change(f::ready(), |s| { f::delete(s, 1000); s.server.spec.deletion_policy = DeletionPolicy::PowerOff; s.server.spec.paused = Some(true); }), "Deleting False Reachable Fresh Stalled", Kstatus::Terminating)]
#[case::insecure(change(f::ready(), |s| s.server.spec.bmc.tls = Some(BmcTls { verify: Some(TlsVerify::Disabled), ..BmcTls::default() })), "Ready True Reachable Fresh InsecureTLS", Kstatus::Current)]
fn the_table_of_situations(
    #[case] seen: Observation,
    #[case] expected: &str,
    #[case] expected_kstatus: Kstatus,
) {
    let shown = status(&seen, &decide(&seen));
    let mut words = vec![shown.phase.unwrap().as_str().to_owned()];
    for condition in &shown.conditions {
        assert_eq!(condition.observed_generation, seen.server.metadata.generation);
        assert!(!condition.message.is_empty());
        match (condition.type_.as_str(), condition.status.as_str()) {
            ("Ready", truth) => words.push(truth.to_owned()),
            ("Reconciling" | "Stalled" | "Paused" | "InsecureTLS", truth) if truth != "True" => {
                panic!("{} is there and is {truth}", condition.type_)
            }
            (kind, "True") => words.push(kind.to_owned()),
            _ => {}
        }
    }
    assert_eq!(words.join(" "), expected, "{shown:#?}");
    assert_eq!(kstatus(&seen.server, &shown), expected_kstatus);
}

#[test]
fn what_waits_for_the_end_of_a_look_says_so_and_is_looked_at_again_within_seconds() {
    let seen = change(
        with_job(wished_off(), |seen| {
            let mut look = f::started(seen, Action::Inspect);
            look.cancel = Some(Reason::Replaced);
            look
        }),
        |seen| seen.visibility = Visibility::Quiet,
    );
    let decision = decide(&seen);
    assert!(decision.recheck_after_ms.is_some_and(|ms| ms <= 3_000), "{decision:?}");
    let shown = status(&seen, &decision);
    let ready = &shown.conditions[0];
    assert_eq!((ready.type_.as_str(), ready.reason.as_str()), ("Ready", Reason::NotEnqueuedYet.as_str()));
    assert!(ready.message.contains("when that look has ended"), "{ready:?}");
}

#[test]
fn an_unseen_server_with_the_default_status_is_in_progress() {
    let seen = f::new();
    let shown = crate::api::ServerStatus { observed_generation: Some(-1), ..Default::default() };
    assert_eq!(kstatus(&seen.server, &shown), Kstatus::InProgress);
    assert!(!shown.was_written());
}

#[test]
fn the_time_of_a_condition_moves_only_with_its_truth() {
    let mut seen = f::ready();
    let first = status(&seen, &decide(&seen));
    seen.server.status = Some(first.clone());
    seen.now_ms += 60_000;
    assert_eq!(status(&seen, &decide(&seen)), first);
    seen.server.spec.power = Some(Power::PoweredOff);
    let second = status(&seen, &decide(&seen));
    assert_ne!(second.conditions[0].last_transition_time, first.conditions[0].last_transition_time);
    assert_eq!(second.conditions[1], first.conditions[1]);
}

#[test]
fn a_deletion_advises_what_would_change_something_and_names_a_site_without_workers() {
    let said = |policy, prepare: fn(&mut Observation)| {
        let mut seen = f::ready();
        seen.server.spec.deletion_policy = policy;
        f::delete(&mut seen, 1_000);
        let mut job = f::started(&seen, Action::Reboot);
        job.cancel = Some(Reason::Deleting);
        job.request_stored = true;
        seen.job = Some(job);
        prepare(&mut seen);
        let decision = decide(&seen);
        let status = status(&seen, &decision);
        let ready = find(&status.conditions, ConditionType::Ready).unwrap();
        (ready.reason.clone(), ready.message.clone())
    };
    let busy = |seen: &mut Observation| {
        seen.job.as_mut().unwrap().problem = Some(Problem::new(Reason::BMCBusy, "not now"));
    };
    let (_, message) = said(DeletionPolicy::Retain, busy);
    assert!(
        message.contains("let go when its time is over") && !message.contains("deletionPolicy"),
        "{message}"
    );
    let (_, message) = said(DeletionPolicy::PowerOff, busy);
    assert!(message.contains("at once with deletionPolicy Retain"), "{message}");
    let (reason, _) = said(DeletionPolicy::Retain, |seen| seen.site = SiteWorkers::None);
    assert_eq!(reason, "NoWorkerForSite");
}

#[test]
fn a_machine_whose_shutdown_is_still_pending_is_released_as_left_powered_off() {
    let mut seen = f::ready();
    let over = seen.settings.undo_wait_ms + 1;
    f::delete(&mut seen, over);
    let debt = Debt::begun(JobId(1), Action::Reboot, f::NOW_MS - 2_000, 180_000);
    f::known(&mut seen).last_good_read_ms = Some(f::NOW_MS - 1_000);
    f::known(&mut seen).debt = Some(debt);
    assert_eq!(decide(&seen).command, Command::Release(Farewell::LeftPoweredOff));
}

#[test]
fn what_waits_for_the_fleet_after_a_failover_is_not_said_to_wait_for_a_worker() {
    let mut seen = wished_off();
    seen.job = Some(f::job(&seen, Action::PowerOff));
    let said = |seen: &Observation| {
        let status = status(seen, &decide(seen));
        find(&status.conditions, ConditionType::Ready).unwrap().message.clone()
    };
    assert!(said(&seen).contains("free worker"), "{}", said(&seen));
    seen.another_history = true;
    assert!(said(&seen).contains("failed over") && said(&seen).contains("/readyz"), "{}", said(&seen));
}
