//! Servers that are not the one writer of their cluster, and what is said of them. Each is made by its own server.

use autobuild::queue::{Queue, QueueError, migrate};
use e2e::check_database::check;
use e2e::database::answers::{Answering, address};
use e2e::database::{Database, Engine, Special};
use e2e::fleet::LIMIT;
use e2e::wait::wait_until;
use sqlx::{Connection as _, Executor as _, MySqlConnection};

/// The members of a group find each other by it.
const GROUP: &str = "0a0b0c0d-0000-4000-8000-000000000001";

async fn run(url: &str, statements: &[&'static str]) {
    let mut connection = MySqlConnection::connect(url).await.unwrap();
    for statement in statements {
        connection.execute(*statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    connection.close().await.unwrap();
}

async fn refusal(url: &str) -> QueueError {
    Queue::connect(url, 2).await.map(drop).unwrap_err()
}

fn says(error: &QueueError, words: &[&str]) {
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}: {words:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_worked_with_at_its_only_primary() {
    // A port of the group's own, which a node takes beside that of its clients.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let member = format!("127.0.0.1:{port}");
    let args = [
        "--gtid-mode=ON".to_owned(),
        "--enforce-gtid-consistency=ON".to_owned(),
        "--log-bin=binlog".to_owned(),
        "--server-id=1".to_owned(),
        "--report-host=127.0.0.1".to_owned(),
        "--plugin-load-add=group_replication.so".to_owned(),
        format!("--group-replication-group-name={GROUP}"),
        "--group-replication-start-on-boot=OFF".to_owned(),
        format!("--group-replication-local-address={member}"),
        format!("--group-replication-group-seeds={member}"),
    ];
    let special = Special { args: args.to_vec(), env: Vec::new() };
    let database = Database::special("group", Engine::MySql, special).await.unwrap();
    let root = database.url("");
    let url = database.unique_schema("grouped").await.unwrap();
    // Configured as a member, and none: nothing is migrated.
    says(&migrate(&url, false).await.unwrap_err(), &["ONLINE PRIMARY", "START GROUP_REPLICATION"]);
    check(&url, "former-primary-alone").await;
    run(
        &root,
        &[
            "SET GLOBAL group_replication_bootstrap_group = ON",
            "START GROUP_REPLICATION",
            "SET GLOBAL group_replication_bootstrap_group = OFF",
        ],
    )
    .await;
    wait_until("the member to be its primary", LIMIT, async || Ok(migrate(&url, false).await.is_ok()))
        .await
        .unwrap();
    Queue::connect(&*url, 2).await.unwrap().close().await;
    check(&url, "group-primary").await;

    run(&root, &["SELECT group_replication_switch_to_multi_primary_mode()"]).await;
    let several = refusal(&url).await;
    assert!(matches!(several, QueueError::Unfit(_)), "{several:?}");
    says(&several, &["several writers", "group_replication_switch_to_single_primary_mode()"]);
    check(&url, "multi-primary").await;
    run(&root, &["SELECT group_replication_switch_to_single_primary_mode()"]).await;
    let queue = Queue::connect(&*url, 2).await.unwrap();

    // A former primary alone, which somebody made writable: it may lack what the others have.
    run(&root, &["STOP GROUP_REPLICATION", "SET GLOBAL super_read_only = OFF", "SET GLOBAL read_only = OFF"])
        .await;
    let alone = refusal(&url).await;
    assert!(matches!(alone, QueueError::Unavailable(_)), "{alone:?}");
    says(&alone, &["ONLINE PRIMARY", "former primary"]);
    says(&queue.follow().await.unwrap_err(), &["ONLINE PRIMARY"]);
    queue.close().await;
}

#[rstest::rstest]
#[case::mysql(Engine::MySql)]
#[case::mariadb(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_leads_to_two_writers_is_refused_with_their_names(#[case] engine: Engine) {
    let (one, other) = (Database::shared(engine).await.unwrap(), Database::start(engine).await.unwrap());
    let schema = format!("both_{}", uuid::Uuid::new_v4().simple());
    check(&one.unique_schema("plain").await.unwrap(), engine.as_str()).await;
    let mut targets = Vec::new();
    for database in [one, &other] {
        let url = database.create_schema(&schema).await.unwrap();
        migrate(&url, false).await.unwrap();
        run(
            &url,
            &[
                "CREATE USER IF NOT EXISTS 'both'@'127.0.0.1' IDENTIFIED BY 'both'",
                "GRANT ALL ON *.* TO 'both'@'127.0.0.1'",
            ],
        )
        .await;
        targets.push(address(&url).unwrap());
    }
    let (_balancer, balanced) = Answering::before_all(&targets).await.unwrap();
    let url = format!("mysql://both:both@{balanced}/{schema}?ssl-mode=disabled");
    // The check of the schema takes a connection too: whichever of the two comes first.
    let error = refusal(&url).await;
    assert!(matches!(error, QueueError::Unfit(_)), "{error:?}");
    says(&error, &["leads to several nodes", "lead to one writer"]);
    check(&url, &format!("two-nodes-{}", engine.as_str())).await;
    for database in [one, &other] {
        database.drop_schema(&schema).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_read_only_by_any_of_its_names_is_neither_migrated_nor_worked_with() {
    let database = Database::start(Engine::MySql).await.unwrap();
    let url = database.unique_schema("read_only").await.unwrap();
    run(&url, &["SET GLOBAL autocommit = OFF", "SET GLOBAL completion_type = 'CHAIN'"]).await;
    check(&url, "autocommit-off").await;
    run(&url, &["SET GLOBAL super_read_only = ON"]).await;
    check(&url, "read-only").await;
    says(
        &migrate(&url, false).await.unwrap_err(),
        &["super_read_only", "let --database-url lead to the primary"],
    );
    run(&url, &["SET GLOBAL super_read_only = OFF", "SET GLOBAL read_only = OFF"]).await;
    migrate(&url, false).await.unwrap();
    run(&url, &["SET GLOBAL super_read_only = ON"]).await;
    says(&refusal(&url).await, &["read_only and super_read_only"]);
}
