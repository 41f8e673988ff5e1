//! Calls of the API server: bounded in time, with errors in the classes that decide what to do.

use std::future::Future;
use std::time::Duration;

use kube::core::Status;

use crate::causes::causes;

/// The class of what another release's definition refuses.
pub(super) const DEFINITION: &str = "definition";

/// How long one call may take, its retries included.
const LONGEST: Duration = Duration::from_secs(10);

/// Who refuses, or what is wrong with what is sent: it is refused again until somebody does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A policy or a webhook of the cluster.
    Admission,
    /// A webhook of the cluster that does not answer.
    WebhookAway,
    /// The definition of the kind: it is another release's.
    Definition,
    /// The API server finds it invalid.
    Invalid,
    /// It is too large.
    TooLarge,
    /// The API server has too much to do.
    TooMany,
}

impl Refusal {
    /// The name of the class, for the log.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::WebhookAway => "webhook",
            Self::Definition => DEFINITION,
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::TooMany => "too_many",
        }
    }

    const fn way_out(self) -> &'static str {
        match self {
            Self::Admission => {
                "a policy or a webhook of the cluster forbids it, and no Role is missing: let it pass what the controller's \
                 service account writes into servers and servers/status"
            }
            Self::WebhookAway => {
                "a webhook of the cluster does not answer: look at what serves it, or at its failurePolicy"
            }
            Self::Definition => "the definition of Server is of another release: apply crds/ of this release",
            Self::Invalid => {
                "the API server, or a policy of the cluster, finds it invalid: apply crds/ of this release, and look at the \
                 policies and webhooks on servers"
            }
            Self::TooLarge => {
                "the object is too large: take away what is long in it, such as annotations, or raise the limit that says so"
            }
            Self::TooMany => "the API server has too much to do; it is tried again when it says",
        }
    }
}

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
    #[error(
        "{what}: {message}; apply manifests/access and manifests/namespace-access of this release. In a namespace that is being \
         deleted its Roles go first: manifests/cluster-access outlives them"
    )]
    Forbidden {
        /// What was tried.
        what: &'static str,
        /// What the API server said.
        message: String,
    },
    /// Refused, and not for want of a right.
    #[error("{what}: {message}; {}", .why.way_out())]
    Refused {
        /// What was tried.
        what: &'static str,
        /// Why.
        why: Refusal,
        /// What the API server said.
        message: String,
        /// How long it wants to be left alone.
        after: Duration,
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
            kube::Error::Api(status) => Self::answered(what, status),
            other => Self::Failed { what, message: causes(other) },
        }
    }

    fn answered(what: &'static str, status: &Status) -> Self {
        let message = status.message.clone();
        let refusal = refusal(status);
        let seconds = status.details.as_ref().map_or(0, |details| u64::from(details.retry_after_seconds));
        match refusal {
            Some(why) => Self::Refused { what, why, message, after: Duration::from_secs(seconds) },
            None if status.is_not_found() => Self::NotFound(what),
            None if status.is_conflict() => Self::Conflict(what),
            None if status.is_forbidden() => Self::Forbidden { what, message },
            None => Self::Failed { what, message: causes(status) },
        }
    }

    /// The class of what stands until somebody does something about it; `None`: it is merely tried again.
    pub(super) const fn stands(&self) -> Option<&'static str> {
        match self {
            Self::Forbidden { .. } => Some("rights"),
            Self::Refused { why: Refusal::TooMany, .. }
            | Self::NotFound(_)
            | Self::Conflict(_)
            | Self::Failed { .. } => None,
            Self::Refused { why, .. } => Some(why.as_str()),
            Self::StoredOtherwise { .. } => Some("stored_otherwise"),
        }
    }

    /// What was tried.
    pub(super) const fn what(&self) -> &'static str {
        match self {
            Self::NotFound(what) | Self::Conflict(what) => what,
            Self::Forbidden { what, .. }
            | Self::Refused { what, .. }
            | Self::StoredOtherwise { what, .. }
            | Self::Failed { what, .. } => what,
        }
    }
}

