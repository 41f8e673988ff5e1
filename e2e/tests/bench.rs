//! `autobuild bench queue --quick` on both engines, and `autobuild bench fleet` on few servers: they measure everything,
//! account for every job, and leave nothing.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use e2e::control_plane::ControlPlane;
use e2e::database::{Database, Engine};
use serde_json::Value;
use sqlx::{Connection as _, MySqlConnection};
use tokio::process::{Child, Command};

/// For a debug build on a busy machine.
const LIMIT: Duration = Duration::from_mins(5);

fn bench(url: &str, args: &[&str]) -> Child {
    let mut command = Command::new(e2e::autobuild::binary().unwrap());
    command.args(["bench", "queue"]).args(args).env("DATABASE_URL", url).env("RUST_LOG", "warn");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().unwrap()
}

async fn end(child: Child) -> (Output, String) {
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it runs on").unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, text)
}

/// Somebody else's tables beside those of the benchmark, as they stand.
async fn bystander(database: &Database) -> String {
    let mut connection = MySqlConnection::connect(&database.url("")).await.unwrap();
    for statement in [
        "CREATE DATABASE IF NOT EXISTS autobuild",
        "CREATE TABLE IF NOT EXISTS autobuild.job (id INT PRIMARY KEY)",
        "INSERT IGNORE INTO autobuild.job VALUES (7)",
    ] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT CONCAT(CAST(table_schema AS CHAR), '.', CAST(table_name AS CHAR)) FROM information_schema.tables \
         WHERE table_schema NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema') ORDER BY 1",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let rows: Vec<i32> =
        sqlx::query_scalar("SELECT id FROM autobuild.job").fetch_all(&mut connection).await.unwrap();
    format!("{tables:?} {rows:?}")
}

