//! The crash drill: many jobs while workers are killed and frozen at random and the database is killed twice.
//!
//! `SOAK_SEED` repeats one, `SOAK_JOBS` and `SOAK_KILLS` make it longer: they are spread over rounds of 2,000 jobs,
//! each a fleet of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use e2e::database::{Database, Durability, Engine};
use e2e::fleet::{Fleet, Layout, metric};
use e2e::process::Lifetime;
use e2e::wait::say;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use crate::judge::{self, Wishes};
use crate::steps::controller_flags;
use crate::trouble::{self, troubles};
use crate::wishes::{ask, wishes};

const SERVERS: usize = 100;
const WORKERS: usize = 4;
const JOBS_IN_A_ROUND: usize = 2_000;

pub fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, which is no number")),
        Err(_) => otherwise,
    }
}

/// The seed: `SOAK_SEED`, or any.
pub fn seed() -> u64 {
    number("SOAK_SEED", u64::from(rand::random::<u32>()))
}

/// One round.
struct Round {
    seed: u64,
    servers: usize,
    jobs: usize,
    kills: usize,
    kills_of_database: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_or_freezes_every_job_is_done_and_recorded_once() {
    let jobs = number("SOAK_JOBS", 800) as usize;
    let kills = number("SOAK_KILLS", 8) as usize;
    let first = seed();
    let rounds = jobs.div_ceil(JOBS_IN_A_ROUND);
    for round in 0..rounds {
        let seed = first.wrapping_add(round as u64);
        let (jobs, kills) = (jobs / rounds, kills / rounds);
        let name = format!("SOAK_SEED={seed} SOAK_JOBS={jobs} SOAK_KILLS={kills}");
        say(format!("crash drill {} of {rounds}: {name}", round + 1));
        let begun = Instant::now();
        let round = Round { seed, servers: SERVERS, jobs, kills, kills_of_database: 2 };
        drill(&round).await.with_context(|| name.clone()).unwrap();
        say(format!("crash drill {name}: {} s", begun.elapsed().as_secs()));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "two fleets beside everything else: make soak"]
async fn a_fleet_ends_in_trouble_as_it_does_without() {
    let seed = seed();
    say(format!("a run with trouble and one without: SOAK_SEED={seed}"));
    let calm = Round { seed, servers: 10, jobs: 60, kills: 0, kills_of_database: 0 };
    let troubled = Round { kills: 4, kills_of_database: 1, ..calm };
    let (calm, troubled) = futures::join!(drill(&calm), drill(&troubled));
    assert_eq!(calm.unwrap(), troubled.unwrap());
}

/// How a fleet ended: what is said of each server, without times and ids, and what its machine says.
type End = BTreeMap<String, String>;

async fn end_of(fleet: &Fleet, names: impl Iterator<Item = &String>) -> Result<End> {
    let mut end = End::new();
    for name in names {
        let status = fleet.get(name).await?.status.context("no status")?;
        let conditions: Vec<_> = status
            .conditions
            .iter()
            .map(|one| (one.type_.as_str(), one.status.as_str(), one.reason.as_str()))
            .collect();
        let last = status.last_job.as_ref().map(|job| (job.action, job.result, job.step));
        let said = format!(
            "{:?} {:?} {last:?} {:?} {conditions:?}; its machine is {}",
            status.phase,
            status.power,
            status.reboot_tokens,
            fleet.bmcs().power(name).await?
        );
        end.insert(name.clone(), said);
    }
    Ok(end)
}

async fn drill(round: &Round) -> Result<End> {
    let dir = e2e::paths::private("drill-database")?;
    let engine = Engine::from_env()?;
    let mut database = Database::start_in(&dir, engine, Durability::Relaxed, Lifetime::WithParent).await?;
    if !database.is_own() {
        say("the database of DATABASE_URL cannot be killed: no crash drill");
        return Ok(End::new());
    }
    let url = database.unique_schema("drill").await?;
    let layout = Layout::new(round.servers as u32).database(&url).emulator(&[
        "--initial-power",
        "on",
        "--power-on-delay",
        "0",
        "--power-off-delay",
        "0",
        "--log-capacity",
        "1000000",
    ]);
    let fleet = Fleet::with(layout).await?;
    // Some machines take their time: those jobs are parked meanwhile.
    let slow = json!({ "method": "POST", "percent": 25, "behaviour": { "kind": "AsyncDelay", "ms": 60 } });
    fleet.bmcs().fault(slow).await?;
    let flags = controller_flags(&fleet).set("--concurrency", "100");
    let controller = fleet.controller_with("controller", &flags, &[]).await?;
    let mut workers = Vec::new();
    let flags = fleet.worker_flags().with(&[
        ("--slots", "32"),
        ("--request-timeout", "1s"),
        ("--power-poll", "50ms"),
    ]);
    for worker in 0..WORKERS {
        workers.push(fleet.worker_with(&format!("worker-{worker}"), &flags, &[]).await?);
    }
    let each = round.jobs / round.servers;
    let all: Wishes = (0..round.servers)
        .map(|number| (format!("system-{:04}", number + 1), wishes(round.seed, number, each)))
        .collect();
    stream::iter(all.keys())
        .map(Ok)
        .try_for_each_concurrent(16, async |name| {
            fleet.declare(name, json!({ "power": "PoweredOn" })).await.map(|_| ())
        })
        .await?;
    for name in all.keys() {
        fleet.shown().until(name, "Ready", e2e::fleet::is_ready).await?;
    }
    let begun = Instant::now();
    let done = Arc::new(AtomicUsize::new(0));
    let wrong = troubles(round.seed, WORKERS, round.kills, round.kills_of_database);
    let asking = stream::iter(&all).map(Ok).try_for_each_concurrent(round.servers, async |(name, wished)| {
        ask(&fleet, name, wished, &done).await
    });
    let jobs = each * round.servers;
    let trouble = trouble::make(&fleet, &mut workers, &mut database, &wrong, (&done, jobs));
    let (asked, troubled) = futures::join!(asking, trouble);
    asked?;
    troubled?;
    let seconds = begun.elapsed().as_secs_f64();
    let (_, page) = controller.get("/metrics").await?;
    let patches = metric(&page, "autobuild_status_patches_total", &[]);
    say(format!("{} jobs in {seconds:.0} s, {patches} writes of status", done.load(Ordering::SeqCst)));
    judge::all(&fleet, &all, WORKERS).await?;
    let end = end_of(&fleet, all.keys()).await?;
    fleet.end().await?;
    Ok(end)
}
