//! Who asked for a job: the field manager that last touched `spec`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta};

use crate::api::{foreign_status, names};
use crate::job::{Action, PROVISIONING, ReconcileRequest};

/// The field of managed fields that stands for `spec`.
const SPEC: &str = "f:spec";
/// How the annotations begin that say something to AutoBuild.
const OURS: &str = "autobuild.dev/";

/// The requester of a job. Nobody asks for an inspection: the controller's own period does.
pub(super) fn of(action: Action, managed: Option<&[ManagedFieldsEntry]>) -> String {
    let asked = match action {
        Action::Inspect => None,
        _ => managed.and_then(last_of_spec),
    };
    asked.unwrap_or(names::CONTROLLER).to_owned()
}

fn last_of_spec(managed: &[ManagedFieldsEntry]) -> Option<&str> {
    managed
        .iter()
        .filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty())
        .filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get(SPEC).is_some()))
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
        .and_then(|entry| entry.manager.as_deref())
}

/// Drops what no decision needs of an object that is kept in memory: of managed fields all but whose they are, whether they are
/// of `spec`, and of `spec.provisioning`, and which ones of `status` are not ours; and every annotation of others, kubectl's copy of
/// the manifest among them. With them, as trees of JSON, a Server took 26 KiB, without them 12.
pub(super) fn slim(metadata: &mut ObjectMeta) {
    foreign_status::slim(metadata);
    for entry in metadata.managed_fields.iter_mut().flatten() {
        let spec = entry.fields_v1.as_ref().and_then(|fields| fields.0.get(SPEC));
        let kept = spec.map(|spec| match spec.get(PROVISIONING[1]) {
            Some(_) => serde_json::json!({ SPEC: { PROVISIONING[1]: {} } }),
            None => serde_json::json!({ SPEC: {} }),
        });
        let kept = kept.or_else(|| foreign_status::kept(entry));
        entry.fields_v1 = kept.map(FieldsV1);
    }
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|name, _| name.starts_with(OURS));
        // Of a long word its hash is remembered and compared.
        if let Some(word) = annotations.get_mut(names::RECONCILE_REQUESTED_AT) {
            *word = ReconcileRequest::bounded(word);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::condition::time;

    fn entry(manager: &str, at_s: i64, fields: serde_json::Value) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.into()),
            time: Some(time(at_s * 1000)),
            fields_v1: Some(FieldsV1(fields)),
            ..ManagedFieldsEntry::default()
        }
    }

    #[test]
    fn the_one_that_last_touched_spec_asked() {
        let managed = [
            entry("kubectl", 1, json!({"f:spec": {"f:power": {}}})),
            entry("argocd", 2, json!({"f:spec": {"f:rebootToken": {}}})),
            entry("autobuild-finalizer", 3, json!({"f:metadata": {}})),
        ];
        assert_eq!(of(Action::Reboot, Some(&managed)), "argocd");
        assert_eq!(of(Action::Inspect, Some(&managed)), names::CONTROLLER);
        assert_eq!(of(Action::Reboot, None), names::CONTROLLER);
    }

    #[test]
    fn what_is_kept_in_memory_tells_who_asked_and_little_else() {
        let managed = vec![
            entry("kubectl", 1, json!({"f:metadata": {}, "f:spec": {"f:power": {}}})),
            entry("argocd", 2, json!({"f:spec": {"f:rebootToken": {}}})),
            entry("autobuild", 3, json!({"f:metadata": {}})),
        ];
        let long = "x".repeat(100_000);
        let annotations = [
            ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
            ("example.com/note", long.as_str()),
            (names::CONFIRM, "u"),
            (names::RECONCILE_REQUESTED_AT, long.as_str()),
        ];
        let mut metadata = ObjectMeta {
            managed_fields: Some(managed),
            annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        };
        slim(&mut metadata);
        let managed = metadata.managed_fields.unwrap();
        assert_eq!(of(Action::Reboot, Some(&managed)), "argocd");
        let left: Vec<_> = managed.into_iter().map(|entry| entry.fields_v1.map(|fields| fields.0)).collect();
        let spec = Some(json!({"f:spec": {}}));
        assert_eq!(left, [spec.clone(), spec, None]);
        let word = ReconcileRequest::bounded(&long);
        assert!(word.len() < 100 && ReconcileRequest::bounded(&word) == word);
        let kept: Vec<(String, String)> = metadata.annotations.unwrap().into_iter().collect();
        let ours = [(names::CONFIRM, "u"), (names::RECONCILE_REQUESTED_AT, word.as_str())];
        assert_eq!(kept, ours.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
