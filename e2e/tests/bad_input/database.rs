//! Databases that are there and do not fit: rights, versions of the schema, settings of the server.

use e2e::autobuild::Running;
use e2e::database::answers::{Answer, Answering, Meanwhile};
use e2e::database::{Database, Engine, Special};
use e2e::fleet::{Fleet, LIMIT, Layout};
use e2e::wait::{Look, wait_for};
use serde_json::json;
use sqlx::{Connection as _, Executor as _, MySqlPool};

use crate::says;

const SYSTEM: &str = "system-0001";

async fn waits(running: &Running, parts: &[&str]) {
    wait_for(&format!("{} to say what is wrong", running.process().name()), LIMIT, async || {
        let (status, text) = running.get("/readyz").await?;
        let told = status == 503 && says(&text, parts).is_ok();
        Ok(if told { Look::Holds(()) } else { Look::NotYet(format!("{status}: {text}")) })
    })
    .await
    .unwrap();
    assert!(running.process().ended().unwrap().is_none());
    assert_eq!(running.get("/livez").await.unwrap().0, 200);
}

/// A worker and a controller under a user of the database.
async fn under(fleet: &Fleet, name: &str) -> [Running; 2] {
    let mut url = url::Url::parse(fleet.database_url()).unwrap();
    url.set_username(name).unwrap();
    url.set_password(Some("geheim")).unwrap();
    let env = [("DATABASE_URL", url.as_str())];
    let cluster = fleet.cluster();
    [
        fleet.launch("worker", &fleet.worker_flags(), cluster.worker(), &env).await.unwrap(),
        fleet.launch("controller", &fleet.controller_flags(), cluster.controller(), &env).await.unwrap(),
    ]
}

