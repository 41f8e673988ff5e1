//! The boot service goes where the database's address leads, like controller and worker, and gives no script before every
//! job was derived again.

use std::time::Instant;

use anyhow::Result;
use autobuild::api::{Phase, Reason, Server};
use e2e::autobuild::Running;
use e2e::database::{Engine, Pair};
use e2e::fleet::{BootFiles, Fleet, LIMIT, Layout, Link, Proxy, QUICK_INSTALLS, is_ready};
use e2e::wait::{Look, say, wait_for};
use rstest::rstest;
use serde_json::json;

use crate::site::{
    Site, controller, controller_beside, started_over, system, until_it_says, until_started_over,
    until_started_over_again,
};

/// A site whose machines can be installed, and the URL of its boot service.
async fn site(engine: Engine) -> (Site, BootFiles, Running, String) {
    let pair = Pair::start(engine).await.unwrap();
    let proxy = Proxy::start(pair.primary()).await.unwrap();
    let url = pair.create_schema("failover", proxy.address()).await.unwrap();
    let fleet = Fleet::with(Layout::new(1).emulator(QUICK_INSTALLS).database(&url)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    fleet.image("debian-12", &files, &[]).await.unwrap();
    let (boot, base) = fleet.boot_and_url("boot", &files).await.unwrap();
    (Site { pair, proxy, fleet }, files, boot, base)
}

async fn installed(fleet: &Fleet, name: &str, token: &str) {
    fleet
        .wait(name, &format!("installed for {token:?}"), |server| {
            let status = server.status.as_ref();
            let there = status.is_some_and(|status| status.image.is_some() && status.job.is_none());
            let handled = status.is_some_and(|status| status.reimage_tokens.iter().any(|one| one == token));
            there && (handled || token.is_empty()) && is_ready(server)
        })
        .await
        .unwrap();
}

async fn reimage(fleet: &Fleet, name: &str, token: &str) {
    fleet.change(name, json!({ "reimageToken": token })).await.unwrap();
    installed(fleet, name, token).await;
}

#[rstest]
#[case::mysql(Engine::MySql)]
#[case::mariadb(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
async fn machines_are_installed_after_a_failover_and_a_new_epoch_and_no_process_is_restarted(
    #[case] engine: Engine,
) {
    if crate::is_left_out(engine) {
        return;
    }
    let begun = Instant::now();
    let (site, _files, boot, _) = site(engine).await;
    let fleet = &site.fleet;
    // One of the watched namespaces is gone: it is nobody's business but its own.
    let controller = controller_beside(fleet, "gone-for-long").await;
    let worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    fleet.declare(&name, json!({ "image": { "name": "debian-12" } })).await.unwrap();
    installed(fleet, &name, "").await;

    // A database that hangs is told.
    site.proxy.set(Link::Silent);
    until_it_says(&boot, "database: ").await;
    until_it_says(&controller, "database: ").await;
    site.proxy.set(Link::Up);
    boot.wait_ready().await.unwrap();
    reimage(fleet, &name, "hung").await;

    site.pair.caught_up().await.unwrap();
    site.pair.kill_primary().await.unwrap();
    site.pair.promote().await.unwrap();
    site.fail_over();
    until_started_over(&worker).await;
    reimage(fleet, &name, "failed-over").await;
    boot.wait_ready().await.unwrap();

    let new_epoch = ["migrate", "--new-epoch"];
    let url = fleet.database_url();
    let before = started_over(&worker).await;
    fleet.autobuild().run("new-epoch", &new_epoch, &[("DATABASE_URL", url)]).await.unwrap();
    // What is begun before everybody knows of it is of the history before.
    until_started_over_again(&worker, before).await;
    reimage(fleet, &name, "new-epoch").await;
    assert_eq!(fleet.installs(&name).await.unwrap(), 4);
    for process in [&controller, &worker, &boot] {
        process.wait_ready().await.unwrap();
    }
    fleet.end().await.unwrap();
    say(format!("a {} failover with machines to install: {} s", engine.as_str(), begun.elapsed().as_secs()));
}

/// What the boot service answers to a card.
async fn ask(base: &str, mac: &str) -> Result<(u16, String)> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let answer = client.get(format!("{base}/boot/{mac}")).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

async fn until_it_answers(base: &str, mac: &str, status: u16, text: &str) {
    wait_for(&format!("the boot service to answer {status}"), LIMIT, async || {
        let answer = ask(base, mac).await?;
        let holds = answer.0 == status && answer.1.contains(text);
        Ok(if holds { Look::Holds(()) } else { Look::NotYet(format!("{answer:?}")) })
    })
    .await
    .unwrap();
}

fn waits_for_its_machine(server: &Server) -> bool {
    server.status.as_ref().is_some_and(|status| status.phase == Some(Phase::Building))
}

#[rstest]
#[case::mysql(Engine::MySql)]
#[case::mariadb(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
async fn no_script_is_given_before_every_job_was_derived_again(#[case] engine: Engine) {
    if crate::is_left_out(engine) {
        return;
    }
    let (site, _files, boot, base) = site(engine).await;
    let fleet = &site.fleet;
    let mut controller = controller(fleet).await;
    let worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    // The machine never comes past its self-test: this test speaks for it.
    fleet.bmcs().host_rule(json!({ "behaviour": { "kind": "StayInPost" } })).await.unwrap();
    fleet.declare(&name, json!({ "image": { "name": "debian-12" } })).await.unwrap();
    fleet.wait(&name, "its machine is waited for", waits_for_its_machine).await.unwrap();
    let mac = wait_for("a boot session", LIMIT, async || {
        let mac: Option<String> =
            sqlx::query_scalar("SELECT mac FROM boot_session").fetch_optional(fleet.records().pool()).await?;
        Ok(mac.map_or_else(|| Look::NotYet("none".to_owned()), Look::Holds))
    })
    .await
    .unwrap();
    until_it_answers(&base, &mac.replace(':', "-"), 200, "autobuild.url=").await;
    site.pair.caught_up().await.unwrap();
    controller.process().stop(LIMIT).await.unwrap();
    site.pair.kill_primary().await.unwrap();
    site.pair.promote().await.unwrap();
    site.fail_over();
    until_started_over(&worker).await;
    until_it_says(&worker, "until a controller has derived every job again").await;
    boot.wait_ready().await.unwrap();
    let (status, text) = ask(&base, &mac.replace(':', "-")).await.unwrap();
    assert_eq!(status, 503, "{text}");
    // Nobody knows what it had come to: it is not gone on with, and its session is over.
    controller.restart().await.unwrap();
    fleet.wait_event(&name, Reason::HistoryLost).await.unwrap();
    until_it_answers(&base, &mac.replace(':', "-"), 200, "exit").await;
    fleet.end().await.unwrap();
}
