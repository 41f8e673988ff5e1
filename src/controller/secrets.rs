//! Which version each credentials Secret has: metadata only, no content ever reaches the controller.
#![expect(clippy::disallowed_types, reason = "Secrets are watched, as metadata only")]

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client};
use tokio::sync::watch as flag;

use super::fleet::Fleet;
use super::watch_error::WatchErrors;
use crate::api::names;
use crate::job::SecretVersion;

/// The credentials Secrets of one namespace.
pub(super) struct Secrets {
    versions: Mutex<Versions>,
    synced: flag::Sender<bool>,
}

impl Default for Secrets {
    fn default() -> Self {
        Self { versions: Mutex::default(), synced: flag::Sender::new(false) }
    }
}

/// What was seen, and what the present re-list has brought so far.
#[derive(Debug, Default)]
struct Versions {
    seen: HashMap<String, SecretVersion>,
    listing: Option<HashMap<String, SecretVersion>>,
}

impl Versions {
    /// Takes in one event; returns the names of the Secrets that changed.
    fn take(&mut self, event: Event<PartialObjectMeta<Secret>>) -> Vec<String> {
        match event {
            Event::Init => {
                self.listing = Some(HashMap::new());
                Vec::new()
            }
            Event::InitApply(secret) => {
                if let (Some(listing), Some((name, version))) = (&mut self.listing, version(&secret)) {
                    listing.insert(name, version);
                }
                Vec::new()
            }
            Event::InitDone => {
                let now = self.listing.take().unwrap_or_default();
                let before = std::mem::replace(&mut self.seen, now);
                let names = before.keys().chain(self.seen.keys().filter(|name| !before.contains_key(*name)));
                names.filter(|name| before.get(*name) != self.seen.get(*name)).cloned().collect()
            }
            Event::Apply(secret) => match version(&secret) {
                Some((name, version)) if self.seen.get(&name) != Some(&version) => {
                    self.seen.insert(name.clone(), version);
                    vec![name]
                }
                _ => Vec::new(),
            },
            Event::Delete(secret) => {
                let name = secret.metadata.name.unwrap_or_default();
                self.seen.remove(&name).map(|_| name).into_iter().collect()
            }
        }
    }
}

fn version(secret: &PartialObjectMeta<Secret>) -> Option<(String, SecretVersion)> {
    let metadata = &secret.metadata;
    let version =
        SecretVersion { uid: metadata.uid.clone()?, resource_version: metadata.resource_version.clone()? };
    Some((metadata.name.clone()?, version))
}

impl Secrets {
    pub(super) fn version(&self, name: &str) -> Option<SecretVersion> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).seen.get(name).cloned()
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
                    errors.over();
                    let done = matches!(event, Event::InitDone);
                    let changed = self.versions.lock().unwrap_or_else(PoisonError::into_inner).take(event);
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

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use kube::core::ObjectMeta;

    use super::*;

    fn secret(name: &str, resource_version: &str) -> PartialObjectMeta<Secret> {
        PartialObjectMeta {
            metadata: ObjectMeta {
                name: Some(name.into()),
                uid: Some("u".into()),
                resource_version: Some(resource_version.into()),
                ..ObjectMeta::default()
            },
            ..PartialObjectMeta::default()
        }
    }

    #[test]
    fn a_list_after_a_gap_shows_what_changed_in_between() {
        let mut versions = Versions::default();
        versions.take(Event::Init);
        for name in ["kept", "changed", "gone"] {
            versions.take(Event::InitApply(secret(name, "1")));
        }
        assert_eq!(versions.take(Event::InitDone).len(), 3);
        versions.take(Event::Init);
        versions.take(Event::InitApply(secret("kept", "1")));
        versions.take(Event::InitApply(secret("changed", "2")));
        versions.take(Event::InitApply(secret("new", "1")));
        let mut changed = versions.take(Event::InitDone);
        changed.sort();
        assert_eq!(changed, ["changed", "gone", "new"]);
    }

    #[test]
    fn the_same_version_again_is_no_change() {
        let mut versions = Versions::default();
        assert_eq!(versions.take(Event::Apply(secret("a", "1"))), ["a"]);
        assert!(versions.take(Event::Apply(secret("a", "1"))).is_empty());
        assert_eq!(versions.take(Event::Delete(secret("a", "1"))), ["a"]);
        assert!(versions.take(Event::Delete(secret("a", "1"))).is_empty());
    }
}
