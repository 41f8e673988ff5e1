//! What somebody else than the controller wrote into `status`: a hand, a restore, another tool. The API server keeps who wrote
//! which field (`metadata.managedFields`, Kubernetes' server-side apply). Nothing is decided on such a field, and the controller
//! takes it away.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use serde_json::{Map, Value, json};

use super::{DiskContents, Phase, Server, ServerStatus, names};
use crate::job::Effect;

const FIELD: &str = "f:";
const KEY: &str = "k:";
const STATUS: &str = "f:status";
const CONDITIONS: &str = "f:conditions";
/// Stands for a struct itself among its fields.
const ITSELF: &str = ".";

/// What the database remembers of a server whose status was written by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// All that counts: a foreign field says nothing.
    Kept,
    /// It lost everything, or its last commits: a foreign field may be all that is left, as after a restore of the objects.
    /// What holds back counts, what allows or causes something does not.
    Lost,
}

/// The fields of `status` of which some part was written by somebody else, and not by the controller too: as a tree of managed
/// fields, of `conditions` each one by its type.
fn foreign(metadata: &ObjectMeta) -> Map<String, Value> {
    let trees = |ours: bool| entries(metadata, ours).filter_map(status_of);
    let mine: Vec<&Map<String, Value>> = trees(true).collect();
    let mut foreign = Map::new();
    for (key, tree) in trees(false).flatten().filter(|(key, _)| *key != ITSELF) {
        let mine: Vec<&Value> = mine.iter().filter_map(|fields| fields.get(key)).collect();
        if key != CONDITIONS {
            if is_beyond(tree, &mine) {
                foreign.insert(key.clone(), json!({}));
            }
            continue;
        }
        for (one, tree) in tree.as_object().into_iter().flatten().filter(|(one, _)| one.starts_with(KEY)) {
            let mine: Vec<&Value> = mine.iter().filter_map(|all| all.get(one)).collect();
            if is_beyond(tree, &mine) {
                foreign.entry(CONDITIONS).or_insert_with(|| json!({}))[one] = json!({});
            }
        }
    }
    foreign
}

/// Takes out of an object what somebody else wrote into its status; returns whether there was anything.
pub fn ignore(server: &mut Server, record: Record) -> bool {
    let foreign = foreign(&server.metadata);
    if foreign.is_empty() {
        return false;
    }
    if let Some(status) = &server.status {
        server.status = without(status, &foreign, record);
    }
    true
}

/// Keeps of who wrote status what [`ignore`] does the same by: nothing where the controller wrote all of it.
pub fn slim(metadata: &mut ObjectMeta) {
    let mut foreign = foreign(metadata);
    for entry in metadata.managed_fields.iter_mut().flatten().filter(|entry| is_of_status(entry)) {
        let kept = if is_ours(entry) { Map::new() } else { std::mem::take(&mut foreign) };
        if let Some(Value::Object(fields)) = entry.fields_v1.as_mut().map(|fields| &mut fields.0) {
            fields.remove(STATUS);
            if !kept.is_empty() {
                fields.insert(STATUS.to_owned(), Value::Object(kept));
            }
        }
    }
}

/// What of an entry belongs to status.
pub fn kept(entry: &ManagedFieldsEntry) -> Option<Value> {
    status_of(entry).map(|fields| json!({ STATUS: fields }))
}

fn entries(metadata: &ObjectMeta, ours: bool) -> impl Iterator<Item = &ManagedFieldsEntry> {
    let all = metadata.managed_fields.iter().flatten();
    all.filter(move |entry| is_of_status(entry) && is_ours(entry) == ours)
}

fn is_of_status(entry: &ManagedFieldsEntry) -> bool {
    status_of(entry).is_some()
}

fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(names::STATUS_MANAGER)
}

fn status_of(entry: &ManagedFieldsEntry) -> Option<&Map<String, Value>> {
    entry.fields_v1.as_ref()?.0.get(STATUS)?.as_object()
}

/// Whether a tree of fields has one that none of these has.
fn is_beyond(tree: &Value, others: &[&Value]) -> bool {
    if others.is_empty() {
        return true;
    }
    tree.as_object().into_iter().flatten().filter(|(key, _)| *key != ITSELF).any(|(key, below)| {
        let others: Vec<&Value> = others.iter().filter_map(|other| other.get(key)).collect();
        is_beyond(below, &others)
    })
}

/// Whether a field keeps a machine from being harmed, whoever wrote it.
fn holds_back(field: &str, status: &ServerStatus) -> bool {
    match field {
        "image" | "decommissionedAt" | "rebootTokens" | "reimageTokens" | "bmcIdentity" => true,
        "contents" => status.contents.is_some_and(DiskContents::is_given_up_by_nobody),
        "phase" => status.phase == Some(Phase::Decommissioned),
        "job" => status.job.as_ref().is_some_and(|job| job.action.effect() == Effect::Destructive),
        _ => false,
    }
}

fn without(status: &ServerStatus, foreign: &Map<String, Value>, record: Record) -> Option<ServerStatus> {
    let mut fields = serde_json::to_value(status).ok()?;
    for (key, tree) in foreign {
        let Some(name) = key.strip_prefix(FIELD) else { continue };
        if key == CONDITIONS {
            let is_foreign = |one: &Value| tree.get(condition_key(one)).is_some();
            if let Some(conditions) = fields.get_mut(name).and_then(Value::as_array_mut) {
                conditions.retain(|one| !is_foreign(one));
            }
        } else if record == Record::Kept || !holds_back(name, status) {
            fields.as_object_mut()?.remove(name);
        }
    }
    serde_json::from_value(fields).ok()
}

