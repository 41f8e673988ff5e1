//! Passwords stay where they belong: with their namespace, and in no place that anybody reads.

use anyhow::{Context as _, Result, ensure};
use autobuild::api::Reason;
use autobuild::api::condition::ConditionType;
use autobuild::job::{Action, JobResult};
use e2e::autobuild::Running;
use e2e::fleet::{Fleet, Layout};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::steps::{asked_for, ended, handled, system};

/// What anybody on the machine can read of a process, and its page for Prometheus.
async fn visible(running: &Running) -> Result<String> {
    let proc = format!("/proc/{}/cmdline", running.process().pid());
    let line = std::fs::read(&proc).context(proc)?;
    let (status, page) = running.get("/metrics").await?;
    ensure!(status == 200, "/metrics answered {status}");
    let (_, ready) = running.get("/readyz").await?;
    Ok(format!("{}\n{page}\n{ready}", String::from_utf8_lossy(&line).replace('\0', " ")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_in_no_log_table_object_page_or_command_line() {
    let fleet = Fleet::with(Layout::new(3).emulator(&["--initial-power", "on"])).await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "2s");
    // As chatty as it gets.
    let chatty = [("RUST_LOG", "trace")];
    let controller = fleet.controller_with("controller", &flags, &chatty).await.unwrap();
    let worker = fleet.worker_with("worker", &fleet.worker_flags(), &chatty).await.unwrap();
    let (well, wrong, lying) = (system(1), system(2), system(3));
    fleet.bmcs().set_credentials(&wrong, "somebody", "else").await.unwrap();
    for name in [&well, &wrong, &lying] {
        fleet.declare(name, json!({ "power": "PoweredOn" })).await.unwrap();
    }
    fleet.wait_reason(&wrong, ConditionType::Stalled, Reason::CredentialsInvalid).await.unwrap();
    for name in [&well, &lying] {
        fleet.wait_ready(name).await.unwrap();
    }
    // A BMC that answers with what it was told, as some do in their errors.
    let echo = json!({ "kind": "Status", "status": 400, "body": format!("bad login {}", fleet.password()) });
    fleet.bmcs().fault(json!({ "system": lying, "method": "POST", "behaviour": echo })).await.unwrap();
    fleet.change(&lying, json!({ "power": "PoweredOff" })).await.unwrap();
    fleet.change(&well, json!({ "rebootToken": "one" })).await.unwrap();
    handled(&fleet, &well, "one").await.unwrap();
    fleet
        .wait(&lying, "a failed power-off", |server| {
            let last = server.status.as_ref().and_then(|status| status.last_job.as_ref());
            last.is_some_and(|last| last.action == Action::PowerOff && last.result == JobResult::Failed)
        })
        .await
        .unwrap();
    let key = std::fs::read_to_string(fleet.dir().join("login.key")).unwrap();
    assert!(
        !fleet.records().dump().await.unwrap().contains(key.trim()),
        "the key of the hashes is in a table"
    );
    let core = fleet.password().split(['?', '&']).nth(1).unwrap();
    let database = url::Url::parse(fleet.database_url()).unwrap();
    for (who, running) in [("controller", &controller), ("worker", &worker)] {
        let text = visible(running).await.unwrap();
        assert!(!text.contains(core), "the BMC's password is visible of the {who}");
        let secret = database.password().filter(|password| !password.is_empty());
        assert!(secret.is_none_or(|secret| !text.contains(secret)), "the database's is, of the {who}");
    }
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_never_uses_the_secret_of_another_namespace() {
    let fleet = Fleet::with(Layout::new(1).emulator(&["--initial-power", "on"])).await.unwrap();
    let other = fleet.cluster().namespace("tenant").await.unwrap();
    let both = format!("{},{other}", fleet.namespace());
    let flags = fleet.controller_flags().set("--watch-namespaces", both);
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    // The same name as the Secret of the fleet's own namespace, which would open this BMC.
    let mut manifest = fleet.manifest_with(&name, &json!({ "power": "PoweredOff" }));
    manifest["metadata"]["namespace"] = json!(other);
    manifest["spec"]["bmc"]["tls"] = json!(null);
    let servers: Api<autobuild::api::Server> = Api::namespaced(fleet.client(), &other);
    manifest["spec"].as_object_mut().unwrap()["bmc"].as_object_mut().unwrap().remove("tls");
    servers.patch(&name, &PatchParams::apply("e2e"), &Patch::Apply(&manifest)).await.unwrap();
    let stalled = e2e::wait::wait_for("CredentialsMissing", e2e::fleet::LIMIT, async || {
        let server = servers.get(&name).await?;
        Ok(match e2e::fleet::message(&server, ConditionType::Stalled, Reason::CredentialsMissing) {
            Some(message) => e2e::wait::Look::Holds(message),
            None => e2e::wait::Look::NotYet(e2e::fleet::describe(&server)),
        })
    })
    .await
    .unwrap();
    assert!(stalled.contains("in this namespace"), "{stalled}");
    assert_eq!(fleet.bmcs().requests(&name).await.unwrap().len(), 0, "its BMC was asked");
    asked_for(&fleet, &name, &[]).await.unwrap();
    // The worker reads Secrets of that namespace only when a Server there names them.
    let secrets: Api<Secret> = Api::namespaced(fleet.client(), &other);
    assert!(
        secrets
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .iter()
            .all(|one| one.type_.as_deref() != Some("autobuild.dev/bmc-credentials"))
    );
    // The owner of the Secret is served as ever, once the other one let go.
    servers.delete(&name, &DeleteParams::default()).await.unwrap();
    e2e::wait::wait_until("the other tenant's Server to be gone", e2e::fleet::LIMIT, async || {
        Ok(servers.get_opt(&name).await?.is_none())
    })
    .await
    .unwrap();
    fleet.declare(&name, json!({ "power": "PoweredOff" })).await.unwrap();
    ended(&fleet, &name, Action::PowerOff, JobResult::Succeeded).await.unwrap();
    fleet.end().await.unwrap();
}
