//! One BMC, one Server: the second one is refused, and nothing that changes the machine is sent for it.

use anyhow::{Result, ensure};
use autobuild::api::Reason;
use autobuild::api::condition::ConditionType;
use e2e::autobuild::binary;
use e2e::fleet::{Fleet, LIMIT};
use e2e::kubectl::Kubectl;
use e2e::wait::{Look, wait_for};
use serde_json::{Value, json};

use crate::{Case, all, says};

/// The second Server of a system: another name, this address, and a wish.
fn second(fleet: &Fleet, system: &str, address: &str) -> Value {
    let mut manifest = fleet.manifest_with(system, &json!({ "power": "PoweredOn" }));
    manifest["metadata"]["name"] = json!(format!("second-{system}"));
    manifest["spec"]["bmc"]["address"] = json!(address);
    manifest
}

async fn refused_until_the_first_is_gone(
    fleet: &Fleet,
    system: &str,
    first: &str,
    other: &str,
) -> Result<()> {
    let mut holder = fleet.manifest(system);
    holder["spec"]["bmc"]["address"] = json!(first);
    fleet.apply(&holder).await?;
    fleet.wait_ready(system).await?;
    fleet.apply(&second(fleet, system, other)).await?;
    let name = format!("second-{system}");
    for kind in [ConditionType::Ready, ConditionType::Stalled] {
        let message = fleet.wait_reason(&name, kind, Reason::BMCClaimed).await?;
        says(
            &message,
            &["held by", &format!("Server {system:?}"), "Correct spec.bmc.address", "delete the other"],
        )?;
    }
    // A new wish changes nothing about it.
    fleet.change(&name, json!({ "rebootToken": "one" })).await?;
    fleet.wait_reason(&name, ConditionType::Stalled, Reason::BMCClaimed).await?;
    let changes = fleet.bmcs().changes(system).await?;
    ensure!(changes.is_empty(), "sent for the refused one: {changes:?}");
    fleet.change(&name, json!({ "rebootToken": null })).await?;
    fleet.delete(system).await?;
    fleet.wait_gone(system).await?;
    fleet.wait_ready(&name).await?;
    let resets = fleet.bmcs().resets(system).await?;
    ensure!(resets == ["on"], "the second asked for {resets:?}");
    Ok(())
}

async fn in_another_namespace(fleet: &Fleet, system: &str, elsewhere: &str) -> Result<()> {
    fleet.declare(system, json!({})).await?;
    fleet.wait_ready(system).await?;
    let own = fleet.manifest(system);
    let mut manifest = second(fleet, system, own["spec"]["bmc"]["address"].as_str().unwrap_or_default());
    manifest["metadata"]["namespace"] = json!(elsewhere);
    let kubectl = fleet.kubectl().in_namespace(elsewhere);
    kubectl.run_with_input(&["apply", "-f", "-"], &manifest.to_string()).await?;
    let name = format!("server/second-{system}");
    let wait = [
        "wait",
        "--for=jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}=BMCClaimed",
        &name,
        "--timeout=120s",
    ];
    kubectl.run(&wait).await?;
    let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].message}";
    let message = kubectl.run(&["get", &name, "-o", path]).await?;
    says(&message, &["held by another Server", "Correct spec.bmc.address"])?;
    ensure!(
        !message.contains(system) && !message.contains(fleet.namespace()),
        "it names the holder: {message}"
    );
    // Who may see the other namespace is told more.
    let binary = binary()?;
    let plugins = binary.parent().unwrap_or(&binary);
    let plugin = Kubectl::new(fleet.plane().kubeconfig()).with_plugins(plugins);
    let page = plugin.run(&["autobuild", "why", &format!("second-{system}"), "-n", elsewhere]).await?;
    says(&page, &[&format!("{system} (namespace {})", fleet.namespace())])?;
    // By another name of the BMC, and with a guess.
    let guess = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "autobuild.dev/bmc-credentials",
        "metadata": { "name": "guess" },
        "stringData": { "username": fleet.username(), "password": "a guess" }
    });
    kubectl.run_with_input(&["apply", "-f", "-"], &guess.to_string()).await?;
    let port = fleet.bmcs().https_of(system);
    let port = port.rsplit(':').next().unwrap_or_default();
    manifest["metadata"]["name"] = json!("alias");
    manifest["spec"]["bmc"] = json!({
        "address": format!("redfish+https://localhost:{port}/redfish/v1/Systems/{system}"),
        "credentialsRef": { "name": "guess" }
    });
    kubectl.run_with_input(&["apply", "-f", "-"], &manifest.to_string()).await?;
    kubectl.run(&[wait[0], wait[1], "server/alias", wait[3]]).await?;
    ensure!(fleet.bmcs().bad_logins(system).await? == 0, "it was tried at the BMC of another");
    let changes = fleet.bmcs().changes(system).await?;
    ensure!(changes.is_empty(), "sent for the refused one: {changes:?}");
    kubectl.run(&["delete", &name, "server/alias", "--timeout=120s"]).await?;
    Ok(())
}

