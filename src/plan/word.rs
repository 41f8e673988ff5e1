//! A person's word: the annotations that confirm what destroys data, and how they are given.

use super::Observation;
use crate::api::names;

/// Whether the annotation `autobuild.dev/confirm` names this very object.
pub(super) fn is_confirmed(seen: &Observation) -> bool {
    is_given(seen, names::CONFIRM)
}

/// Whether an annotation has the uid of this very object, so that an old manifest says nothing in a new cluster.
pub(super) fn is_given(seen: &Observation, annotation: &str) -> bool {
    let uid = seen.uid();
    !uid.as_str().is_empty() && seen.annotation(annotation) == Some(uid.as_str())
}

/// The command that gives it.
pub(super) fn command(seen: &Observation, annotation: &str, value: &str) -> String {
    let metadata = &seen.server.metadata;
    let (name, namespace) =
        (metadata.name.as_deref().unwrap_or_default(), metadata.namespace.as_deref().unwrap_or_default());
    format!("kubectl annotate server {name} -n {namespace} {annotation}={value}")
}

/// The command that confirms.
pub(super) fn to_confirm(seen: &Observation) -> String {
    command(seen, names::CONFIRM, seen.uid().as_str())
}
