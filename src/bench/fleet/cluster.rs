//! The API server: two namespaces of the benchmark's own, the objects in them, and their end.
#![expect(
    clippy::disallowed_types,
    reason = "a benchmark plays the user, and measures the API server itself"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark waits for the end of what it made")]

use std::future::Future;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::super::BenchError;
use super::children::sum;
use crate::api::{OSImage, Server, names};

/// What every namespace of a benchmark is called at its start: one that a killed benchmark left behind is found by it.
pub(super) const NAMESPACE_PREFIX: &str = "autobuild-bench-";
/// The Secret that every BMC accepts.
pub(super) const SECRET: &str = "bmc";
/// The label of every Server.
const LABEL: &str = "autobuild-bench";
/// Requests of the benchmark that are under way at once.
const AT_ONCE: usize = 16;
/// Servers in one page of a list.
const PAGE: u32 = 500;
/// Between two looks at a namespace that is on its way out.
const LOOK: Duration = Duration::from_millis(200);
/// How long that may take.
const GONE: Duration = Duration::from_mins(1);

/// A cluster with the benchmark's namespaces in it.
#[derive(Clone)]
pub(super) struct Cluster {
    client: Client,
    namespace: String,
}

fn failed(what: impl Into<String>) -> impl FnOnce(kube::Error) -> BenchError {
    move |error| {
        let why = match &error {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        };
        BenchError::Cluster { what: what.into(), why }
    }
}

impl Cluster {
    /// Makes the namespaces. Fails where the cluster does not know Servers.
    pub(super) async fn prepare(client: Client) -> Result<Self, BenchError> {
        let anywhere = Api::<Server>::all(client.clone());
        let known = anywhere.list(&ListParams::default().limit(1)).await;
        known.map_err(failed("list Servers; apply crds/ of this release"))?;
        let namespace = format!("{NAMESPACE_PREFIX}{:012x}", rand::random::<u64>() >> 16);
        let cluster = Self { client, namespace };
        for name in [cluster.namespace.clone(), cluster.aside()] {
            let made = Namespace {
                metadata: ObjectMeta { name: Some(name), ..ObjectMeta::default() },
                ..Namespace::default()
            };
            let all = Api::<Namespace>::all(cluster.client.clone());
            all.create(&PostParams::default(), &made).await.map_err(failed("make a namespace"))?;
        }
        Ok(cluster)
    }

    /// The namespace that the controller looks after.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The namespace that nobody looks after.
    fn aside(&self) -> String {
        format!("{}-raw", self.namespace)
    }

    /// The Servers that are looked after.
    pub(super) fn servers(&self) -> Api<Server> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Servers that nobody looks after.
    pub(super) fn servers_aside(&self) -> Api<Server> {
        Api::namespaced(self.client.clone(), &self.aside())
    }

    /// The manifest of a Server.
    pub(super) fn manifest(name: &str, address: &str, spec: &Value) -> Value {
        let mut whole = json!({ "bmc": { "address": address, "credentialsRef": { "name": SECRET } } });
        if let (Some(whole), Some(more)) = (whole.as_object_mut(), spec.as_object()) {
            whole.extend(more.clone());
        }
        json!({
            "apiVersion": "autobuild.dev/v1alpha1", "kind": "Server",
            "metadata": { "name": name, "labels": { LABEL: "true" } }, "spec": whole,
        })
    }

    /// Creates an object from its manifest.
    pub(super) async fn create(&self, servers: &Api<Server>, manifest: Value) -> Result<Server, BenchError> {
        let server: Server = serde_json::from_value(manifest)
            .map_err(|error| BenchError::Cluster { what: "make a Server".into(), why: error.to_string() })?;
        servers.create(&PostParams::default(), &server).await.map_err(failed("create a Server"))
    }