/// What somebody wrote down without being able to log in keeps the BMC from nobody.
async fn written_down_first(fleet: &Fleet, system: &str, elsewhere: &str) -> Result<()> {
    let mut squatter = second(fleet, system, &format!("redfish+https://{}", fleet.bmcs().https_of(system)));
    squatter["metadata"]["namespace"] = json!(elsewhere);
    squatter["spec"]["bmc"]["credentialsRef"]["name"] = json!("nothing");
    let kubectl = fleet.kubectl().in_namespace(elsewhere);
    kubectl.run_with_input(&["apply", "-f", "-"], &squatter.to_string()).await?;
    let name = format!("server/second-{system}");
    let reason =
        |reason: &str| format!("--for=jsonpath={{.status.conditions[?(@.type==\"Ready\")].reason}}={reason}");
    kubectl.run(&["wait", &reason("CredentialsMissing"), &name, "--timeout=120s"]).await?;
    fleet.declare(system, json!({})).await?;
    fleet.wait_ready(system).await?;
    kubectl.run(&["delete", &name, "--timeout=120s"]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_server_of_a_bmc_is_refused_however_it_spells_the_address_until_the_first_is_gone() {
    let fleet = Fleet::start(8).await.unwrap();
    let elsewhere = fleet.cluster().namespace("elsewhere").await.unwrap();
    let both = format!("{},{elsewhere}", fleet.namespace());
    let flags = fleet.controller_flags().set("--watch-namespaces", both);
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let fleet = &fleet;
    let path = |system: &str| format!("/redfish/v1/Systems/{system}");
    let host = |system: &str| fleet.bmcs().https_of(system);
    let port = |system: &str| host(system).rsplit(':').next().unwrap().to_owned();
    let plain = |system: &str| format!("redfish+https://{}{}", host(system), path(system));
    let case = |system: &'static str, first: String, other: String| async move {
        refused_until_the_first_is_gone(fleet, system, &first, &other).await
    };
    let s = ["system-0001", "system-0002", "system-0003", "system-0004", "system-0005", "system-0006"];
    let mapped = format!("redfish+https://[::ffff:127.0.0.1]:{}{}/", port(s[1]), path(s[1]));
    let by_name = |system: &str| format!("redfish+https://localhost:{}{}", port(system), path(system));
    let upper = format!("redfish+https://LOCALHOST.:{}{}/", port(s[2]), path(s[2]));
    let cases: Vec<Case<'_>> = vec![
        ("the same text", Box::pin(case(s[0], plain(s[0]), plain(s[0])))),
        ("a mapped address and a trailing slash", Box::pin(case(s[1], plain(s[1]), mapped))),
        ("upper case", Box::pin(case(s[2], by_name(s[2]), upper))),
        ("by address and by name", Box::pin(case(s[3], plain(s[3]), by_name(s[3])))),
        (
            "a system and the whole host",
            Box::pin(case(s[4], plain(s[4]), format!("redfish+https://{}", host(s[4])))),
        ),
        (
            "the whole host and a system",
            Box::pin(case(s[5], format!("redfish+https://{}", host(s[5])), plain(s[5]))),
        ),
        ("another namespace", Box::pin(in_another_namespace(fleet, "system-0007", &elsewhere))),
        ("who only wrote it down", Box::pin(written_down_first(fleet, "system-0008", &elsewhere))),
    ];
    all(cases).await;
    fleet.end().await.unwrap();
}

/// Whoever may never speak to a BMC does not stand in its line, where a turn would be kept for it while the owner waits.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_server_of_a_bmc_is_refused_while_the_first_one_has_the_turn_there() {
    let fleet = Fleet::start(1).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    // What hangs does so for longer than anything here takes.
    let flags = fleet.worker_flags().with(&[("--request-timeout", "10m"), ("--shutdown-deadline", "1s")]);
    let _worker = fleet.worker_with("worker", &flags, &[]).await.unwrap();
    let owner = "system-0001";
    fleet.declare(owner, json!({})).await.unwrap();
    fleet.wait_ready(owner).await.unwrap();
    fleet.bmcs().misbehave(owner, json!({ "kind": "Hang" })).await.unwrap();
    fleet.change(owner, json!({ "power": "PoweredOn" })).await.unwrap();
    wait_for("the owner to have the turn", LIMIT, async || {
        let asked = fleet.bmcs().requests(owner).await?.into_iter().next_back();
        let is_so = asked.as_ref().is_some_and(|asked| asked.answered_ms.is_none());
        Ok(if is_so { Look::Holds(()) } else { Look::NotYet(format!("{asked:?}")) })
    })
    .await
    .unwrap();
    let port = fleet.bmcs().https_of(owner);
    let port = port.rsplit(':').next().unwrap();
    let by_name = format!("redfish+https://localhost:{port}/redfish/v1/Systems/{owner}");
    fleet.apply(&second(&fleet, owner, &by_name)).await.unwrap();
    fleet.wait_reason("second-system-0001", ConditionType::Stalled, Reason::BMCClaimed).await.unwrap();
    let log = fleet.bmcs().requests(owner).await.unwrap();
    assert!(log.last().is_some_and(|asked| asked.answered_ms.is_none()), "the owner had left: {log:?}");
    fleet.end().await.unwrap();
}
