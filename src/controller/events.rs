//! Kubernetes Events: what is told once. An event that cannot be published never fails a reconcile.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;
use kube::runtime::events::{Event, EventType};

use super::context::Context;
use crate::api::{Reason, Server};
use crate::causes::causes;
use crate::metrics;
use crate::plan::{EventKind, EventNote};

/// Longest note that the API server takes, in bytes.
const NOTE_MAX: usize = 1024;

/// How long one may take.
const LONGEST: Duration = Duration::from_secs(3);

pub(super) async fn publish(context: &Context, server: &Server, notes: Vec<EventNote>) {
    let mut about = server.object_ref(&());
    about.resource_version = None;
    for note in notes {
        let reason = note.reason;
        let event = event(note);
        match tokio::time::timeout(LONGEST, context.recorder.publish(&event, &about)).await {
            Ok(Ok(())) => metrics::EVENTS.one(&[reason.as_str()]),
            Ok(Err(error)) => unpublished(context, &about, reason, &causes(&error)),
            Err(_) => unpublished(context, &about, reason, "no answer"),
        }
    }
}

/// One line for each namespace, and ever fewer ones while it lasts.
fn unpublished(context: &Context, about: &ObjectReference, reason: Reason, error: &str) {
    let namespace = about.namespace.as_deref().unwrap_or_default();
    if let Some(times) = context.repeats.met(&format!("events in {namespace}")) {
        let name = about.name.as_deref().unwrap_or_default();
        tracing::warn!(%reason, namespace, name, times, "an event was not published: {error}");
    }
}

fn event(note: EventNote) -> Event {
    Event {
        type_: match note.kind {
            EventKind::Normal => EventType::Normal,
            EventKind::Warning => EventType::Warning,
        },
        reason: note.reason.as_str().to_owned(),
        note: Some(shortened(note.note)),
        action: note.action,
        secondary: None,
    }
}

fn shortened(mut note: String) -> String {
    if note.len() > NOTE_MAX {
        let cut = (0..=NOTE_MAX - 3).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
        note.truncate(cut);
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_to_what_the_api_server_takes() {
        let note = shortened("ä".repeat(2000));
        assert!(note.len() <= NOTE_MAX && note.ends_with('…'));
    }
}
