//! Changes of objects of the cluster that ask for nothing.

use anyhow::{Context as _, Result};
use autobuild::api::names;
use e2e::fleet::{Fleet, SECRET};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};

/// After whatever was really done.
const LATER: &str = "2099-01-01T00:00:00Z";

/// What is changed about a Server, or about the Secret that it shares with others.
#[derive(Debug, Clone, Copy)]
pub(super) enum Edit {
    Label,
    Annotation,
    SecretLabel,
    SecretAnnotation,
    StatusPower,
    StatusImage,
    StatusTokens,
    StatusConditions,
    StatusLeftOff,
    StatusJob,
    StatusWiped,
    StatusDecommissioned,
    StatusOtherImage,
    StatusOtherTokens,
}

impl Edit {
    pub(super) const ALL: &[Self] = &[
        Self::Label,
        Self::Annotation,
        Self::SecretLabel,
        Self::SecretAnnotation,
        Self::StatusPower,
        Self::StatusImage,
        Self::StatusTokens,
        Self::StatusConditions,
        Self::StatusLeftOff,
        Self::StatusJob,
        Self::StatusWiped,
        Self::StatusDecommissioned,
        Self::StatusOtherImage,
        Self::StatusOtherTokens,
    ];

    pub(super) async fn apply(self, fleet: &Fleet, name: &str, random: &mut StdRng) -> Result<()> {
        let text = format!("x{}", random.random_range(0..1_000_000));
        let server = |patch: Value| async move { merge(fleet, name, &patch).await };
        match self {
            Self::Label => server(json!({ "metadata": { "labels": { "team": text } } })).await,
            Self::Annotation => {
                server(json!({ "metadata": { "annotations": { "example.com/note": text } } })).await
            }
            Self::SecretLabel => secret(fleet, json!({ "labels": { "team": text } })).await,
            Self::SecretAnnotation => {
                secret(fleet, json!({ "annotations": { "example.com/note": text } })).await
            }
            Self::StatusPower => status(fleet, name, json!({ "power": "Unknown" })).await,
            Self::StatusImage => status(fleet, name, json!({ "image": null })).await,
            Self::StatusTokens => {
                status(fleet, name, json!({ "reimageTokens": [], "rebootTokens": [] })).await
            }
            Self::StatusConditions => status(fleet, name, json!({ "conditions": [] })).await,
            Self::StatusLeftOff => {
                let stalled = json!({ "type": "Stalled", "status": "True", "reason": "LeftPoweredOff", "message": text,
                    "lastTransitionTime": LATER });
                status(fleet, name, json!({ "conditions": [stalled] })).await
            }
            Self::StatusJob => {
                let action =
                    ["Reboot", "Reimage", "Wipe", "PowerOn"].choose(random).copied().unwrap_or("Reboot");
                let job = json!({ "id": "0000000000000042", "action": action, "priority": "Normal", "state": "Running",
                    "step": "PowerOff", "enqueuedAt": LATER, "startedAt": LATER });
                status(fleet, name, json!({ "job": job })).await
            }
            Self::StatusWiped => status(fleet, name, json!({ "wipedAt": LATER, "image": null })).await,
            Self::StatusDecommissioned => {
                status(fleet, name, json!({ "decommissionedAt": LATER, "phase": "Decommissioned" })).await
            }
            Self::StatusOtherImage => {
                let digest = format!("sha256:{}", "0".repeat(64));
                let image = json!({ "name": "other", "digest": digest, "installedAt": LATER });
                status(fleet, name, json!({ "image": image })).await
            }
            Self::StatusOtherTokens => {
                status(fleet, name, json!({ "reimageTokens": [text], "rebootTokens": [text] })).await
            }
        }
    }
}

/// Merges into an object.
pub(super) async fn merge(fleet: &Fleet, name: &str, patch: &Value) -> Result<()> {
    fleet.servers().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

async fn status(fleet: &Fleet, name: &str, status: Value) -> Result<()> {
    let patch = Patch::Merge(json!({ "status": status }));
    fleet.servers().patch_status(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

async fn secret(fleet: &Fleet, metadata: Value) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(fleet.client(), fleet.namespace());
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    secrets.patch(SECRET, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// A person's word to look again, as the message of a failure advises.
pub(super) async fn ask_again(fleet: &Fleet, name: &str, value: &str) -> Result<()> {
    merge(fleet, name, &json!({ "metadata": { "annotations": { names::RECONCILE_REQUESTED_AT: value } } }))
        .await
}

/// Has the controller look at it once more, by nothing that asks for anything.
pub(super) async fn restore(fleet: &Fleet, name: &str) -> Result<()> {
    let version = fleet.get(name).await?.resource_version().context("no version")?;
    merge(fleet, name, &json!({ "metadata": { "labels": { "seen": format!("v{version}") } } })).await
}
