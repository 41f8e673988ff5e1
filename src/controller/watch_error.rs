//! What a watch that fails says: once, with the way out, and on `/readyz` while it lasts.

use kube::runtime::watcher;

use crate::causes::causes;
use crate::http::Readiness;

/// The errors of one watch.
pub(super) struct WatchErrors {
    part: &'static str,
    namespace: String,
    readiness: Readiness,
    said: String,
}

impl WatchErrors {
    /// `part`: what is watched.
    pub(super) fn new(part: &'static str, namespace: &str, readiness: &Readiness) -> Self {
        Self { part, namespace: namespace.to_owned(), readiness: readiness.clone(), said: String::new() }
    }

    /// It works again.
    pub(super) fn over(&mut self) {
        if !self.said.is_empty() {
            self.said.clear();
            self.readiness.ready(self.part);
            tracing::info!(namespace = self.namespace, "the watch of {} works again", self.part);
        }
    }

    /// It does not; it is tried again with a growing pause.
    pub(super) fn tell(&mut self, error: &watcher::Error) {
        let message = format!("namespace {}: {}{}", self.namespace, causes(error), way_out(error));
        if message == self.said {
            return;
        }
        tracing::warn!(namespace = self.namespace, "the watch of {} failed: {message}", self.part);
        self.readiness.waits(self.part, &message);
        self.said = message;
    }
}

fn way_out(error: &watcher::Error) -> &'static str {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchFailed(kube::Error::Api(status))
    | watcher::Error::WatchError(status)) = error
    else {
        return "";
    };
    if status.is_forbidden() {
        "; apply manifests/namespace-access in this namespace, or take it out of --watch-namespaces"
    } else if status.is_not_found() {
        "; apply the definitions in crds/"
    } else {
        ""
    }
}
