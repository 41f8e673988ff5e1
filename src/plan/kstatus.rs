//! The rules by which kstatus (Flux, `kubectl wait` in many pipelines) reads a custom resource, in its order.

use crate::api::{Server, ServerStatus};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kstatus {
    Current,
    InProgress,
    Failed,
    Terminating,
}

pub(super) fn kstatus(server: &Server, status: &ServerStatus) -> Kstatus {
    let is = |kind: &str, truth: &str| {
        status.conditions.iter().any(|condition| condition.type_ == kind && condition.status == truth)
    };
    if server.metadata.deletion_timestamp.is_some() {
        Kstatus::Terminating
    } else if status.observed_generation != server.metadata.generation || is("Reconciling", "True") {
        Kstatus::InProgress
    } else if is("Stalled", "True") {
        Kstatus::Failed
    } else if is("Ready", "False") || is("Ready", "Unknown") {
        Kstatus::InProgress
    } else {
        Kstatus::Current
    }
}
