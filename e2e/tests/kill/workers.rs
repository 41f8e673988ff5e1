//! Workers that are asked to end, pools whose members die, and a fleet whose processes die at random.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use autobuild::job::{Action, JobResult};
use e2e::autobuild::Running;
use e2e::fleet::{Fleet, LIMIT, Layout};
use e2e::process::Signal;
use e2e::wait::{Look, say, wait_for};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

const SYSTEM: &str = "system-0001";

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_asked_to_end_hands_its_job_back_at_once() {
    const OTHER: &str = "system-0002";
    let fleet = Fleet::with(Layout::new(2).emulator(&["--initial-power", "on"])).await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "1h");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    // A lease that outlives the test: nobody can take the job over, it must be handed back.
    let long = [("--lease", "10m"), ("--grace", "30s"), ("--request-timeout", "10s")];
    let flags = fleet.worker_flags().with(&long);
    let first = fleet.worker_with("first", &flags, &[]).await.unwrap();
    for system in [SYSTEM, OTHER] {
        fleet.declare(system, json!({})).await.unwrap();
        fleet.wait_ready(system).await.unwrap();
    }
    let slow = json!({ "system": SYSTEM, "method": "POST", "count": 1, "behaviour": { "kind": "Delay", "ms": 4000 } });
    fleet.bmcs().fault(slow).await.unwrap();
    fleet.change(SYSTEM, json!({ "rebootToken": "one" })).await.unwrap();
    wait_for("the off to arrive", LIMIT, async || {
        let asked = fleet.bmcs().resets(SYSTEM).await?;
        Ok(if asked.is_empty() { Look::NotYet(format!("{asked:?}")) } else { Look::Holds(()) })
    })
    .await
    .unwrap();
    first.process().signal(Signal::TERM).unwrap();
    wait_for("the first to say that it was asked to end", LIMIT, async || {
        let (_, text) = first.get("/readyz").await?;
        Ok(if text.contains("asked to end") { Look::Holds(()) } else { Look::NotYet(text) })
    })
    .await
    .unwrap();
    // What comes from now on is for others.
    fleet.change(OTHER, json!({ "power": "PoweredOff" })).await.unwrap();
    wait_for("a job for others", LIMIT, async || {
        let job = fleet.records().job(OTHER).await?;
        Ok(if job.is_some() { Look::Holds(()) } else { Look::NotYet("none".to_owned()) })
    })
    .await
    .unwrap();
    assert!(first.process().wait(Duration::from_secs(40)).await.unwrap().success());
    let untouched = "SELECT COUNT(*) FROM job WHERE name = 'system-0002' AND started_at_ms IS NULL";
    assert_eq!(fleet.records().number(untouched).await.unwrap(), 1, "it was claimed after the signal");
    let _second = fleet.worker_with("second", &flags, &[]).await.unwrap();
    fleet
        .wait(SYSTEM, "rebooted", |server| {
            let last = server.status.as_ref().and_then(|status| status.last_job.as_ref());
            last.is_some_and(|job| job.action == Action::Reboot && job.result == JobResult::Succeeded)
                && e2e::fleet::is_ready(server)
        })
        .await
        .unwrap();
    assert_eq!(fleet.bmcs().resets(SYSTEM).await.unwrap(), ["off", "on"]);
    fleet.end().await.unwrap();
}