/// Why the API server refuses, where that is not for want of a right. Whoever admits a request chooses the code of its
/// refusal, so the words come first: a policy may answer 401, 403, 413 or 422, a webhook anything.
fn refusal(status: &Status) -> Option<Refusal> {
    let says = |text: &str| status.message.contains(text);
    Some(match status.code {
        _ if says("denied the request") || says("denied request") => Refusal::Admission,
        _ if says("failed calling webhook") || says("failed to call webhook") => Refusal::WebhookAway,
        _ if says("not declared in schema") || says("unknown field") => Refusal::Definition,
        429 => Refusal::TooMany,
        413 => Refusal::TooLarge,
        422 => Refusal::Invalid,
        // What RBAC refuses names the user and the right; every other 403 comes from a plug-in that admits.
        403 if !says(" cannot ") => Refusal::Admission,
        _ if says("etcdserver: request is too large") => Refusal::TooLarge,
        _ => return None,
    })
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

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;

    fn answered(code: u16, reason: &str, message: &str) -> ApiError {
        let status = Status { code, ..Status::failure(message, reason) };
        ApiError::answered("patch the status", &status)
    }

    #[test]
    fn rights_policies_webhooks_and_definitions_are_told_apart_by_what_the_api_server_says() {
        for (code, reason, message, class, way_out) in [
            (
                403,
                "Forbidden",
                "servers.autobuild.dev \"a\" is forbidden: User \"system:serviceaccount:autobuild-system:autobuild-controller\" \
                 cannot patch resource \"servers/status\" in API group \"autobuild.dev\" in the namespace \"lab\"",
                "rights",
                "manifests/namespace-access",
            ),
            (
                422,
                "Invalid",
                "servers.autobuild.dev \"a\" is forbidden: ValidatingAdmissionPolicy 'freeze' with binding 'freeze' denied request: no",
                "admission",
                "no Role is missing",
            ),
            (
                403,
                "Forbidden",
                "servers.autobuild.dev \"a\" is forbidden: ValidatingAdmissionPolicy 'freeze' with binding 'freeze' denied request: no",
                "admission",
                "no Role is missing",
            ),
            (
                409,
                "Conflict",
                "admission webhook \"a.example\" denied the request: not now",
                "admission",
                "policy or a webhook",
            ),
            (403, "Forbidden", "servers.autobuild.dev \"a\" is forbidden: quota", "admission", "policy"),
            (
                500,
                "InternalError",
                "Internal error occurred: failed calling webhook \"a.example\": failed to call webhook: Post \"https://a\": refused",
                "webhook",
                "failurePolicy",
            ),
            (
                500,
                "",
                "failed to create typed patch object (lab/a; autobuild.dev/v1alpha1, Kind=Server): .status.debt: field not \
                 declared in schema",
                "definition",
                "apply crds/",
            ),
            (
                422,
                "Invalid",
                "Server.autobuild.dev \"a\" is invalid: status.phase: Unsupported value: \"X\"",
                "invalid",
                "apply crds/",
            ),
            (
                413,
                "RequestEntityTooLarge",
                "Request entity too large: limit is 3145728",
                "too_large",
                "annotations",
            ),
        ] {
            let error = answered(code, reason, message);
            assert_eq!(error.stands(), Some(class), "{code} {message}");
            let said = error.to_string();
            assert!(said.contains(way_out) && said.contains(message), "{said}");
        }
    }

    #[test]
    fn what_passes_by_itself_is_merely_tried_again() {
        assert!(matches!(answered(404, "NotFound", "gone"), ApiError::NotFound(_)));
        assert!(matches!(answered(409, "Conflict", "modified"), ApiError::Conflict(_)));
        for (code, reason) in [(500, "InternalError"), (503, "ServiceUnavailable"), (429, "TooManyRequests")]
        {
            assert_eq!(answered(code, reason, "later").stands(), None, "{code}");
        }
    }

    #[test]
    fn an_api_server_that_says_for_how_long_is_left_alone_for_so_long() {
        let answer = serde_json::json!({"code": 429, "reason": "TooManyRequests", "details": {"retryAfterSeconds": 7}});
        let status: Status = serde_json::from_value(answer).unwrap_or_default();
        let error = ApiError::answered("patch the status", &status);
        assert!(matches!(error, ApiError::Refused { after, .. } if after == Duration::from_secs(7)));
    }
}
