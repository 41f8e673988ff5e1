//! The database or the API server is away, the tables are missing, or a row is of another release: it is said, waited
//! for, and nothing is lost or done twice.

use anyhow::{Context as _, Result};
use autobuild::api::Reason;
use autobuild::api::condition::ConditionType;
use autobuild::job::{Action, JobResult};
use e2e::autobuild::Running;
use e2e::database::{Database, Durability, Engine};
use e2e::fleet::{Fleet, LIMIT, Layout, Link, Proxy, describe, is_ready, metric};
use e2e::process::Lifetime;
use e2e::wait::{Look, wait_for};
use serde_json::json;

use crate::says;

const SYSTEM: &str = "system-0001";

/// Waits until it is not ready and says these words, at `/readyz` and in its log.
async fn waits_and_says(running: &Running, parts: &[&str]) -> Result<()> {
    let name = running.process().name();
    wait_for(&format!("{name} to say what it waits for"), LIMIT, async || {
        let (status, text) = running.get("/readyz").await?;
        let log = std::fs::read_to_string(running.process().log())?;
        let told = says(&text, parts).and_then(|()| says(&log, parts));
        Ok(match (status, told) {
            (503, Ok(())) => Look::Holds(()),
            (_, Ok(())) => Look::NotYet(format!("{status}: {text}")),
            (_, Err(error)) => Look::NotYet(format!("{status}: {error:#}")),
        })
    })
    .await
}

async fn rebooted(fleet: &Fleet, token: &str) -> Result<()> {
    fleet
        .wait(SYSTEM, &format!("rebooted for {token:?}"), |server| {
            let Some(status) = &server.status else { return false };
            let last = status.last_job.as_ref();
            status.reboot_tokens.iter().any(|handled| handled == token)
                && last.is_some_and(|job| job.action == Action::Reboot && job.result == JobResult::Succeeded)
                && is_ready(server)
        })
        .await?;
    Ok(())
}

