//! Databases that are clusters of three, as people run them: what the queue keeps whatever happens to its writer.

use std::time::{Duration, Instant};

use autobuild::queue::{Beat, Heart, Newcomer, Past, Queue, migrate};
use e2e::autobuild::Autobuild;
use e2e::check_database::check;
use e2e::database::answers::Answering;
use e2e::database::{Cluster, Engine};
use e2e::fleet::{LIMIT, Proxy};
use e2e::process::Lifetime;
use e2e::wait::{Look, wait_for, wait_until};
use rstest::rstest;
use tokio::sync::Mutex;

/// How often two migrate at once: who is first is another one each time.
const ROUNDS: usize = 5;

#[rstest]
#[case::group(Engine::MySql)]
#[case::galera(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a cluster of three servers: make soak"]
async fn a_cluster_goes_on_without_one_node_and_takes_it_back(#[case] engine: Engine) {
    let mut cluster = Cluster::start(engine).await.unwrap();
    cluster.run(0, &["CREATE DATABASE kept", "CREATE TABLE kept.one (id BIGINT PRIMARY KEY)"]).await.unwrap();
    cluster.run(0, &["INSERT INTO kept.one VALUES (1)"]).await.unwrap();
    if engine == Engine::MySql {
        check(&cluster.url(1, "kept"), "group-secondary").await;
    } else {
        let (_balancer, both) =
            Answering::before_all(&[cluster.address(0), cluster.address(1)]).await.unwrap();
        check(&cluster.url_at(both, "kept").unwrap(), "two-nodes-galera").await;
    }
    cluster.kill(0).await.unwrap();
    wait_until("another node to take writes", LIMIT, async || {
        let writer = cluster.writer(&[0]).await?;
        cluster.run(writer, &["INSERT IGNORE INTO kept.one VALUES (2)"]).await?;
        Ok(true)
    })
    .await
    .unwrap();
    cluster.rejoin(0).await.unwrap();
    let kept = cluster.ask(0, "SELECT CAST(COUNT(*) AS CHAR) FROM kept.one").await.unwrap();
    assert_eq!(kept.as_deref(), Some("2"));
}

/// What a schema is made of, and what was migrated there.
async fn shape_of(cluster: &Cluster, node: usize, schema: &str) -> [String; 2] {
    let columns = format!(
        "SELECT CONCAT(COUNT(*), ':', SUM(CRC32(CONCAT_WS('#', table_name, column_name, ordinal_position, column_type, is_nullable, \
         column_default, column_key)))) FROM information_schema.columns WHERE table_schema = '{schema}'"
    );
    let migrated = format!(
        "SELECT CONCAT_WS(' ', (SELECT CONCAT(COUNT(*), ':', SUM(success), ':', MAX(version)) FROM {schema}._sqlx_migrations), \
         (SELECT CONCAT(COUNT(*), ':', SUM(success), ':', MAX(version)) FROM {schema}.schema_expansion))"
    );
    let ask = async |statement: &str| cluster.ask(node, statement).await.unwrap().unwrap_or_default();
    [ask(&columns).await, ask(&migrated).await]
}

#[rstest]
#[case::group(Engine::MySql)]
#[case::galera(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a cluster of three servers: make soak"]
async fn two_who_migrate_at_two_nodes_at_once_leave_nothing_half_way(#[case] engine: Engine) {
    let cluster = Cluster::start(engine).await.unwrap();
    let dir = e2e::paths::private("two-migrate").unwrap();
    let autobuild = Autobuild::new(&dir, Lifetime::WithParent).unwrap();
    cluster.run(0, &["CREATE DATABASE alone"]).await.unwrap();
    autobuild.migrate(&cluster.url(0, "alone")).await.unwrap();
    let alone = shape_of(&cluster, 0, "alone").await;
    for round in 0..ROUNDS {
        let schema = format!("two_{round}");
        cluster.run(0, &[&format!("CREATE DATABASE {schema}")]).await.unwrap();
        let urls = [0, 1].map(|node| cluster.url(node, &schema));
        let [first, second] = &urls;
        let (first, second) = futures::join!(autobuild.migrate(first), autobuild.migrate(second));
        match engine {
            // There a router has gone wrong: nothing is written at a member that is not the primary.
            Engine::MySql => {
                let said = format!("{:#}", second.unwrap_err());
                assert!(said.contains("ONLINE PRIMARY is needed"), "{said}");
            }
            Engine::MariaDb => second.unwrap(),
        }
        first.unwrap();
        assert_eq!(shape_of(&cluster, 0, &schema).await, alone, "round {round}");
        Queue::connect(&urls[0], 2).await.unwrap().close().await;
    }
    if engine == Engine::MariaDb {
        take_over(&cluster, &autobuild).await;
    }
}

