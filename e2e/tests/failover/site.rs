//! A fleet whose database can be exchanged, and what is waited for in it.

use std::time::{Duration, Instant};

use anyhow::Result;
use autobuild::job::{Action, JobResult};
use e2e::autobuild::Running;
use e2e::database::{Engine, Pair};
use e2e::fleet::{Fleet, LIMIT, Layout, Proxy, metric};
use e2e::wait::{Look, wait_for};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor as _};

/// The quiet time of the fleet's workers: `--lease` and one and a half of `--request-timeout` are both as long.
pub const QUIET: Duration = Duration::from_secs(3);

/// How the names of tables in a backup begin.
const BACKUP: &str = "kept_";

/// A fleet on a pair of database servers.
pub struct Site {
    pub pair: Pair,
    pub proxy: Proxy,
    pub fleet: Fleet,
}

impl Site {
    pub async fn start(engine: Engine, systems: u32) -> Self {
        let pair = Pair::start(engine).await.unwrap();
        let proxy = Proxy::start(pair.primary()).await.unwrap();
        let url = pair.create_schema("failover", proxy.address()).await.unwrap();
        Self { pair, proxy, fleet: fleet(systems, &url).await }
    }

    /// The address leads to the replica now, and who was connected is cut off.
    pub fn fail_over(&self) {
        self.proxy.lead_to(self.pair.replica());
        self.proxy.cut_open();
    }

    /// Keeps what every table has now, beside it.
    pub async fn back_up(&self) {
        for table in self.tables().await {
            self.run(&[
                format!("DROP TABLE IF EXISTS `{BACKUP}{table}`"),
                format!("CREATE TABLE `{BACKUP}{table}` LIKE `{table}`"),
                format!("INSERT INTO `{BACKUP}{table}` SELECT * FROM `{table}`"),
            ])
            .await;
        }
    }

    /// Every table has what it had at the backup.
    pub async fn restore(&self) {
        for table in self.tables().await {
            self.run(&[
                format!("DELETE FROM `{table}`"),
                format!("INSERT INTO `{table}` SELECT * FROM `{BACKUP}{table}`"),
            ])
            .await;
        }
    }

    async fn tables(&self) -> Vec<String> {
        let text =
            "SELECT CAST(table_name AS CHAR) FROM information_schema.tables WHERE table_schema = DATABASE()";
        let mut all: Vec<String> =
            sqlx::query_scalar(text).fetch_all(self.fleet.records().pool()).await.unwrap();
        all.retain(|table| !table.starts_with(BACKUP));
        all
    }

    async fn run(&self, statements: &[String]) {
        for statement in statements {
            self.fleet.records().pool().execute(AssertSqlSafe(statement.clone())).await.unwrap();
        }
    }

    /// The address leads to the primary again.
    pub fn fail_back(&self) {
        self.proxy.lead_to(self.pair.primary());
        self.proxy.cut_open();
    }
}

/// Machines that are on, on a database that is migrated.
pub async fn fleet(systems: u32, database_url: &str) -> Fleet {
    let layout = Layout::new(systems).emulator(&["--initial-power", "on"]).database(database_url);
    Fleet::with(layout).await.unwrap()
}

/// A controller that looks at no machine by itself, so that BMCs are asked for the sake of jobs only, and that leads to
/// its end however busy the machine is.
pub async fn controller(fleet: &Fleet) -> Running {
    controller_of(fleet, fleet.namespace()).await
}

/// The same, and it is to watch another namespace too.
pub async fn controller_beside(fleet: &Fleet, namespace: &str) -> Running {
    controller_of(fleet, &format!("{},{namespace}", fleet.namespace())).await
}

async fn controller_of(fleet: &Fleet, namespaces: &str) -> Running {
    let times = [("--inspect-period", "1h"), ("--lease-duration", "60s"), ("--renew-period", "5s")];
    let flags = fleet.controller_flags().with(&times).set("--watch-namespaces", namespaces);
    fleet.controller_with("controller", &flags, &[]).await.unwrap()
}