/// The schemas of benchmarks that are on the server.
async fn schemas(database: &Database) -> Vec<String> {
    let mut connection = MySqlConnection::connect(&database.url("")).await.unwrap();
    sqlx::query_scalar(
        "SELECT CAST(schema_name AS CHAR) FROM information_schema.schemata WHERE schema_name LIKE 'autobuild\\_bench\\_%'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap()
}

fn figures(file: &Path) -> Vec<Value> {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

async fn a_quick_run_measures_everything_and_loses_nothing(engine: Engine) {
    let database = Database::start(engine).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (json, plots) = (dir.path().join("figures.json"), dir.path().join("plots"));
    let (file, folder) = (json.display().to_string(), plots.display().to_string());
    let before = bystander(&database).await;
    // The database that the URL names need not be there.
    let child = bench(&database.url("absent"), &["--quick", "--json", &file, "--plots", &folder]);
    let (output, text) = end(child).await;
    assert!(output.status.success(), "{text}");
    let list = figures(&json);
    let mut with_target = 0;
    for figure in &list {
        let keys: BTreeSet<&str> = figure.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, BTreeSet::from(["holds", "name", "target", "unit", "value"]), "{figure}");
        assert!(figure["name"].is_string() && figure["unit"].is_string(), "{figure}");
        assert!(figure["value"].as_f64().unwrap() >= 0.0, "{figure}");
        assert_eq!(figure["target"].is_string(), figure["holds"].is_boolean(), "{figure}");
        with_target += u32::from(figure["target"].is_string());
        assert!(text.contains(figure["name"].as_str().unwrap()), "the table lacks {figure}");
    }
    assert_eq!(with_target, 10, "{list:#?}");
    for name in ["lost", "doubled", "two at once"] {
        let figure = list.iter().find(|figure| figure["name"] == name).unwrap();
        assert_eq!((&figure["value"], &figure["holds"]), (&0.0.into(), &true.into()), "{text}");
    }
    assert!(text.contains("innodb_flush_log_at_trx_commit = "), "{text}");
    for name in ["throughput", "backlog", "urgent", "snapshot"] {
        let plot = std::fs::read_to_string(plots.join(name).with_extension("svg")).unwrap();
        assert!(plot.starts_with("<svg"), "{name}");
    }
    assert_eq!(schemas(&database).await, Vec::<String>::new());
    assert_eq!(bystander(&database).await, before, "another database was touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quick_run_on_mysql_measures_everything_and_loses_nothing() {
    a_quick_run_measures_everything_and_loses_nothing(Engine::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quick_run_on_mariadb_measures_everything_and_loses_nothing() {
    a_quick_run_measures_everything_and_loses_nothing(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_asked_to_end_drops_its_schemas() {
    let database = Database::start(Engine::MariaDb).await.unwrap();
    let child = bench(&database.url(""), &["--only", "single", "--seconds", "60"]);
    let there = async || Ok(!schemas(&database).await.is_empty());
    e2e::wait::wait_until("a schema of the benchmark", LIMIT, there).await.unwrap();
    let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let (output, text) = end(child).await;
    assert!(!output.status.success() && text.contains("asked to end"), "{text}");
    assert_eq!(schemas(&database).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes long: `make soak`"]
async fn a_small_fleet_is_measured_whole_and_nothing_of_it_is_left() {
    let plane = ControlPlane::start().await.unwrap();
    plane.apply_crds().await.unwrap();
    let database = Database::start(Engine::from_env().unwrap()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (json, plots) = (dir.path().join("figures.json"), dir.path().join("plots"));
    let mut command = Command::new(e2e::autobuild::binary().unwrap());
    command.args([
        "bench",
        "fleet",
        "--servers",
        "20",
        "--reimages",
        "30",
        "--parallel",
        "10",
        "--samples",
        "3",
    ]);
    command.args(["--in-flight", "5", "--slots", "8", "--json"]).arg(&json).arg("--plots").arg(&plots);
    command.env("DATABASE_URL", database.url("absent")).env("KUBECONFIG", plane.kubeconfig());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let (output, text) = end(command.spawn().unwrap()).await;
    assert!(output.status.success(), "{text}");
    let list = figures(&json);
    let value = |name: &str| {
        let found = list.iter().find(|figure| figure["name"] == name);
        found.and_then(|figure| figure["value"].as_f64()).unwrap_or_else(|| panic!("no {name} in {text}"))
    };
    assert_eq!((value("lost"), value("doubled")), (0.0, 0.0), "{text}");
    assert_eq!(value("reimaged: number").round() as u64, 30, "{text}");
    assert_eq!(value("installs in flight in one worker").round() as u64, 20, "{text}");
    for name in [
        "created to Ready",
        "idle: spec change to first BMC request, p99",
        "idle: BMC change to status, p99",
        "all powered off",
        "reimaged: status writes / raw limit",
        "urgent reboot: spec change to first BMC request, p99",
        "worker killed: taken over, p99",
        "installs in flight: the worker's memory, at its peak",
    ] {
        assert!(value(name) > 0.0, "{name}: {text}");
    }
    assert!(std::fs::read_to_string(plots.join("reimage.svg")).unwrap().starts_with("<svg"));
    assert_eq!(schemas(&database).await, Vec::<String>::new());
    let left = plane.kubectl().run(&["get", "namespaces", "-o", "name"]).await.unwrap();
    assert!(!left.contains("autobuild-bench-"), "{left}");
}

#[tokio::test]
async fn what_cannot_be_measured_is_said_in_one_line() {
    for (url, args, wanted) in [
        ("postgres://user:geheim@h/d", ["--quick"].as_slice(), "the scheme is not mysql"),
        ("mysql://user:geheim@127.0.0.1:1", &["--quick"], "the database does not answer"),
        ("mysql://user:geheim@127.0.0.1:1", &["--peer", "apalis"], "--features peer-apalis"),
        ("mysql://user:geheim@127.0.0.1:1", &["--seconds", "0"], "1..=60"),
        ("mysql://user:geheim@127.0.0.1:1", &["--only", "everything"], "possible values: enqueue"),
    ] {
        let (output, text) = end(bench(url, args)).await;
        assert!(!output.status.success() && text.contains(wanted), "{args:?}: {text}");
        assert!(!text.contains("geheim"), "{text}");
    }
}
