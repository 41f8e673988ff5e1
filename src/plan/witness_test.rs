//! The database alone destroys nothing: whatever one change of what it knows of a server that is as declared, nothing is
//! installed or erased by itself.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::LazyLock;

use proptest::prelude::*;

use super::fixture::{self as f, NOW_MS};
use super::{Command, Observation, decide, status};
use crate::api::condition::{ConditionType, find};
use crate::api::hardware::PowerState;
use crate::api::{ImageKind, ImageWish, Lifecycle, Power, Provisioning, Reason};
use crate::job::{
    Action, Cause, Contents, Debt, Effect, FinishedJob, HandledTokens, InstalledImage, Intent, JobId,
    JobResult, Origin, Problem, Step, StoredFailure, TokenKind, TokenValue, Unanswered,
};

const INSTALLED_MS: i64 = NOW_MS - 3_600_000;

fn image(name: &str, at_ms: i64, origin: Origin) -> InstalledImage {
    InstalledImage { name: name.into(), digest: format!("sha256:{name}"), at_ms, origin }
}

/// Status as it is written of what is known.
fn shown(mut seen: Observation) -> Observation {
    for _ in 0..2 {
        seen.server.status = Some(status(&seen, &decide(&seen)));
    }
    seen
}

fn with_image(contents: Contents) -> Observation {
    let mut seen = f::ready();
    seen.server.spec.image = Some(ImageWish { name: "a".into(), ..ImageWish::default() });
    (seen.image_digest, seen.image_kind) = (Some("sha256:a".into()), Some(ImageKind::Network));
    f::known(&mut seen).contents = Some(contents);
    seen
}

fn installed() -> Observation {
    shown(with_image(Contents::Image(image("a", INSTALLED_MS, Origin::Installed))))
}

/// Servers that need nothing, or a person's word, of every kind.
fn at_rest() -> Vec<(&'static str, Observation)> {
    let mut tokens = installed();
    tokens.server.spec.reimage_token = Some("r12".into());
    tokens.server.spec.reboot_token = Some("b3".into());
    for number in 5..13 {
        f::known(&mut tokens).handled.record(TokenKind::Reimage, &format!("r{number}"));
    }
    f::known(&mut tokens).handled.record(TokenKind::Reboot, "b3");
    // A value of long ago: only the database's hashes know it, and status, because it is the present one.
    let mut returned = shown(tokens.clone());
    returned.server.spec.reimage_token = Some("r1".into());
    f::known(&mut returned).handled.recall(&TokenValue::reimage("r1"));
    let mut powered = installed();
    powered.server.spec.power = Some(Power::PoweredOn);
    let mut adopted = with_image(Contents::Image(image("a", INSTALLED_MS, Origin::Adopted)));
    adopted.server.spec.provisioning = Provisioning::Adopt;
    let mut confirmed = installed();
    let uid = confirmed.uid().as_str().to_owned();
    confirmed.server.metadata.annotations = Some([(crate::api::names::CONFIRM.to_owned(), uid)].into());
    let mut over = f::ready();
    over.server.spec.lifecycle = Lifecycle::Decommissioned;
    f::known(&mut over).contents = Some(Contents::Decommissioned { since_ms: INSTALLED_MS });
    let mut somebodys = with_image(Contents::Foreign { since_ms: INSTALLED_MS });
    f::known(&mut somebodys).reading = Some(f::reading(PowerState::PoweredOff));
    let taken_over = with_image(Contents::Image(image("z", INSTALLED_MS, Origin::TakenOver)));
    vec![
        ("installed", installed()),
        ("with tokens", tokens),
        ("back at a token of long ago", returned),
        ("powered on", powered),
        ("adopted", adopted),
        ("confirmed once", confirmed),
        ("at its life's end", over),
        ("somebody's, off", somebodys),
        ("taken over", taken_over),
        ("without a wish", f::ready()),
    ]
    .into_iter()
    .map(|(name, seen)| (name, shown(seen)))
    .collect()
}

static AT_REST: LazyLock<Vec<(&str, Observation)>> = LazyLock::new(at_rest);

fn destroys(seen: &Observation) -> Option<Action> {
    match decide(seen).command {
        Command::Enqueue(work) => (work.action.effect() == Effect::Destructive).then_some(work.action),
        _ => None,
    }
}

