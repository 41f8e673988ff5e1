//! The primary lives on: first the address leads to a replica that takes no writes, then to one that was promoted while
//! the old primary still takes them.

use std::time::Instant;

use e2e::database::Engine;
use e2e::fleet::LIMIT;
use e2e::wait::{Look, say, wait_for};
use rstest::rstest;
use serde_json::json;

use crate::site::{
    Site, controller, offs_and_ons, reboot, rebooted, system, until_it_says, until_metric, until_started_over,
};

#[rstest]
#[case::mysql(Engine::MySql)]
#[case::mariadb(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_no_writes_is_waited_for_and_an_old_primary_that_does_is_left(
    #[case] engine: Engine,
) {
    if crate::is_left_out(engine) {
        return;
    }
    let begun = Instant::now();
    let site = Site::start(engine, 2).await;
    let fleet = &site.fleet;
    let controller = controller(fleet).await;
    let worker = fleet.worker("worker").await.unwrap();
    let (one, two) = (system(1), system(2));
    for name in [&one, &two] {
        fleet.declare(name, json!({})).await.unwrap();
        fleet.wait_ready(name).await.unwrap();
    }

    // Nothing is lost by asking a replica that refuses.
    site.pair.caught_up().await.unwrap();
    site.fail_over();
    fleet.change(&one, json!({ "rebootToken": "a" })).await.unwrap();
    until_it_says(&worker, "read-only").await;
    until_it_says(&controller, "read-only").await;
    assert_eq!(offs_and_ons(fleet, &one).await, (0, 0));
    site.fail_back();
    rebooted(fleet, &one, "a").await;
    assert_eq!(offs_and_ons(fleet, &one).await, (1, 1));

    // The replica is promoted while the primary lives, and nobody cuts the connections to it.
    site.pair.caught_up().await.unwrap();
    site.pair.lag().await.unwrap();
    reboot(fleet, &one, "b").await;
    site.pair.promote().await.unwrap();
    site.proxy.lead_to(site.pair.replica());
    until_started_over(&worker).await;
    until_metric(&controller, "autobuild_other_histories_total", &[], |value| value >= 1.0).await;
    fleet.records().pool().close().await;
    let left = wait_for("the old primary to be left alone", LIMIT, async || {
        let (before, after) = (site.pair.position().await?, site.pair.position().await?);
        Ok(if before == after { Look::Holds(after) } else { Look::NotYet(format!("{before:?} {after:?}")) })
    })
    .await
    .unwrap();
    reboot(fleet, &two, "c").await;
    reboot(fleet, &one, "c").await;
    assert_eq!(site.pair.position().await.unwrap(), left, "something was written to the old primary");
    assert_eq!(offs_and_ons(fleet, &one).await, (3, 3));
    assert_eq!(offs_and_ons(fleet, &two).await, (1, 1));
    assert_eq!(fleet.shown().contradictions(), Vec::<String>::new());
    assert_eq!(fleet.logged("panicked at").unwrap(), Vec::<String>::new());
    say(format!("an old {} primary that lives on: {} s", engine.as_str(), begun.elapsed().as_secs()));
}
