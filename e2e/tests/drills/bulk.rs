//! Many servers change at once, on a database that takes half a second for every answer: what is urgent is done before
//! the bulk is, nobody's memory grows with it, and everything is done in the end.

use std::time::Duration;

use e2e::autobuild::Running;
use e2e::fleet::{Fleet, Layout, Link, Proxy};
use serde_json::json;

use crate::steps::{
    ask_for_reboots, controller_flags, declared, is_rebooted, rebooted, rebooted_so_often, systems,
};

const BULK: usize = 60;
/// What a process may take: far more than it needs, far less than if something grew with every job.
const MEMORY_MIB: u64 = 256;

fn most_memory_mib(running: &Running) -> u64 {
    let path = format!("/proc/{}/status", running.process().pid());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long drill: make soak"]
async fn an_urgent_wish_is_served_before_a_bulk_that_came_earlier_on_a_slow_database() {
    let fleet = Fleet::with(Layout::new(BULK as u32 + 1).emulator(&["--initial-power", "on"])).await.unwrap();
    let (database, url) = Proxy::before_database(fleet.database_url()).await.unwrap();
    let env = [("DATABASE_URL", url.as_str())];
    let flags = controller_flags(&fleet)
        .set("--worker-lease", "10s")
        .set("--database-connections", "64")
        .set("--concurrency", "64");
    let controller = fleet.controller_with("controller", &flags, &env).await.unwrap();
    let flags = fleet.worker_flags().set("--heartbeat", "2s").set("--lease", "10s");
    let worker = fleet.worker_with("worker", &flags, &env).await.unwrap();
    let names = systems(BULK + 1);
    let (urgent, bulk) = names.split_first().unwrap();
    declared(&fleet, &names).await.unwrap();

    database.set(Link::Slow(Duration::from_millis(500)));
    for name in bulk {
        fleet.change(name, json!({ "rebootToken": "one", "priority": "Low" })).await.unwrap();
    }
    fleet
        .wait(&bulk[0], "in the queue, or done", |server| {
            let job = server.status.as_ref().and_then(|status| status.job.as_ref());
            job.is_some() || is_rebooted(server, "one")
        })
        .await
        .unwrap();
    fleet.change(urgent, json!({ "rebootToken": "one", "priority": "Urgent" })).await.unwrap();
    fleet.wait(urgent, "rebooted", |server| is_rebooted(server, "one")).await.unwrap();
    let mut left = 0;
    for name in bulk {
        left += usize::from(!is_rebooted(&fleet.get(name).await.unwrap(), "one"));
    }
    assert!(left > 0, "the whole bulk was done before what is urgent");
    for process in [&controller, &worker] {
        let most = most_memory_mib(process);
        assert!(most < MEMORY_MIB, "{} took {most} MiB", process.process().name());
        assert!(process.process().ended().unwrap().is_none());
    }

    database.set(Link::Up);
    rebooted(&fleet, &names, "one").await.unwrap();
    rebooted_so_often(&fleet, &names, 1).await.unwrap();
    ask_for_reboots(&fleet, &names[..1], "two").await.unwrap();
    rebooted(&fleet, &names[..1], "two").await.unwrap();
    fleet.end().await.unwrap();
}
