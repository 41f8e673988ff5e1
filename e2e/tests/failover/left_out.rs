//! Namespaces that are gone, or that the controller may not list: they are left out and named, and all others go on, also
//! after a new epoch.

use anyhow::Result;
use autobuild::api::{Reason, Server, condition::ConditionType};
use e2e::autobuild::Running;
use e2e::fleet::{AUTHORITY, Fleet, LIMIT, Layout, SECRET, describe, is_ready};
use e2e::paths;
use e2e::wait::{Look, wait_for};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::site::{reboot, system};

/// Puts what a Server needs into another namespace, and the Server.
async fn declare_in(fleet: &Fleet, namespace: &str, name: &str) -> Result<()> {
    let (from, to) = (
        Api::<Secret>::namespaced(fleet.client(), fleet.namespace()),
        Api::namespaced(fleet.client(), namespace),
    );
    let Secret { type_, data, .. } = from.get(SECRET).await?;
    let secret = Secret { type_, data, ..Secret::default() };
    to.create(&PostParams::default(), &named(SECRET, secret, |secret| &mut secret.metadata)).await?;
    let from = Api::<ConfigMap>::namespaced(fleet.client(), fleet.namespace());
    let to = Api::<ConfigMap>::namespaced(fleet.client(), namespace);
    let map = ConfigMap { data: from.get(AUTHORITY).await?.data, ..ConfigMap::default() };
    to.create(&PostParams::default(), &named(AUTHORITY, map, |map| &mut map.metadata)).await?;
    let mut manifest = fleet.manifest(name);
    manifest["metadata"]["namespace"] = json!(namespace);
    let servers = servers_in(fleet, namespace);
    servers.patch(name, &PatchParams::apply("e2e").force(), &Patch::Apply(manifest)).await?;
    Ok(())
}

fn named<K>(name: &str, mut object: K, of: impl Fn(&mut K) -> &mut kube::core::ObjectMeta) -> K {
    of(&mut object).name = Some(name.to_owned());
    object
}

fn servers_in(fleet: &Fleet, namespace: &str) -> Api<Server> {
    Api::namespaced(fleet.client(), namespace)
}

async fn until_it_has_a_job(fleet: &Fleet, name: &str) {
    wait_for(&format!("a job of {name}"), LIMIT, async || {
        Ok(match fleet.records().job(name).await? {
            Some(_) => Look::Holds(()),
            None => Look::NotYet("none".to_owned()),
        })
    })
    .await
    .unwrap();
}

/// Waits until the controller is ready and says these words at `/readyz`.
async fn until_ready_and_says(controller: &Running, parts: &[&str]) {
    wait_for("the controller to be ready and to name what it leaves out", LIMIT, async || {
        let (status, said) = controller.get("/readyz").await?;
        let holds = status == 200 && parts.iter().all(|part| said.contains(part));
        Ok(if holds { Look::Holds(()) } else { Look::NotYet(format!("{status}: {said}")) })
    })
    .await
    .unwrap();
}

async fn until_ready_in(fleet: &Fleet, namespace: &str, name: &str) {
    let servers = servers_in(fleet, namespace);
    wait_for(&format!("{name} to be Ready"), LIMIT, async || {
        let server = servers.get(name).await?;
        Ok(if is_ready(&server) { Look::Holds(()) } else { Look::NotYet(describe(&server)) })
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_gone_or_refused_stops_no_other_after_a_restart_and_a_new_epoch() {
    let fleet = Fleet::with(Layout::new(3).emulator(&["--initial-power", "on"])).await.unwrap();
    let own = fleet.namespace().to_owned();
    let refused = fleet.cluster().namespace("refused").await.unwrap();
    let gone = fleet.cluster().namespace("gone").await.unwrap();
    let watched = format!("{own},{refused},{gone}");
    let flags = fleet.controller_flags().set("--watch-namespaces", watched);
    let mut controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let [here, there, nowhere] = [1, 2, 3].map(system);
    fleet.declare(&here, json!({})).await.unwrap();
    declare_in(&fleet, &refused, &there).await.unwrap();
    declare_in(&fleet, &gone, &nowhere).await.unwrap();
    for name in [&here, &there, &nowhere] {
        until_it_has_a_job(&fleet, name).await;
    }
    fleet.wait_reason(&here, ConditionType::Ready, Reason::NoWorkerForSite).await.unwrap();
    controller.process().stop(LIMIT).await.unwrap();

    // One loses its rights; the other goes with everything in it, which leaves rows behind.
    let kubectl = fleet.kubectl();
    kubectl.run(&["delete", "rolebinding", "--all", "-n", &refused]).await.unwrap();
    let bare = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    servers_in(&fleet, &gone).patch(&nowhere, &PatchParams::default(), &bare).await.unwrap();
    kubectl.run(&["delete", "namespace", &gone, "--timeout=2m"]).await.unwrap();

    controller.restart().await.unwrap();
    let out = [format!("namespace {refused} is left out"), format!("namespace {gone} is left out")];
    let parts = [out[0].as_str(), out[1].as_str(), "manifests/namespace-access", "--watch-namespaces"];
    until_ready_and_says(&controller, &parts).await;

    let new_epoch = ["migrate", "--new-epoch"];
    let env = [("DATABASE_URL", fleet.database_url())];
    fleet.autobuild().run("new-epoch", &new_epoch, &env).await.unwrap();
    let worker = fleet.worker("worker").await.unwrap();
    fleet.wait_ready(&here).await.unwrap();
    reboot(&fleet, &here, "after-the-epoch").await;
    until_ready_and_says(&controller, &parts).await;
    worker.wait_ready().await.unwrap();
    for name in [&there, &nowhere] {
        let job = fleet.records().job(name).await.unwrap().expect("a job that waits");
        assert_eq!((job.owner, job.begun), (None, false), "{name}: nobody derived it");
        assert!(fleet.bmcs().requests(name).await.unwrap().is_empty(), "{name}: its BMC was asked");
    }
    let untrue = fleet.logged("does not answer").unwrap();
    assert!(untrue.is_empty(), "the database answered all the time: {untrue:?}");
    for namespace in [&refused, &gone] {
        let lines = fleet.logged(&format!("namespace {namespace} is left out")).unwrap();
        assert_eq!(lines.len(), 1, "once, whatever happens: {lines:?}");
    }

    // It may be looked after again: everything goes on by itself.
    let roles = paths::root().join("manifests/namespace-access");
    let roles =
        ["apply", "--server-side", "--force-conflicts", "-n", &refused, "-k", roles.to_str().unwrap()];
    kubectl.run(&roles).await.unwrap();
    until_ready_in(&fleet, &refused, &there).await;
    reboot(&fleet, &here, "at-last").await;
    fleet.end().await.unwrap();
}
