//! The harness itself: what it starts is real, and answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use e2e::control_plane::{ControlPlane, client};
use e2e::database::{Database, Engine};
use e2e::kubectl::Kubectl;
use e2e::wait::{Look, wait_for};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::Api;
use kube::api::{ListParams, ObjectMeta, PostParams};
use rstest::rstest;
use sqlx::{Connection, Executor, MySqlConnection, Row};
use std::time::Duration;

#[tokio::test]
async fn the_control_plane_serves_kubectl_and_deletes_namespaces() {
    let plane = ControlPlane::shared().await.unwrap();
    let name = plane.namespace("harness").await.unwrap();
    let kubectl = plane.kubectl();
    assert!(kubectl.run(&["get", "namespaces"]).await.unwrap().contains(&name));
    plane.delete_namespace(&name).await.unwrap();
    wait_for("the namespace to go", Duration::from_mins(1), || async {
        let output = kubectl.output(&["get", "namespace", &name]).await?;
        Ok(if output.stderr.contains("NotFound") { Look::Holds(()) } else { Look::NotYet(output.stdout) })
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_service_account_may_do_what_its_role_says_and_no_more() {
    let plane = ControlPlane::shared().await.unwrap();
    let namespace = plane.namespace("harness").await.unwrap();
    let admin = plane.admin().await.unwrap();
    let account = ServiceAccount {
        metadata: ObjectMeta { name: Some("reader".to_owned()), ..Default::default() },
        ..Default::default()
    };
    Api::namespaced(admin, &namespace).create(&PostParams::default(), &account).await.unwrap();
    let kubectl = plane.kubectl();
    kubectl
        .run(&["create", "role", "read", "--verb=list", "--resource=configmaps", "-n", &namespace])
        .await
        .unwrap();
    let subject = format!("--serviceaccount={namespace}:reader");
    kubectl.run(&["create", "rolebinding", "read", "--role=read", &subject, "-n", &namespace]).await.unwrap();

    let kubeconfig = plane.kubeconfig_for(&namespace, "reader").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client(&kubeconfig).await.unwrap(), &namespace);
    wait_for("the role to be known", Duration::from_secs(30), || async {
        Ok(Look::Holds(maps.list(&ListParams::default()).await?))
    })
    .await
    .unwrap();
    let refused = Kubectl::new(&kubeconfig).output(&["get", "secrets", "-n", &namespace]).await.unwrap();
    assert!(refused.stderr.contains("cannot list resource \"secrets\""), "{}", refused.stderr);
}

#[rstest]
#[case(Engine::MySql)]
#[case(Engine::MariaDb)]
#[tokio::test]
async fn a_database_is_the_engine_asked_for_and_keeps_commits_over_a_kill(#[case] engine: Engine) {
    let mut database = Database::start(engine).await.unwrap();
    let url = database.unique_schema("harness").await.unwrap();
    let mut connection = MySqlConnection::connect(&url).await.unwrap();
    connection.execute("CREATE TABLE t (a INT PRIMARY KEY)").await.unwrap();
    connection.execute("INSERT INTO t VALUES (7)").await.unwrap();
    let identity: String = connection.fetch_one("SELECT VERSION()").await.unwrap().get(0);
    assert_eq!(identity.contains("MariaDB"), engine == Engine::MariaDb, "{identity}");
    if !database.is_own() {
        return; // a server that the user named is not ours to kill
    }
    let pid = database.pid().unwrap();
    database.kill().await.unwrap();
    assert!(MySqlConnection::connect(&url).await.is_err());
    database.restart().await.unwrap();
    assert_ne!(database.pid().unwrap(), pid);
    let mut connection = MySqlConnection::connect(&url).await.unwrap();
    let kept: i32 = connection.fetch_one("SELECT a FROM t").await.unwrap().get(0);
    assert_eq!(kept, 7);
}

#[rstest]
#[case(Engine::MySql)]
#[case(Engine::MariaDb)]
#[tokio::test]
async fn nobody_logs_in_to_a_database_without_its_password(#[case] engine: Engine) {
    let database = Database::shared(engine).await.unwrap();
    if !database.is_own() {
        return;
    }
    let port = database.server().unwrap().port();
    for user in ["root", "autobuild"] {
        let url = format!("mysql://{user}@127.0.0.1:{port}/?ssl-mode=disabled");
        assert!(MySqlConnection::connect(&url).await.is_err(), "{user} logged in without a password");
    }
}

#[tokio::test]
async fn the_emulator_answers_over_http_and_tells_what_it_emulates() {
    let dir = e2e::paths::private("emulator").unwrap();
    let autobuild = e2e::autobuild::Autobuild::new(&dir, e2e::process::Lifetime::WithParent).unwrap();
    let emulator = autobuild.emulator(3, "user", "word", &[]).await.unwrap();
    let read =
        async |path: &str| e2e::autobuild::get(&format!("http://{}{path}", emulator.http())).await.unwrap();
    assert_eq!(read("/redfish/v1/").await.0, 200);
    assert_eq!(read("/redfish/v1/Systems").await.0, 401);
    let (status, systems) = read("/emulator/systems").await;
    assert!(
        status == 200 && systems.contains("system-0003") && !systems.contains("system-0004"),
        "{systems}"
    );
    assert!(std::fs::read_to_string(emulator.authority()).unwrap().contains("BEGIN CERTIFICATE"));
}
