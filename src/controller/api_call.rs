//! Calls of the API server: bounded in time, with errors in the classes that decide what to do.

use std::future::Future;
use std::time::Duration;

use crate::causes::causes;

/// How long one call may take, its retries included.
const LONGEST: Duration = Duration::from_secs(10);

/// A call of the API server that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// There is no such object, or no such resource.
    #[error("{0}: not found")]
    NotFound(&'static str),
    /// The object changed meanwhile.
    #[error("{0}: the object changed meanwhile")]
    Conflict(&'static str),
    /// RBAC refuses.
    #[error("{what}: {message}; apply manifests/access and manifests/namespace-access of this release")]
    Forbidden {
        /// What was tried.
        what: &'static str,
        /// What the API server said.
        message: String,
    },
    /// What the API server stored is not what was written, and cannot be made so.
    #[error(
        "{what}: the API server stores something else in {fields}: a webhook changes it, or the definition is of another \
         release; apply crds/ of this release, and look for webhooks on servers/status"
    )]
    StoredOtherwise {
        /// What was tried.
        what: &'static str,
        /// The fields.
        fields: String,
    },
    /// Anything else; worth another try.
    #[error("{what}: {message}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        message: String,
    },
}

impl ApiError {
    fn of(what: &'static str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.is_not_found() => Self::NotFound(what),
            kube::Error::Api(status) if status.is_conflict() => Self::Conflict(what),
            kube::Error::Api(status) if status.is_forbidden() => {
                Self::Forbidden { what, message: status.message.clone() }
            }
            other => Self::Failed { what, message: causes(other) },
        }
    }
}

/// Runs one call within its time.
pub(super) async fn call<T>(
    what: &'static str,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    if let Ok(result) = tokio::time::timeout(LONGEST, call).await {
        return result.map_err(|error| ApiError::of(what, &error));
    }
    let message = format!("the API server gave no answer within {} s", LONGEST.as_secs());
    Err(ApiError::Failed { what, message })
}
