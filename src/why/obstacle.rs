//! What keeps the controller from showing what it sees: status cannot say that, so events and the namespace do.

use jiff::Timestamp;

use super::age::age;
use super::commands;
use super::layout::{Entry, Tone};
use super::{Facts, Looked, Told};
use crate::api::{Reason, names};

/// The event that says that the controller's writes are refused, where no status was written since.
pub(super) fn refused(facts: &Facts) -> Option<&Told> {
    let Looked::Found(events) = &facts.events else { return None };
    let told = events.iter().filter(|told| told.reason == Reason::StatusRefused.as_str());
    let newest = told.max_by_key(|told| told.at)?;
    written(facts).is_none_or(|at| at <= newest.at).then_some(newest)
}

/// When the controller wrote status last, as far as the object's managers say.
fn written(facts: &Facts) -> Option<Timestamp> {
    let managers = facts.server.metadata.managed_fields.iter().flatten();
    let ours = managers.filter(|entry| {
        entry.manager.as_deref() == Some(names::STATUS_MANAGER)
            && entry.subresource.as_deref() == Some("status")
    });
    ours.filter_map(|entry| Some(entry.time.as_ref()?.0)).max()
}

/// Since when the namespace is being deleted, where this object still keeps it.
pub(super) fn goes_with_its_namespace(facts: &Facts) -> Option<Timestamp> {
    let metadata = &facts.server.metadata;
    let kept = metadata.finalizers.iter().flatten().any(|name| name == names::FINALIZER);
    match &facts.namespace {
        Looked::Found(namespace) if kept => namespace.deleted,
        _ => None,
    }
}

/// What is in the way, before everything else.
pub(super) fn entries(facts: &Facts) -> Vec<Entry> {
    let mut entries = Vec::new();
    if let Some(told) = refused(facts) {
        let text = format!("{} ago: {}", age(facts.now, told.at), told.note);
        entries.push(Entry::toned("refused", text, Tone::Bad));
    }
    if let Some(since) = goes_with_its_namespace(facts) {
        let text = format!(
            "is being deleted for {}. Kubernetes deletes its Roles before its Servers: without them (403) the controller can \
             neither carry out the deletion, nor write status, nor take its finalizer off, and the namespace hangs. What \
             follows may be from before",
            age(facts.now, since)
        );
        entries.push(Entry::toned("namespace", text, Tone::Bad));
    }
    entries
}

/// What to try about it.
pub(super) fn to_try(facts: &Facts) -> Vec<Entry> {
    let mut entries = Vec::new();
    if refused(facts).is_some() {
        let text = Reason::StatusRefused.remedy().map(|remedy| remedy.text.replace('`', ""));
        entries.extend(text.map(Entry::Text));
    }
    if goes_with_its_namespace(facts).is_some() {
        entries.push(Entry::Text(
            "If it does not go by itself within a minute, give the controller rights that outlive a namespace; or let the \
             machine go as it is."
                .to_owned(),
        ));
        entries.push(Entry::Command {
            purpose: "to give the controller rights that outlive the namespace",
            command: "kubectl apply -k manifests/cluster-access".to_owned(),
        });
        entries.push(commands::without_finalizer(&facts.server));
    }
    entries
}
