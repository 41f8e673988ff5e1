//! The finalizer: the only thing beside `status` that the controller writes into a `Server`.

use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::api_call::{ApiError, call};
use super::apply::Applied;
use super::context::Context;
use crate::api::{Server, names};

/// Puts it on.
pub(super) async fn add(context: &Context, server: &Server) -> Result<Applied, ApiError> {
    let mut all = server.metadata.finalizers.clone().unwrap_or_default();
    all.push(names::FINALIZER.to_owned());
    write(context, server, &all).await
}

/// Takes it off.
pub(super) async fn remove(context: &Context, server: &Server) -> Result<Applied, ApiError> {
    let mut all = server.metadata.finalizers.clone().unwrap_or_default();
    all.retain(|name| name != names::FINALIZER);
    Ok(match write(context, server, &all).await? {
        Applied::Object(_) => Applied::Released,
        other => other,
    })
}

/// Replaces the list if the object is still the one that was seen.
async fn write(context: &Context, server: &Server, finalizers: &[String]) -> Result<Applied, ApiError> {
    let metadata = &server.metadata;
    let (Some(name), Some(namespace)) = (&metadata.name, &metadata.namespace) else {
        return Ok(Applied::InTheWay);
    };
    let patch = json!({
        "metadata": {"resourceVersion": metadata.resource_version, "uid": metadata.uid, "finalizers": finalizers}
    });
    let how =
        PatchParams { field_manager: Some(names::FINALIZER_MANAGER.to_owned()), ..PatchParams::default() };
    let servers = context.servers(namespace);
    match call("write the finalizer", servers.patch(name, &how, &Patch::Merge(&patch))).await {
        Ok(now) => {
            context.newest.written(&now.metadata);
            Ok(Applied::Object(Box::new(now)))
        }
        Err(ApiError::Conflict(_) | ApiError::NotFound(_)) => Ok(Applied::InTheWay),
        Err(error) => Err(error),
    }
}
