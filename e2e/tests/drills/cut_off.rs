//! One worker of two is cut off from the database, the API server or the BMCs, in the middle of its jobs: the other one
//! finishes them, nothing happens twice, and the first one is of use again as soon as the link is back.

use anyhow::{Context as _, Result};
use e2e::fleet::{Fleet, Layout, Link, Proxy};
use serde_json::json;

use crate::steps::{
    ask_for_reboots, asked_for, controller_flags, declared, rebooted, rebooted_so_often, systems,
};

const SERVERS: usize = 4;

/// From what it is cut off.
#[derive(Debug, Clone, Copy)]
enum From {
    Database(Link),
    ApiServer(Link),
    Bmcs,
}

async fn one_worker_is_cut_off(from: From) -> Result<()> {
    let fleet = Fleet::with(Layout::new(SERVERS as u32).emulator(&["--initial-power", "on"])).await?;
    let flags = controller_flags(&fleet);
    let _controller = fleet.controller_with("controller", &flags, &[]).await?;
    let (api_server, kubeconfig) = Proxy::before_api_server(fleet.cluster().worker(), fleet.dir()).await?;
    let (database, url) = Proxy::before_database(fleet.database_url()).await?;
    let env = [("DATABASE_URL", url.as_str())];
    let first = fleet.launch("first", &fleet.worker_flags(), &kubeconfig, &env).await?;
    first.wait_ready().await?;
    let names = systems(SERVERS);
    declared(&fleet, &names).await?;

    // The requests take effect at once; their answers take long enough to cut the link while they are waited for.
    let slow = json!({ "method": "POST", "count": SERVERS, "behaviour": { "kind": "Delay", "ms": 1500 } });
    fleet.bmcs().fault(slow).await?;
    ask_for_reboots(&fleet, &names, "one").await?;
    asked_for(&fleet, &names, 1).await?;
    let mut rule = None;
    match from {
        From::Database(link) => database.set(link),
        From::ApiServer(link) => api_server.set(link),
        From::Bmcs => {
            let me = format!("*/{}", first.process().pid());
            rule = Some(fleet.bmcs().fault(json!({ "worker": me, "behaviour": { "kind": "Close" } })).await?);
        }
    }
    let other = fleet.worker("other").await?;
    rebooted(&fleet, &names, "one").await.context("by the other worker")?;
    rebooted_so_often(&fleet, &names, 1).await?;

    database.set(Link::Up);
    api_server.set(Link::Up);
    if let Some(rule) = rule {
        fleet.bmcs().mend(rule).await?;
    }
    first.wait_ready().await?;
    other.process().stop(e2e::fleet::LIMIT).await?;
    ask_for_reboots(&fleet, &names, "two").await?;
    rebooted(&fleet, &names, "two").await.context("by the first worker")?;
    rebooted_so_often(&fleet, &names, 2).await?;
    fleet.end().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long drill: make soak"]
async fn a_worker_whose_database_is_cut_off_leaves_its_jobs_to_others() {
    one_worker_is_cut_off(From::Database(Link::Cut)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long drill: make soak"]
async fn a_worker_whose_database_says_nothing_more_leaves_its_jobs_to_others() {
    one_worker_is_cut_off(From::Database(Link::Silent)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long drill: make soak"]
async fn a_worker_whose_api_server_is_cut_off_leaves_its_jobs_to_others() {
    one_worker_is_cut_off(From::ApiServer(Link::Cut)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long drill: make soak"]
async fn a_worker_that_reaches_no_bmc_leaves_its_jobs_to_others() {
    one_worker_is_cut_off(From::Bmcs).await.unwrap();
}
