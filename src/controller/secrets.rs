//! Which version each credentials Secret has: metadata only, no content ever reaches the controller.
#![expect(clippy::disallowed_types, reason = "Secrets are watched, as metadata only")]

use std::sync::{Mutex, PoisonError};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client};
use tokio::sync::watch as flag;

use super::fleet::Fleet;
use super::listed::Listed;
use super::watch_error::WatchErrors;
use crate::api::names;
use crate::job::SecretVersion;

/// The credentials Secrets of one namespace.
pub(super) struct Secrets {
    versions: Mutex<Listed<SecretVersion>>,
    synced: flag::Sender<bool>,
}

impl Default for Secrets {
    fn default() -> Self {
        Self { versions: Mutex::default(), synced: flag::Sender::new(false) }
    }
}

fn version(secret: &PartialObjectMeta<Secret>) -> Option<SecretVersion> {
    let metadata = &secret.metadata;
    Some(SecretVersion { uid: metadata.uid.clone()?, resource_version: metadata.resource_version.clone()? })
}

impl Secrets {
    pub(super) fn version(&self, name: &str) -> Option<SecretVersion> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Whether the first list has come.
    pub(super) fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits for the first list: before it every credential would look missing.
    pub(super) async fn synced(&self) {
        self.synced.subscribe().wait_for(|synced| *synced).await.ok();
    }

    /// Watches for ever.
    pub(super) async fn watch(
        &self,
        client: Client,
        namespace: &str,
        fleet: &Fleet,
        mut errors: WatchErrors,
    ) {
        let secrets = Api::<PartialObjectMeta<Secret>>::namespaced(client, namespace);
        let only = watcher::Config::default().fields(&format!("type={}", names::CREDENTIALS_SECRET_TYPE));
        let mut events = std::pin::pin!(watch(secrets, only).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    // The beginning of a list is not its answer.
                    if !matches!(event, Event::Init) {
                        errors.over();
                    }
                    let done = matches!(event, Event::InitDone);
                    let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
                    let changed = versions.take(event, version);
                    drop(versions);
                    if done {
                        self.synced.send_replace(true);
                    }
                    if !changed.is_empty() {
                        fleet.wake_where(Some(namespace), |server| {
                            changed.contains(&server.spec.bmc.credentials_ref.name)
                        });
                    }
                }
                Err(error) => errors.tell(&error),
            }
        }
    }
}