async fn run(pool: &MySqlPool, statement: String) {
    pool.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_rights_is_named_with_what_it_lacks() {
    let fleet = Fleet::start(1).await.unwrap();
    let pool = fleet.records().pool();
    let user = format!("u{}", &fleet.namespace()[6..]);
    let schema: String = sqlx::query_scalar("SELECT DATABASE()").fetch_one(pool).await.unwrap();
    run(pool, format!("CREATE USER {user}@'127.0.0.1' IDENTIFIED BY 'geheim'")).await;
    let mut processes = under(&fleet, &user).await;
    for process in &processes {
        waits(process, &["check the user, its rights and the database's name", &user]).await;
    }
    // Enough to look, too little to work.
    run(pool, format!("GRANT SELECT, UPDATE ON `{schema}`.* TO {user}@'127.0.0.1'")).await;
    waits(&processes[0], &["INSERT command denied", "check the user, its rights"]).await;
    run(pool, format!("GRANT INSERT, DELETE ON `{schema}`.* TO {user}@'127.0.0.1'")).await;
    // The server gives new rights to new connections only.
    for process in &mut processes {
        process.restart().await.unwrap();
        process.wait_ready().await.unwrap();
    }
    fleet.declare(SYSTEM, json!({})).await.unwrap();
    fleet.wait_ready(SYSTEM).await.unwrap();
    assert!(fleet.logged("geheim").unwrap().is_empty());
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_rotated_is_taken_from_its_file_and_no_process_is_restarted() {
    let fleet = Fleet::start(1).await.unwrap();
    let pool = fleet.records().pool();
    let user = format!("r{}", &fleet.namespace()[6..]);
    let schema: String = sqlx::query_scalar("SELECT DATABASE()").fetch_one(pool).await.unwrap();
    run(pool, format!("CREATE USER {user}@'127.0.0.1' IDENTIFIED BY 'geheim-1'")).await;
    run(pool, format!("GRANT SELECT, INSERT, UPDATE, DELETE ON `{schema}`.* TO {user}@'127.0.0.1'")).await;
    let file = fleet.dir().join("database-url");
    let write = |password: &str| {
        let mut url = url::Url::parse(fleet.database_url()).unwrap();
        url.set_username(&user).unwrap();
        url.set_password(Some(password)).unwrap();
        std::fs::write(&file, format!("{url}\n")).unwrap();
    };
    write("geheim-1");
    let path = file.display().to_string();
    let flags = fleet.controller_flags().set("--database-url-file", &path);
    let controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let flags = fleet.worker_flags().set("--database-url-file", &path);
    let worker = fleet.worker_with("worker", &flags, &[]).await.unwrap();
    fleet.declare(SYSTEM, json!({})).await.unwrap();
    fleet.wait_ready(SYSTEM).await.unwrap();

    run(pool, format!("ALTER USER {user}@'127.0.0.1' IDENTIFIED BY 'geheim-2'")).await;
    // Who is connected is not asked again: as after a restart of the server, nobody is.
    let theirs =
        format!("SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE user = '{user}'");
    let ids: Vec<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(theirs)).fetch_all(pool).await.unwrap();
    for id in ids {
        // It may have gone by itself.
        let _ = pool.execute(sqlx::AssertSqlSafe(format!("KILL {id}"))).await;
    }
    for process in [&controller, &worker] {
        waits(process, &["Access denied", "--database-url-file is read again"]).await;
    }
    write("geheim-2");
    for process in [&controller, &worker] {
        process.wait_ready().await.unwrap();
    }
    fleet.change(SYSTEM, json!({ "power": "PoweredOn" })).await.unwrap();
    fleet.wait(SYSTEM, "on", e2e::fleet::is_ready).await.unwrap();
    assert!(fleet.logged("geheim").unwrap().is_empty());
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_serves_another_release_is_refused_with_the_two_versions_and_the_way_out() {
    let fleet = Fleet::start(1).await.unwrap();
    let pool = fleet.records().pool();
    let newest = fleet.records().number("SELECT MAX(version) FROM schema_expansion").await.unwrap();
    let of_tomorrow = |table: &str, success: &str| {
        format!(
            "INSERT INTO {table} (version, description, success, checksum, execution_time) \
             VALUES (9999, 'of tomorrow', {success}, '', 0)"
        )
    };
    run(pool, of_tomorrow("_sqlx_migrations", "TRUE")).await;
    let worker = fleet.launch("worker", &fleet.worker_flags(), fleet.cluster().worker(), &[]).await.unwrap();
    let newer = format!(
        "version 9999, which serves no release older than itself; this release knows it up to {newest}"
    );
    waits(&worker, &[&newer, "use a newer release"]).await;
    run(pool, "DELETE FROM _sqlx_migrations WHERE version = 9999".to_owned()).await;
    worker.wait_ready().await.unwrap();

    run(pool, format!("DELETE FROM schema_expansion WHERE version = {newest}")).await;
    let older = format!("version {}, this release needs {newest}", newest - 1);
    let late = fleet.launch("late", &fleet.worker_flags(), fleet.cluster().worker(), &[]).await.unwrap();
    waits(&late, &[&older, "run `autobuild migrate`"]).await;
    run(pool, of_tomorrow("schema_expansion", "FALSE")).await;
    waits(&late, &["failed midway", "run `autobuild migrate`"]).await;
    // What a newer release added is none of this one's business: there is a way back.
    run(pool, "UPDATE schema_expansion SET success = TRUE WHERE version = 9999".to_owned()).await;
    late.wait_ready().await.unwrap();
    fleet.end().await.unwrap();
}

#[rstest::rstest]
#[case::mysql(Engine::MySql)]
#[case::mariadb(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_server_that_do_not_fit_are_overridden_by_every_connection(#[case] engine: Engine) {
    let args = [
        "--transaction-isolation=SERIALIZABLE",
        "--character-set-server=latin1",
        "--sql-mode=",
        "--default-time-zone=+09:00",
        "--default-storage-engine=MyISAM",
        "--max-join-size=1",
        "--auto-increment-increment=7",
        "--auto-increment-offset=3",
        "--group-concat-max-len=4",
        "--innodb-rollback-on-timeout=ON",
        "--max-allowed-packet=1M",
        "--innodb-lock-wait-timeout=1",
        "--lock-wait-timeout=1",
        "--wait-timeout=2",
        "--net-read-timeout=1",
    ];
    let special = Special { args: args.map(str::to_owned).to_vec(), env: Vec::new() };
    let name = format!("odd-settings-{}", engine.as_str());
    let database = Database::special(&name, engine, special).await.unwrap();
    // As somebody makes it who thinks of none of this.
    let url = database.url("odd");
    let mut connection = sqlx::MySqlConnection::connect(&database.url("")).await.unwrap();
    connection.execute("CREATE DATABASE odd").await.unwrap();
    // What no server is started with.
    let only = match engine {
        Engine::MySql => "SET GLOBAL max_execution_time = 1, GLOBAL sql_require_primary_key = ON",
        Engine::MariaDb => "SET GLOBAL max_statement_time = 0.001, GLOBAL idle_transaction_timeout = 1",
    };
    let both = "SET GLOBAL sql_safe_updates = ON, GLOBAL sql_select_limit = 1, GLOBAL sql_big_selects = OFF, \
                GLOBAL autocommit = OFF, GLOBAL completion_type = 'CHAIN'";
    for odd in [both, only, "SET GLOBAL TRANSACTION READ ONLY"] {
        connection.execute(odd).await.unwrap();
    }
    connection.close().await.unwrap();
    let layout = Layout::new(1).database(&url).emulator(&["--initial-power", "on"]);
    let fleet = Fleet::with(layout).await.unwrap();
    let other = "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = 'odd' \
                 AND table_name NOT IN ('_sqlx_migrations', 'schema_expansion') AND character_set_name <> 'utf8mb4'";
    assert_eq!(fleet.records().number(other).await.unwrap(), 0);
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    fleet.declare(SYSTEM, json!({})).await.unwrap();
    fleet.wait_ready(SYSTEM).await.unwrap();
    fleet.change(SYSTEM, json!({ "rebootToken": "one" })).await.unwrap();
    fleet
        .wait(SYSTEM, "rebooted", |server| {
            let status = server.status.as_ref();
            e2e::fleet::is_ready(server)
                && status.is_some_and(|status| status.reboot_tokens == ["one"] && status.job.is_none())
        })
        .await
        .unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_do_not_come_back_are_told_as_what_they_are() {
    let fleet = Fleet::start(1).await.unwrap();
    let (answering, url) = Answering::before(fleet.database_url()).await.unwrap();
    let flags = fleet.controller_flags();
    let env = [("DATABASE_URL", url.as_str())];
    let controller = fleet.launch("controller", &flags, fleet.cluster().controller(), &env).await.unwrap();
    controller.wait_ready().await.unwrap();
    answering.answer(Answer { to: "COMMIT", code: 0, meanwhile: Meanwhile::Hangs, times: usize::MAX });
    fleet.declare(SYSTEM, json!({})).await.unwrap();
    waits(&controller, &["COMMITs do not come back: has the cluster lost its majority?"]).await;
    answering.let_go();
    controller.wait_ready().await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    fleet.wait_ready(SYSTEM).await.unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_heartbeat_that_hangs_is_told_with_what_may_be_the_reason() {
    let fleet = Fleet::start(1).await.unwrap();
    let worker = fleet.worker("worker").await.unwrap();
    // Whoever holds the row holds each heartbeat up, as a COMMIT that hangs does it.
    let mut holder = fleet.records().pool().begin().await.unwrap();
    holder.execute("SELECT incarnation FROM worker FOR UPDATE").await.unwrap();
    let said = wait_for("a heartbeat that hangs to be told", LIMIT, async || {
        let said = fleet.logged("has the cluster lost its majority?")?;
        Ok(said
            .first()
            .map_or_else(|| Look::NotYet("nothing".to_owned()), |first| Look::Holds(first.clone())))
    })
    .await
    .unwrap();
    assert!(said.contains("was sent a heartbeat and did not answer in time"), "{said}");
    holder.rollback().await.unwrap();
    worker.wait_ready().await.unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_log_of_statements_is_refused() {
    let args = ["--log-bin=binlog", "--server-id=1", "--binlog-format=ROW"];
    let special = Special { args: args.map(str::to_owned).to_vec(), env: Vec::new() };
    let database = Database::special("statement-binlog", Engine::from_env().unwrap(), special).await.unwrap();
    let url = database.unique_schema("logged").await.unwrap();
    autobuild::queue::migrate(&url, false).await.unwrap();
    let mut connection = sqlx::MySqlConnection::connect(&url).await.unwrap();
    connection.execute("SET GLOBAL binlog_format = 'STATEMENT'").await.unwrap();
    let error = autobuild::queue::Queue::connect(&url, 2).await.unwrap_err();
    says(&error.to_string(), &["binlog_format is STATEMENT", "ROW"]).unwrap();
}
