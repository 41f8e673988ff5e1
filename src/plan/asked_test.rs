//! The planner enqueues what is asked for, by the table that worker and boot service are tried on as well.
#![allow(clippy::unwrap_used, missing_docs)]

use super::{Command, decide, fixture as f};
use crate::api::ImageKind;
use crate::job::{Action, Contents, InstalledImage, LiveJob, Origin, asked_table};

#[test]
fn what_is_not_asked_for_is_not_enqueued() {
    for row in asked_table::rows() {
        let mut seen = f::ready();
        seen.server = row.server(seen.server);
        if seen.server.metadata.deletion_timestamp.is_some() {
            f::delete(&mut seen, 1_000);
        }
        seen.image_digest = seen.server.spec.image.as_ref().map(|_| "sha256:1".to_owned());
        seen.image_kind = Some(ImageKind::Network);
        f::known(&mut seen).contents.clone_from(&row.contents);
        let command = decide(&seen).command;
        let enqueued = matches!(&command, Command::Enqueue(work) if work.action == row.action);
        assert_eq!(enqueued, row.expected[0].is_none(), "{}: {command:?}", row.what);
    }
}

#[test]
fn a_live_job_that_is_no_longer_asked_for_is_stopped() {
    for row in asked_table::rows() {
        let mut seen = f::ready();
        seen.server = row.server(seen.server);
        seen.image_digest = seen.server.spec.image.as_ref().map(|_| "sha256:1".to_owned());
        seen.image_kind = Some(ImageKind::Network);
        f::known(&mut seen).contents.clone_from(&row.contents);
        seen.job = Some(f::started(&seen, row.action));
        seen.server.status.as_mut().unwrap().job = None;
        let command = decide(&seen).command;
        if row.expected[1].is_some() {
            assert!(matches!(command, Command::Cancel { .. }), "{}: {command:?}", row.what);
        }
    }
}

/// A machine that has what is wished.
fn converged() -> super::Observation {
    let mut seen = f::ready();
    asked_table::wishes_image(&mut seen.server);
    (seen.image_digest, seen.image_kind) = (Some("sha256:1".into()), Some(ImageKind::Network));
    let image = InstalledImage {
        name: "debian".into(),
        digest: "sha256:1".into(),
        at_ms: 1,
        origin: Origin::Installed,
    };
    f::known(&mut seen).contents = Some(Contents::Image(image));
    seen
}

#[test]
fn a_row_alone_installs_nothing_the_job_has_to_be_due_or_to_have_been_shown() {
    let mut seen = converged();
    for begun in [false, true] {
        seen.job = Some(LiveJob { request_stored: begun, ..f::started(&seen, Action::Reimage) });
        assert!(matches!(decide(&seen).command, Command::Cancel { .. }), "begun: {begun}");
    }
    // It was shown before its first request, and its token is handled since.
    let mut shown = seen.clone();
    f::own(&mut seen);
    shown.server.status = Some(super::status(&seen, &decide(&seen)));
    assert!(matches!(decide(&shown).command, Command::Nothing(_)), "{:?}", decide(&shown).command);
    // Its disks are given up: it goes to its end, whoever edits status.
    f::known(&mut seen).contents = Some(Contents::Unknown { since_ms: 2 });
    assert!(matches!(decide(&seen).command, Command::Nothing(_)), "{:?}", decide(&seen).command);
}
