//! What goes wrong in a drill: workers are killed and frozen, the database is killed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use e2e::autobuild::Running;
use e2e::database::Database;
use e2e::fleet::{Fleet, LIMIT};
use e2e::process::Signal;
use e2e::wait::{Look, say, wait_for};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// SIGKILL of a worker, and another start.
    Kill(usize),
    /// SIGSTOP of a worker until others have buried it, then SIGCONT.
    Freeze(usize),
    /// SIGKILL of the database, and another start.
    KillDatabase,
}

/// What goes wrong with so many workers, in this order; every fourth is a freeze. The same seed has the same troubles.
pub fn troubles(seed: u64, workers: usize, kills: usize, of_database: usize) -> Vec<Trouble> {
    let mut random = StdRng::seed_from_u64(!seed);
    let mut all: Vec<Trouble> = (0..kills)
        .map(|number| {
            let worker = random.random_range(0..workers);
            if number % 4 == 3 { Trouble::Freeze(worker) } else { Trouble::Kill(worker) }
        })
        .collect();
    all.shuffle(&mut random);
    for number in (1..=of_database).rev() {
        all.insert(all.len() * number / (of_database + 1), Trouble::KillDatabase);
    }
    all
}

/// Makes trouble, evenly over the jobs: each when so many of `jobs` are done.
pub async fn make(
    fleet: &Fleet,
    workers: &mut [Running],
    database: &mut Database,
    troubles: &[Trouble],
    (done, jobs): (&AtomicUsize, usize),
) -> Result<()> {
    for (number, trouble) in troubles.iter().enumerate() {
        let at = jobs * (number + 1) / (troubles.len() + 1);
        wait_for(&format!("{at} jobs to be done before {trouble:?}"), LIMIT * 5, async || {
            let done = done.load(Ordering::SeqCst);
            Ok(if done >= at { Look::Holds(()) } else { Look::NotYet(format!("{done} are done")) })
        })
        .await?;
        say(format!("{at} of {jobs} jobs done: {trouble:?}"));
        match *trouble {
            Trouble::Kill(worker) => workers[worker].restart().await?,
            Trouble::Freeze(worker) => freeze(fleet, &workers[worker]).await?,
            Trouble::KillDatabase => {
                database.kill().await?;
                database.restart().await?;
            }
        }
    }
    Ok(())
}

/// Freezes a worker until every row of it in the registry is gone.
async fn freeze(fleet: &Fleet, worker: &Running) -> Result<()> {
    // It may have just been started, and it may have no row for a moment after the database died.
    worker.wait_ready().await?;
    let process = format!("%/{}", worker.process().pid());
    worker.process().signal(Signal::STOP)?;
    let buried = wait_for("a frozen worker to be buried", Duration::from_mins(1), async || {
        let rows: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM worker WHERE host LIKE ? AND tombstone = 0")
            .bind(&process)
            .fetch_one(fleet.records().pool())
            .await?;
        Ok(if rows == 0 { Look::Holds(()) } else { Look::NotYet(format!("{rows} rows")) })
    })
    .await;
    worker.process().signal(Signal::CONT)?;
    buried
}