/// One who died while it migrated left its row behind.
async fn take_over(cluster: &Cluster, autobuild: &Autobuild) {
    cluster
        .run(
            0,
            &[
                "CREATE DATABASE died",
                "CREATE TABLE died.autobuild_migrating (id BIGINT NOT NULL PRIMARY KEY, holder BIGINT NOT NULL, beat BIGINT NOT NULL)",
                "INSERT INTO died.autobuild_migrating VALUES (0, 7, 9)",
            ],
        )
        .await
        .unwrap();
    autobuild.migrate(&cluster.url(1, "died")).await.unwrap();
    let left = "SELECT CAST(COUNT(*) AS CHAR) FROM died.autobuild_migrating";
    assert_eq!(cluster.ask(1, left).await.unwrap().as_deref(), Some("0"));
}

/// A schema with the queue's tables, behind an address that leads to the first node.
async fn queue_of(cluster: &Cluster) -> (Proxy, Queue) {
    cluster.run(0, &["CREATE DATABASE IF NOT EXISTS bulk", "CREATE DATABASE queue"]).await.unwrap();
    let proxy = Proxy::start(cluster.address(0)).await.unwrap();
    let url = cluster.url_at(proxy.address(), "queue").unwrap();
    wait_until("the migration", LIMIT, async || {
        migrate(&url, false).await?;
        Ok(true)
    })
    .await
    .unwrap();
    (proxy, Queue::connect(&url, 4).await.unwrap())
}

async fn histories(cluster: &Cluster, node: usize) -> Option<String> {
    cluster.ask(node, "SELECT value FROM queue.meta WHERE name = 'histories'").await.unwrap()
}

/// Beats until it is accepted; the incarnation is over in none of the answers.
async fn goes_on(heart: &Mutex<Heart>) {
    wait_for("a heartbeat to be accepted", LIMIT, async || {
        let beat = tokio::time::timeout(Duration::from_secs(3), heart.lock().await.beat()).await?;
        assert!(!matches!(beat, Ok(Beat::AnotherHistory | Beat::Missing | Beat::Over)), "{beat:?}");
        Ok(match beat {
            Ok(_) => Look::Holds(()),
            Err(error) => Look::NotYet(error.to_string()),
        })
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a cluster of three servers: make soak"]
async fn a_switch_between_the_nodes_of_a_galera_cluster_is_no_other_history_and_lost_commits_are() {
    let mut cluster = Cluster::start(Engine::MariaDb).await.unwrap();
    let (proxy, queue) = queue_of(&cluster).await;
    check(&cluster.url(0, "queue"), "galera").await;
    let heart = Mutex::new(queue.join("default", "one").await.unwrap());
    let before = histories(&cluster, 0).await;

    // To a node that is seconds behind, while heartbeats are confirmed by the one before.
    for to in [1, 2, 0] {
        let from = if to == 0 { 2 } else { to - 1 };
        cluster.outrun(from).await.unwrap();
        for _ in 0..3 {
            goes_on(&heart).await;
        }
        proxy.lead_to(cluster.address(to));
        proxy.cut_open();
        goes_on(&heart).await;
        let late = queue.join("default", "late").await.unwrap();
        assert!(late.quiet_until() <= Instant::now() && late.derived(), "to {to}");
        assert_eq!(queue.follow().await.unwrap().changes, 0, "to {to}");
        assert_eq!(histories(&cluster, to).await, before, "to {to}");
    }

    // A writer that hung takes itself for one for some seconds, and has old rows.
    cluster.freeze(0).unwrap();
    proxy.lead_to(cluster.address(1));
    proxy.cut_open();
    goes_on(&heart).await;
    goes_on(&heart).await;
    cluster.thaw(0).unwrap();
    proxy.lead_to(cluster.address(0));
    proxy.cut_open();
    goes_on(&heart).await;
    assert_eq!(histories(&cluster, 0).await, before);

    // The cluster is made anew from a node that lacks what was committed last.
    cluster.stop(2).await.unwrap();
    goes_on(&heart).await;
    for node in [0, 1] {
        cluster.kill(node).await.unwrap();
    }
    cluster.begin_again(2).await.unwrap();
    proxy.lead_to(cluster.address(2));
    proxy.cut_open();
    wait_for("the lost commits to be seen", LIMIT, async || {
        Ok(match heart.lock().await.beat().await? {
            Beat::AnotherHistory => Look::Holds(()),
            beat => Look::NotYet(format!("{beat:?}")),
        })
    })
    .await
    .unwrap();
    let newcomer = Newcomer { site: "default", host: "one", quiet: Duration::from_secs(1), past: Past::Lost };
    let heart = queue.enter(newcomer).await.unwrap();
    assert!(heart.quiet_until() > Instant::now() && !heart.derived());
    queue.close().await;
}
