//! `kubectl autobuild why`, run by the real kubectl: a machine that never boots, a user without rights, a misspelt name.

use std::path::Path;

use autobuild::api::Reason;
use autobuild::api::condition::ConditionType;
use e2e::autobuild::binary;
use e2e::fleet::{BootFiles, Fleet, Layout};
use e2e::kubectl::Kubectl;
use e2e::wait::say;
use serde_json::json;

use crate::steps::{handled, on_with_token, system};

/// `kubectl` that finds the plugin of this build.
fn with_plugin(kubeconfig: &Path) -> Kubectl {
    Kubectl::new(kubeconfig).with_plugins(binary().unwrap().parent().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn why_explains_a_machine_that_never_boots_and_what_to_try() {
    let fleet = Fleet::with(Layout::new(2)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    fleet.image("debian-12", &files, &[]).await.unwrap();
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let flags = fleet.worker_flags().set("--boot-deadline", "3s");
    let _worker = fleet.worker_with("worker", &flags, &[]).await.unwrap();
    let (broken, good) = (system(1), system(2));
    let rule = json!({ "system": &broken, "behaviour": { "kind": "StayInPost" } });
    fleet.bmcs().host_rule(rule).await.unwrap();
    fleet.declare(&broken, json!({ "image": { "name": "debian-12" } })).await.unwrap();
    fleet.declare(&good, on_with_token("one")).await.unwrap();
    fleet.wait_reason(&broken, ConditionType::Stalled, Reason::NeverBooted).await.unwrap();
    fleet.wait_event(&broken, Reason::NeverBooted).await.unwrap();
    handled(&fleet, &good, "one").await.unwrap();

    let kubectl = with_plugin(fleet.plane().kubeconfig());
    let namespace = fleet.namespace();
    let page = kubectl.run(&["autobuild", "why", &broken, "-n", namespace]).await.unwrap();
    say(format!("kubectl autobuild why {broken}\n{page}"));
    for part in [
        &format!("{broken} (namespace {namespace}): Stalled, not Ready"),
        "NeverBooted",
        "did not fetch its boot script",
        "Look at its console",
        &format!("kubectl patch server {broken} -n {namespace}"),
        "debian-12 is wished",
        "Failed, ended at step",
        "bmc is there",
        " ago",
    ] {
        assert!(page.contains(part), "{part:?} is missing in\n{page}");
    }
    assert!(!page.contains('\u{1b}'), "colours without a terminal:\n{page}");

    // The command that it prints is one that works.
    let command = page.lines().find_map(|line| line.trim().strip_prefix("kubectl patch ")).unwrap();
    let (target, patch) = command.split_once(" --type=merge -p ").unwrap();
    let mut args = vec!["patch"];
    args.extend(target.split(' '));
    args.extend(["--type=merge", "-p", patch.trim_matches('\'')]);
    kubectl.run(&args).await.unwrap();

    let context = kubectl.run(&["config", "current-context"]).await.unwrap();
    let args = ["autobuild", "why", &format!("server/{good}"), "-n", namespace, "--context", context.trim()];
    let page = kubectl.run(&args).await.unwrap();
    for part in ["Ready for", "AsDeclared", "PoweredOn, as wished", "\"one\" is handled"] {
        assert!(page.contains(part), "{part:?} is missing in\n{page}");
    }

    let missing = kubectl.output(&["autobuild", "why", "sytem-0001", "-n", namespace]).await.unwrap();
    assert!(!missing.success && missing.stdout.is_empty(), "{missing:?}");
    assert!(missing.stderr.contains(&format!("there is {broken}")), "{}", missing.stderr);
    let elsewhere = kubectl.output(&["autobuild", "why", &broken, "-n", "default"]).await.unwrap();
    assert!(elsewhere.stderr.contains(namespace), "{}", elsewhere.stderr);

    a_refusal_is_said(&fleet, &good).await;
    nothing_is_changed_and_the_right_to_get_servers_is_enough(&fleet, &good).await;
    fleet.end().await.unwrap();
}

async fn nothing_is_changed_and_the_right_to_get_servers_is_enough(fleet: &Fleet, name: &str) {
    let (admin, namespace) = (fleet.kubectl().in_namespace(fleet.namespace()), fleet.namespace());
    admin.run(&["create", "serviceaccount", "reader"]).await.unwrap();
    let role = ["create", "role", "reader", "--verb=get", "--resource=servers.autobuild.dev"];
    admin.run(&role).await.unwrap();
    let account = format!("--serviceaccount={namespace}:reader");
    admin.run(&["create", "rolebinding", "reader", "--role=reader", &account]).await.unwrap();
    let kubeconfig = fleet.dir().join("reader.kubeconfig");
    std::fs::copy(fleet.plane().kubeconfig(), &kubeconfig).unwrap();
    let reader = with_plugin(&kubeconfig);
    let user = reader
        .run(&["config", "view", "--minify", "-o", "jsonpath={.contexts[0].context.user}"])
        .await
        .unwrap();
    let token = admin.run(&["create", "token", "reader"]).await.unwrap();
    reader.run(&["config", "delete-user", user.trim()]).await.unwrap();
    reader.run(&["config", "set-credentials", user.trim(), "--token", token.trim()]).await.unwrap();

    let all = "servers.autobuild.dev,osimages.autobuild.dev,secrets,configmaps";
    let before = admin.run(&["get", all, "-o", "json"]).await.unwrap();
    for kubectl in [&reader, &with_plugin(fleet.plane().kubeconfig())] {
        let page = kubectl.run(&["autobuild", "why", name, "-n", namespace]).await.unwrap();
        assert!(page.contains("AsDeclared"), "{page}");
    }
    let page = reader.run(&["autobuild", "why", name, "-n", namespace]).await.unwrap();
    assert!(page.contains("is forbidden"), "{page}");
    // The other machine is being installed meanwhile.
    let as_they_were = |text: &str| -> Vec<serde_json::Value> {
        let list: serde_json::Value = serde_json::from_str(text).unwrap();
        let mut items = list["items"].as_array().unwrap().clone();
        items.retain(|item| item["kind"] != "Server" || item["metadata"]["name"] == name);
        items
    };
    let after = admin.run(&["get", all, "-o", "json"]).await.unwrap();
    assert_eq!(as_they_were(&before), as_they_were(&after));
}

/// The controller's account may neither get Secrets nor list Events.
async fn a_refusal_is_said(fleet: &Fleet, name: &str) {
    let kubectl = with_plugin(fleet.cluster().controller());
    let page = kubectl.run(&["autobuild", "why", name, "-n", fleet.namespace()]).await.unwrap();
    assert!(page.contains("bmc could not be looked at") && page.contains("is forbidden"), "{page}");
    let nobody = with_plugin(fleet.cluster().worker());
    let refused = nobody.output(&["autobuild", "why", name, "-n", "kube-system"]).await.unwrap();
    assert!(refused.stderr.contains("needs the right to get servers.autobuild.dev"), "{}", refused.stderr);
}
