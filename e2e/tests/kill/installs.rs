//! Worker, controller and boot service are killed at every step boundary of a reimage: one installation per request, and one
//! that runs survives whoever watches it.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use autobuild::job::{Action, JobResult};
use e2e::autobuild::Running;
use e2e::fleet::{BootFiles, Fleet, Layout, QUICK_INSTALLS, is_ready};
use futures::{StreamExt as _, stream};
use serde_json::json;

/// What a worker does on its way through a reimage, and how often: the requests for the override, the off and the on, and
/// the ways from step to step. The first inspection is a claim and a completion of its own.
const PASSES: &[(&str, usize, usize)] = &[
    ("queue.claim", 1, 3),
    ("queue.store_request", 0, 3),
    ("worker.send", 0, 3),
    ("queue.close_request", 0, 3),
    ("queue.park", 0, 3),
    ("queue.advance", 0, 5),
    ("queue.complete", 1, 1),
];

/// Which of the boundaries: all of them take minutes.
const SOME: usize = 3;
const EVERY: usize = 1;

/// Drills at the same time: each has a worker.
const AT_ONCE: usize = 6;

/// Every crash point of those passes.
fn boundaries() -> Vec<String> {
    let mut all = Vec::new();
    for (what, let_pass, times) in PASSES {
        for pass in *let_pass..let_pass + times {
            all.extend(["before", "after"].map(|when| dies_at(&format!("{what}.{when}"), pass)));
        }
    }
    all
}

/// What arms a crash point for the passage after so many.
fn dies_at(point: &str, passes: usize) -> String {
    let skipped = if passes == 0 { String::new() } else { format!("{passes}*off->") };
    format!("{point}={skipped}1*return")
}

fn system(number: usize) -> String {
    format!("system-{:04}", number + 1)
}

/// Machines that run an image of ours, with files to boot from and a boot service.
async fn installed_fleet(machines: usize) -> Result<(Fleet, BootFiles)> {
    let layout =
        Layout::new(u32::try_from(machines)?).emulator(&["--initial-power", "on"]).emulator(QUICK_INSTALLS);
    let fleet = Fleet::with(layout).await?;
    let files = BootFiles::serve().await?;
    fleet.image("debian-12", &files, &[]).await?;
    Ok((fleet, files))
}

/// A machine of which the image is known. It asks for one installation by its token afterwards.
async fn adopted(fleet: &Fleet, name: &str, site: &str) -> Result<()> {
    let wish = json!({ "site": site, "image": { "name": "debian-12" }, "provisioning": "Adopt" });
    fleet.declare(name, wish).await?;
    fleet.wait(name, "adopted", |server| image_is_there(server) && is_ready(server)).await?;
    Ok(())
}

fn image_is_there(server: &autobuild::api::Server) -> bool {
    server.status.as_ref().is_some_and(|status| status.image.is_some())
}

async fn ask_again(fleet: &Fleet, name: &str, token: &str) -> Result<()> {
    fleet.change(name, json!({ "provisioning": "Install", "reimageToken": token })).await?;
    Ok(())
}

/// The machine was installed once for each of so many requests, and nothing of it is left behind.
async fn installed_once(fleet: &Fleet, name: &str, token: &str, requests: u64) -> Result<()> {
    let server = fleet
        .wait(name, "reimaged, Ready", |server| {
            let status = server.status.as_ref();
            let last = status.and_then(|status| status.last_job.as_ref());
            let ended =
                last.is_some_and(|job| job.action == Action::Reimage && job.result == JobResult::Succeeded);
            let handled = status.is_some_and(|status| status.reimage_tokens.iter().any(|one| one == token));
            ended && handled && is_ready(server) && status.is_some_and(|status| status.job.is_none())
        })
        .await?;
    let installs = fleet.installs(name).await?;
    ensure!(installs == requests, "installed {installs} times for {requests} requests");
    let told = fleet.bmcs().system(name).await?;
    ensure!(told["boot"]["enabled"] == "Disabled", "a boot override is left: {told}");
    let digest = server.status.and_then(|status| status.image).map(|image| image.digest);
    ensure!(digest == Some(fleet.disk(name).await?), "status says {digest:?}");
    let done = fleet.records().finished(name, "Reimage").await?;
    ensure!(done.len() as u64 == requests, "history has {done:?}");
    Ok(())
}

