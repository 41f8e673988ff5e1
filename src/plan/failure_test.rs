//! What becomes of a failure for good: what keeps it in the way, what keeps it told, what ends it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use super::fixture::{self as f, NOW_MS};
use super::{Command, Observation, decide, status};
use crate::api::condition::{ConditionType, Truth, find};
use crate::api::{ImageKind, ImageWish, Provisioning, Reason, names};
use crate::job::{Action, Contents, InstalledImage, Origin, TokenKind};

fn image(name: &str) -> Contents {
    let (name, digest) = (name.to_owned(), format!("sha256:{name}"));
    Contents::Image(InstalledImage { name, digest, at_ms: NOW_MS - 60_000, origin: Origin::Installed })
}

fn wish(seen: &mut Observation, name: &str) {
    seen.server.spec.image = Some(ImageWish { name: name.into(), ..ImageWish::default() });
    (seen.image_digest, seen.image_kind) = (Some(format!("sha256:{name}")), Some(ImageKind::Network));
}

/// A machine that has this image and wishes it.
fn running(name: &str) -> Observation {
    let mut seen = f::ready();
    wish(&mut seen, name);
    f::known(&mut seen).contents = Some(image(name));
    seen.server.status = Some(status(&seen, &decide(&seen)));
    seen
}

fn fails(seen: &mut Observation, action: Action, reason: Reason) {
    f::known(seen).failure = Some(f::failure(seen, action, reason));
}

fn ask_for_a_look(seen: &mut Observation) {
    let annotations = seen.server.metadata.annotations.get_or_insert_default();
    annotations.insert(names::RECONCILE_REQUESTED_AT.to_owned(), "anew".to_owned());
}

fn ready(seen: &Observation) -> (bool, String) {
    let after = status(seen, &decide(seen));
    let ready = find(&after.conditions, ConditionType::Ready).unwrap();
    (ready.status == Truth::True.as_str(), ready.reason.clone())
}

fn work(seen: &Observation) -> Option<Action> {
    match decide(seen).command {
        Command::Enqueue(work) if work.action != Action::Inspect => Some(work.action),
        _ => None,
    }
}

#[test]
fn a_commit_that_never_reached_the_disk_is_reverted_without_touching_it() {
    let mut seen = running("x");
    wish(&mut seen, "y");
    fails(&mut seen, Action::Reimage, Reason::NeverBooted);
    assert_eq!(ready(&seen), (false, "NeverBooted".into()));
    assert!(status(&seen, &decide(&seen)).image.is_some_and(|image| image.name == "x"));
    wish(&mut seen, "x");
    assert_eq!((work(&seen), ready(&seen)), (None, (true, "AsDeclared".into())));
}

#[test]
fn a_reimage_of_a_token_that_was_handled_and_came_to_nothing_is_told_until_it_is_asked_for_no_more() {
    let mut seen = running("x");
    seen.server.spec.reimage_token = Some("r1".into());
    f::known(&mut seen).handled.record(TokenKind::Reimage, "r1");
    fails(&mut seen, Action::Reimage, Reason::NeverBooted);
    assert_eq!(ready(&seen), (false, "NeverBooted".into()));
    // A look makes no reimage of it.
    ask_for_a_look(&mut seen);
    assert_eq!((work(&seen), ready(&seen)), (None, (false, "NeverBooted".into())));
    let mut anew = seen.clone();
    anew.server.spec.reimage_token = Some("r2".into());
    assert_eq!(work(&anew), Some(Action::Reimage));
    seen.server.spec.reimage_token = None;
    assert_eq!((work(&seen), ready(&seen)), (None, (true, "AsDeclared".into())));
}

#[test]
fn a_token_whose_request_was_refused_waits_and_is_tried_again_when_somebody_asks() {
    for (action, token) in [(Action::Reimage, TokenKind::Reimage), (Action::Reboot, TokenKind::Reboot)] {
        let mut seen = running("x");
        match token {
            TokenKind::Reimage => seen.server.spec.reimage_token = Some("t".into()),
            TokenKind::Reboot => seen.server.spec.reboot_token = Some("t".into()),
        }
        fails(&mut seen, action, Reason::RequestRefused);
        assert_eq!((work(&seen), ready(&seen)), (None, (false, "RequestRefused".into())), "{action}");
        ask_for_a_look(&mut seen);
        assert_eq!(work(&seen), Some(action));
        assert!(!ready(&seen).0);
    }
}

#[test]
fn while_a_request_may_be_refused_status_does_not_show_its_token_as_handled() {
    let mut seen = running("x");
    seen.server.spec.reimage_token = Some("t".into());
    let mut job = f::started(&seen, Action::Reimage);
    (job.request_stored, job.taking) = (true, vec![crate::job::TokenValue::reimage("t")]);
    f::known(&mut seen).handled.record(TokenKind::Reimage, "t");
    seen.job = Some(job);
    assert_eq!(status(&seen, &decide(&seen)).reimage_tokens, [""; 0]);
    seen.job.as_mut().unwrap().taking.clear();
    assert_eq!(status(&seen, &decide(&seen)).reimage_tokens, ["t"]);
}

#[test]
fn an_image_that_is_adopted_ends_the_installation_that_never_called_home() {
    for contents in [Contents::Unknown { since_ms: NOW_MS - 1 }, image("x")] {
        let mut seen = running("x");
        seen.server.spec.reimage_token = Some("r1".into());
        let known = f::known(&mut seen);
        known.handled.record(TokenKind::Reimage, "r1");
        // The machine was given its script, and status says so by now.
        known.contents = Some(contents.clone());
        if matches!(contents, Contents::Unknown { .. }) {
            seen.server.status.as_mut().unwrap().image = None;
        }
        fails(&mut seen, Action::Reimage, Reason::InstallTimedOut);
        assert_eq!(ready(&seen), (false, "InstallTimedOut".into()));
        seen.server.spec.provisioning = Provisioning::Adopt;
        let Command::RecordContents { contents: Contents::Image(image) } = decide(&seen).command else {
            panic!("not adopted: {:?}", decide(&seen))
        };
        let known = f::known(&mut seen);
        let failure = known.failure.take().unwrap();
        assert!(crate::job::Event::Adopted(image.clone()).ends(&failure));
        known.contents = Some(Contents::Image(image));
        assert_eq!(ready(&seen), (true, "AsDeclared".into()));
        seen.server.status = Some(status(&seen, &decide(&seen)));
        seen.server.spec.provisioning = Provisioning::Install;
        assert_eq!((work(&seen), ready(&seen)), (None, (true, "AsDeclared".into())));
    }
}