async fn asked_for(fleet: &Fleet, number: usize) -> Result<()> {
    wait_for(&format!("{number} resets"), LIMIT, async || {
        let resets = fleet.bmcs().resets(SYSTEM).await?;
        Ok(if resets.len() >= number { Look::Holds(()) } else { Look::NotYet(format!("{resets:?}")) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_waited_for_at_the_start_and_in_the_middle() {
    let dir = e2e::paths::private("database-away").unwrap();
    let engine = Engine::from_env().unwrap();
    let mut database =
        Database::start_in(&dir, engine, Durability::Relaxed, Lifetime::WithParent).await.unwrap();
    if !database.is_own() {
        return;
    }
    let url = database.unique_schema("fleet").await.unwrap();
    let layout = Layout::new(1).database(&url).emulator(&["--initial-power", "on"]);
    let fleet = Fleet::with(layout).await.unwrap();
    database.kill().await.unwrap();
    let cluster = fleet.cluster();
    let controller =
        fleet.launch("controller", &fleet.controller_flags(), cluster.controller(), &[]).await.unwrap();
    let worker = fleet.launch("worker", &fleet.worker_flags(), cluster.worker(), &[]).await.unwrap();
    for running in [&controller, &worker] {
        waits_and_says(running, &["the database does not answer"]).await.unwrap();
        assert_eq!(running.get("/livez").await.unwrap().0, 200);
    }
    database.restart().await.unwrap();
    controller.wait_ready().await.unwrap();
    worker.wait_ready().await.unwrap();
    fleet.declare(SYSTEM, json!({})).await.unwrap();
    fleet.wait_ready(SYSTEM).await.unwrap();

    fleet.change(SYSTEM, json!({ "rebootToken": "one" })).await.unwrap();
    asked_for(&fleet, 1).await.unwrap();
    database.kill().await.unwrap();
    for running in [&controller, &worker] {
        waits_and_says(running, &["the database does not answer"]).await.unwrap();
        assert!(running.process().ended().unwrap().is_none());
    }
    database.restart().await.unwrap();
    rebooted(&fleet, "one").await.unwrap();
    assert_eq!(fleet.bmcs().resets(SYSTEM).await.unwrap(), ["off", "on"]);
    controller.wait_ready().await.unwrap();
    worker.wait_ready().await.unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_wait_for_a_migration_and_say_how_to_run_it() {
    let fleet = Fleet::start(1).await.unwrap();
    let database = Database::shared(Engine::from_env().unwrap()).await.unwrap();
    let empty = database.unique_schema("empty").await.unwrap();
    let env = [("DATABASE_URL", empty.as_str())];
    let cluster = fleet.cluster();
    let controller =
        fleet.launch("controller", &fleet.controller_flags(), cluster.controller(), &env).await.unwrap();
    let worker = fleet.launch("worker", &fleet.worker_flags(), cluster.worker(), &env).await.unwrap();
    for running in [&controller, &worker] {
        waits_and_says(running, &["run `autobuild migrate`"]).await.unwrap();
    }
    fleet.autobuild().migrate(&empty).await.unwrap();
    controller.wait_ready().await.unwrap();
    worker.wait_ready().await.unwrap();
    fleet.declare(SYSTEM, json!({})).await.unwrap();
    fleet.wait_ready(SYSTEM).await.unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_row_of_another_release_is_left_alone_and_the_others_go_on() {
    let fleet = Fleet::start(2).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    for system in [SYSTEM, "system-0002"] {
        fleet.declare(system, json!({})).await.unwrap();
        fleet.wait_reason(system, ConditionType::Ready, Reason::NoWorkerForSite).await.unwrap();
    }
    let pool = fleet.records().pool();
    sqlx::query("UPDATE job SET action = 'Levitate' WHERE name = ?")
        .bind(SYSTEM)
        .execute(pool)
        .await
        .unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    fleet.wait_ready("system-0002").await.unwrap();
    let line = wait_for("the worker to tell of the row", LIMIT, async || {
        let lines = fleet.logged("a job row cannot be read")?;
        Ok(lines
            .first()
            .map_or_else(|| Look::NotYet("nothing logged".to_owned()), |line| Look::Holds(line.clone())))
    })
    .await
    .unwrap();
    says(&line, &["action", "Levitate", "this release does not know"]).unwrap();
    let message = fleet.wait_reason(SYSTEM, ConditionType::Stalled, Reason::UnsupportedJob).await.unwrap();
    says(&message, &["Levitate"]).unwrap();
    assert!(fleet.bmcs().requests(SYSTEM).await.unwrap().is_empty());
    let row = fleet.records().job(SYSTEM).await.unwrap().expect("the row is left alone");
    assert_eq!((row.action.as_str(), row.owner, row.begun), ("Levitate", None, false));
    // Its release comes back.
    let back = "UPDATE job JOIN queue ON queue.id = job.id AND queue.server_uid = job.server_uid \
                SET job.action = 'Inspect', job.q_ord = 0, queue.ord = 0 WHERE job.name = ?";
    sqlx::query(back).bind(SYSTEM).execute(pool).await.unwrap();
    fleet.wait_ready(SYSTEM).await.unwrap();
    fleet.end().await.unwrap();
}

async fn api_server_away(
    fleet: &Fleet,
    proxies: &[Proxy],
    link: Link,
    token: &str,
    before: usize,
) -> Result<()> {
    // The off takes effect at once; its answer takes long enough to cut the link while the job runs.
    let slow = json!({ "system": SYSTEM, "method": "POST", "count": 1, "behaviour": { "kind": "Delay", "ms": 1500 } });
    fleet.bmcs().fault(slow).await?;
    fleet.change(SYSTEM, json!({ "rebootToken": token })).await?;
    asked_for(fleet, before + 1).await?;
    for proxy in proxies {
        proxy.set(link);
    }
    let of_token = before / 2 + 1;
    wait_for("the job to end, or to wait for the API server", LIMIT, async || {
        let ended = fleet.records().finished(SYSTEM, "Reboot").await?.len() >= of_token;
        let job = fleet.records().job(SYSTEM).await?;
        let waits = job.as_ref().is_some_and(|job| job.waiting_for.as_deref() == Some("APIServer"));
        Ok(if ended || waits { Look::Holds(()) } else { Look::NotYet(format!("{job:?}")) })
    })
    .await?;
    let shown = fleet.get(SYSTEM).await?;
    anyhow::ensure!(
        !is_ready(&shown),
        "status was written although the API server is away: {}",
        describe(&shown)
    );
    for proxy in proxies {
        proxy.set(Link::Up);
    }
    rebooted(fleet, token).await?;
    let resets = fleet.bmcs().resets(SYSTEM).await?;
    anyhow::ensure!(resets.len() == before + 2, "it was asked for {resets:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_jobs_outlive_an_api_server_that_is_away_and_status_follows() {
    let fleet = Fleet::with(Layout::new(1).emulator(&["--initial-power", "on"])).await.unwrap();
    let cluster = fleet.cluster();
    let (of_controller, file) = Proxy::before_api_server(cluster.controller(), fleet.dir()).await.unwrap();
    let controller = fleet.launch("controller", &fleet.controller_flags(), &file, &[]).await.unwrap();
    controller.wait_ready().await.unwrap();
    let (of_worker, file) = Proxy::before_api_server(cluster.worker(), fleet.dir()).await.unwrap();
    let worker = fleet.launch("worker", &fleet.worker_flags(), &file, &[]).await.unwrap();
    worker.wait_ready().await.unwrap();
    fleet.declare(SYSTEM, json!({})).await.unwrap();
    fleet.wait_ready(SYSTEM).await.unwrap();
    let proxies = [of_controller, of_worker];
    api_server_away(&fleet, &proxies, Link::Cut, "one", 0).await.context("cut").unwrap();
    api_server_away(&fleet, &proxies, Link::Silent, "two", 2).await.context("silent").unwrap();
    for running in [&controller, &worker] {
        assert!(running.process().ended().unwrap().is_none());
    }
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_begun_while_the_api_server_is_away() {
    let fleet = Fleet::with(Layout::new(1).emulator(&["--initial-power", "on"])).await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "1h");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let (proxy, file) = Proxy::before_api_server(fleet.cluster().worker(), fleet.dir()).await.unwrap();
    let worker = fleet.launch("worker", &fleet.worker_flags(), &file, &[]).await.unwrap();
    worker.wait_ready().await.unwrap();
    fleet.declare(SYSTEM, json!({})).await.unwrap();
    fleet.wait_ready(SYSTEM).await.unwrap();
    let before = fleet.bmcs().requests(SYSTEM).await.unwrap().len();
    proxy.set(Link::Cut);
    fleet.change(SYSTEM, json!({ "rebootToken": "one" })).await.unwrap();
    // Claimed twice at least, and put aside each time.
    let parked = async || -> Result<f64> {
        let (_, page) = worker.get("/metrics").await?;
        Ok(metric(&page, "autobuild_jobs_parked_total", &[("waiting_for", "APIServer")]))
    };
    wait_for("the job to wait for the API server", LIMIT, async || {
        let parked = parked().await?;
        Ok(if parked >= 2.0 { Look::Holds(()) } else { Look::NotYet(format!("{parked} times")) })
    })
    .await
    .unwrap();
    let asked = fleet.bmcs().requests(SYSTEM).await.unwrap();
    assert_eq!(asked.len(), before, "its BMC was asked: {:?}", &asked[before..]);
    assert_eq!(worker.get("/livez").await.unwrap().0, 200);
    proxy.set(Link::Up);
    rebooted(&fleet, "one").await.unwrap();
    assert_eq!(fleet.bmcs().resets(SYSTEM).await.unwrap(), ["off", "on"]);
    fleet.end().await.unwrap();
}
