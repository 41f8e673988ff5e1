//! Lanes: what is urgent goes first, whenever it came.

use autobuild::job::Lane;
use e2e::fleet::{Fleet, LIMIT, Layout};
use e2e::wait::{Look, wait_for};
use serde_json::json;

use crate::steps::{handled, system};

const BULK: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn an_urgent_reboot_is_done_before_low_ones_that_came_earlier() {
    let fleet = Fleet::with(Layout::new(BULK as u32 + 1).emulator(&["--initial-power", "on"])).await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "1h");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let first = fleet.worker("first").await.unwrap();
    let bulk: Vec<String> = (1..=BULK).map(system).collect();
    let urgent = system(BULK + 1);
    for name in bulk.iter().chain([&urgent]) {
        fleet.declare(name, json!({})).await.unwrap();
    }
    for name in bulk.iter().chain([&urgent]) {
        fleet.wait_ready(name).await.unwrap();
    }
    first.process().stop(std::time::Duration::from_secs(20)).await.unwrap();

    for name in &bulk {
        fleet.change(name, json!({ "rebootToken": "one", "priority": "Low" })).await.unwrap();
        in_lane(&fleet, name, Lane::Low).await;
    }
    // Without a word about priority, then with one: the job moves, and keeps its place in time.
    fleet.change(&urgent, json!({ "rebootToken": "one" })).await.unwrap();
    in_lane(&fleet, &urgent, Lane::High).await;
    fleet.change(&urgent, json!({ "priority": "Urgent" })).await.unwrap();
    in_lane(&fleet, &urgent, Lane::Urgent).await;

    let _second = fleet.worker_with("second", &fleet.worker_flags().set("--slots", "1"), &[]).await.unwrap();
    for name in bulk.iter().chain([&urgent]) {
        handled(&fleet, name, "one").await.unwrap();
    }
    // With one slot, the BMCs were asked one after another.
    let mut firsts = Vec::new();
    for name in bulk.iter().chain([&urgent]) {
        firsts.push((fleet.bmcs().changes(name).await.unwrap()[0].seq, name.clone()));
    }
    firsts.sort();
    let order: Vec<&String> = firsts.iter().map(|(_, name)| name).collect();
    // Not always the first: a row that another transaction holds at that moment is passed over.
    let place = order.iter().position(|name| **name == urgent).unwrap();
    assert!(place <= 1, "the order was {order:?}");
    fleet.end().await.unwrap();
}

async fn in_lane(fleet: &Fleet, name: &str, lane: Lane) {
    wait_for(&format!("{name} to be queued in {lane:?}"), LIMIT, async || {
        let job = fleet.records().job(name).await?;
        Ok(match job {
            Some(job) if job.lane == i64::from(lane.number()) => Look::Holds(()),
            other => Look::NotYet(format!("{other:?}")),
        })
    })
    .await
    .unwrap();
    let shown = |server: &autobuild::api::Server| {
        let job = server.status.as_ref().and_then(|status| status.job.as_ref());
        job.is_some_and(|job| job.priority == lane)
    };
    fleet.wait(name, &format!("shown in {lane:?}"), shown).await.unwrap();
}

/// With one shard, which two of the workers serve, the others take what those have no slot for.
#[tokio::test(flavor = "multi_thread")]
async fn no_job_waits_for_a_busy_worker_while_another_one_is_idle() {
    let layout = Layout::new(BULK as u32).emulator(&["--initial-power", "on", "--own-ports", "4"]);
    let fleet = Fleet::with(layout).await.unwrap();
    sqlx::query("UPDATE meta SET value = '1' WHERE name = 'shards'")
        .execute(fleet.records().pool())
        .await
        .unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "1h");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let names: Vec<String> = (1..=BULK).map(system).collect();
    // A BMC each: the systems behind one of them take turns.
    for name in &names {
        fleet.declare(name, json!({})).await.unwrap();
    }
    // They hold their slots for as long as this lasts.
    fleet.bmcs().fault(json!({ "behaviour": { "kind": "Hang" } })).await.unwrap();
    let flags =
        fleet.worker_flags().with(&[("--slots", "1"), ("--urgent-slots", "0"), ("--request-timeout", "1m")]);
    let mut workers = Vec::new();
    for number in 0..BULK {
        workers.push(fleet.worker_with(&format!("worker-{number}"), &flags, &[]).await.unwrap());
    }
    wait_for("each worker to have a job", LIMIT, async || {
        let jobs: Vec<String> = sqlx::query_scalar(
            "SELECT CONCAT_WS(' ', name, COALESCE(owner, 'nobody'), waiting_for, reason) FROM job ORDER BY name",
        )
        .fetch_all(fleet.records().pool())
        .await?;
        let owners = "SELECT COUNT(DISTINCT owner) FROM job WHERE owner IS NOT NULL";
        let busy = fleet.records().number(owners).await?;
        Ok(if busy == BULK as i64 { Look::Holds(()) } else { Look::NotYet(jobs.join("; ")) })
    })
    .await
    .unwrap();
    fleet.end().await.unwrap();
}
