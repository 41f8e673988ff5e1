//! `status`, written by server-side apply under the resourceVersion that was decided on: a stale cache or a stale
//! leader changes nothing.

use std::collections::BTreeSet;

use kube::Resource as _;
use kube::api::{Patch, PatchParams};
use serde::Serialize;
use serde_json::{Value, json};

use super::api_call::{ApiError, Refusal, call};
use super::context::Context;
use super::observe::Observed;
use crate::api::{Server, ServerStatus, names};
use crate::failpoint::crash_point;
use crate::metrics;

/// What is applied: never a whole `Server`, or this manager would own the spec.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusApply<'a> {
    api_version: String,
    kind: String,
    metadata: Guard<'a>,
    status: &'a ServerStatus,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Guard<'a> {
    name: &'a str,
    namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<&'a str>,
}

/// What became of a status.
#[derive(Debug)]
pub(super) enum Shown {
    /// It is what was shown already.
    Already,
    /// It was written: this is the object now.
    Written(Box<Server>),
    /// The object changed meanwhile, or is gone: look again.
    Outdated,
}

/// Shows `status` on the object as it was observed, and nothing else: what somebody else wrote there is taken away.
pub(super) async fn show(
    context: &Context,
    observed: &Observed,
    status: &ServerStatus,
) -> Result<Shown, ApiError> {
    let server = &observed.seen.server;
    if server.status.as_ref() == Some(status) && !observed.foreign_status {
        return Ok(Shown::Already);
    }
    let metadata = &server.metadata;
    let (Some(name), Some(namespace)) = (&metadata.name, &metadata.namespace) else {
        return Ok(Shown::Outdated);
    };
    let apply = StatusApply {
        api_version: Server::api_version(&()).into_owned(),
        kind: Server::kind(&()).into_owned(),
        metadata: Guard { name, namespace, resource_version: metadata.resource_version.as_deref() },
        status,
    };
    let wanted = serde_json::to_value(status).unwrap_or_default();
    crash_point("controller.patch.before");
    let applied = patch(context, (namespace, name), true, &Patch::Apply(&apply)).await;
    crash_point("controller.patch.after");
    let answer = match applied {
        // Server-side apply takes away only what its manager had put there.
        Ok(answer) if answer["status"] != wanted => {
            metrics::STATUS_PATCHES.one(&["cleared"]);
            patch(context, (namespace, name), false, &alone(&answer, &wanted)?).await
        }
        // Of what somebody else had written too, a part may be left that is no whole, and no apply takes it away.
        Err(ApiError::Refused { why: Refusal::Invalid, .. }) => {
            metrics::STATUS_PATCHES.one(&["cleared"]);
            let observed = json!({ "metadata": { "resourceVersion": metadata.resource_version } });
            patch(context, (namespace, name), false, &alone(&observed, &wanted)?).await
        }
        other => other,
    };
    match answer {
        Ok(answer) if answer["status"] == wanted => {
            metrics::STATUS_PATCHES.one(&["written"]);
            let now: Server = serde_json::from_value(answer).map_err(|error| ApiError::Failed {
                what: PATCH,
                message: format!("the answer cannot be read: {error}"),
            })?;
            context.newest.written(&now.metadata);
            Ok(Shown::Written(Box::new(now)))
        }
        Ok(answer) => {
            metrics::STATUS_PATCHES.one(&["error"]);
            Err(ApiError::StoredOtherwise { what: PATCH, fields: differing(&answer["status"], &wanted) })
        }
        Err(ApiError::Conflict(_) | ApiError::NotFound(_)) => {
            metrics::STATUS_PATCHES.one(&["conflict"]);
            Ok(Shown::Outdated)
        }
        Err(error) => {
            metrics::STATUS_PATCHES.one(&["error"]);
            Err(error)
        }
    }
}

const PATCH: &str = "patch the status";