fn times() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), Just(INSTALLED_MS), Just(NOW_MS), any::<i64>().prop_map(|at| at / 4)]
}

fn images() -> impl Strategy<Value = InstalledImage> {
    (prop_oneof![Just("a"), Just("b"), Just("z")], times(), 0..3_usize).prop_map(|(name, at, origin)| {
        image(name, at, [Origin::Installed, Origin::Adopted, Origin::TakenOver][origin])
    })
}

fn contents() -> impl Strategy<Value = Option<Contents>> {
    prop_oneof![
        Just(None),
        times().prop_map(|since_ms| Some(Contents::Unknown { since_ms })),
        times().prop_map(|since_ms| Some(Contents::Interrupted { since_ms })),
        times().prop_map(|since_ms| Some(Contents::Wiped { since_ms })),
        times().prop_map(|since_ms| Some(Contents::Foreign { since_ms })),
        times().prop_map(|since_ms| Some(Contents::Decommissioned { since_ms })),
        images().prop_map(|image| Some(Contents::Image(image))),
        (images(), times()).prop_map(|(image, since_ms)| Some(Contents::Doubtful { image, since_ms })),
    ]
}

fn handled() -> impl Strategy<Value = HandledTokens> {
    let values = || proptest::collection::vec("[rb][0-9]{1,2}", 0..9);
    (values(), values()).prop_map(|(reboot, reimage)| HandledTokens { reboot, reimage })
}

fn failure() -> impl Strategy<Value = Option<StoredFailure>> {
    let some = (0..Action::ALL.len(), 0..Reason::ALL.len(), times()).prop_map(|(action, reason, at_ms)| {
        Some(StoredFailure {
            action: Action::ALL[action],
            intent: Intent("i".into()),
            cause: Cause { named: "c".into(), whole: String::new() },
            problem: Problem::new(Reason::ALL[reason], "forged"),
            at_ms,
            behind: None,
        })
    });
    prop_oneof![Just(None), some]
}

fn last_job() -> impl Strategy<Value = Option<FinishedJob>> {
    let some = (0..Action::ALL.len(), 0..JobResult::ALL.len(), 0..Reason::ALL.len(), times()).prop_map(
        |(action, result, reason, at_ms)| {
            Some(FinishedJob {
                id: JobId(7),
                action: Action::ALL[action],
                intent: Intent("i".into()),
                result: JobResult::ALL[result],
                problem: Some(Problem::new(Reason::ALL[reason], "forged")),
                step: Step::AwaitBoot,
                enqueued_at_ms: at_ms,
                started_at_ms: Some(at_ms),
                finished_at_ms: at_ms,
            })
        },
    );
    prop_oneof![Just(None), some]
}

/// One column of `server_state`, or all of the row.
#[derive(Debug, Clone)]
enum Changed {
    Row,
    Version(i64),
    Reading(Option<PowerState>),
    LastGoodRead(Option<i64>),
    LastTry(Option<i64>),
    Unanswered(i64),
    Handled(HandledTokens),
    Contents(Option<Contents>),
    Failure(Option<StoredFailure>),
    LastJob(Option<FinishedJob>),
    ClaimedAddress(Option<String>),
}

fn changed() -> impl Strategy<Value = Changed> {
    let power = (0..5_usize).prop_map(|at| {
        [
            None,
            Some(PowerState::PoweredOn),
            Some(PowerState::PoweredOff),
            Some(PowerState::PoweringOn),
            Some(PowerState::Unknown),
        ][at]
    });
    prop_oneof![
        1 => Just(Changed::Row),
        1 => times().prop_map(Changed::Version),
        2 => power.prop_map(Changed::Reading),
        1 => proptest::option::of(times()).prop_map(Changed::LastGoodRead),
        1 => proptest::option::of(times()).prop_map(Changed::LastTry),
        1 => times().prop_map(Changed::Unanswered),
        3 => handled().prop_map(Changed::Handled),
        9 => contents().prop_map(Changed::Contents),
        2 => failure().prop_map(Changed::Failure),
        2 => last_job().prop_map(Changed::LastJob),
        1 => proptest::option::of("redfish.https://192.0.2.[0-9]").prop_map(Changed::ClaimedAddress),
    ]
}

