//! Who asked for a job: the field manager that last touched `spec`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use crate::api::names;
use crate::job::Action;

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
        .filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:spec").is_some()))
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
        .and_then(|entry| entry.manager.as_deref())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
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
}
