//! The drill with slow BMCs: wishes come while a machine is being looked at, and each begins when that look is over.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use autobuild::api::{Phase, Reason, Server};
use e2e::fleet::{Fleet, LIMIT, Layout, Live, is_ready};
use e2e::wait::{Look, say, wait_for};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::crash::seed;

/// How many machines, how slow, and how much is wished for.
struct Size {
    servers: usize,
    /// Of each server.
    wishes: usize,
    /// How long a BMC takes for a request: a look is about a dozen.
    pace: &'static str,
    inspect_period: &'static str,
    /// How long a wish may take to begin, where that is measured.
    longest: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Off,
    On,
    Reboot,
    Pause,
    Delete,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_comes_while_its_machine_is_looked_at_begins_before_the_look_after_next() {
    let size = Size { servers: 4, wishes: 5, pace: "150ms", inspect_period: "3s", longest: None };
    drill(&size).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "twenty machines with looks of twenty seconds: make soak"]
async fn five_hundred_wishes_with_looks_of_twenty_seconds_begin_within_a_look_and_three_seconds() {
    let longest = Some(Duration::from_secs(25));
    drill(&Size { servers: 20, wishes: 25, pace: "1s..2s", inspect_period: "30s", longest }).await.unwrap();
}

/// The wishes for one server, of a machine that is on at first.
fn wishes(seed: u64, count: usize) -> Vec<Wish> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut is_on = true;
    (0..count)
        .map(|_| {
            let wish = match (is_on, random.random_range(0..10)) {
                (_, 0..2) => Wish::Pause,
                (_, 2) => Wish::Delete,
                (false, _) => Wish::On,
                (true, 3..7) => Wish::Reboot,
                (true, _) => Wish::Off,
            };
            is_on = match wish {
                Wish::On => true,
                Wish::Off => false,
                Wish::Reboot | Wish::Pause | Wish::Delete => is_on,
            };
            wish
        })
        .collect()
}

async fn drill(size: &Size) -> Result<()> {
    let seed = seed();
    say(format!("slow BMCs: SOAK_SEED={seed}"));
    let slow = ["--initial-power", "on", "--pace", size.pace];
    let fleet = Fleet::with(Layout::new(size.servers as u32).emulator(&slow)).await?;
    let flags = fleet.controller_flags().with(&[("--inspect-period", size.inspect_period)]);
    let _controller = fleet.controller_with("controller", &flags, &[]).await?;
    let flags = fleet.worker_flags().with(&[
        ("--slots", "64"),
        ("--request-timeout", "15s"),
        ("--shutdown-deadline", "60s"),
        ("--power-deadline", "2m"),
    ]);
    let _worker = fleet.worker_with("worker", &flags, &[]).await?;
    let longest = stream::iter(1..=size.servers)
        .map(|number| {
            let wished = wishes(seed.wrapping_add(number as u64), size.wishes);
            let fleet = &fleet;
            async move { all_of(fleet, &format!("system-{number:04}"), &wished).await }
        })
        .buffer_unordered(size.servers)
        .try_fold(Duration::ZERO, |longest, next| async move { Ok(longest.max(next)) })
        .await
        .with_context(|| format!("SOAK_SEED={seed}"))?;
    say(format!("slow BMCs: the longest that a wish took to begin was {:.1} s", longest.as_secs_f64()));
    ensure!(size.longest.is_none_or(|bound| longest <= bound), "a wish took {longest:?} to begin");
    let blamed = fleet.shown().so_far().into_iter().filter_map(|server| server.status).find(|status| {
        status.job.is_none() && status.conditions.iter().any(|one| one.reason == Reason::Queued.as_str())
    });
    ensure!(blamed.is_none(), "workers are blamed for a job that is not there: {blamed:#?}");
    fleet.end().await
}

