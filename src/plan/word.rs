//! A person's word: the annotations that confirm what destroys data, and how they are given. Whether one is needed is asked
//! of [`crate::job::Asked`], as worker and boot service do.

use super::{Observation, debt, image};
use crate::api::{Reason, names};
use crate::job::{Action, Asked, Contents, Objection, Stage, is_given as is_given_on, is_unhandled};

/// What the object has against a job of this action that is live.
pub(super) fn objection(seen: &Observation, action: Action) -> Option<Objection> {
    let (uid, contents) = (seen.uid(), image::contents(seen));
    Asked { stage: Stage::Again, ..asked(seen, action, &uid, contents.as_ref()) }.objection()
}

/// Whether the object asks for this, as it has to before a first request, and status does not show it as done.
pub(super) fn is_asked_for(seen: &Observation, action: Action) -> bool {
    let (uid, contents) = (seen.uid(), image::contents(seen));
    asked(seen, action, &uid, contents.as_ref()).objection().is_none() && is_unhandled(action, &seen.server)
}

/// Why a person has to confirm this action first, and nobody did.
pub(super) fn missing(seen: &Observation, action: Action) -> Option<Reason> {
    let (uid, contents) = (seen.uid(), image::contents(seen));
    asked(seen, action, &uid, contents.as_ref()).word_missing()
}

fn asked<'a>(
    seen: &'a Observation,
    action: Action,
    uid: &'a crate::job::ServerUid,
    contents: Option<&'a Contents>,
) -> Asked<'a> {
    let reading = seen.known.as_ref().and_then(|known| known.reading.as_ref());
    Asked {
        action,
        stage: Stage::First,
        server: &seen.server,
        uid,
        contents,
        power: reading.map(|reading| reading.power),
        debt: debt::witnessed(seen),
        image: None,
    }
}

/// Whether an annotation has the uid of this very object, so that an old manifest says nothing in a new cluster.
pub(super) fn is_given(seen: &Observation, annotation: &str) -> bool {
    is_given_on(&seen.server, &seen.uid(), annotation)
}

/// The command that gives it.
pub(super) fn command(seen: &Observation, annotation: &str, value: &str) -> String {
    let metadata = &seen.server.metadata;
    let (name, namespace) =
        (metadata.name.as_deref().unwrap_or_default(), metadata.namespace.as_deref().unwrap_or_default());
    format!("kubectl annotate server {name} -n {namespace} {annotation}={value}")
}

/// The command that shows what another `Server` of the namespace waits for.
pub(super) fn why(seen: &Observation, name: &str) -> String {
    let namespace = seen.server.metadata.namespace.as_deref().unwrap_or_default();
    format!("kubectl autobuild why {name} -n {namespace}")
}

/// The command that confirms.
pub(super) fn to_confirm(seen: &Observation) -> String {
    command(seen, names::CONFIRM, seen.uid().as_str())
}
