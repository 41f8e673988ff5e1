//! What an `OSImage` that changed or went does to a machine that has it: nothing.
#![allow(clippy::unwrap_used, missing_docs)]

use super::{Command, Observation, decide, fixture as f, status};
use crate::api::{ImageKind, ImageWish, Reason};
use crate::job::{Action, Contents, InstalledImage, Origin};

/// A machine that has the image that it wishes.
fn having_its_image(origin: Origin) -> Observation {
    let mut seen = f::ready();
    seen.server.spec.image = Some(ImageWish { name: "debian".into(), ..ImageWish::default() });
    (seen.image_digest, seen.image_kind) = (Some("sha256:1".into()), Some(ImageKind::Network));
    let image = InstalledImage { name: "debian".into(), digest: "sha256:1".into(), at_ms: 1, origin };
    f::known(&mut seen).contents = Some(Contents::Image(image));
    seen.server.status = Some(status(&seen, &decide(&seen)));
    seen
}

/// What is decided, and why the server is stalled once status says so.
fn stalled(seen: &mut Observation) -> (Command, Option<String>) {
    let decision = decide(seen);
    let shown = status(seen, &decision);
    let stalled = shown.conditions.iter().find(|one| one.type_ == "Stalled").map(|one| one.reason.clone());
    seen.server.status = Some(shown);
    (decision.command, stalled)
}

#[test]
fn another_content_under_the_name_installs_nothing_until_the_name_or_the_token_changes() {
    for origin in [Origin::Installed, Origin::Adopted] {
        let mut seen = having_its_image(origin);
        seen.image_digest = Some("sha256:2".into());
        for _ in 0..3 {
            let (command, reason) = stalled(&mut seen);
            assert!(matches!(command, Command::Nothing(_)), "{origin:?}: {command:?}");
            assert_eq!(reason.as_deref(), Some("ImageReplaced"), "{origin:?}");
        }
    }
    let replaced = having_its_image(Origin::Installed);
    let installs = |change: fn(&mut Observation)| {
        let mut seen = replaced.clone();
        seen.image_digest = Some("sha256:2".into());
        change(&mut seen);
        matches!(decide(&seen).command, Command::Enqueue(work) if work.action == Action::Reimage)
    };
    assert!(installs(|seen| seen.server.spec.reimage_token = Some("new".into())));
    assert!(installs(|seen| seen.server.spec.image.as_mut().unwrap().name = "other".into()));
}

#[test]
fn an_image_that_is_gone_changes_nothing_for_a_machine_that_has_it_and_is_told_to_one_that_has_not() {
    let mut seen = having_its_image(Origin::Installed);
    seen.image_digest = None;
    assert_eq!(stalled(&mut seen), (Command::Nothing(Reason::AsDeclared), None));
    seen.server.spec.image.as_mut().unwrap().name = "other".into();
    let (command, reason) = stalled(&mut seen);
    assert!(matches!(command, Command::Nothing(_)), "{command:?}");
    assert_eq!(reason.as_deref(), Some("ImageNotFound"));
}
