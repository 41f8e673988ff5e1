//! An empty database in place of the old one, and a backup that is restored.

use std::time::Instant;

use autobuild::api::Reason;
use autobuild::api::hardware::PowerState;
use e2e::database::{Database, Engine};
use e2e::fleet::{Fleet, is_ready};
use e2e::wait::say;
use rstest::rstest;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection};

use crate::site::{
    controller, expect_quiet, fleet, newest_request, offs_and_ons, reboot, rebooted, system,
    until_started_over,
};

/// A schema of its own, and its name.
async fn schema(database: &Database) -> (String, String) {
    let url = database.unique_schema("replaced").await.unwrap();
    let name = url::Url::parse(&url).unwrap().path().trim_start_matches('/').to_owned();
    (url, name)
}

async fn tables(connection: &mut MySqlConnection, schema: &str) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT CAST(table_name AS CHAR) FROM information_schema.tables WHERE table_schema = ?",
    )
    .bind(schema)
    .fetch_all(connection)
    .await
    .unwrap()
}

/// Makes the tables of `to` those of `from`, as a dump and its restore do.
async fn copy(connection: &mut MySqlConnection, from: &str, to: &str) {
    for table in tables(connection, from).await {
        for statement in [
            format!("DROP TABLE IF EXISTS `{to}`.`{table}`"),
            format!("CREATE TABLE `{to}`.`{table}` LIKE `{from}`.`{table}`"),
            format!("INSERT INTO `{to}`.`{table}` SELECT * FROM `{from}`.`{table}`"),
        ] {
            connection.execute(AssertSqlSafe(statement)).await.unwrap();
        }
    }
}

#[rstest]
#[case::mysql(Engine::MySql)]
#[case::mariadb(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_gets_everything_back_from_the_servers(#[case] engine: Engine) {
    if crate::is_left_out(engine) {
        return;
    }
    let begun = Instant::now();
    let database = Database::shared(engine).await.unwrap();
    let (url, schema) = schema(database).await;
    let fleet = fleet(3, &url).await;
    let _controller = controller(&fleet).await;
    let worker = fleet.worker("worker").await.unwrap();
    let names = [system(1), system(2), system(3)];
    for name in &names {
        fleet.declare(name, json!({})).await.unwrap();
        fleet.wait_ready(name).await.unwrap();
    }
    reboot(&fleet, &names[0], "a").await;
    fleet.change(&names[1], json!({ "power": "PoweredOff" })).await.unwrap();
    fleet.wait(&names[1], "off", is_off).await.unwrap();

    database.drop_schema(&schema).await.unwrap();
    database.create_schema(&schema).await.unwrap();
    fleet.autobuild().migrate(&url).await.unwrap();
    until_started_over(&worker).await;
    for name in &names {
        let note = fleet.wait_event(name, Reason::RecordRebuilt).await.unwrap();
        assert!(note.contains("rebuilt from status"), "{note}");
        fleet.wait_ready(name).await.unwrap();
    }
    fleet.wait(&names[1], "off", is_off).await.unwrap();
    assert_eq!(fleet.get(&names[0]).await.unwrap().status.unwrap().reboot_tokens, ["a"]);
    assert_eq!(offs_and_ons(&fleet, &names[0]).await, (1, 1));
    assert_eq!(offs_and_ons(&fleet, &names[1]).await, (1, 0));
    assert_eq!(offs_and_ons(&fleet, &names[2]).await, (0, 0));
    reboot(&fleet, &names[2], "new").await;
    sound(&fleet);
    say(format!("an empty {} database: {} s", engine.as_str(), begun.elapsed().as_secs()));
}

#[rstest]
#[case::mysql(Engine::MySql)]
#[case::mariadb(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_with_a_new_epoch_everybody_is_quiet_and_nothing_is_done_again(
    #[case] engine: Engine,
) {
    if crate::is_left_out(engine) {
        return;
    }
    let begun = Instant::now();
    let database = Database::shared(engine).await.unwrap();
    let (url, schema) = schema(database).await;
    let dump = format!("{schema}_dump");
    database.create_schema(&dump).await.unwrap();
    let mut admin = MySqlConnection::connect(&url).await.unwrap();
    let fleet = fleet(2, &url).await;
    let mut controller = controller(&fleet).await;
    let mut worker = fleet.worker("worker").await.unwrap();
    let (one, two) = (system(1), system(2));
    for name in [&one, &two] {
        fleet.declare(name, json!({})).await.unwrap();
        fleet.wait_ready(name).await.unwrap();
    }
    reboot(&fleet, &one, "a").await;
    copy(&mut admin, &schema, &dump).await;
    reboot(&fleet, &one, "b").await;
    fleet.change(&two, json!({ "power": "PoweredOff" })).await.unwrap();
    fleet.wait(&two, "off", is_off).await.unwrap();
    worker.process().kill().await.unwrap();
    // Asked for and shown, and nobody there to begin it.
    fleet.change(&two, json!({ "power": "PoweredOn", "rebootToken": "b" })).await.unwrap();
    fleet
        .wait(&two, "a job", |server| server.status.as_ref().is_some_and(|status| status.job.is_some()))
        .await
        .unwrap();
    controller.process().kill().await.unwrap();

    copy(&mut admin, &dump, &schema).await;
    let new_epoch = ["migrate", "--new-epoch"];
    fleet.autobuild().run("new-epoch", &new_epoch, &[("DATABASE_URL", &url)]).await.unwrap();
    let asked = newest_request(&fleet, 2).await.unwrap();
    let restarted = Instant::now();
    controller.restart().await.unwrap();
    worker.restart().await.unwrap();
    expect_quiet(&fleet, 2, asked, restarted).await;
    rebooted(&fleet, &two, "b").await;
    fleet.wait_ready(&one).await.unwrap();
    assert_eq!(offs_and_ons(&fleet, &one).await, (2, 2), "both tokens were handled before");
    let (offs, ons) = offs_and_ons(&fleet, &two).await;
    assert!(offs <= 2 && ons <= 2, "switched off, then on or rebooted: {offs} offs, {ons} ons");
    assert_eq!(fleet.bmcs().power(&two).await.unwrap(), "On");
    sound(&fleet);
    say(format!("a restored {} database: {} s", engine.as_str(), begun.elapsed().as_secs()));
}

fn is_off(server: &autobuild::api::Server) -> bool {
    let power = server.status.as_ref().and_then(|status| status.power);
    is_ready(server) && power == Some(PowerState::PoweredOff)
}

/// What has to hold at the end although the tests' own connections went with the database.
fn sound(fleet: &Fleet) {
    assert_eq!(fleet.shown().contradictions(), Vec::<String>::new());
    assert_eq!(fleet.logged("panicked at").unwrap(), Vec::<String>::new());
}
