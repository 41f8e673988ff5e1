//! Which digest each `OSImage` has, and how machines boot it.
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
use crate::api::{DeletionPolicy, ImageKind, ImageWish, Lifecycle, OSImage, Server, WipeImages};

/// An `OSImage`, or an object that this release cannot read: that one counts as missing.
type Guarded = DeserializeGuard<OSImage>;

/// What of an `OSImage` decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenImage {
    /// The digest of its spec.
    pub(super) digest: String,
    /// How machines boot it.
    pub(super) kind: ImageKind,
    /// Why no machine can be given it, as far as the object alone tells.
    pub(super) flaw: Option<String>,
}

/// The `OSImage`s of one namespace.
struct Images {
    seen: Mutex<Listed<SeenImage>>,
    synced: flag::Sender<bool>,
}

impl Default for Images {
    fn default() -> Self {
        Self { seen: Mutex::default(), synced: flag::Sender::new(false) }
    }
}

/// The `OSImage`s of all watched namespaces.
#[derive(Default)]
pub(super) struct ImageStore(BTreeMap<String, Images>);

impl ImageStore {
    pub(super) fn new(namespaces: &[String]) -> Self {
        Self(namespaces.iter().map(|name| (name.clone(), Images::default())).collect())
    }

    /// What is known of an `OSImage`; `None`: there is none of that name.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<SeenImage> {
        let seen = self.0.get(namespace)?.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(name).cloned()
    }

    /// Whether the first list of a namespace has come.
    pub(super) fn is_synced(&self, namespace: &str) -> bool {
        self.0.get(namespace).is_some_and(|images| *images.synced.borrow())
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
        (fleet, wipe_images): (&Fleet, &WipeImages),
        mut errors: WatchErrors,
    ) {
        let Some(images) = self.0.get(namespace) else { return };
        let api = Api::<Guarded>::namespaced(client, namespace);
        let mut events = std::pin::pin!(watch(api, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    // The beginning of a list is not its answer.
                    if !matches!(event, Event::Init) {
                        errors.over();
                    }
                    let done = matches!(event, Event::InitDone);
                    let of = |image: &Guarded| {
                        let spec = &image.0.as_ref().ok()?.spec;
                        Some(SeenImage { digest: spec.digest(), kind: spec.kind(), flaw: spec.flaw() })
                    };
                    let mut seen = images.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    let changed = seen.take(event, of);
                    drop(seen);
                    if done {
                        images.synced.send_replace(true);
                    }
                    if !changed.is_empty() {
                        let wipes = changed.iter().any(|name| wipe_images.has(name));
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