    /// Writes the Secret of the BMCs.
    pub(super) async fn secret(&self, username: &str, password: &str) -> Result<(), BenchError> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": names::CREDENTIALS_SECRET_TYPE,
            "metadata": { "name": SECRET },
            "stringData": { names::CREDENTIALS_USERNAME: username, names::CREDENTIALS_PASSWORD: password },
        });
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let how = PatchParams::apply("bench");
        secrets.patch(SECRET, &how, &Patch::Apply(secret)).await.map_err(failed("write the Secret"))?;
        Ok(())
    }

    /// Writes an `OSImage`.
    pub(super) async fn image(&self, name: &str, spec: &Value) -> Result<(), BenchError> {
        let image = json!({
            "apiVersion": "autobuild.dev/v1alpha1", "kind": "OSImage", "metadata": { "name": name }, "spec": spec,
        });
        let images = Api::<OSImage>::namespaced(self.client.clone(), &self.namespace);
        let how = PatchParams::apply("bench");
        images.patch(name, &how, &Patch::Apply(image)).await.map_err(failed("write the OSImage"))?;
        Ok(())
    }

    /// Changes fields of the spec, as a user does.
    pub(super) async fn change(&self, name: &str, spec: &Value) -> Result<Server, BenchError> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let changed = self.servers().patch(name, &PatchParams::default(), &patch).await;
        changed.map_err(|error| failed(format!("change Server {name}"))(error))
    }

    /// Changes the spec of each Server that carries the label, as a person does with a selector.
    pub(super) async fn change_labelled(&self, spec: &Value) -> Result<Vec<String>, BenchError> {
        let selected =
            listed(&self.servers(), &ListParams::default().labels(&format!("{LABEL}=true"))).await?;
        each(selected.clone(), async |name| self.change(&name, spec).await.map(|_| ())).await?;
        Ok(selected)
    }

    /// How much the API server was asked by everybody since it started, watches left out; `None`: this user may not know.
    pub(super) async fn requests(&self) -> Option<f64> {
        let request = http::Request::get("/metrics").body(Vec::new()).ok()?;
        let page = self.client.request_text(request).await.ok()?;
        Some(
            sum(&page, "apiserver_request_total", "")
                - sum(&page, "apiserver_request_total", "verb=\"WATCH\""),
        )
    }

    /// Takes away whatever was made, with or without a controller: the finalizers first.
    pub(super) async fn end(&self) -> Result<(), BenchError> {
        let finished = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        for servers in [self.servers(), self.servers_aside()] {
            let names = listed(&servers, &ListParams::default()).await?;
            each(names, async |name| {
                gone_is_fine(servers.patch_metadata(&name, &PatchParams::default(), &finished).await)?;
                gone_is_fine(servers.delete(&name, &DeleteParams::default()).await)
            })
            .await?;
        }
        let all = Api::<Namespace>::all(self.client.clone());
        for name in [self.namespace.clone(), self.aside()] {
            gone_is_fine(all.delete(&name, &DeleteParams::default()).await)?;
        }
        let since = Instant::now();
        while since.elapsed() < GONE {
            let left = all.get_opt(&self.namespace).await.map_err(failed("look at the namespace"))?;
            if left.is_none() {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        let why = format!("it is still there {} s after it was deleted", GONE.as_secs());
        Err(BenchError::Cluster { what: format!("delete the namespace {}", self.namespace), why })
    }
}

fn gone_is_fine<T>(result: kube::Result<T>) -> Result<(), BenchError> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        other => other.map(|_| ()).map_err(failed("take the benchmark's objects away")),
    }
}

async fn listed(servers: &Api<Server>, how: &ListParams) -> Result<Vec<String>, BenchError> {
    let (mut names, mut how) = (Vec::new(), how.clone().limit(PAGE));
    loop {
        let page = servers.list_metadata(&how).await.map_err(failed("list the Servers"))?;
        names.extend(page.items.into_iter().filter_map(|one| one.metadata.name));
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => how = how.continue_token(&next),
            None => return Ok(names),
        }
    }
}

/// Does something for each of many names, some at once; the first failure ends it.
pub(super) async fn each<F: Future<Output = Result<(), BenchError>>>(
    names: Vec<String>,
    act: impl Fn(String) -> F,
) -> Result<(), BenchError> {
    stream::iter(names).map(act).buffer_unordered(AT_ONCE).try_collect().await
}