/// The members of a pool, by the processes that its manager started.
fn members(manager: &Running) -> Vec<u32> {
    let path = format!("/proc/{0}/task/{0}/children", manager.process().pid());
    let own = std::fs::read_to_string(path).unwrap_or_default();
    // Threads of the manager start members, too.
    let tasks = std::fs::read_dir(format!("/proc/{}/task", manager.process().pid()));
    let others = tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let mut pids: Vec<u32> = std::iter::once(own)
        .chain(others)
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_restarts_a_member_that_dies_and_leaves_nobody_behind() {
    let fleet = Fleet::start(1).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let flags = fleet.worker_flags().set("--processes", "2");
    let pool = fleet.worker_with("pool", &flags, &[]).await.unwrap();
    let two = async || {
        let now = members(&pool);
        Ok(if now.len() == 2 { Look::Holds(now) } else { Look::NotYet(format!("{now:?}")) })
    };
    let before = wait_for("two members", LIMIT, two).await.unwrap();
    kill(before[0]);
    let after = wait_for("two members again", LIMIT, async || {
        let now = members(&pool);
        let anew = now.len() == 2 && !now.contains(&before[0]);
        Ok(if anew { Look::Holds(now) } else { Look::NotYet(format!("{now:?}")) })
    })
    .await
    .unwrap();
    fleet.declare(SYSTEM, json!({ "power": "PoweredOn" })).await.unwrap();
    fleet.wait_ready(SYSTEM).await.unwrap();
    // A manager that is killed takes nobody's jobs with it, and nobody stays behind.
    pool.process().kill().await.unwrap();
    wait_for("the members to end", LIMIT, async || {
        let left: Vec<u32> =
            after.iter().copied().filter(|pid| e2e::process::started_at(*pid).is_some()).collect();
        Ok(if left.is_empty() { Look::Holds(()) } else { Look::NotYet(format!("{left:?} run")) })
    })
    .await
    .unwrap();
    fleet.end().await.unwrap();
}

/// How many seeds: `SOAK_SEEDS`, or one.
fn seeds() -> Vec<u64> {
    let count: u64 = std::env::var("SOAK_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let first: u64 =
        std::env::var("SOAK_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    (0..count).map(|number| first.wrapping_add(number)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_at_random_the_fleet_ends_as_declared() {
    for seed in seeds() {
        say(format!("random drill: SOAK_SEED={seed}"));
        random_drill(seed).await;
    }
}

/// Waits until the work for the last wish has come so far, or there is nothing to do: 0 not at all, 1 a job is live,
/// 2 its first request is stored, 3 it has ended.
async fn until_stage(fleet: &Fleet, name: &str, stage: u32) {
    wait_for(&format!("{name}: stage {stage}"), LIMIT, async || {
        let (server, job) = (fleet.get(name).await?, fleet.records().job(name).await?);
        let reached = match (stage, &job) {
            (0, _) => true,
            (1, Some(_)) => true,
            (2, Some(job)) => job.begun,
            _ => false,
        };
        let settled = job.is_none() && e2e::fleet::is_ready(&server);
        let holds = reached || settled;
        Ok(if holds { Look::Holds(()) } else { Look::NotYet(format!("{job:?}")) })
    })
    .await
    .unwrap();
}

/// Servers change their wishes while workers and controllers are killed; at the end everybody lives.
async fn random_drill(seed: u64) {
    const SYSTEMS: u32 = 6;
    let mut random = StdRng::seed_from_u64(seed);
    let fleet = Fleet::start(SYSTEMS).await.unwrap();
    let mut running: Vec<Running> = Vec::new();
    for name in ["controller-1", "controller-2"] {
        running.push(fleet.controller(name).await.unwrap());
    }
    for name in ["worker-1", "worker-2"] {
        running.push(fleet.worker(name).await.unwrap());
    }
    let names: Vec<String> = (1..=SYSTEMS).map(|number| format!("system-{number:04}")).collect();
    for name in &names {
        fleet.declare(name, json!({ "power": "PoweredOn" })).await.unwrap();
    }
    let mut wishes: BTreeMap<&str, &str> = names.iter().map(|name| (name.as_str(), "PoweredOn")).collect();
    let mut tokens = 0;
    let begun = Instant::now();
    // Bounded by its rounds; the pauses come from what is waited for.
    for round in 0..18 {
        let name = names[random.random_range(0..names.len())].as_str();
        if random.random_bool(0.5) {
            let power = if random.random_bool(0.6) { "PoweredOn" } else { "PoweredOff" };
            fleet.change(name, json!({ "power": power })).await.unwrap();
            wishes.insert(name, power);
        } else {
            tokens += 1;
            fleet.change(name, json!({ "rebootToken": format!("t{tokens}") })).await.unwrap();
        }
        until_stage(&fleet, name, random.random_range(0..4)).await;
        if round % 3 > 0 {
            let victim = random.random_range(0..running.len());
            say(format!("round {round}: killing {}", running[victim].process().name()));
            running[victim].restart().await.unwrap();
        }
    }
    for name in &names {
        let power = wishes[name.as_str()];
        let server = fleet
            .wait(name, &format!("Ready and {power}"), |server| {
                let read = server.status.as_ref().and_then(|status| status.power);
                e2e::fleet::is_ready(server) && read.is_some_and(|read| read.as_str() == power)
            })
            .await
            .unwrap();
        let token = server.spec.reboot_token.clone();
        let handled = server.status.map(|status| status.reboot_tokens).unwrap_or_default();
        assert!(token.is_none_or(|token| handled.contains(&token)), "{name}: {handled:?}");
        let said = fleet.bmcs().power(name).await.unwrap();
        assert_eq!(format!("Powered{said}"), power, "{name} by its own word");
        // Never two offs or two ons in a row that both took effect.
        let resets = fleet.bmcs().changes(name).await.unwrap();
        let effects: Vec<bool> = resets
            .iter()
            .filter(|one| one.effect == "Applied")
            .filter_map(|one| one.reset.as_deref())
            .map(|reset| matches!(reset, "On" | "ForceOn"))
            .collect();
        assert!(effects.windows(2).all(|pair| pair[0] != pair[1]), "{name}: {resets:?}");
    }
    // Every job that was ever shown has one end in the history, or is live.
    for name in &names {
        let history = fleet.records().history(name).await.unwrap();
        let live = fleet.records().job(name).await.unwrap().map(|job| job.id);
        for (id, action) in fleet.shown().jobs(name) {
            let id = autobuild::job::JobId::parse(&id).unwrap().0;
            let ends = history.iter().filter(|past| past.id == id).count();
            assert!(ends == 1 || live == Some(id), "{name}: job {id} ({action}) has {ends} ends");
        }
    }
    fleet.end().await.unwrap();
    say(format!("random drill with seed {seed}: {} s", begun.elapsed().as_secs()));
}
