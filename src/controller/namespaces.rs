//! Which of the watched namespaces cannot be looked after: one that this process may not list is left out, and all others go
//! on. It may be gone, with the rights that were given in it, or those rights were never given.
//!
//! A watch that is refused, and a read that is, say only that something is wrong; a list of everything that is watched tells.
#![expect(clippy::disallowed_types, reason = "what a controller watches is listed")]
#![expect(clippy::disallowed_methods, reason = "a namespace may be listed again after a time")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use tokio::sync::{Notify, watch};

use super::api_call::{ApiError, call};
use super::context::Context;
use super::secrets::Secrets;
use crate::api::{OSImage, Server, names};
use crate::http::Readiness;

/// How often a namespace that is left out is looked at again.
const SOON: Duration = Duration::from_secs(5);
/// How often any other one is.
const NOW_AND_THEN: Duration = Duration::from_mins(1);
/// Between two looks that are asked for.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Its line in `/readyz`.
const PART: &str = "namespaces";

/// What is known of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It can be listed.
    Listed,
    /// It does not exist; what is listed in it is empty.
    Missing,
    /// Its Servers may be listed and something that they need may not: only what is being deleted is looked after.
    Partly,
    /// It may not be listed. It may not exist either.
    Refused,
    /// It may not be listed, and does not exist.
    Gone,
}

impl Found {
    const fn is_left_out(self) -> bool {
        matches!(self, Self::Partly | Self::Refused | Self::Gone)
    }
}

#[derive(Debug)]
struct Entry {
    found: Found,
    looked: Option<Instant>,
    is_suspect: bool,
    said: String,
}

/// The watched namespaces. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Namespaces {
    all: Arc<Mutex<BTreeMap<String, Entry>>>,
    changed: Arc<watch::Sender<u64>>,
    suspects: Arc<Notify>,
}

