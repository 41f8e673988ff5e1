//! What the release before left in the database: read by this one, which begins nothing because of it.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use autobuild::api::{ImageKind, Server};
use autobuild::job::{Action, Contents, LiveJob, SecretVersion, ServerUid};
use autobuild::plan::{Command, Facts, explain};
use autobuild::queue::{Queue, Seen};
use e2e::autobuild::Autobuild;
use e2e::database::{Database, Engine};
use e2e::fleet::{Fleet, LIMIT};
use e2e::paths;
use e2e::process::Lifetime;
use e2e::wait::{Look, wait_for};
use kube::api::ListParams;
use rstest::rstest;
use serde_json::{Value, json};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, Row as _};

use crate::side_by_side::{Release, Site};

/// The schema of the release before.
const SCHEMA: i64 = 13;

const INSTALLED: &str = "system-0001";
const FAILED: &str = "system-0002";
const REBOOTED: &str = "system-0003";
const OFF: &str = "system-0004";
const IN_INSTALLER: &str = "system-0005";
const NEVER_BOOTED: &str = "system-0006";
const BEING_REBOOTED: &str = "system-0007";
const SILENT: &str = "system-0008";
const QUEUED: &str = "system-0009";
const SYSTEMS: u32 = 9;

/// Where the rows and the objects are kept.
fn kept(file: &str) -> PathBuf {
    paths::root().join("e2e/release_before").join(file)
}

#[rstest]
#[case::mysql(Engine::MySql)]
#[case::mariadb(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_the_release_before_are_read_and_nothing_is_begun_because_of_them(#[case] engine: Engine) {
    if crate::is_left_out(engine) {
        return;
    }
    let database = Database::shared(engine).await.unwrap();
    let url = database.unique_schema("rows").await.unwrap();
    let mut connection = MySqlConnection::connect(&url).await.unwrap();
    let migrator = Migrator::new(paths::root().join("migrations")).await.unwrap();
    migrator.run_to(SCHEMA, &mut connection).await.unwrap();
    let rows = std::fs::read_to_string(kept("rows.sql")).unwrap();
    sqlx::raw_sql(AssertSqlSafe(rows)).execute(&mut connection).await.unwrap();
    let dir = paths::private("rows").unwrap();
    Autobuild::new(&dir, Lifetime::WithParent).unwrap().migrate(&url).await.unwrap();

    let queue = Queue::connect(&url, 2).await.unwrap();
    let objects: Vec<Server> =
        serde_json::from_str(&std::fs::read_to_string(kept("servers.json")).unwrap()).unwrap();
    assert_eq!(objects.len(), SYSTEMS as usize);
    let now = "SELECT CAST(MAX(last_try_ms) AS SIGNED) FROM server_state";
    let now_ms: i64 = sqlx::query_scalar(now).fetch_one(&mut connection).await.unwrap();
    let mut digest = None;
    for server in objects {
        let name = server.metadata.name.clone().unwrap();
        let seen = queue.observe(&ServerUid(server.metadata.uid.clone().unwrap())).await.unwrap();
        assert_eq!(seen.unreadable, None, "{name}");
        check(&name, &seen);
        if let Some(Contents::Image(image)) = seen.known.as_ref().and_then(|known| known.contents.as_ref()) {
            digest = Some(image.digest.clone());
        }
        let facts = Facts {
            now_ms,
            known: seen.known,
            job: seen.job,
            visibility: seen.visibility,
            image_digest: digest.clone(),
            image_kind: Some(ImageKind::Network),
            secret: Some(SecretVersion { uid: "s".into(), resource_version: "1".into() }),
            ..Facts::default()
        };
        let command = explain(&facts.about(server)).decision.command;
        // A look harms nobody, and one that was going on may be asked to stop.
        let harmless = match &command {
            Command::Nothing(_) | Command::ClaimBmc { .. } | Command::WakeJob { .. } => true,
            Command::Enqueue(work) => work.action == Action::Inspect,
            _ => false,
        };
        assert!(harmless, "{name}: {command:?}");
    }
    queue.close().await;
}

/// What stood there when the release before was stopped.
fn check(name: &str, seen: &Seen) {
    let known = seen.known.as_ref().unwrap();
    let job = seen.job.as_ref().map(|job| job.action);
    let is_image = matches!(known.contents, Some(Contents::Image(_)));
    let failed = known.failure.as_ref().map(|failure| failure.action);
    match name {
        INSTALLED => assert!(is_image && job.is_none() && failed.is_none(), "{seen:?}"),
        FAILED => {
            assert_eq!((job, failed), (None, Some(Action::Build)));
            assert!(known.failure.as_ref().unwrap().cause.is_of_earlier_release());
            assert!(matches!(known.contents, Some(Contents::Unknown { .. })), "{seen:?}");
        }
        REBOOTED => assert_eq!((job, known.handled.reboot.len()), (None, 1)),
        OFF => assert!(job.is_none() && known.last_job.is_some(), "{seen:?}"),
        IN_INSTALLER | NEVER_BOOTED => {
            assert_eq!((job, failed), (Some(Action::Build), None));
            assert!(seen.job.as_ref().unwrap().request_stored);
        }
        BEING_REBOOTED => {
            assert_eq!(job, Some(Action::Reboot));
            assert!(seen.job.as_ref().unwrap().problem.is_some(), "{seen:?}");
        }
        SILENT => assert!(known.unanswered.is_some(), "{seen:?}"),
        QUEUED => assert_eq!(seen.job.as_ref().map(LiveJob::started), Some(false)),
        other => panic!("{other} is nowhere here"),
    }
}