pub fn system(number: usize) -> String {
    format!("system-{number:04}")
}

/// Asks for a reboot and waits until status shows that it was done.
pub async fn reboot(fleet: &Fleet, name: &str, token: &str) {
    fleet.change(name, json!({ "rebootToken": token })).await.unwrap();
    rebooted(fleet, name, token).await;
}

pub async fn rebooted(fleet: &Fleet, name: &str, token: &str) {
    fleet
        .wait(name, &format!("Ready, rebooted for {token}"), |server| {
            let status = server.status.as_ref();
            let last = status.and_then(|status| status.last_job.as_ref());
            let done =
                last.is_some_and(|job| job.action == Action::Reboot && job.result == JobResult::Succeeded);
            let handled = status.is_some_and(|status| status.reboot_tokens.iter().any(|one| one == token));
            done && handled && e2e::fleet::is_ready(server)
        })
        .await
        .unwrap();
}

/// Waits until a family of metrics has a value that holds.
pub async fn until_metric(
    process: &Running,
    family: &str,
    labels: &[(&str, &str)],
    holds: impl Fn(f64) -> bool,
) {
    let what = format!("{family} of {}", process.process().name());
    wait_for(&what, LIMIT, async || {
        let (_, page) = process.get("/metrics").await?;
        let value = metric(&page, family, labels);
        Ok(if holds(value) { Look::Holds(()) } else { Look::NotYet(value.to_string()) })
    })
    .await
    .unwrap();
}

/// Waits until a worker has ended an incarnation because the history is another one.
pub async fn until_started_over(worker: &Running) {
    until_started_over_again(worker, 0.0).await;
}

/// The same, once more often than that.
pub async fn until_started_over_again(worker: &Running, before: f64) {
    until_metric(worker, STARTED_OVER.0, &STARTED_OVER.1, |value| value > before).await;
}

/// How often it did so.
pub async fn started_over(worker: &Running) -> f64 {
    let (_, page) = worker.get("/metrics").await.unwrap();
    metric(&page, STARTED_OVER.0, &STARTED_OVER.1)
}

const STARTED_OVER: (&str, [(&str, &str); 1]) = ("autobuild_leases_lost_total", [("why", "another_history")]);

/// Waits until `/readyz` says that text.
pub async fn until_it_says(process: &Running, text: &str) {
    wait_for(&format!("{} to say {text:?}", process.process().name()), LIMIT, async || {
        let (status, said) = process.get("/readyz").await?;
        Ok(if status == 503 && said.contains(text) { Look::Holds(()) } else { Look::NotYet(said) })
    })
    .await
    .unwrap();
}

/// The newest request that any of the BMCs got.
pub async fn newest_request(fleet: &Fleet, systems: usize) -> Result<u64> {
    let mut newest = 0;
    for number in 1..=systems {
        let requests = fleet.bmcs().requests(&system(number)).await?;
        newest = newest.max(requests.iter().map(|one| one.seq).max().unwrap_or(0));
    }
    Ok(newest)
}

/// Watches the BMCs for the quiet time that began after `since`: nobody asks them anything. A look that ends later says
/// nothing.
pub async fn expect_quiet(fleet: &Fleet, systems: usize, before: u64, since: Instant) {
    while since.elapsed() < QUIET {
        let newest = newest_request(fleet, systems).await.unwrap();
        if since.elapsed() < QUIET {
            assert_eq!(newest, before, "a BMC was asked in the quiet time");
        }
    }
}

/// How often a machine was asked to go off, and to go on.
pub async fn offs_and_ons(fleet: &Fleet, name: &str) -> (usize, usize) {
    let resets = fleet.bmcs().resets(name).await.unwrap();
    let count = |what: &str| resets.iter().filter(|one| *one == what).count();
    (count("off"), count("on"))
}
