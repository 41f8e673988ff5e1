//! What the API server refuses: by a policy, for want of a right, or because its definition is of an older release.

use autobuild::api::hardware::PowerState;
use autobuild::job::Action;
use e2e::autobuild::Running;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use serde_json::json;

use crate::TURN;
use crate::site::{Site, is_ready, wait};

/// Kinds of policies, with their bindings first.
fn policies(site: &Site) -> [Api<DynamicObject>; 2] {
    ["ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"].map(|kind| {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        Api::all_with(site.client.clone(), &ApiResource::from_gvk(&kind))
    })
}

/// Has the API server refuse every status in this namespace.
async fn freeze(site: &Site) -> String {
    let name = format!("freeze-{}", site.namespace);
    let rule = json!({
        "apiGroups": ["autobuild.dev"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["servers/status"],
    });
    let policy = json!({
        "failurePolicy": "Fail",
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": site.namespace}},
            "resourceRules": [rule],
        },
        "validations": [{"expression": "false", "message": "status is frozen"}],
    });
    let binding = json!({"policyName": name, "validationActions": ["Deny"]});
    for (api, (kind, spec)) in policies(site)
        .into_iter()
        .zip([("ValidatingAdmissionPolicyBinding", binding), ("ValidatingAdmissionPolicy", policy)])
    {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let object = DynamicObject::new(&name, &ApiResource::from_gvk(&kind)).data(json!({"spec": spec}));
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    wait("the policy to be in force", async || {
        let how = PatchParams { dry_run: true, ..PatchParams::default() };
        let patch = Patch::Merge(json!({"status": {"observedGeneration": 1}}));
        site.servers().patch_status("one", &how, &patch).await.is_err()
    })
    .await;
    name
}

async fn notes(site: &Site, reason: &str) -> Vec<String> {
    let events: Api<Event> = Api::namespaced(site.client.clone(), &site.namespace);
    let all = events.list(&ListParams::default()).await.unwrap();
    let told = all.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
    told.map(|event| event.note.unwrap_or_default()).collect()
}

fn log(controller: &Running) -> String {
    std::fs::read_to_string(controller.process().log()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_refuses_status_is_told_on_the_server_and_is_no_missing_role() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let controller = site.controller("a", &[], "").await;
    for name in ["one", "two"] {
        site.ready(name, json!({})).await;
    }
    site.until_feed_is_empty().await;
    let policy = freeze(&site).await;
    for name in ["one", "two"] {
        site.change(name, json!({"spec": {"power": "PoweredOff"}})).await;
        site.finish(Action::PowerOff, PowerState::PoweredOff).await;
    }
    wait("the refusal to be told on both", async || notes(&site, "StatusRefused").await.len() >= 2).await;
    for note in notes(&site, "StatusRefused").await {
        for part in ["patch the status", "status is frozen", "no Role is missing"] {
            assert!(note.contains(part), "{part}: {note}");
        }
    }
    // Both of them meet one cause.
    let lines = log(&controller).matches("not reconciled").count();
    assert!((1..=6).contains(&lines), "{lines} lines in\n{}", log(&controller));
    for api in policies(&site) {
        api.delete(&policy, &DeleteParams::default()).await.unwrap();
    }
    for name in ["one", "two"] {
        let off = |status: &autobuild::api::ServerStatus| status.power == Some(PowerState::PoweredOff);
        site.until(name, "off", |status| is_ready(status) && off(status)).await;
    }
    site.until_feed_is_empty().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_of_an_older_release_is_told_at_the_start_and_healed_by_the_present_one() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/phase";
    let older = json!([{"op": "remove", "path": field}]).to_string();
    let patch = ["patch", "crd", "servers.autobuild.dev", "--type=json", "-p", &older];
    site.plane.kubectl().run(&patch).await.unwrap();
    let controller = site.controller("a", &[], "").await;
    wait("the definition to be told", async || {
        let (status, said) = controller.get("/readyz").await.unwrap();
        status == 503
            && ["definition: ", "status.phase", "apply crds/"].iter().all(|part| said.contains(part))
    })
    .await;
    site.server("one", json!({})).await;
    wait("the refusal to be told", async || !notes(&site, "StatusRefused").await.is_empty()).await;
    let said = log(&controller);
    assert_eq!(
        said.matches("the definition of Server in this cluster is of an older release").count(),
        1,
        "{said}"
    );
    site.plane.apply_crds().await.unwrap();
    site.finish(Action::Inspect, PowerState::PoweredOn).await;
    site.until("one", "Ready", is_ready).await;
    wait("the controller to be ready", async || controller.get("/readyz").await.unwrap().0 == 200).await;
    site.end().await;
}

/// A namespace that is being deleted with a Server in it, and the controller that looked after that one.
///
/// Its rights go only when the API server's side comes to it: until then it looks after the deletion, and lets the machine go once
/// `patience` is over.
async fn deleted_namespace(patience: &str) -> (Site, Running) {
    let site = Site::new().await;
    site.secret().await;
    let times = ["--undo-wait", "500ms", "--power-off-wait", patience];
    let controller = site.controller("a", &times, "").await;
    site.ready("one", json!({"deletionPolicy": "PowerOff"})).await;
    site.plane.kubectl().run(&["delete", "namespace", &site.namespace, "--wait=false"]).await.unwrap();
    wait("what is missing to be named", async || {
        let (_, said) = controller.get("/readyz").await.unwrap();
        let parts =
            [&site.namespace, "is left out", "cannot list resource \"servers\"", "manifests/cluster-access"];
        parts.iter().all(|part| said.contains(part))
    })
    .await;
    assert!(site.servers().get_opt("one").await.unwrap().is_some(), "its finalizer keeps it");
    (site, controller)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_with_a_server_in_it_names_what_is_missing_and_the_way_out() {
    let _turn = TURN.lock().await;
    let (site, _controller) = deleted_namespace("1h").await;
    assert!(site.why("one").await.contains("kubectl apply -k manifests/cluster-access"));
    // Let go by hand, as the page says.
    let bare = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    site.servers().patch("one", &PatchParams::default(), &bare).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute of growing pauses: make soak"]
async fn a_namespace_that_is_being_deleted_is_released_once_the_controller_has_rights_that_outlive_it() {
    let _turn = TURN.lock().await;
    let (site, _controller) = deleted_namespace("30s").await;
    let kubectl = site.plane.kubectl();
    let rights = e2e::paths::root().join("manifests/cluster-access").display().to_string();
    kubectl.run(&["apply", "--server-side", "-k", &rights]).await.unwrap();
    // The namespace itself goes when its own controller looks again, which takes minutes.
    wait("the server to go", async || site.servers().get_opt("one").await.unwrap().is_none()).await;
    kubectl.run(&["delete", "-k", &rights]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_nobody_serves_does_not_look_empty() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let controller = site.controller("a", &[], "").await;
    site.server("one", json!({"site": "nowhere"})).await;
    let labels = [("site", "nowhere")];
    wait("the leader to show what waits", async || {
        let (_, page) = controller.get("/metrics").await.unwrap();
        e2e::fleet::metric(&page, "autobuild_queue_jobs", &labels) >= 1.0
            && e2e::fleet::metric(&page, "autobuild_queue_oldest_seconds", &labels) > 0.0
            && page.contains("autobuild_site_workers{site=\"nowhere\"} 0")
    })
    .await;
    site.end().await;
}

impl Site {
    /// The page of `kubectl autobuild why`, as the administrator reads it.
    async fn why(&self, name: &str) -> String {
        let program = e2e::autobuild::binary().unwrap();
        let kubectl = self.plane.kubectl().with_plugins(program.parent().unwrap());
        kubectl.run(&["autobuild", "why", name, "-n", &self.namespace]).await.unwrap()
    }
}