/// Writes what the test above reads: `UPDATE_GENERATED=1`, and read what comes of it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it builds the release before: make soak"]
async fn the_release_before_leaves_rows() {
    let mut site = Site::start(Engine::MySql, SYSTEMS, e2e::fleet::QUICK_INSTALLS).await;
    let before = site.run(Release::Before).await;
    let fleet = &site.fleet;
    let image = json!({ "image": { "name": "debian-12" } });
    let rule = |name: &str, behaviour: Value| json!({ "system": name, "behaviour": behaviour });
    for (name, behaviour) in [
        (FAILED, json!({ "kind": "Fail", "reason": "no disk was found" })),
        (IN_INSTALLER, json!({ "kind": "Hang", "at_percent": 40 })),
        (NEVER_BOOTED, json!({ "kind": "StayInPost" })),
    ] {
        fleet.bmcs().host_rule(rule(name, behaviour)).await.unwrap();
    }
    for name in [INSTALLED, FAILED, IN_INSTALLER, NEVER_BOOTED] {
        fleet.declare(name, image.clone()).await.unwrap();
    }
    for name in [REBOOTED, OFF, BEING_REBOOTED, SILENT] {
        fleet.declare(name, json!({ "power": "PoweredOn" })).await.unwrap();
    }
    for name in [INSTALLED, REBOOTED, OFF, BEING_REBOOTED, SILENT] {
        fleet.wait_ready(name).await.unwrap();
    }
    let busy = json!({ "kind": "Status", "status": 503 });
    fleet.bmcs().fault(rule(BEING_REBOOTED, busy)).await.unwrap();
    fleet.bmcs().fault(rule(SILENT, json!({ "kind": "Hang" }))).await.unwrap();
    fleet.declare(QUEUED, json!({ "site": "elsewhere" })).await.unwrap();
    fleet.change(OFF, json!({ "power": "PoweredOff" })).await.unwrap();
    fleet.change(SILENT, json!({ "power": "PoweredOff" })).await.unwrap();
    for name in [REBOOTED, BEING_REBOOTED] {
        fleet.change(name, json!({ "rebootToken": "one" })).await.unwrap();
    }
    for (name, holds) in [
        (REBOOTED, "handled LIKE '%one%' AND job.id IS NULL"),
        (OFF, "reading LIKE '%PoweredOff%' AND job.id IS NULL"),
        (FAILED, "failure IS NOT NULL AND job.id IS NULL"),
        (BEING_REBOOTED, "job.reason IS NOT NULL AND job.owner IS NULL"),
        (SILENT, "unanswered IS NOT NULL"),
        (IN_INSTALLER, "job.step = 'AwaitInstall' AND job.owner IS NULL"),
        (NEVER_BOOTED, "job.request_stored = 1 AND job.owner IS NULL"),
        (QUEUED, "job.id IS NOT NULL"),
    ] {
        until(fleet, name, holds).await;
    }
    let mut before = before;
    before.kill().await;
    let (rows, servers) = (rows(&site.fleet).await.unwrap(), servers(&site.fleet).await.unwrap());
    for word in [site.fleet.password(), site.fleet.username()] {
        assert!(!rows.contains(word) && !servers.contains(word));
    }
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(kept("rows.sql"), rows).unwrap();
        std::fs::write(kept("servers.json"), servers).unwrap();
    }
}

async fn until(fleet: &Fleet, name: &str, holds: &str) {
    let text = format!(
        "SELECT COUNT(*) FROM server_state LEFT JOIN job ON job.server_uid = server_state.server_uid \
         WHERE server_state.name = '{name}' AND {holds}"
    );
    wait_for(&format!("{name}: {holds}"), LIMIT, async || {
        let query = sqlx::query_scalar(AssertSqlSafe(text.clone()));
        let found: i64 = query.fetch_one(fleet.records().pool()).await?;
        Ok(if found == 1 { Look::Holds(()) } else { Look::NotYet("not yet".to_owned()) })
    })
    .await
    .unwrap();
}

/// One statement for each row, with the names of its columns, as either engine takes it.
async fn rows(fleet: &Fleet) -> Result<String> {
    let pool = fleet.records().pool();
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT CAST(table_name AS CHAR) FROM information_schema.tables WHERE table_schema = DATABASE() \
         AND table_name NOT IN ('_sqlx_migrations', 'login') ORDER BY table_name",
    )
    .fetch_all(pool)
    .await?;
    let mut text =
        String::from("-- Left by the release before; written by `the_release_before_leaves_rows`.\n");
    for table in tables {
        let columns: Vec<String> = sqlx::query_scalar(
            "SELECT CAST(column_name AS CHAR) FROM information_schema.columns \
             WHERE table_schema = DATABASE() AND table_name = ? ORDER BY ordinal_position",
        )
        .bind(&table)
        .fetch_all(pool)
        .await?;
        let quoted: Vec<String> = columns
            .iter()
            .map(|column| format!("QUOTE(CONVERT(`{column}` USING utf8mb4)) AS `{column}`"))
            .collect();
        let sql = format!("SELECT {} FROM `{table}`", quoted.join(", "));
        for row in sqlx::query(AssertSqlSafe(sql)).fetch_all(pool).await? {
            let values: Result<Vec<String>, _> =
                columns.iter().map(|column| row.try_get::<String, _>(column.as_str())).collect();
            writeln!(text, "REPLACE INTO {table} ({}) VALUES ({});", columns.join(", "), values?.join(", "))?;
        }
    }
    Ok(text)
}

/// The objects, without what the API server keeps of who wrote what.
async fn servers(fleet: &Fleet) -> Result<String> {
    let mut all = Vec::new();
    for mut server in fleet.servers().list(&ListParams::default()).await?.items {
        server.metadata.managed_fields = None;
        all.push(server);
    }
    Ok(serde_json::to_string_pretty(&all)? + "\n")
}