async fn killed_worker(fleet: &Fleet, number: usize, failpoint: &str) -> Result<()> {
    let (name, site) = (system(number), format!("site-{number}"));
    let flags = fleet.worker_flags().set("--site", site.as_str());
    let victim = fleet.worker_with(&format!("victim-{number}"), &flags, &[("FAILPOINTS", failpoint)]).await?;
    adopted(fleet, &name, &site).await?;
    ask_again(fleet, &name, "one").await?;
    let end =
        victim.process().wait(Duration::from_mins(1)).await.context("the crash point was not reached")?;
    ensure!(!end.success(), "the victim ended with {end}");
    let rescuer = fleet.worker_with(&format!("rescuer-{number}"), &flags, &[]).await?;
    installed_once(fleet, &name, "one", 1).await?;
    let resets = fleet.bmcs().resets(&name).await?;
    ensure!(resets == ["off", "on"], "its BMC was asked for {resets:?}");
    rescuer.process().stop(Duration::from_secs(20)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_at_every_third_boundary_of_a_reimage_is_followed_by_one_that_finishes_it_once() {
    kill_workers(boundaries().into_iter().step_by(SOME).collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes long: `make soak`"]
async fn a_worker_killed_at_every_boundary_of_a_reimage_is_followed_by_one_that_finishes_it_once() {
    kill_workers(boundaries()).await;
}

async fn kill_workers(boundaries: Vec<String>) {
    let (fleet, files) = installed_fleet(boundaries.len()).await.unwrap();
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let flags =
        fleet.controller_flags().with(&[("--inspect-period", "1h"), ("--destruction-budget", "unlimited")]);
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let drills = stream::iter(boundaries.iter().enumerate()).map(|(number, failpoint)| {
        let fleet = &fleet;
        async move {
            killed_worker(fleet, number, failpoint).await.with_context(|| format!("killed at {failpoint}"))
        }
    });
    let results: Vec<Result<()>> = drills.buffer_unordered(AT_ONCE).collect().await;
    let failed: Vec<String> =
        results.into_iter().filter_map(|result| Some(format!("{:#}", result.err()?))).collect();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), boundaries.len(), failed.join("\n\n"));
    let sessions = fleet.records().number("SELECT COUNT(*) FROM boot_session").await.unwrap();
    assert_eq!(sessions, 0, "boot sessions are left");
    fleet.end().await.unwrap();
}

/// Starts a process that dies at its next passage of a crash point after so many others, has the machine installed once
/// more, and says whether the process died on the way.
async fn round(
    fleet: &Fleet,
    (victim, heir): (Running, impl AsyncFnOnce() -> Result<Running>),
    requests: u64,
) -> Result<(bool, Running)> {
    let name = system(0);
    let token = format!("token-{requests}");
    ask_again(fleet, &name, &token).await?;
    let died = tokio::select! {
        end = victim.process().wait(Duration::from_mins(1)) => { end?; true }
        done = installed_once(fleet, &name, &token, requests) => { done?; false }
    };
    let running = if died { heir().await? } else { victim };
    installed_once(fleet, &name, &token, requests).await?;
    Ok((died, running))
}

/// How often a process is killed before a round has to come to its end without.
const MOST: u64 = 30;

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_at_every_third_boundary_of_a_reimage_misses_and_doubles_nothing() {
    kill_controllers(SOME).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes long: `make soak`"]
async fn a_controller_killed_at_every_boundary_of_a_reimage_misses_and_doubles_nothing() {
    kill_controllers(EVERY).await;
}

/// At each passage of a crash point that is a multiple of `stride`.
async fn kill_controllers(stride: usize) {
    let (fleet, files) = installed_fleet(1).await.unwrap();
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let flags =
        fleet.controller_flags().with(&[("--inspect-period", "1h"), ("--destruction-budget", "unlimited")]);
    let first = fleet.controller_with("first", &flags, &[]).await.unwrap();
    adopted(&fleet, &system(0), "default").await.unwrap();
    first.process().stop(Duration::from_secs(20)).await.unwrap();
    let mut requests = 0;
    // What follows one write of a status comes before the next.
    for point in ["queue.enqueue.before", "queue.enqueue.after", "controller.patch.before"] {
        for pass in (0..).step_by(stride) {
            requests += 1;
            assert!(requests < MOST, "{point} is passed for ever");
            let armed = dies_at(point, pass);
            let (fleet, flags) = (&fleet, &flags);
            let start = async |name: &str, env: &[(&str, &str)]| {
                fleet.controller_with(&format!("{name}-{requests}"), flags, env).await
            };
            let victim = start("victim", &[("FAILPOINTS", &armed)]).await.unwrap();
            let heir = async || start("heir", &[]).await;
            let (died, running) =
                round(fleet, (victim, heir), requests).await.with_context(|| armed.clone()).unwrap();
            running.process().stop(Duration::from_secs(20)).await.unwrap();
            if !died {
                assert!(pass > 0, "{point} was never passed");
                break;
            }
        }
    }
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_service_killed_at_every_third_call_of_a_machine_is_followed_by_one_that_hears_it() {
    kill_boot_services(SOME).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes long: `make soak`"]
async fn a_boot_service_killed_at_every_call_of_a_machine_is_followed_by_one_that_hears_it() {
    kill_boot_services(EVERY).await;
}

/// At each call that is a multiple of `stride`.
async fn kill_boot_services(stride: usize) {
    let (fleet, files) = installed_fleet(1).await.unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    fleet.bmcs().boot_from(&format!("http://{address}")).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let flags = fleet.controller_flags().set("--destruction-budget", "unlimited");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    adopted(&fleet, &system(0), "default").await.unwrap();
    let mut requests = 0;
    for when in ["before", "after"] {
        for pass in (0..).step_by(stride) {
            requests += 1;
            assert!(requests < MOST, "it calls home for ever");
            let armed = dies_at(&format!("queue.call_home.{when}"), pass);
            let (fleet, files, address) = (&fleet, &files, &address);
            let start = async |name: &str, env: &[(&str, &str)]| {
                fleet.boot_with(&format!("{name}-{requests}"), address, files, env).await
            };
            let victim = start("victim", &[("FAILPOINTS", &armed)]).await.unwrap();
            let heir = async || start("heir", &[]).await;
            let (died, running) =
                round(fleet, (victim, heir), requests).await.with_context(|| armed.clone()).unwrap();
            running.process().stop(Duration::from_secs(20)).await.unwrap();
            if !died {
                // Its script, its start, how far it is, its end.
                assert!(pass >= 4, "it called home {pass} times");
                break;
            }
        }
    }
    fleet.end().await.unwrap();
}
