//! After a failover nobody claims before a controller has derived every job again, however long that takes.

use std::cell::Cell;
use std::time::Instant;

use autobuild::api::{Reason, Server};
use autobuild::job::JobState;
use e2e::database::Engine;
use e2e::fleet::LIMIT;
use e2e::wait::{Look, say, wait_for};
use rstest::rstest;
use serde_json::json;

use crate::site::{
    Site, controller, newest_request, offs_and_ons, reboot, rebooted, system, until_it_says,
    until_started_over,
};

#[rstest]
#[case::mysql(Engine::MySql)]
#[case::mariadb(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
async fn nobody_claims_before_a_controller_has_derived_every_job(#[case] engine: Engine) {
    if crate::is_left_out(engine) {
        return;
    }
    let begun = Instant::now();
    let site = Site::start(engine, 1).await;
    let fleet = &site.fleet;
    let mut controller = controller(fleet).await;
    let mut worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    fleet.declare(&name, json!({})).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    assert!(worker.process().stop(LIMIT).await.unwrap().success());

    // The replica keeps the job as one that nobody began; what became of it is lost.
    fleet.change(&name, json!({ "rebootToken": "b" })).await.unwrap();
    fleet.wait(&name, "a job that waits", is_queued).await.unwrap();
    site.pair.caught_up().await.unwrap();
    site.pair.lag().await.unwrap();
    worker.restart().await.unwrap();
    rebooted(fleet, &name, "b").await;
    controller.process().stop(LIMIT).await.unwrap();
    site.pair.kill_primary().await.unwrap();
    site.pair.promote().await.unwrap();
    let asked = newest_request(fleet, 1).await.unwrap();
    site.fail_over();
    until_started_over(&worker).await;
    until_quiet_is_over(&site).await;
    until_it_beats(&site, 5).await;

    // It looks ten times a second at what it could claim, and its quiet time was over before its last heartbeats.
    let job = fleet.records().job(&name).await.unwrap().expect("the job that the replica has");
    assert_eq!((job.owner, job.begun), (None, false), "it was claimed before anybody derived it");
    assert_eq!(newest_request(fleet, 1).await.unwrap(), asked, "a BMC was asked");
    until_it_says(&worker, "until a controller has derived every job again").await;

    controller.restart().await.unwrap();
    worker.wait_ready().await.unwrap();
    controller.wait_ready().await.unwrap();
    until_it_is_told_as_lost(&site, &name).await;
    fleet.wait_ready(&name).await.unwrap();
    assert_eq!(offs_and_ons(fleet, &name).await, (1, 1), "status has its token as handled");
    reboot(fleet, &name, "c").await;
    assert_eq!(offs_and_ons(fleet, &name).await, (2, 2));
    // Who starts now waits for nothing.
    let late = fleet.worker("late").await.unwrap();
    late.wait_ready().await.unwrap();
    fleet.end().await.unwrap();
    say(format!("a {} failover without a controller: {} s", engine.as_str(), begun.elapsed().as_secs()));
}

fn is_queued(server: &Server) -> bool {
    let job = server.status.as_ref().and_then(|status| status.job.as_ref());
    job.is_some_and(|job| job.state == JobState::Queued)
}

/// Waits until the history has the end of the job that the replica knew as one that nobody began.
async fn until_it_is_told_as_lost(site: &Site, name: &str) {
    wait_for("the reboot to be told as lost", LIMIT, async || {
        let told = site.fleet.records().finished(name, "Reboot").await?;
        let lost = told.iter().any(|past| past.reason == Reason::HistoryLost.as_str());
        Ok(if lost { Look::Holds(()) } else { Look::NotYet(format!("{told:?}")) })
    })
    .await
    .unwrap();
}

/// Waits until the worker has entered the other history, which sets both marks, and has taken that of the quiet time away.
async fn until_quiet_is_over(site: &Site) {
    let records = site.fleet.records();
    let marked = [
        "SELECT COUNT(*) FROM meta WHERE name = 'histories' AND value LIKE '% %'",
        "SELECT COUNT(*) FROM meta WHERE name = 'history' AND value LIKE '% %'",
    ];
    wait_for("the quiet time to be over", LIMIT, async || {
        let (underived, quiet) = (records.number(marked[0]).await?, records.number(marked[1]).await?);
        let over = (underived, quiet) == (1, 0);
        Ok(if over { Look::Holds(()) } else { Look::NotYet(format!("{underived} and {quiet} marks")) })
    })
    .await
    .unwrap();
}

/// Waits until the only worker that is left in the registry has sent so many more heartbeats.
async fn until_it_beats(site: &Site, more: i64) {
    let records = site.fleet.records();
    let since = Cell::new(None);
    wait_for("heartbeats", LIMIT, async || {
        let workers = records.number("SELECT COUNT(*) FROM worker").await?;
        let beats = records.number("SELECT COALESCE(MAX(heartbeat), 0) FROM worker").await?;
        if workers != 1 {
            since.set(None);
            return Ok(Look::NotYet(format!("{workers} workers are registered")));
        }
        let begun = since.get().unwrap_or(beats);
        since.set(Some(begun));
        Ok(if beats >= begun + more {
            Look::Holds(())
        } else {
            Look::NotYet(format!("{beats} after {begun}"))
        })
    })
    .await
    .unwrap();
}
