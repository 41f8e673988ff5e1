//! Databases that are clusters of three, as people run them: what the queue keeps whatever happens to its writer.

use e2e::database::{Cluster, Engine};
use e2e::fleet::LIMIT;
use e2e::wait::wait_until;
use rstest::rstest;

#[rstest]
#[case::group(Engine::MySql)]
#[case::galera(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a cluster of three servers: make soak"]
async fn a_cluster_goes_on_without_one_node_and_takes_it_back(#[case] engine: Engine) {
    let mut cluster = Cluster::start(engine).await.unwrap();
    cluster.run(0, &["CREATE DATABASE kept", "CREATE TABLE kept.one (id BIGINT PRIMARY KEY)"]).await.unwrap();
    cluster.run(0, &["INSERT INTO kept.one VALUES (1)"]).await.unwrap();
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
