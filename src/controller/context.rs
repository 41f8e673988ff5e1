//! What every reconcile works with.
#![expect(clippy::disallowed_types, reason = "reconciles write status and the finalizer")]

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client};

use super::budgets::Budgets;
use super::derivation::Derivation;
use super::fair_queue::FairQueue;
use super::fleet::Fleet;
use super::images::ImageStore;
use super::leader::Leadership;
use super::namespaces::Namespaces;
use super::newest::Newest;
use super::own_jobs::OwnJobs;
use super::paced::Paced;
use super::repeats::Repeats;
use super::retries::Retries;
use super::secrets::Secrets;
use super::settings::ControllerSettings;
use super::sites::Sites;
use super::work_queue::WorkQueue;
use crate::api::{Server, names};
use crate::job::SecretVersion;
use crate::queue::Queue;

/// Shared by the reconciles of one term as leader.
pub(super) struct Context {
    pub client: Client,
    pub queue: Queue,
    pub settings: ControllerSettings,
    pub leadership: Leadership,
    pub recorder: Recorder,
    pub fleet: Fleet,
    pub namespaces: Namespaces,
    pub sites: Sites,
    pub secrets: BTreeMap<String, Secrets>,
    pub images: ImageStore,
    pub budgets: Budgets,
    pub fair: FairQueue,
    pub newest: Arc<Newest>,
    pub own_jobs: OwnJobs,
    pub paced: Paced,
    pub retries: Retries,
    pub repeats: Repeats,
    pub derivation: Derivation,
    pub work: WorkQueue,
}

impl Context {
    pub(super) fn new(
        client: Client,
        queue: Queue,
        settings: ControllerSettings,
        leadership: Leadership,
        (fleet, namespaces, newest): (Fleet, Namespaces, Arc<Newest>),
    ) -> Self {
        let reporter = Reporter { controller: names::CONTROLLER.to_owned(), instance: None };
        let secrets = settings.namespaces.iter().map(|name| (name.clone(), Secrets::default())).collect();
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            work: WorkQueue::default(),
            images: ImageStore::new(&settings.namespaces),
            budgets: Budgets::default(),
            fair: FairQueue::default(),
            sites: Sites::default(),
            newest,
            own_jobs: OwnJobs::default(),
            paced: Paced::default(),
            retries: Retries::default(),
            repeats: Repeats::default(),
            derivation: Derivation::default(),
            client,
            queue,
            settings,
            leadership,
            fleet,
            namespaces,
            secrets,
        }
    }

    pub(super) fn servers(&self, namespace: &str) -> Api<Server> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(super) fn secret(&self, namespace: &str, name: &str) -> Option<SecretVersion> {
        self.secrets.get(namespace)?.version(name)
    }
}
