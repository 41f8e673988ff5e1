//! What a watch that fails says: once, with the way out, and on `/readyz` while it lasts. What is refused in one namespace
//! leaves that one out and holds nothing else up.

use kube::runtime::watcher;

use super::namespaces::Namespaces;
use crate::causes::causes;
use crate::http::Readiness;

/// The errors of one watch.
pub(super) struct WatchErrors {
    part: &'static str,
    namespace: String,
    namespaces: Namespaces,
    readiness: Readiness,
    said: String,
}

impl WatchErrors {
    /// `part`: what is watched.
    pub(super) fn new(
        part: &'static str,
        namespace: &str,
        namespaces: &Namespaces,
        readiness: &Readiness,
    ) -> Self {
        Self {
            part,
            namespace: namespace.to_owned(),
            namespaces: namespaces.clone(),
            readiness: readiness.clone(),
            said: String::new(),
        }
    }

    /// It works again.
    pub(super) fn over(&mut self) {
        if !self.said.is_empty() {
            self.said.clear();
            self.readiness.ready_about(self.part, &self.namespace);
            self.readiness.told(self.part, &self.namespace);
            // It may be looked after again.
            self.namespaces.suspect(&self.namespace);
            tracing::info!(namespace = self.namespace, "the watch of {} works again", self.part);
        }
    }

    /// It does not; it is tried again with a growing pause.
    pub(super) fn tell(&mut self, error: &watcher::Error) {
        let message = format!("namespace {}: {}{}", self.namespace, causes(error), way_out(error));
        let is_refused = refusal(error).is_some_and(kube::core::Status::is_forbidden);
        if is_refused {
            self.namespaces.suspect(&self.namespace);
        }
        if message == self.said {
            return;
        }
        tracing::warn!(namespace = self.namespace, "the watch of {} failed: {message}", self.part);
        self.readiness.ready_about(self.part, &self.namespace);
        self.readiness.told(self.part, &self.namespace);
        if is_refused {
            self.readiness.tells(self.part, &self.namespace, &message);
        } else {
            self.readiness.waits_about(self.part, &self.namespace, &message);
        }
        self.said = message;
    }
}

/// What the API server answered, if it did.
fn refusal(error: &watcher::Error) -> Option<&kube::core::Status> {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchFailed(kube::Error::Api(status))
    | watcher::Error::WatchError(status)) = error
    else {
        return None;
    };
    Some(status)
}

fn way_out(error: &watcher::Error) -> &'static str {
    let Some(status) = refusal(error) else { return "" };
    if status.is_forbidden() {
        "; apply manifests/namespace-access in this namespace, or take it out of --watch-namespaces"
    } else if status.is_not_found() {
        "; apply the definitions in crds/"
    } else {
        ""
    }
}
