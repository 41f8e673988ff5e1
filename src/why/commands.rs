//! The exact command of an answer.

use jiff::Timestamp;

use super::layout::Entry;
use crate::api::{Answer, DeletionPolicy, Lifecycle, Provisioning, Server, names};
use crate::job::Deleting;

/// The command by which a person gives this answer about this server; `None` where it would change nothing.
pub(super) fn command(answer: Answer, server: &Server, now: Timestamp) -> Option<Entry> {
    let spec = &server.spec;
    let (purpose, rest) = match answer {
        Answer::Confirm => (
            "if what is on its disks may be lost",
            format!(
                "annotate --overwrite server {} {}={}",
                target(server),
                names::CONFIRM,
                server.metadata.uid.as_deref()?
            ),
        ),
        Answer::Adopt
            if is_erased(server) || spec.provisioning == Provisioning::Adopt || spec.image.is_none() =>
        {
            return None;
        }
        Answer::Adopt => {
            ("if the machine has this image already", patch(server, r#"{"spec":{"provisioning":"Adopt"}}"#))
        }
        Answer::InstallAgain if is_erased(server) => ("to have it erased once more", look_again(server, now)),
        Answer::InstallAgain if spec.image.is_none() => return None,
        Answer::InstallAgain => (
            "to install it again, which erases it",
            patch(server, &format!(r#"{{"spec":{{"reimageToken":"{}"}}}}"#, whole_seconds(now))),
        ),
        // Nothing is looked at while it is paused.
        Answer::LookAgain if spec.paused == Some(true) => return None,
        Answer::LookAgain => ("to look and try again now", look_again(server, now)),
        Answer::GoOn if spec.paused != Some(true) => return None,
        Answer::GoOn => ("to go on", patch(server, r#"{"spec":{"paused":false}}"#)),
        Answer::LetGo if spec.deletion_policy == DeletionPolicy::Retain => return None,
        Answer::LetGo => {
            ("to let the machine go as it is", patch(server, r#"{"spec":{"deletionPolicy":"Retain"}}"#))
        }
        Answer::Abandon if spec.deletion_policy != DeletionPolicy::Wipe => return None,
        Answer::Abandon => (
            "to let it go unwiped, with a line in the history",
            format!(
                "annotate --overwrite server {} {}={}",
                target(server),
                names::ABANDON,
                server.metadata.uid.as_deref()?
            ),
        ),
    };
    Some(Entry::Command { purpose, command: format!("kubectl {rest}") })
}

/// The command that takes the object off without asking anybody: rows about it are let go later.
pub(super) fn without_finalizer(server: &Server) -> Entry {
    let command = format!("kubectl {}", patch(server, r#"{"metadata":{"finalizers":null}}"#));
    Entry::Command { purpose: "to let the machine go as it is, without the controller", command }
}

/// Whether its disks are to be erased, and nothing is to be installed.
fn is_erased(server: &Server) -> bool {
    server.spec.lifecycle == Lifecycle::Decommissioned || Deleting::of(server) == Deleting::Wipe
}

fn look_again(server: &Server, now: Timestamp) -> String {
    let at = whole_seconds(now);
    format!("annotate --overwrite server {} {}={at}", target(server), names::RECONCILE_REQUESTED_AT)
}

fn patch(server: &Server, patch: &str) -> String {
    format!("patch server {} --type=merge -p '{patch}'", target(server))
}

fn target(server: &Server) -> String {
    let name = server.metadata.name.as_deref().unwrap_or_default();
    let namespace = server.metadata.namespace.as_deref().unwrap_or_default();
    format!("{name} -n {namespace}")
}

fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
