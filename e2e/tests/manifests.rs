//! The install manifests: they apply to a real API server, and grant what they say and no more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use autobuild::api::Server;
use clap::Parser;
use e2e::control_plane::{ControlPlane, client};
use e2e::dnsmasq::{Dnsmasq, Firmware, Told};
use e2e::fleet::LIMIT;
use e2e::paths;
use e2e::wait::{Look, wait_for};
use kube::api::{Api, Patch, PatchParams};
use serde::Deserialize as _;

#[tokio::test]
async fn the_manifests_apply_cleanly() {
    let plane = ControlPlane::shared().await.unwrap();
    let kubectl = plane.kubectl();
    // A dry run creates no namespace and no definition that later objects could need.
    plane.apply_crds().await.unwrap();
    plane.apply_access(&["default"]).await.unwrap();
    let dir = paths::root().join("manifests").display().to_string();
    let said = kubectl.output(&["apply", "--server-side", "--dry-run=server", "-k", &dir]).await.unwrap();
    assert!(said.success, "{}", said.stderr);
    assert!(!said.stderr.contains("would violate PodSecurity"), "{}", said.stderr);
    for wanted in [
        "serviceaccount/autobuild-controller",
        "serviceaccount/autobuild-worker",
        "serviceaccount/autobuild-boot",
        "serviceaccount/autobuild-migrate",
        "deployment.apps/autobuild-controller",
        "deployment.apps/autobuild-worker",
        "deployment.apps/autobuild-boot",
        "networkpolicy.networking.k8s.io/autobuild-boot",
        "networkpolicy.networking.k8s.io/autobuild-controller",
        "networkpolicy.networking.k8s.io/autobuild-worker",
        "job.batch/autobuild-migrate",
        "validatingadmissionpolicy.admissionregistration.k8s.io/autobuild-status",
        "validatingadmissionpolicybinding.admissionregistration.k8s.io/autobuild-status",
    ] {
        assert!(said.stdout.contains(wanted), "{wanted} is not in\n{}", said.stdout);
    }
}

#[tokio::test]
async fn the_examples_are_valid_servers() {
    let plane = ControlPlane::shared().await.unwrap();
    plane.apply_crds().await.unwrap();
    let dir = paths::root().join("manifests/examples").display().to_string();
    let said =
        plane.kubectl().output(&["apply", "--server-side", "--dry-run=server", "-f", &dir]).await.unwrap();
    assert!(said.success, "{}", said.stderr);
    assert_eq!(
        said.stdout.lines().filter(|line| line.starts_with("server.autobuild.dev/")).count(),
        10,
        "{}",
        said.stdout
    );
}

#[tokio::test]
async fn each_role_may_do_what_the_design_says_and_no_more() {
    let plane = ControlPlane::shared().await.unwrap();
    plane.apply_crds().await.unwrap();
    plane.apply_access(&["default"]).await.unwrap();
    let kubectl = plane.kubectl();
    let (yes, no) = ("yes", "no");
    for (account, verb, resource, namespace, answer) in [
        ("controller", "watch", "servers.autobuild.dev", "default", yes),
        ("controller", "patch", "servers.autobuild.dev/status", "default", yes),
        ("controller", "update", "servers.autobuild.dev", "default", no),
        ("controller", "delete", "servers.autobuild.dev", "default", no),
        ("controller", "watch", "servers.autobuild.dev", "kube-system", no),
        ("controller", "watch", "osimages.autobuild.dev", "default", yes),
        ("controller", "patch", "osimages.autobuild.dev", "default", no),
        ("worker", "get", "osimages.autobuild.dev", "default", yes),
        ("boot", "get", "osimages.autobuild.dev", "default", yes),
        ("boot", "get", "secrets", "default", yes),
        ("boot", "list", "secrets", "default", no),
        ("boot", "patch", "servers.autobuild.dev", "default", no),
        ("controller", "get", "secrets", "default", no),
        ("controller", "list", "secrets", "default", yes),
        ("controller", "list", "secrets", "autobuild-system", no),
        ("controller", "get", "configmaps", "default", no),
        ("controller", "create", "events.events.k8s.io", "default", yes),
        ("controller", "update", "leases.coordination.k8s.io/autobuild-controller", "autobuild-system", yes),
        ("controller", "update", "leases.coordination.k8s.io/other", "autobuild-system", no),
        ("worker", "get", "servers.autobuild.dev", "default", yes),
        ("worker", "list", "servers.autobuild.dev", "default", no),
        ("worker", "patch", "servers.autobuild.dev/status", "default", no),
        ("worker", "get", "secrets", "default", yes),
        ("worker", "list", "secrets", "default", no),
        ("worker", "get", "secrets", "kube-system", no),
        ("worker", "get", "configmaps", "default", yes),
        ("migrate", "get", "servers.autobuild.dev", "default", no),
        ("migrate", "get", "secrets", "default", no),
    ] {
        let user = format!("--as=system:serviceaccount:autobuild-system:autobuild-{account}");
        // `type/name` is a name for kubectl; a subresource goes by its flag.
        let (resource, subresource) = match resource.strip_suffix("/status") {
            Some(resource) => (resource, "--subresource=status"),
            None => (resource, "--subresource="),
        };
        let said = kubectl
            .output(&["auth", "can-i", verb, resource, subresource, "-n", namespace, &user])
            .await
            .unwrap();
        assert_eq!(
            said.stdout.trim(),
            answer,
            "{account}: {verb} {resource} in {namespace}: {}",
            said.stderr
        );
    }
}