fn apply(seen: &mut Observation, what: Changed) {
    let known = f::known(seen);
    match what {
        Changed::Row => seen.known = None,
        Changed::Version(version) => known.version = version,
        Changed::Reading(power) => known.reading = power.map(f::reading),
        Changed::LastGoodRead(at) => known.last_good_read_ms = at,
        Changed::LastTry(at) => known.last_try_ms = at,
        Changed::Unanswered(since_ms) => {
            let problem = Problem::new(Reason::Unreachable, "forged");
            known.unanswered = Some(Unanswered { problem, since_ms, through: None });
        }
        Changed::Handled(handled) => known.handled = handled,
        Changed::Contents(contents) => known.contents = contents,
        Changed::Failure(failure) => known.failure = failure,
        Changed::LastJob(last) => known.last_job = last,
        Changed::ClaimedAddress(address) => known.claimed_address = address,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn one_change_in_the_database_destroys_nothing(at in 0..10_usize, what in changed()) {
        let (name, mut seen) = AT_REST[at].clone();
        prop_assert_eq!(destroys(&seen), None, "{}: it is not at rest", name);
        apply(&mut seen, what);
        // Also once status says what comes of it, and as often as it is looked at.
        for _ in 0..3 {
            prop_assert_eq!(destroys(&seen), None, "{}", name);
            let decision = decide(&seen);
            let after = status(&seen, &decision);
            match decision.command {
                Command::Register { handled, contents, .. } => {
                    let before = f::ready().known;
                    seen.known = before.map(|known| crate::job::Known { handled, contents, ..known });
                }
                Command::RecordContents { contents } => f::known(&mut seen).contents = Some(contents),
                Command::RecordHandled { token, .. } => {
                    f::known(&mut seen).handled.record(token.kind, &token.value);
                }
                _ => {}
            }
            seen.server.status = Some(after);
        }
    }
}

/// Every kind of contents, without a time of its own.
fn every_contents() -> Vec<Option<Contents>> {
    let mut all: Vec<Option<Contents>> = [Origin::Installed, Origin::Adopted, Origin::TakenOver]
        .into_iter()
        .flat_map(|origin| ["b", "z"].map(|name| Some(Contents::Image(image(name, NOW_MS, origin)))))
        .collect();
    all.extend([
        None,
        Some(Contents::Unknown { since_ms: NOW_MS }),
        Some(Contents::Interrupted { since_ms: NOW_MS }),
        Some(Contents::Wiped { since_ms: NOW_MS }),
        Some(Contents::Foreign { since_ms: NOW_MS }),
        Some(Contents::Doubtful { image: image("z", NOW_MS, Origin::Installed), since_ms: NOW_MS }),
    ]);
    all
}

#[test]
fn no_row_takes_the_question_away_whether_somebodys_data_may_be_given_up() {
    let before = [
        Contents::Foreign { since_ms: INSTALLED_MS },
        Contents::Interrupted { since_ms: INSTALLED_MS },
        Contents::Image(image("z", INSTALLED_MS, Origin::Adopted)),
        Contents::Image(image("z", INSTALLED_MS, Origin::TakenOver)),
    ];
    for contents in before {
        for (power, forged) in [PowerState::PoweredOn, PowerState::PoweredOff]
            .into_iter()
            .flat_map(|power| every_contents().into_iter().map(move |forged| (power, forged)))
        {
            let mut seen = f::ready();
            f::known(&mut seen).contents = Some(contents.clone());
            f::known(&mut seen).reading = Some(f::reading(power));
            let mut seen = shown(seen);
            f::known(&mut seen).contents.clone_from(&forged);
            let mut seen = shown(seen);
            // An ordinary commit.
            seen.server.spec.image = Some(ImageWish { name: "b".into(), ..ImageWish::default() });
            (seen.image_digest, seen.image_kind) = (Some("sha256:b".into()), Some(ImageKind::Network));
            for _ in 0..3 {
                assert_eq!(destroys(&seen), None, "{contents:?} {power} {forged:?}");
                let decision = decide(&seen);
                if let Command::RecordContents { contents } = &decision.command {
                    f::known(&mut seen).contents = Some(contents.clone());
                }
                seen.server.status = Some(status(&seen, &decide(&seen)));
            }
        }
    }
}

#[test]
fn a_live_job_that_changes_power_is_stopped_where_the_object_asks_for_none() {
    for action in [Action::PowerOn, Action::PowerOff, Action::Reboot] {
        for seen in [f::ready(), off_without_a_wish()] {
            let mut seen = shown(seen);
            seen.job = Some(f::job(&seen, action));
            assert!(
                matches!(decide(&seen).command, Command::Cancel { .. }),
                "{action}: {:?}",
                decide(&seen).command
            );
        }
    }
}

fn off_without_a_wish() -> Observation {
    let mut seen = f::ready();
    f::known(&mut seen).reading = Some(f::reading(PowerState::PoweredOff));
    shown(seen)
}

#[test]
fn a_debt_that_only_the_database_knows_is_told_and_nothing_is_switched_on() {
    let mut seen = off_without_a_wish();
    let debt = Debt::begun(JobId(123_456_789), Action::Reboot, INSTALLED_MS, 0);
    f::known(&mut seen).debt = Some(Debt { seen_off: true, ..debt });
    for _ in 0..3 {
        assert!(matches!(decide(&seen).command, Command::Nothing(_)), "{:?}", decide(&seen).command);
        let (reason, message) = stalled(&seen);
        assert_eq!(reason, "HistoryLost");
        for said in ["spec.power", "PoweredOn", "bears that out"] {
            assert!(message.contains(said), "{message}");
        }
        seen = shown(seen);
    }
    let mut wished = seen.clone();
    wished.server.spec.power = Some(Power::PoweredOn);
    assert!(matches!(decide(&wished).command, Command::Enqueue(work) if work.action == Action::PowerOn));
    seen.server.spec.power = Some(Power::PoweredOff);
    assert_eq!(decide(&seen).command, Command::RecordDebt { debt: None });
}

#[test]
fn a_debt_of_a_job_that_status_showed_is_paid_and_stays_shown_until_it_is() {
    let mut seen = off_without_a_wish();
    seen.server.spec.reboot_token = Some("one".into());
    f::known(&mut seen).handled.record(TokenKind::Reboot, "one");
    seen.job = Some(f::started(&seen, Action::Reboot));
    let id = seen.job.as_ref().unwrap().id;
    let mut seen = shown(seen);
    seen.job = None;
    let debt = Debt::begun(id, Action::Reboot, INSTALLED_MS, 0);
    f::known(&mut seen).debt = Some(Debt { seen_off: true, ..debt });
    let pays = |seen: &Observation| matches!(decide(seen).command, Command::Enqueue(work) if work.action == Action::PowerOn);
    assert!(pays(&seen), "{:?}", decide(&seen).command);
    // Another job is shown and was the last one, and the token is gone: it is still owed.
    seen.server.spec.reboot_token = None;
    let mut seen = shown(seen);
    assert_eq!(seen.shown().unwrap().left_off_by, Some(id.to_string()));
    let status = seen.server.status.as_mut().unwrap();
    (status.job, status.last_job) = (None, None);
    status.conditions.clear();
    assert!(pays(&seen), "{:?}", decide(&seen).command);
    f::known(&mut seen).debt = None;
    assert_eq!(shown(seen).shown().unwrap().left_off_by, None);
}

#[test]
fn a_debt_whose_job_ended_before_status_could_show_it_is_paid_where_spec_has_its_token() {
    let mut seen = off_without_a_wish();
    let id = JobId(77);
    let debt = Debt::begun(id, Action::Reboot, INSTALLED_MS, 0);
    f::known(&mut seen).debt = Some(Debt { seen_off: true, ..debt });
    f::known(&mut seen).last_job = Some(FinishedJob {
        id,
        action: Action::Reboot,
        intent: Intent("i".into()),
        result: JobResult::Failed,
        problem: Some(Problem::new(Reason::LeftPoweredOff, "given up")),
        step: Step::On,
        enqueued_at_ms: INSTALLED_MS,
        started_at_ms: Some(INSTALLED_MS),
        finished_at_ms: INSTALLED_MS + 1,
    });
    assert!(matches!(decide(&seen).command, Command::Nothing(_)), "nobody asked for a reboot");
    seen.server.spec.reboot_token = Some("one".into());
    f::known(&mut seen).handled.record(TokenKind::Reboot, "one");
    assert!(matches!(decide(&seen).command, Command::Enqueue(work) if work.action == Action::PowerOn));
    assert_eq!(shown(seen).shown().unwrap().left_off_by, Some(id.to_string()));
}

fn stalled(seen: &Observation) -> (String, String) {
    let after = status(seen, &decide(seen));
    let stalled = find(&after.conditions, ConditionType::Stalled).unwrap();
    (stalled.reason.clone(), stalled.message.clone())
}

#[test]
fn what_only_the_database_says_against_an_installed_image_waits_for_a_person_and_status_keeps_the_image() {
    let mut seen = installed();
    f::known(&mut seen).contents = Some(Contents::Unknown { since_ms: NOW_MS });
    for _ in 0..3 {
        let (reason, message) = stalled(&seen);
        assert_eq!(reason, "ContentsUnknown");
        for said in ["\"a\"", "an installation was begun", "Adopt", "spec.reimageToken"] {
            assert!(message.contains(said), "{message}");
        }
        let after = status(&seen, &decide(&seen));
        assert!(after.image.is_some());
        seen.server.status = Some(after);
    }
    // What goes on: a new token, another image, or that it is there.
    let mut anew = seen.clone();
    anew.server.spec.reimage_token = Some("again".into());
    assert_eq!(destroys(&anew), Some(Action::Reimage));
    let mut other = seen.clone();
    other.server.spec.image = Some(ImageWish { name: "b".into(), ..ImageWish::default() });
    other.image_digest = Some("sha256:b".into());
    assert_eq!(destroys(&other), Some(Action::Reimage));
    seen.server.spec.provisioning = Provisioning::Adopt;
    let Command::RecordContents { contents } = decide(&seen).command else { panic!("it is not adopted") };
    f::known(&mut seen).contents = Some(contents);
    let mut seen = shown(seen);
    seen.server.spec.provisioning = Provisioning::Install;
    assert!(matches!(decide(&seen).command, Command::Nothing(Reason::AsDeclared)), "{:?}", decide(&seen));
}

#[test]
fn a_medium_that_was_read_and_never_heard_of_leaves_the_question_to_a_person() {
    let before = image("a", INSTALLED_MS, Origin::Installed);
    let mut seen = with_image(Contents::Doubtful { image: before, since_ms: NOW_MS });
    let (reason, message) = stalled(&seen);
    assert_eq!(reason, "ContentsUnknown");
    assert!(message.contains("nobody knows whether it ran"), "{message}");
    seen.server.spec.image.as_mut().unwrap().name = "b".into();
    assert_eq!(destroys(&seen), Some(Action::Reimage), "another image is meant to replace either");
}

#[test]
fn an_interrupted_installation_of_an_earlier_server_is_told_as_that() {
    let seen = with_image(Contents::Interrupted { since_ms: INSTALLED_MS });
    let (reason, message) = stalled(&seen);
    assert_eq!(reason, "ConfirmBuild");
    assert!(message.contains("an earlier Server of this machine was interrupted"), "{message}");
    assert!(!message.contains("ran before AutoBuild knew it"), "{message}");
}

#[test]
fn a_debt_that_names_a_job_which_came_true_or_was_another_one_switches_nothing_on() {
    let last = |action, result| FinishedJob {
        id: JobId(77),
        action,
        intent: Intent("i".into()),
        result,
        problem: None,
        step: Step::On,
        enqueued_at_ms: INSTALLED_MS,
        started_at_ms: Some(INSTALLED_MS),
        finished_at_ms: INSTALLED_MS + 1,
    };
    for (of, last) in [
        (Action::Wipe, last(Action::Inspect, JobResult::Succeeded)),
        (Action::Reboot, last(Action::Reboot, JobResult::Succeeded)),
        (Action::Reboot, last(Action::Inspect, JobResult::Failed)),
    ] {
        let mut seen = off_without_a_wish();
        seen.server.spec.reboot_token = Some("one".into());
        f::known(&mut seen).handled.record(TokenKind::Reboot, "one");
        f::known(&mut seen).last_job = Some(last.clone());
        let mut seen = shown(seen);
        let debt = Debt::begun(JobId(77), of, INSTALLED_MS, 0);
        f::known(&mut seen).debt = Some(Debt { seen_off: true, ..debt });
        for _ in 0..3 {
            assert!(matches!(decide(&seen).command, Command::Nothing(_)), "{of} {last:?}");
            assert_eq!(stalled(&seen).0, "HistoryLost", "{of} {last:?}");
            seen = shown(seen);
        }
    }
}
