//! Which digest each `OSImage` has.
#![expect(clippy::disallowed_types, reason = "OSImages are watched")]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures::StreamExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client};
use tokio::sync::watch as flag;

use super::fleet::Fleet;
use super::listed::Listed;
use super::watch_error::WatchErrors;
use crate::api::{DeletionPolicy, ImageWish, Lifecycle, OSImage, Server};

/// An `OSImage`, or an object that this release cannot read: that one counts as missing.
type Guarded = DeserializeGuard<OSImage>;

/// The `OSImage`s of one namespace.
struct Images {
    digests: Mutex<Listed<String>>,
    synced: flag::Sender<bool>,
}

impl Default for Images {
    fn default() -> Self {
        Self { digests: Mutex::default(), synced: flag::Sender::new(false) }
    }
}

/// The `OSImage`s of all watched namespaces.
#[derive(Default)]
pub(super) struct ImageStore(BTreeMap<String, Images>);

impl ImageStore {
    pub(super) fn new(namespaces: &[String]) -> Self {
        Self(namespaces.iter().map(|name| (name.clone(), Images::default())).collect())
    }

    /// The digest of an `OSImage`; `None`: there is none of that name.
    pub(super) fn digest(&self, namespace: &str, name: &str) -> Option<String> {
        let digests = self.0.get(namespace)?.digests.lock().unwrap_or_else(PoisonError::into_inner);
        digests.get(name).cloned()
    }

    /// Waits for the first list: before it every image would look missing.
    pub(super) async fn synced(&self, namespace: &str) {
        if let Some(images) = self.0.get(namespace) {
            images.synced.subscribe().wait_for(|synced| *synced).await.ok();
        }
    }

    /// Watches one namespace for ever.
    pub(super) async fn watch(
        &self,
        client: Client,
        namespace: &str,
        (fleet, wipe_image): (&Fleet, &str),
        mut errors: WatchErrors,
    ) {
        let Some(images) = self.0.get(namespace) else { return };
        let api = Api::<Guarded>::namespaced(client, namespace);
        let mut events = std::pin::pin!(watch(api, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    errors.over();
                    let done = matches!(event, Event::InitDone);
                    let digest = |image: &Guarded| image.0.as_ref().ok()?.spec.network_digest();
                    let mut digests = images.digests.lock().unwrap_or_else(PoisonError::into_inner);
                    let changed = digests.take(event, digest);
                    drop(digests);
                    if done {
                        images.synced.send_replace(true);
                    }
                    if !changed.is_empty() {
                        let wipes = changed.iter().any(|name| name == wipe_image);
                        fleet.wake_where(Some(namespace), |server| {
                            let names = |image: &ImageWish| changed.contains(&image.name);
                            server.spec.image.as_ref().is_some_and(names) || (wipes && may_wipe(server))
                        });
                    }
                }
                Err(error) => errors.tell(&error),
            }
        }
    }
}

/// Whether the disks of its machine may have to be erased.
fn may_wipe(server: &Server) -> bool {
    let spec = &server.spec;
    spec.lifecycle == Lifecycle::Decommissioned || spec.deletion_policy == DeletionPolicy::Wipe
}