/// How managed fields name a condition: by its type.
fn condition_key(condition: &Value) -> String {
    format!("{KEY}{}", json!({ "type": condition["type"] }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;

    use super::*;
    use crate::api::ServerSpec;

    fn written_by(manager: &str, fields: &Value) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            subresource: Some("status".to_owned()),
            fields_v1: Some(FieldsV1(json!({ "f:status": fields }))),
            ..ManagedFieldsEntry::default()
        }
    }

    fn server(entries: Vec<ManagedFieldsEntry>) -> Server {
        let mut server = Server::new("a", ServerSpec::default());
        server.metadata.managed_fields = Some(entries);
        let job = json!({ "id": "0000000000000001", "action": "Reboot", "priority": "Normal", "state": "Running", "step": "PowerOff",
            "enqueuedAt": "2026-01-01T00:00:00Z", "startedAt": "2026-01-01T00:00:01Z" });
        let status = json!({ "phase": "Ready", "wipedAt": "2026-01-01T00:00:00Z", "rebootTokens": ["one"], "job": job });
        server.status = Some(serde_json::from_value(status).unwrap());
        server
    }

    fn names_of(server: &Server) -> Vec<String> {
        foreign(&server.metadata).into_iter().map(|(key, tree)| format!("{key}{tree}")).collect()
    }

    #[test]
    fn what_the_controller_wrote_or_nobody_is_known_to_have_written_counts() {
        let ours = json!({ "f:phase": {}, "f:wipedAt": {}, "f:rebootTokens": {}, "f:job": { "f:id": {} } });
        for entries in [vec![], vec![written_by(names::STATUS_MANAGER, &ours)]] {
            let mut server = server(entries);
            let before = server.status.clone();
            assert!(!ignore(&mut server, Record::Kept));
            assert_eq!(server.status, before);
        }
    }

    #[test]
    fn a_field_of_somebody_else_says_nothing_and_one_that_both_wrote_counts() {
        let ours = written_by(names::STATUS_MANAGER, &json!({ "f:phase": {}, "f:rebootTokens": {} }));
        let theirs = written_by("kubectl-patch", &json!({ ".": {}, "f:wipedAt": {}, "f:rebootTokens": {} }));
        let mut server = server(vec![ours, theirs]);
        assert_eq!(names_of(&server), ["f:wipedAt{}"]);
        assert!(ignore(&mut server, Record::Kept));
        let status = server.status.unwrap();
        assert_eq!((status.wiped_at, status.reboot_tokens), (None, vec!["one".to_owned()]));
    }

    #[test]
    fn a_part_of_a_field_makes_the_field_foreign_and_of_conditions_only_the_one() {
        let condition = |fields: Value| json!({ "f:conditions": { "k:{\"type\":\"Stalled\"}": fields } });
        let ours = written_by(names::STATUS_MANAGER, &condition(json!({ ".": {}, "f:type": {} })));
        let same = written_by("x", &condition(json!({ ".": {}, "f:type": {} })));
        let more = written_by("x", &condition(json!({ "f:reason": {} })));
        assert!(names_of(&server(vec![ours.clone(), same])).is_empty());
        let mut server = server(vec![ours, more]);
        assert_eq!(names_of(&server), [r#"f:conditions{"k:{\"type\":\"Stalled\"}":{}}"#]);
        let one = |kind: &str| {
            json!({ "type": kind, "status": "True", "reason": "x", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z" })
        };
        let status = json!({ "conditions": [one("Ready"), one("Stalled")] });
        server.status = Some(serde_json::from_value(status).unwrap());
        assert!(ignore(&mut server, Record::Lost));
        let status = server.status.as_mut().unwrap();
        let left: Vec<String> =
            std::mem::take(&mut status.conditions).into_iter().map(|one| one.type_).collect();
        assert_eq!(left, ["Ready"]);
        // What is named and not there takes nothing else along.
        status.phase = Some(Phase::Ready);
        assert!(ignore(&mut server, Record::Kept));
        assert_eq!(server.status.unwrap().phase, Some(Phase::Ready));
    }

    #[test]
    fn where_the_database_lost_its_record_what_holds_back_counts_whoever_wrote_it() {
        let theirs = json!({ "f:wipedAt": {}, "f:rebootTokens": {}, "f:job": { "f:id": {} }, "f:phase": {} });
        let mut server = server(vec![written_by("velero-server", &theirs)]);
        assert!(ignore(&mut server, Record::Lost));
        let status = server.status.unwrap();
        assert_eq!(status.reboot_tokens, ["one"]);
        assert_eq!((status.wiped_at, status.job, status.phase), (None, None, None));
    }

    #[test]
    fn what_is_kept_in_memory_tells_the_same() {
        let ours = written_by(
            names::STATUS_MANAGER,
            &json!({ "f:phase": {}, "f:job": { "f:id": {}, "f:step": {} } }),
        );
        let theirs = written_by("x", &json!({ "f:wipedAt": {}, "f:phase": {} }));
        let mut server = server(vec![ours, theirs]);
        let before = names_of(&server);
        slim(&mut server.metadata);
        assert_eq!(names_of(&server), before);
        slim(&mut server.metadata);
        assert_eq!(names_of(&server), before);
        let left: Vec<Value> = server
            .metadata
            .managed_fields
            .unwrap()
            .into_iter()
            .map(|entry| entry.fields_v1.unwrap().0)
            .collect();
        assert_eq!(left, [json!({}), json!({ "f:status": { "f:wipedAt": {} } })]);
    }
}
