//! Addresses that cannot be used, or may not be.

use autobuild::api::Reason;
use autobuild::api::condition::ConditionType;
use e2e::control_plane::ControlPlane;
use e2e::fleet::{Fleet, LIMIT};
use e2e::wait::{Look, wait_for};
use serde_json::json;

use crate::says;

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_used_is_named_with_the_way_out_and_can_be_corrected() {
    let fleet = Fleet::start(1).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let wrong: &[(&str, &[&str])] = &[
        ("redfish+https://bad_host", &["spec.bmc.address", "\"bad_host\"", "a DNS name"]),
        ("redfish+https://127.1", &["spec.bmc.address", "\"127.1\"", "an IPv4 address"]),
        ("redfish+https://127.0.0.1:0", &["spec.bmc.address", "port \"0\"", "from 1 to 65535"]),
        ("redfish+https://127.0.0.1/redfish/v1/Chassis/1", &["path", "Chassis/1", "/redfish/v1/Systems/ID"]),
        ("redfish+https://127.0.0.1/?x=secret", &["query or fragment", "keep only"]),
        ("redfish+https://h/redfish/v1/Systems/a%2fb", &["path", "a%2fb", "no %"]),
    ];
    for (number, (address, _)) in wrong.iter().enumerate() {
        let mut manifest = fleet.manifest_with("system-0001", &json!({ "power": "PoweredOn" }));
        manifest["metadata"]["name"] = json!(format!("wrong-{number}"));
        manifest["spec"]["bmc"]["address"] = json!(address);
        fleet.apply(&manifest).await.unwrap();
    }
    for (number, (address, parts)) in wrong.iter().enumerate() {
        let name = format!("wrong-{number}");
        for kind in [ConditionType::Ready, ConditionType::Stalled] {
            let message = fleet.wait_reason(&name, kind, Reason::InvalidAddress).await.unwrap();
            says(&message, parts).expect(address);
            assert!(!message.contains("secret"), "{message}");
        }
    }
    let right = fleet.manifest("system-0001")["spec"]["bmc"]["address"].clone();
    fleet.change("wrong-0", json!({ "bmc": { "address": right } })).await.unwrap();
    fleet.wait_ready("wrong-0").await.unwrap();
    assert_eq!(fleet.bmcs().resets("system-0001").await.unwrap(), ["on"]);
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_another_scheme_is_not_even_stored() {
    let fleet = Fleet::start(1).await.unwrap();
    let mut manifest = fleet.manifest("system-0001");
    for address in ["https://192.0.2.1", "http://192.0.2.1", "ftp://192.0.2.1", "192.0.2.1"] {
        manifest["spec"]["bmc"]["address"] = json!(address);
        let error = fleet.apply(&manifest).await.unwrap_err().to_string();
        says(&error, &["spec.bmc", "redfish+https://HOST[:PORT] (what others write https://HOST)"]).unwrap();
    }
    fleet.end().await.unwrap();
}

/// A cluster of its own: definitions are the cluster's.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_was_stored_before_the_rule_is_looked_after_and_can_be_changed_and_deleted() {
    let plane = ControlPlane::start().await.unwrap();
    if !plane.is_own() {
        return; // the definitions of a cluster that the user named are not ours to change
    }
    plane.apply_crds().await.unwrap();
    let kubectl = plane.kubectl();
    let validations =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/bmc/x-kubernetes-validations";
    let before = json!([{ "op": "remove", "path": validations }]).to_string();
    kubectl.run(&["patch", "crd", "servers.autobuild.dev", "--type=json", "-p", &before]).await.unwrap();
    let manifest = json!({
        "apiVersion": "autobuild.dev/v1alpha1", "kind": "Server", "metadata": {"name": "old"},
        "spec": {"bmc": {"address": "https://192.0.2.1", "credentialsRef": {"name": "bmc"}}},
    });
    let stored = async || kubectl.run_with_input(&["apply", "-f", "-"], &manifest.to_string()).await;
    wait_for("the definition without the rule to be served", LIMIT, async || {
        stored().await?;
        Ok(Look::Holds(()))
    })
    .await
    .unwrap();
    plane.apply_crds().await.unwrap();
    let mut new = manifest.clone();
    new["metadata"]["name"] = json!("new");
    wait_for("the rule to be served", LIMIT, async || {
        let dry = ["create", "--dry-run=server", "-f", "-"];
        Ok(match kubectl.run_with_input(&dry, &new.to_string()).await {
            Ok(said) => Look::NotYet(said),
            Err(_) => Look::Holds(()),
        })
    })
    .await
    .unwrap();
    let patch = async |more: &[&str], patch: &str| {
        let args = [&["patch", "server", "old", "--type=merge", "-p", patch], more].concat();
        kubectl.run(&args).await.unwrap();
    };
    patch(&[], r#"{"metadata": {"finalizers": ["autobuild.dev/server"]}}"#).await;
    patch(&["--subresource=status"], r#"{"status": {"phase": "Stalled"}}"#).await;
    patch(&[], r#"{"spec": {"power": "PoweredOff"}}"#).await;
    patch(&[], r#"{"spec": {"bmc": {"address": "redfish+https://192.0.2.1"}}}"#).await;
    patch(&[], r#"{"metadata": {"finalizers": null}}"#).await;
    kubectl.run(&["delete", "server", "old", "--timeout=60s"]).await.unwrap();
    plane.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ipmi_is_refused_where_the_operator_does_not_allow_it() {
    let fleet = Fleet::start(1).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let mut manifest = fleet.manifest_with("system-0001", &json!({ "power": "PoweredOn" }));
    manifest["spec"]["bmc"]["address"] = json!("ipmi://127.0.0.1");
    fleet.apply(&manifest).await.unwrap();
    let reason = Reason::AddressNotAllowed;
    let message = fleet.wait_reason("system-0001", ConditionType::Stalled, reason).await.unwrap();
    says(&message, &["spec.bmc.address", "ipmi", "CVE-2013-4786", "redfish+https", "--allow-ipmi"]).unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn user_information_in_an_address_is_not_even_stored() {
    let fleet = Fleet::start(1).await.unwrap();
    let mut manifest = fleet.manifest("system-0001");
    for address in
        ["redfish+https://admin:geheim@127.0.0.1", "admin:geheim@127.0.0.1", "https:admin:geheim@h"]
    {
        manifest["spec"]["bmc"]["address"] = json!(address);
        let error = fleet.apply(&manifest).await.unwrap_err().to_string();
        says(&error, &["spec.bmc", "user information", "Secret of credentialsRef"]).unwrap();
        assert!(!error.contains("geheim"), "{error}");
        assert!(fleet.servers().get_opt("system-0001").await.unwrap().is_none());
    }
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_outside_of_bmc_cidr_is_left_alone_until_the_operator_allows_it() {
    let fleet = Fleet::start(1).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let flags = fleet.worker_flags().set("--bmc-cidr", "10.0.0.0/8");
    let narrow = fleet.worker_with("narrow", &flags, &[]).await.unwrap();
    fleet.declare("system-0001", json!({ "power": "PoweredOn" })).await.unwrap();
    let mut outside = fleet.manifest("system-0001");
    outside["metadata"]["name"] = json!("outside");
    outside["spec"]["bmc"]["address"] = json!("redfish+https://172.31.255.1");
    fleet.apply(&outside).await.unwrap();
    let of =
        async |name| fleet.wait_reason(name, ConditionType::Ready, Reason::AddressNotAllowed).await.unwrap();
    says(
        &of("system-0001").await,
        &["127.0.0.1", "loopback", "unless --bmc-cidr names a network within that range"],
    )
    .unwrap();
    says(&of("outside").await, &["172.31.255.1", "outside --bmc-cidr", "correct spec.bmc.address"]).unwrap();
    assert!(fleet.bmcs().requests("system-0001").await.unwrap().is_empty());
    narrow.process().stop(std::time::Duration::from_secs(20)).await.unwrap();
    let _wide = fleet.worker("wide").await.unwrap();
    fleet.wait_ready("system-0001").await.unwrap();
    fleet.end().await.unwrap();
}