#[tokio::test]
async fn nobody_but_the_controller_writes_status_whatever_name_he_writes_it_under() {
    let plane = ControlPlane::shared().await.unwrap();
    plane.apply_crds().await.unwrap();
    let namespace = plane.namespace("status").await.unwrap();
    plane.apply_access(&[&namespace]).await.unwrap();
    let kubectl = plane.kubectl().in_namespace(&namespace);
    let manifest = paths::root().join("manifests/examples/01-adopt.yaml").display().to_string();
    kubectl.run(&["apply", "-f", &manifest]).await.unwrap();
    let policy = paths::root().join("manifests/status-policy").display().to_string();
    kubectl.run(&["apply", "--server-side", "-k", &policy]).await.unwrap();
    let write = ["patch", "server", "rack1-01", "--subresource=status", "--type=merge", "--dry-run=server"];
    let status = r#"{"status":{"observedGeneration":1}}"#;
    // As whoever may do everything, under the name of the controller's fields.
    let forged = [&write[..], &["--field-manager=autobuild-controller", "-p", status]].concat();
    let refused = wait_for("the policy to be in force", LIMIT, async || {
        let said = kubectl.output(&forged).await?;
        Ok(if said.success { Look::NotYet(said.stdout) } else { Look::Holds(said.stderr) })
    })
    .await
    .unwrap();
    assert!(refused.contains("AutoBuild's controller") && refused.contains("in spec"), "{refused}");
    let controller = plane.kubeconfig_for("autobuild-system", "autobuild-controller").await.unwrap();
    let servers: Api<Server> = Api::namespaced(client(&controller).await.unwrap(), &namespace);
    let status = Patch::Merge(serde_json::json!({ "status": { "observedGeneration": 1 } }));
    servers.patch_status("rack1-01", &PatchParams::default(), &status).await.unwrap();
    // Spec is everybody's who has the right.
    let spec = r#"{"spec":{"paused":true}}"#;
    kubectl.run(&["patch", "server", "rack1-01", "--type=merge", "-p", spec]).await.unwrap();
    kubectl.run(&["delete", "-k", &policy]).await.unwrap();
}

#[test]
fn the_list_of_watched_namespaces_is_the_list_of_their_roles() {
    let dir = paths::root().join("manifests/watched");
    let text = std::fs::read_to_string(dir.join("kustomization.yaml")).unwrap();
    let list: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let folders: Vec<&str> =
        list["resources"].as_sequence().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    let names =
        list["configMapGenerator"][0]["literals"][0].as_str().unwrap().strip_prefix("namespaces=").unwrap();
    assert_eq!(folders, names.split(',').collect::<Vec<_>>());
    for folder in folders {
        let text = std::fs::read_to_string(dir.join(folder).join("kustomization.yaml")).unwrap();
        let one: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(one["namespace"].as_str().unwrap(), folder);
    }
}

/// The object of a file that has pods.
fn deployment(file: &str) -> serde_yaml::Value {
    let text = std::fs::read_to_string(paths::root().join(format!("manifests/{file}.yaml"))).unwrap();
    serde_yaml::Deserializer::from_str(&text)
        .map(|object| serde_yaml::Value::deserialize(object).unwrap())
        .find(|object| object["spec"]["template"].is_mapping())
        .unwrap()
}

