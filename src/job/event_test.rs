#![allow(missing_docs)]

use rstest::rstest;

use super::*;
use crate::api::Reason;
use crate::job::{Cause, Intent, Origin, Problem};

const NOW: i64 = 9_000;

fn image(name: &str) -> InstalledImage {
    InstalledImage { name: name.into(), digest: "sha256:1".into(), at_ms: 1, origin: Origin::Installed }
}

fn befores() -> [(&'static str, Option<Contents>); 8] {
    [
        ("blank", None),
        ("wiped", Some(Contents::Wiped { since_ms: 1 })),
        ("image", Some(Contents::Image(image("a")))),
        ("doubtful", Some(Contents::Doubtful { image: image("a"), since_ms: 1 })),
        ("unknown", Some(Contents::Unknown { since_ms: 1 })),
        ("foreign", Some(Contents::Foreign { since_ms: 1 })),
        ("interrupted", Some(Contents::Interrupted { since_ms: 1 })),
        ("ended", Some(Contents::Decommissioned { since_ms: 1 })),
    ]
}

fn word(contents: &Contents) -> &'static str {
    match contents {
        Contents::Image(image) if image.name == "a" => "image",
        Contents::Image(_) => "new image",
        Contents::Unknown { .. } => "unknown",
        Contents::Doubtful { .. } => "doubtful",
        Contents::Interrupted { .. } => "interrupted",
        Contents::Wiped { .. } => "wiped",
        Contents::Decommissioned { .. } => "ended",
        Contents::Foreign { .. } => "foreign",
    }
}

/// What each kind of contents becomes; "=" where it stays, in the order of [`befores`].
#[rstest]
#[case::stored(Event::RequestStored, "= = = = = = = =", Tokens::Taken)]
#[case::may_be_done(Event::RequestMayBeDone, "= = = = = = = =", Tokens::Handled)]
#[case::refused(Event::RequestRefused, "= = = = = = = =", Tokens::Same)]
#[case::started(Event::Started(Medium::Absent), "unknown unknown = = = = = =", Tokens::Same)]
#[case::started_unread(Event::Started(Medium::Unread), "unknown unknown = = = = = =", Tokens::Same)]
#[case::started_read(Event::Started(Medium::Read), "unknown unknown doubtful = = = = =", Tokens::Same)]
#[case::medium_read(Event::MediumRead, "unknown unknown doubtful = = = = =", Tokens::Same)]
#[case::script_given(
    Event::ScriptGiven,
    "unknown unknown unknown unknown unknown unknown unknown unknown",
    Tokens::Same
)]
#[case::installed(
    Event::Installed(image("b")),
    "new-image new-image new-image new-image new-image new-image new-image new-image",
    Tokens::Same
)]
#[case::adopted(
    Event::Adopted(image("b")),
    "new-image new-image new-image new-image new-image new-image new-image new-image",
    Tokens::Same
)]
#[case::wiped(Event::Wiped, "wiped wiped wiped wiped wiped wiped wiped wiped", Tokens::Same)]
#[case::ended(Event::Decommissioned, "ended ended ended ended ended ended ended ended", Tokens::Same)]
#[case::read_on(Event::Read(PowerState::PoweredOn), "foreign foreign = = = = = =", Tokens::Same)]
#[case::read_nobody_knows(Event::Read(PowerState::Unknown), "foreign foreign = = = = = =", Tokens::Same)]
#[case::read_off(Event::Read(PowerState::PoweredOff), "= = = = = = = =", Tokens::Same)]
#[case::succeeded(Event::Succeeded(Action::Reboot), "= = = = = = = =", Tokens::Handled)]
#[case::in_vain(Event::EndedInVain, "= = = = = = = =", Tokens::GivenBack)]
#[case::lost_reboot(Event::Lost(Action::Reboot), "= = = = = = = =", Tokens::Same)]
#[case::lost_install(Event::Lost(Action::Reimage), "unknown unknown doubtful = = = = =", Tokens::Same)]
fn each_event_has_its_row(#[case] event: Event, #[case] expected: &str, #[case] tokens: Tokens) {
    let becomes: Vec<String> = befores()
        .iter()
        .map(|(_, before)| match event.contents(before.as_ref(), NOW) {
            Some(after) => word(&after).replace(' ', "-"),
            None => "=".to_owned(),
        })
        .collect();
    assert_eq!(becomes.join(" "), expected);
    assert_eq!(event.tokens(), tokens);
}

fn failure(action: Action, reason: Reason) -> StoredFailure {
    let problem = Problem::new(reason, "what was met");
    StoredFailure {
        action,
        intent: Intent("i".into()),
        cause: Cause::default(),
        problem,
        at_ms: 1,
        behind: None,
    }
}

/// Which failures are over with an event: the actions of those, of every action that there is.
#[rstest]
#[case::installed(Event::Installed(image("a")), &[Action::Build, Action::Reimage])]
#[case::adopted(Event::Adopted(image("a")), &[Action::Build, Action::Reimage])]
#[case::wiped(Event::Wiped, &[Action::Build, Action::Reimage, Action::Wipe, Action::Decommission])]
#[case::read_on(Event::Read(PowerState::PoweredOn), &[Action::PowerOn])]
#[case::read_off(Event::Read(PowerState::PoweredOff), &[Action::PowerOff])]
#[case::read_in_between(Event::Read(PowerState::PoweringOff), &[])]
#[case::looked_at(Event::Succeeded(Action::Inspect), &[Action::Inspect])]
#[case::rebooted(
    Event::Succeeded(Action::Reboot),
    &[Action::Inspect, Action::PowerOn, Action::PowerOff, Action::Reboot]
)]
#[case::installed_again(Event::Succeeded(Action::Reimage), &Action::ALL)]
#[case::script_given(Event::ScriptGiven, &[])]
#[case::in_vain(Event::EndedInVain, &[])]
fn evidence_ends_the_failures_that_it_concerns(#[case] event: Event, #[case] expected: &[Action]) {
    let over: Vec<Action> = Action::ALL
        .into_iter()
        .filter(|action| event.ends(&failure(*action, Reason::DeadlineExceeded)))
        .collect();
    assert_eq!(over, expected);
}

#[test]
fn a_power_state_does_not_make_a_refused_login_good() {
    let refused = failure(Action::PowerOn, Reason::CredentialsInvalid);
    assert!(!Event::Read(PowerState::PoweredOn).ends(&refused));
}