impl Namespaces {
    /// Nothing is known of them: none is left out.
    pub(super) fn new(names: &[String]) -> Self {
        let entry = || Entry { found: Found::Listed, looked: None, is_suspect: true, said: String::new() };
        Self {
            all: Arc::new(Mutex::new(names.iter().map(|name| (name.clone(), entry())).collect())),
            changed: Arc::new(watch::Sender::new(0)),
            suspects: Arc::default(),
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self, namespace: &str) -> Option<Found> {
        self.all().get(namespace).map(|entry| entry.found)
    }

    /// Whether its Servers are left alone at present, but for those that are being deleted where they may be listed.
    pub(super) fn is_left_out(&self, namespace: &str) -> bool {
        self.found(namespace).is_some_and(Found::is_left_out)
    }

    /// Whether only what is being deleted is looked after there.
    pub(super) fn only_deletions(&self, namespace: &str) -> bool {
        self.found(namespace) == Some(Found::Partly)
    }

    /// Whether its Servers may not be listed although it may exist.
    pub(super) fn is_dark(&self, namespace: &str) -> bool {
        self.found(namespace) == Some(Found::Refused)
    }

    /// Whether it is certain that no object can be in it.
    pub(super) fn is_missing(&self, namespace: &str) -> bool {
        matches!(self.found(namespace), Some(Found::Missing | Found::Gone))
    }

    /// Those that are left out.
    pub(super) fn left_out(&self) -> Vec<String> {
        let all = self.all();
        all.iter().filter(|(_, entry)| entry.found.is_left_out()).map(|(name, _)| name.clone()).collect()
    }

    /// Something there was refused: it is looked at soon.
    pub(super) fn suspect(&self, namespace: &str) {
        if let Some(entry) = self.all().get_mut(namespace) {
            entry.is_suspect = true;
            self.suspects.notify_one();
        }
    }

    /// Told each time that one is left out or comes back.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Those whose turn it is, and when it is the next one's.
    fn due(&self, now: Instant) -> (Vec<String>, Duration) {
        let (mut due, mut next) = (Vec::new(), NOW_AND_THEN);
        for (name, entry) in self.all().iter() {
            let pause = match entry.found {
                _ if entry.is_suspect => AT_ONCE,
                Found::Listed => NOW_AND_THEN,
                Found::Missing | Found::Partly | Found::Refused | Found::Gone => SOON,
            };
            let left = entry.looked.map_or(Duration::ZERO, |at| pause.saturating_sub(now.duration_since(at)));
            if left.is_zero() {
                due.push(name.clone());
            } else {
                next = next.min(left);
            }
        }
        (due, next)
    }

    /// It was looked at, and what is known of it stays as it is.
    fn looked(&self, namespace: &str) {
        if let Some(entry) = self.all().get_mut(namespace) {
            (entry.looked, entry.is_suspect) = (Some(Instant::now()), false);
        }
    }

    /// Takes in a look; whether more can be done in the namespace than before, or other things.
    fn take(&self, namespace: &str, found: Found, message: &str, readiness: &Readiness) -> bool {
        let (before, news, others) = {
            let mut all = self.all();
            let Some(entry) = all.get_mut(namespace) else { return false };
            let before = std::mem::replace(&mut entry.found, found);
            (entry.looked, entry.is_suspect) = (Some(Instant::now()), false);
            let news = entry.said != message;
            message.clone_into(&mut entry.said);
            (before, news, all.values().any(|entry| !entry.found.is_left_out()))
        };
        if news && found == Found::Listed {
            tracing::info!(namespace, "the namespace is looked after again");
        } else if news {
            tracing::warn!(namespace, "{message}");
        }
        match found {
            Found::Listed => readiness.told(PART, namespace),
            _ => readiness.tells(PART, namespace, message),
        }
        if others {
            readiness.ready(PART);
        } else {
            readiness.waits(PART, "none of the watched namespaces can be looked after");
        }
        if before != found {
            self.changed.send_modify(|changes| *changes += 1);
        }
        before != found && matches!(found, Found::Listed | Found::Missing | Found::Partly)
    }

    /// Whether `namespace`, which need not be watched, is known not to exist. `false` also where that may not be asked.
    pub(super) async fn does_not_exist(client: &Client, namespace: &str) -> bool {
        let namespaces = Api::<Namespace>::all(client.clone());
        let found = call("read the namespace", namespaces.get_metadata(namespace)).await;
        matches!(found, Err(ApiError::NotFound(_)))
    }

    async fn look(client: &Client, namespace: &str) -> Result<(Found, String), ApiError> {
        let one = ListParams::default().limit(1);
        let credentials = one.clone().fields(&format!("type={}", names::CREDENTIALS_SECRET_TYPE));
        let servers = Api::<Server>::namespaced(client.clone(), namespace);
        let servers = call("list the Servers", servers.list_metadata(&one)).await;
        let has_servers = servers.is_ok();
        let listed = async {
            servers?;
            let secrets = Api::<PartialObjectMeta<Secret>>::namespaced(client.clone(), namespace);
            call("list the Secrets", secrets.list_metadata(&credentials)).await?;
            let images = Api::<OSImage>::namespaced(client.clone(), namespace);
            call("list the OSImages", images.list_metadata(&one)).await
        };
        let listed = listed.await;
        let gone = match &listed {
            Ok(_) | Err(ApiError::Forbidden { .. }) => Self::does_not_exist(client, namespace).await,
            Err(_) => false,
        };
        Ok(match listed {
            Ok(_) if gone => (
                Found::Missing,
                format!(
                    "namespace {namespace} does not exist: there is nothing in it to look after; take it out of --watch-namespaces"
                ),
            ),
            Ok(_) => (Found::Listed, String::new()),
            Err(ApiError::Forbidden { .. }) if gone => (
                Found::Gone,
                format!(
                    "namespace {namespace} does not exist: it is left out, and all others go on; take it out of --watch-namespaces"
                ),
            ),
            Err(ApiError::Forbidden { what, message }) if has_servers => (
                Found::Partly,
                format!(
                    "in namespace {namespace} only Servers that are being deleted are looked after, and all others go on: {what}: \
                     {message}. Apply manifests/namespace-access in it, unless it is being deleted itself"
                ),
            ),
            Err(ApiError::Forbidden { what, message }) => (
                Found::Refused,
                format!(
                    "namespace {namespace} is left out, and all others go on: {what}: {message}. Where it exists, apply \
                     manifests/namespace-access in it; where it does not, take it out of --watch-namespaces; where it is being \
                     deleted, its Roles went first and its Servers keep it: apply manifests/cluster-access"
                ),
            ),
            Err(error) => return Err(error),
        })
    }

    /// Looks at them for ever.
    pub(super) async fn watch(&self, context: &Context, readiness: &Readiness) {
        loop {
            let (due, next) = self.due(Instant::now());
            for namespace in due {
                match Self::look(&context.client, &namespace).await {
                    // Before the first lists every credential and every image would look missing.
                    Ok((Found::Listed | Found::Missing, _))
                        if self.is_left_out(&namespace) && !has_lists(context, &namespace) =>
                    {
                        self.looked(&namespace);
                    }
                    Ok((found, message)) => {
                        if self.take(&namespace, found, &message, readiness) {
                            context.fleet.wake_where(Some(&namespace), |_| true);
                        }
                    }
                    // Whatever else is wrong, such as an API server that is away, the watches say.
                    Err(error) => {
                        tracing::debug!(namespace, %error, "the namespace was not looked at");
                        self.looked(&namespace);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(next.max(AT_ONCE)) => {}
                () = self.suspects.notified() => {}
            }
        }
    }

    /// The term is over: the next leader says it.
    pub(super) fn is_over(readiness: &Readiness) {
        readiness.is_over(PART);
    }
}

/// Whether the Secrets and the `OSImage`s of a namespace were listed, where its Servers were.
fn has_lists(context: &Context, namespace: &str) -> bool {
    let credentials = context.secrets.get(namespace).is_some_and(Secrets::is_synced);
    !context.fleet.is_synced(namespace) || credentials && context.images.is_synced(namespace)
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_refused_is_left_out_until_it_can_be_listed_and_looked_at_more_often() {
        let namespaces = Namespaces::new(&["gone".to_owned(), "lab".to_owned()]);
        let readiness = Readiness::default();
        let changes = namespaces.changes();
        assert!(namespaces.left_out().is_empty() && namespaces.due(Instant::now()).0.len() == 2);
        assert!(!namespaces.take("lab", Found::Listed, "", &readiness));
        assert!(!namespaces.take("gone", Found::Refused, "may not", &readiness));
        assert!(namespaces.is_left_out("gone") && !namespaces.is_missing("gone"));
        assert_eq!(*changes.borrow(), 1);
        let now = Instant::now();
        assert_eq!(namespaces.due(now + SOON).0, ["gone"]);
        assert_eq!(namespaces.due(now + NOW_AND_THEN).0, ["gone", "lab"]);
        assert!(!namespaces.take("gone", Found::Gone, "does not exist", &readiness));
        assert!(namespaces.is_missing("gone") && namespaces.left_out() == ["gone"]);
        assert!(namespaces.take("gone", Found::Listed, "", &readiness));
        assert_eq!((*changes.borrow(), namespaces.left_out().len()), (3, 0));
        assert!(namespaces.take("lab", Found::Partly, "no Secrets", &readiness));
        assert!(
            namespaces.is_left_out("lab") && namespaces.only_deletions("lab") && !namespaces.is_dark("lab")
        );
        namespaces.suspect("lab");
        assert_eq!(namespaces.due(Instant::now() + AT_ONCE).0, ["lab"]);
    }

    #[test]
    fn one_that_exists_no_more_and_may_be_listed_holds_nobody_up() {
        let namespaces = Namespaces::new(&["gone".to_owned()]);
        namespaces.take("gone", Found::Missing, "does not exist", &Readiness::default());
        assert!(namespaces.is_missing("gone") && !namespaces.is_left_out("gone"));
        assert!(!namespaces.is_left_out("elsewhere") && !namespaces.is_missing("elsewhere"));
    }
}
