//! A control plane with the definition of `Server`, the processes' accounts, and a kubeconfig for each of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize as _;
use serde_yaml::Value;

use crate::control_plane::ControlPlane;
use crate::paths;

/// The namespace of the processes' service accounts.
const SYSTEM: &str = "autobuild-system";

/// What every fleet of this process stands on.
#[derive(Debug)]
pub struct Cluster {
    plane: &'static ControlPlane,
    controller: PathBuf,
    worker: PathBuf,
    boot: PathBuf,
}

impl Cluster {
    /// The one that all fleets of this process share; they keep apart by namespace.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: tokio::sync::OnceCell<Cluster> = tokio::sync::OnceCell::const_new();
        SHARED.get_or_try_init(Self::prepare).await
    }

    async fn prepare() -> Result<Self> {
        let plane = ControlPlane::shared().await?;
        plane.apply_crds().await?;
        plane.apply_access(&[]).await?;
        let controller = plane.kubeconfig_for(SYSTEM, "autobuild-controller").await?;
        let worker = plane.kubeconfig_for(SYSTEM, "autobuild-worker").await?;
        let boot = plane.kubeconfig_for(SYSTEM, "autobuild-boot").await?;
        Ok(Self { plane, controller, worker, boot })
    }

    /// The control plane.
    pub fn plane(&self) -> &'static ControlPlane {
        self.plane
    }

    /// The kubeconfig of controllers: their service account and no more.
    pub fn controller(&self) -> &Path {
        &self.controller
    }

    /// The kubeconfig of workers: their service account and no more.
    pub fn worker(&self) -> &Path {
        &self.worker
    }

    /// The kubeconfig of boot services: their service account and no more.
    pub fn boot(&self) -> &Path {
        &self.boot
    }

    /// Makes a namespace in which the processes have exactly the rights of an installation: the committed roles, and
    /// the committed role for the Lease too, so that fleets elect their leaders side by side.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        let namespace = self.plane.namespace(prefix).await?;
        let kubectl = self.plane.kubectl();
        let roles = paths::root().join("manifests/namespace-access");
        let roles = roles.to_str().context("the repository's path is not UTF-8")?;
        kubectl.run(&["apply", "--server-side", "--force-conflicts", "-n", &namespace, "-k", roles]).await?;
        let election = election_in(&namespace)?;
        kubectl.run_with_input(&["apply", "--server-side", "-f", "-"], &election).await?;
        Ok(namespace)
    }
}

/// The committed role for the Lease and its binding, in another namespace.
fn election_in(namespace: &str) -> Result<String> {
    let file = paths::root().join("manifests/access/leader-election.yaml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let mut rendered = String::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let mut object = Value::deserialize(document)?;
        object["metadata"]["namespace"] = Value::from(namespace);
        rendered.push_str("---\n");
        rendered.push_str(&serde_yaml::to_string(&object)?);
    }
    Ok(rendered)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_role_for_the_lease_moves_with_its_rights_and_names_the_same_account() {
        let text = super::election_in("elsewhere").unwrap_or_default();
        assert_eq!(text.matches("namespace: elsewhere").count(), 2, "{text}");
        assert_eq!(text.matches("namespace: autobuild-system").count(), 1, "{text}");
        assert!(text.contains("- autobuild-controller\n"), "{text}");
    }
}
