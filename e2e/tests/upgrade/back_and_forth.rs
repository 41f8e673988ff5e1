//! Thirty installations in flight, forward and back.

use anyhow::Result;
use autobuild::api::Server;
use autobuild::job::JobResult;
use e2e::database::Engine;
use e2e::fleet::{Fleet, LIMIT, is_ready};
use e2e::wait::{Look, say, wait_for};
use rstest::rstest;
use serde_json::json;

use crate::side_by_side::{Release, Site};

const MACHINES: usize = 30;

/// Long enough that releases change meanwhile.
const EMULATOR: &[&str] =
    &["--install-duration", "6000", "--post-delay", "300", "--progress-interval", "500"];

fn system(number: usize) -> String {
    format!("system-{number:04}")
}

fn fleet_of(numbers: impl Iterator<Item = usize>) -> Vec<String> {
    numbers.map(system).collect()
}

/// Asks for another installation of each, and waits until half of them write to their disks.
async fn begin(fleet: &Fleet, names: &[String], token: Option<&str>, before: u64) {
    for name in names {
        let spec = match token {
            Some(token) => json!({ "reimageToken": token }),
            None => json!({ "image": { "name": "debian-12" } }),
        };
        match token {
            Some(_) => fleet.change(name, spec).await.unwrap(),
            None => fleet.declare(name, spec).await.unwrap(),
        };
    }
    wait_for("half of the machines to be installed", LIMIT, async || {
        let begun = installs(fleet, names).await?.iter().filter(|installs| **installs > before).count();
        Ok(if begun * 2 >= names.len() { Look::Holds(()) } else { Look::NotYet(format!("{begun} are")) })
    })
    .await
    .unwrap();
}

async fn installs(fleet: &Fleet, names: &[String]) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for name in names {
        all.push(fleet.installs(name).await?);
    }
    Ok(all)
}

/// Waits until all are, and looks that each was written to so many times.
async fn ended(fleet: &Fleet, names: &[String], token: Option<&str>, times: u64) {
    for name in names {
        let is_there = |server: &Server| {
            let status = server.status.as_ref();
            let handled = token.is_none_or(|token| {
                status.is_some_and(|status| status.reimage_tokens.iter().any(|one| one == token))
            });
            handled && is_ready(server) && status.is_some_and(|status| status.image.is_some())
        };
        fleet.wait(name, &format!("installed {times} times"), is_there).await.unwrap();
    }
    assert_eq!(
        installs(fleet, names).await.unwrap(),
        vec![times; names.len()],
        "each as often as it was asked for"
    );
}

/// A machine whose installer gives up, once.
async fn failed(fleet: &Fleet, name: &str, token: Option<&str>) {
    let rule =
        json!({ "system": name, "count": 1, "behaviour": { "kind": "Fail", "reason": "no disk was found" } });
    fleet.bmcs().host_rule(rule).await.unwrap();
    match token {
        Some(token) => fleet.change(name, json!({ "reimageToken": token })).await.unwrap(),
        None => fleet.declare(name, json!({ "image": { "name": "debian-12" } })).await.unwrap(),
    };
    let has_failed = |server: &Server| {
        let status = server.status.as_ref();
        let last = status.and_then(|status| status.last_job.as_ref());
        last.is_some_and(|last| last.result == JobResult::Failed)
            && status.is_some_and(|status| status.job.is_none())
    };
    fleet.wait(name, "its installation failed", has_failed).await.unwrap();
}

#[rstest]
#[case::mysql(Engine::MySql)]
#[case::mariadb(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes, and it builds the release before: make soak"]
async fn thirty_installations_are_neither_lost_nor_repeated_by_an_upgrade_and_the_way_back(
    #[case] engine: Engine,
) {
    if crate::is_left_out(engine) {
        return;
    }
    let mut site = Site::start(engine, MACHINES as u32 + 2, EMULATOR).await;
    let names = fleet_of(1..=MACHINES);
    let (failed_before, failed_since) = (system(MACHINES + 1), system(MACHINES + 2));

    let mut before = site.run(Release::Before).await;
    failed(&site.fleet, &failed_before, None).await;
    let tried = site.fleet.installs(&failed_before).await.unwrap();
    begin(&site.fleet, &names, None, 0).await;
    say("upgrading: first the schema, then the processes, beside those that run");
    site.migrate(Release::This).await;
    let mut this = site.run(Release::This).await;
    before.stop().await;
    ended(&site.fleet, &names, None, 1).await;
    assert_eq!(site.fleet.installs(&failed_before).await.unwrap(), tried, "what failed stands");

    failed(&site.fleet, &failed_since, None).await;
    let tried_since = site.fleet.installs(&failed_since).await.unwrap();
    begin(&site.fleet, &names, Some("back"), 1).await;
    say("going back, with the schema as it is");
    site.migrate(Release::Before).await;
    let mut before = site.run(Release::Before).await;
    this.stop().await;
    ended(&site.fleet, &names, Some("back"), 2).await;
    // All of it works again: whatever was going to be repeated would have been begun by now.
    begin(&site.fleet, &names, Some("again"), 2).await;
    assert_eq!(site.fleet.installs(&failed_before).await.unwrap(), tried);
    assert_eq!(site.fleet.installs(&failed_since).await.unwrap(), tried_since, "what failed stands");

    say("and forward once more");
    site.migrate(Release::This).await;
    let this = site.run(Release::This).await;
    before.stop().await;
    ended(&site.fleet, &names, Some("again"), 3).await;
    assert_eq!(site.fleet.installs(&failed_before).await.unwrap(), tried);
    assert_eq!(site.fleet.installs(&failed_since).await.unwrap(), tried_since);
    drop(this);
    site.fleet.end().await.unwrap();
}