/// One wish after the other; returns the longest that one took to begin.
async fn all_of(fleet: &Fleet, name: &str, wished: &[Wish]) -> Result<Duration> {
    fleet.declare(name, json!({})).await?;
    fleet.shown().until(name, "Ready", is_ready).await?;
    let mut longest = Duration::ZERO;
    for (number, wish) in wished.iter().enumerate() {
        let look = look(fleet, name).await?;
        let asked = Instant::now();
        let begun = ask(fleet, name, *wish, (number, &look)).await;
        begun.with_context(|| format!("{name}: {wish:?}, wish {number} of {wished:?}"))?;
        longest = longest.max(asked.elapsed());
        came_true(fleet, name, *wish, number).await?;
    }
    Ok(longest)
}

/// Waits until its machine is being looked at.
async fn look(fleet: &Fleet, name: &str) -> Result<Live> {
    wait_for(&format!("{name}: a look"), LIMIT, async || {
        let job = fleet.records().job(name).await?;
        Ok(match job {
            Some(job) if job.action == "Inspect" && job.owner.is_some() => Look::Holds(job),
            other => Look::NotYet(format!("{other:?}")),
        })
    })
    .await
}

/// Asks for it, and waits until it has begun: of all looks only the present one and the next may come before.
async fn ask(fleet: &Fleet, name: &str, wish: Wish, (number, look): (usize, &Live)) -> Result<()> {
    let (spec, action): (Value, _) = match wish {
        Wish::Off => (json!({ "power": "PoweredOff", "priority": "Urgent" }), "PowerOff"),
        Wish::On => (json!({ "power": "PoweredOn", "priority": null }), "PowerOn"),
        Wish::Reboot => (json!({ "rebootToken": format!("t{number}") }), "Reboot"),
        Wish::Pause => {
            fleet.change(name, json!({ "paused": true })).await?;
            fleet.shown().until(name, "Paused", |server| phase(server) == Some(Phase::Paused)).await?;
            return Ok(());
        }
        Wish::Delete => {
            fleet.delete(name).await?;
            return fleet.wait_gone(name).await;
        }
    };
    let before = fleet.records().finished(name, action).await?.len();
    fleet.change(name, spec).await?;
    let looks = Mutex::new(BTreeSet::from([look.id]));
    wait_for(&format!("{name}: {action} to begin"), LIMIT, async || {
        let job = fleet.records().job(name).await?;
        if let Some(job) = job.as_ref().filter(|job| job.action == "Inspect") {
            looks.lock().unwrap_or_else(PoisonError::into_inner).insert(job.id);
        }
        let is_there = job.as_ref().is_some_and(|job| job.action == action);
        if is_there || fleet.records().finished(name, action).await?.len() > before {
            return Ok(Look::Holds(()));
        }
        Ok(Look::NotYet(format!("{job:?}")))
    })
    .await?;
    let looks = looks.into_inner().unwrap_or_else(PoisonError::into_inner).len();
    ensure!(looks <= 2, "{looks} looks came before it");
    Ok(())
}

async fn came_true(fleet: &Fleet, name: &str, wish: Wish, number: usize) -> Result<()> {
    let power = |server: &Server, wished: &str| {
        server.status.as_ref().and_then(|status| status.power).is_some_and(|power| power.as_str() == wished)
    };
    let token = format!("t{number}");
    match wish {
        Wish::Off => fleet.shown().until(name, "off", |it| is_ready(it) && power(it, "PoweredOff")).await?,
        Wish::On => fleet.shown().until(name, "on", |it| is_ready(it) && power(it, "PoweredOn")).await?,
        Wish::Reboot => {
            let handled = |it: &Server| {
                is_ready(it) && it.status.as_ref().is_some_and(|status| status.reboot_tokens.contains(&token))
            };
            fleet.shown().until(name, "rebooted", handled).await?
        }
        Wish::Pause => {
            fleet.change(name, json!({ "paused": null })).await?;
            fleet.shown().until(name, "going on", is_ready).await?
        }
        Wish::Delete => {
            let made = fleet.declare(name, json!({})).await?;
            let uid = made.metadata.uid;
            fleet.shown().until(name, "Ready again", |it| it.metadata.uid == uid && is_ready(it)).await?
        }
    };
    Ok(())
}

fn phase(server: &Server) -> Option<Phase> {
    server.status.as_ref().and_then(|status| status.phase)
}
