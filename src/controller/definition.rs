//! Whether the definition of `Server` that the API server has is of this release, or a newer one: with an older one it refuses
//! every status that holds a field which came since. Looked at from the start of a term on, and told before anything fails.
#![expect(clippy::disallowed_types, reason = "the definition is read")]

use std::time::Duration;

use http::Request;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, Resource as _};
use serde_json::Value;

use super::api_call::{ApiError, call};
use super::context::Context;
use crate::api::{Server, served_schema};
use crate::http::Readiness;

/// Between two looks at a definition that lacks nothing.
const NOW_AND_THEN: Duration = Duration::from_mins(1);
/// Between two looks at one that does.
const SOON: Duration = Duration::from_secs(3);

/// Its line in `/readyz`.
pub(super) const PART: &str = "definition";

/// Looks for ever.
pub(super) async fn watch(context: &Context, readiness: &Readiness) {
    let mut lacked: Option<String> = None;
    let mut told_unseen = false;
    loop {
        let pause = match served(&context.client).await {
            Ok(Some(schema)) => {
                let lacks = served_schema::lacks(&schema);
                if let Some(fields) = &lacks {
                    let message = format!(
                        "the definition of Server in this cluster is of an older release and lacks {fields}: the API server \
                         refuses the status of every Server that has one of them; apply crds/ of this release"
                    );
                    if lacks != lacked {
                        tracing::error!("{message}");
                    }
                    readiness.waits(PART, message);
                } else {
                    readiness.ready(PART);
                    if lacked.is_some() {
                        tracing::info!("the definition of Server has everything that this release writes");
                        // What was refused for that need not wait for its turn.
                        context.retries.forget();
                        context.fleet.wake_where(None, |_| true);
                    }
                }
                lacked = lacks;
                if lacked.is_some() { SOON } else { NOW_AND_THEN }
            }
            Ok(None) => {
                if !std::mem::replace(&mut told_unseen, true) {
                    tracing::info!(
                        "the definition of Server may not be read: whether it is of this release is seen by what is refused"
                    );
                }
                NOW_AND_THEN
            }
            Err(error) => {
                tracing::debug!(%error, "the definition of Server was not looked at");
                SOON
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = context.retries.definition_refused() => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

/// The schema of a Server as it is served; `None`: neither of the two ways to it is open to this process.
async fn served(client: &Client) -> Result<Option<Value>, ApiError> {
    match published(client).await {
        Ok(Some(schema)) => return Ok(Some(schema)),
        Ok(None) | Err(ApiError::Forbidden { .. } | ApiError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let name = format!("{}.{}", Server::plural(&()), Server::group(&()));
    match call("read the definition", definitions.get(&name)).await {
        Ok(found) => {
            let version = found.spec.versions.into_iter().find(|one| one.name == Server::version(&()));
            let schema = version.and_then(|version| version.schema?.open_api_v3_schema);
            Ok(schema.and_then(|schema| serde_json::to_value(schema).ok()))
        }
        Err(ApiError::Forbidden { .. } | ApiError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the API server publishes of its kinds: every account that is logged in may read that, as long as nobody took it away.
async fn published(client: &Client) -> Result<Option<Value>, ApiError> {
    let path = format!("/openapi/v3/apis/{}/{}", Server::group(&()), Server::version(&()));
    let request = Request::get(path)
        .body(Vec::new())
        .map_err(|error| ApiError::Failed { what: "read the schemas", message: error.to_string() })?;
    let all = call("read the schemas", client.request::<Value>(request)).await?;
    let schemas = all["components"]["schemas"].as_object();
    let is_server = |schema: &Value| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        kinds.is_some_and(|kinds| {
            kinds
                .iter()
                .any(|kind| kind["group"] == *Server::group(&()) && kind["kind"] == *Server::kind(&()))
        })
    };
    Ok(schemas.and_then(|schemas| schemas.values().find(|schema| is_server(schema)).cloned()))
}