/// Patches the status; returns the whole object as it is stored, what this release does not know of it included.
async fn patch<P: Serialize + std::fmt::Debug>(
    context: &Context,
    (namespace, name): (&str, &str),
    force: bool,
    patch: &Patch<P>,
) -> Result<Value, ApiError> {
    let how = PatchParams {
        field_manager: Some(names::STATUS_MANAGER.to_owned()),
        force,
        ..PatchParams::default()
    };
    let request = kube::core::Request::new(Server::url_path(&(), Some(namespace)))
        .patch_subresource("status", name, &how, patch)
        .map_err(|error| ApiError::Failed { what: PATCH, message: error.to_string() })?;
    call(PATCH, context.client.request::<Value>(request)).await
}

/// Makes `wanted` the whole status of the object that was answered, if nobody changed it since then.
fn alone(answer: &Value, wanted: &Value) -> Result<Patch<Value>, ApiError> {
    let operations = json!([
        {"op": "replace", "path": "/metadata/resourceVersion", "value": answer["metadata"]["resourceVersion"]},
        {"op": "add", "path": "/status", "value": wanted},
    ]);
    let operations = serde_json::from_value(operations);
    operations.map(Patch::Json).map_err(|error| ApiError::Failed { what: PATCH, message: error.to_string() })
}

/// The names of the fields that differ, never their values.
fn differing(stored: &Value, wanted: &Value) -> String {
    let empty = serde_json::Map::new();
    let [stored, wanted] = [stored, wanted].map(|value| value.as_object().unwrap_or(&empty));
    let names: BTreeSet<&String> = stored.keys().chain(wanted.keys()).collect();
    let differ = names.into_iter().filter(|name| stored.get(*name) != wanted.get(*name));
    differ.map(|name| format!("status.{name}")).collect::<Vec<_>>().join(", ")
}

/// Whether a status that is `Already` shown by the cache is what a live read shows.
pub(super) async fn is_shown_live(
    context: &Context,
    server: &Server,
    status: &ServerStatus,
) -> Result<bool, ApiError> {
    let metadata = &server.metadata;
    let (Some(name), Some(namespace)) = (&metadata.name, &metadata.namespace) else { return Ok(false) };
    match call("read the server", context.servers(namespace).get(name)).await {
        Ok(live) => Ok(live.metadata.uid == metadata.uid && live.status.as_ref() == Some(status)),
        Err(ApiError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_differ_are_named_without_their_values() {
        let stored = json!({"wipedAt": "x", "phase": "Ready", "job": {"id": "1"}});
        let wanted = json!({"phase": "Ready", "job": {"id": "2"}});
        assert_eq!(differing(&stored, &wanted), "status.job, status.wipedAt");
    }

    #[test]
    fn what_takes_the_rest_away_holds_for_the_answered_object_only() {
        let answer = json!({"metadata": {"resourceVersion": "7"}, "status": {"wipedAt": "x"}});
        let Patch::Json(patch) = alone(&answer, &json!({"phase": "Ready"})).unwrap() else {
            unreachable!("it takes away, too")
        };
        let patch = serde_json::to_value(patch).unwrap();
        assert_eq!(patch[0]["value"], "7");
        assert_eq!((&patch[1]["path"], &patch[1]["value"]), (&json!("/status"), &json!({"phase": "Ready"})));
    }

    #[test]
    fn what_is_applied_holds_status_and_its_guard_and_nothing_of_spec() {
        let status = ServerStatus { observed_generation: Some(3), ..ServerStatus::default() };
        let apply = StatusApply {
            api_version: Server::api_version(&()).into_owned(),
            kind: Server::kind(&()).into_owned(),
            metadata: Guard { name: "a", namespace: "b", resource_version: Some("7") },
            status: &status,
        };
        assert_eq!(
            serde_json::to_value(&apply).unwrap(),
            serde_json::json!({
                "apiVersion": "autobuild.dev/v1alpha1",
                "kind": "Server",
                "metadata": {"name": "a", "namespace": "b", "resourceVersion": "7"},
                "status": {"observedGeneration": 3},
            })
        );
    }
}
