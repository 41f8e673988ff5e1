//! `status`, written by server-side apply under the resourceVersion that was decided on: a stale cache or a stale
//! leader changes nothing.

use kube::Resource as _;
use kube::api::{Patch, PatchParams};
use serde::Serialize;

use super::api_call::{ApiError, call};
use super::context::Context;
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

/// Shows `status` on the object as it was observed.
pub(super) async fn show(
    context: &Context,
    server: &Server,
    status: &ServerStatus,
) -> Result<Shown, ApiError> {
    if server.status.as_ref() == Some(status) {
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
    let servers = context.servers(namespace);
    let how = PatchParams::apply(names::STATUS_MANAGER).force();
    crash_point("controller.patch.before");
    let patched = call("patch the status", servers.patch_status(name, &how, &Patch::Apply(&apply))).await;
    crash_point("controller.patch.after");
    match patched {
        Ok(now) => {
            metrics::STATUS_PATCHES.one(&["written"]);
            context.written.remember(&now.metadata);
            if now.status.as_ref() != Some(status) {
                tracing::error!(
                    namespace,
                    name,
                    "the API server stored another status than was written: apply crds/ of this release"
                );
            }
            Ok(Shown::Written(Box::new(now)))
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
