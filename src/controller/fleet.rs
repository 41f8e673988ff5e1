//! The Servers as the watches show them, and how one of them is woken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::channel::mpsc;
use kube::Resource as _;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::watch as flag;

use super::namespaces::Namespaces;
use super::work_queue::Key;
use crate::api::{Phase, Server};
use crate::job::ServerUid;
use crate::metrics;

/// A `Server`, or an object that this release cannot read: one of those does not end the watch of the others.
pub(super) type Guarded = DeserializeGuard<Server>;

/// One watched namespace.
struct Watched {
    store: Store<Guarded>,
    synced: flag::Receiver<bool>,
    wake: mpsc::UnboundedSender<ObjectRef<Guarded>>,
}

/// All watched namespaces.
pub(super) struct Fleet {
    namespaces: BTreeMap<String, Watched>,
    access: Namespaces,
}

/// What the watch knows of a row's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its namespace is not watched by this controller, or left out at present.
    Elsewhere,
    /// The watch has it.
    Present,
    /// The watch does not have it; a live read must tell.
    Missing,
}

impl Fleet {
    pub(super) fn new(access: Namespaces) -> Self {
        Self { namespaces: BTreeMap::new(), access }
    }

    pub(super) fn add(
        &mut self,
        namespace: &str,
        store: Store<Guarded>,
        synced: flag::Receiver<bool>,
        wake: mpsc::UnboundedSender<ObjectRef<Guarded>>,
    ) {
        self.namespaces.insert(namespace.to_owned(), Watched { store, synced, wake });
    }

    /// Waits until every watch has its first list, but for those of namespaces that are left out. The store's own
    /// `wait_until_ready` wakes only the last of several that wait, and the Controller is one of them.
    pub(super) async fn synced(&self) {
        let mut changes = self.access.changes();
        for (namespace, watched) in &self.namespaces {
            let mut synced = watched.synced.clone();
            let left_out = async { changes.wait_for(|_| self.access.is_left_out(namespace)).await.is_ok() };
            // A watch that has ended ends the term, and whoever waits here with it.
            tokio::select! {
                _ = synced.wait_for(|synced| *synced) => {}
                _ = left_out => {}
            }
        }
    }

    /// Whether the watch of a namespace has its first list.
    pub(super) fn is_synced(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(|watched| *watched.synced.borrow())
    }

    /// The object as the watch shows it now; `None`: it is gone.
    pub(super) fn get(&self, (namespace, name): &Key) -> Option<Arc<Guarded>> {
        let store = &self.namespaces.get(namespace)?.store;
        store.get(&ObjectRef::new(name).within(namespace))
    }

    pub(super) fn standing(&self, namespace: &str, name: &str, uid: &ServerUid) -> Standing {
        let Some(watched) = self.namespaces.get(namespace) else { return Standing::Elsewhere };
        if self.access.is_dark(namespace) {
            return Standing::Elsewhere;
        }
        match watched.store.get(&ObjectRef::new(name).within(namespace)) {
            Some(object) if object.meta().uid.as_deref() == Some(uid.as_str()) => Standing::Present,
            _ => Standing::Missing,
        }
    }

    /// Asks for a reconcile.
    pub(super) fn wake(&self, namespace: &str, name: &str) {
        if let Some(watched) = self.namespaces.get(namespace) {
            // A closed channel means that the watch is ending: the next leader looks at everything.
            watched.wake.unbounded_send(ObjectRef::new(name).within(namespace)).ok();
        }
    }

    /// Wakes the Servers of a namespace (`None`: of all) that `concerned` picks.
    pub(super) fn wake_where(&self, namespace: Option<&str>, concerned: impl Fn(&Server) -> bool) {
        for (watched_namespace, watched) in &self.namespaces {
            if namespace.is_some_and(|namespace| namespace != watched_namespace) {
                continue;
            }
            for object in watched.store.state_filter(|object| object.0.as_ref().is_ok_and(&concerned)) {
                if let Some(name) = &object.meta().name {
                    self.wake(watched_namespace, name);
                }
            }
        }
    }

    /// Uid, and namespace and name, of every Server that this release can read, but for namespaces that are left out.
    pub(super) fn readable(&self) -> Vec<(ServerUid, String)> {
        let mut all = Vec::new();
        let looked_after =
            self.namespaces.iter().filter(|(namespace, _)| !self.access.is_left_out(namespace));
        for (namespace, watched) in looked_after {
            for object in watched.store.state() {
                if let (Ok(server), Some(name)) = (&object.0, &object.meta().name) {
                    let uid = server.metadata.uid.clone().unwrap_or_default();
                    all.push((ServerUid(uid), format!("{namespace}/{name}")));
                }
            }
        }
        all
    }

    /// Counts the Servers of each phase.
    pub(super) fn count_phases(&self) {
        let mut counts = BTreeMap::from(Phase::ALL.map(|phase| (phase.as_str(), 0_u32)));
        for object in self.namespaces.values().flat_map(|watched| watched.store.state()) {
            let status = object.0.as_ref().ok().and_then(|server| server.status.as_ref());
            if let Some(phase) = status.and_then(|status| status.phase) {
                *counts.entry(phase.as_str()).or_default() += 1;
            }
        }
        for (phase, count) in counts {
            metrics::SERVERS.set(&[phase], f64::from(count));
        }
    }

    /// How many Servers a namespace has.
    pub(super) fn count(&self, namespace: &str) -> usize {
        self.namespaces.get(namespace).map_or(0, |watched| watched.store.len())
    }

    /// The sites that have Servers.
    pub(super) fn sites(&self) -> BTreeSet<String> {
        let mut sites = BTreeSet::new();
        for watched in self.namespaces.values() {
            for object in watched.store.state() {
                if let Ok(server) = &object.0
                    && !sites.contains(&server.spec.site)
                {
                    sites.insert(server.spec.site.clone());
                }
            }
        }
        sites
    }
}