#[test]
fn the_binary_takes_the_arguments_of_the_manifests() {
    for file in ["controller", "worker", "boot", "migrate"] {
        let object = deployment(file);
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        let args = container["args"].as_sequence().unwrap().iter().map(|one| one.as_str().unwrap());
        let args = args.map(|arg| arg.replace("$(WATCH_NAMESPACES)", "default,rack-1"));
        let line = std::iter::once("autobuild".to_owned()).chain(args);
        if let Err(error) = autobuild::cmd::Cli::try_parse_from(line) {
            panic!("manifests/{file}.yaml: {error}");
        }
    }
}

#[test]
fn a_worker_has_more_time_to_end_than_it_takes() {
    let object = deployment("worker");
    let pod = &object["spec"]["template"]["spec"];
    let args = pod["containers"][0]["args"].as_sequence().unwrap();
    let grace = args.iter().find_map(|arg| arg.as_str()?.strip_prefix("--grace=")).unwrap();
    let grace = autobuild::config::duration(grace).unwrap();
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > grace.as_secs());
}

/// A configuration of `manifests/dnsmasq` with the networks of loopback.
fn on_loopback(name: &str) -> String {
    let text = std::fs::read_to_string(paths::root().join("manifests/dnsmasq").join(name)).unwrap();
    let here = text
        .replace("192.0.2.0,proxy", "127.0.0.0,proxy")
        .replace("192.0.2.100,192.0.2.200,255.255.255.0", "127.0.0.100,127.0.0.200,255.0.0.0");
    assert_ne!(here, text, "{name} has other networks by now");
    // Its port is no free one, and its folder is not here.
    here.replace("enable-tftp\ntftp-root=/srv/tftp\n", "")
}

#[tokio::test]
async fn the_configurations_of_dnsmasq_are_ones_that_it_takes() {
    let program = e2e::dnsmasq::program().unwrap();
    for name in ["proxy.conf", "full.conf"] {
        let file = paths::root().join("manifests/dnsmasq").join(name);
        let mut command = tokio::process::Command::new(&program);
        let said = command.arg("--test").arg("-C").arg(&file).output().await.unwrap();
        assert!(said.status.success(), "{name}: {}", String::from_utf8_lossy(&said.stderr));
    }
}

#[tokio::test]
async fn dnsmasq_leads_each_firmware_to_ipxe_and_ipxe_to_the_boot_service() {
    let firmware = |vendor, arch| Firmware { vendor, arch, user_class: None };
    let ipxe = |arch| Firmware { user_class: Some("iPXE"), ..firmware("PXEClient", arch) };
    let file = |told: Option<Told>| told.map(|told| told.file);
    let script = Some("http://192.0.2.5:8081/boot.ipxe".to_owned());
    let dir = paths::private("dnsmasq").unwrap();

    let full = Dnsmasq::start(&dir.join("full"), &on_loopback("full.conf")).await.unwrap();
    for (arch, program) in [(0, "undionly.kpxe"), (7, "ipxe.efi"), (9, "ipxe.efi")] {
        let told = full.offer(firmware("PXEClient", arch)).await.unwrap();
        assert_eq!(file(told).as_deref(), Some(program), "{arch}");
        assert_eq!(file(full.offer(ipxe(arch)).await.unwrap()), script, "{arch}");
    }
    let told = full.offer(firmware("HTTPClient", 16)).await.unwrap().unwrap();
    assert_eq!(
        (told.file.as_str(), told.vendor.as_str()),
        ("http://192.0.2.5:8082/snponly.efi", "HTTPClient")
    );
    drop(full);

    let proxy = Dnsmasq::start(&dir.join("proxy"), &on_loopback("proxy.conf")).await.unwrap();
    // A BIOS takes the first item of the menu, UEFI asks without one.
    for (arch, item, program) in
        [(0, Some(0x8000), "undionly.kpxe"), (7, None, "ipxe.efi"), (9, None, "ipxe.efi")]
    {
        let offered = proxy.offer(firmware("PXEClient", arch)).await.unwrap();
        assert_eq!(file(offered).as_deref(), Some(""), "{arch}: the boot server tells");
        let told = proxy.boot_server(firmware("PXEClient", arch), item).await.unwrap();
        assert_eq!(file(told).as_deref(), Some(program), "{arch}");
        assert_eq!(file(proxy.offer(ipxe(arch)).await.unwrap()), script, "{arch}");
    }
    assert_eq!(proxy.offer(firmware("HTTPClient", 16)).await.unwrap(), None);
}
