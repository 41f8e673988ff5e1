//! The boot service goes where the database's address leads, like controller and worker, and gives no script before every
//! job was derived again.

use std::time::Instant;

use anyhow::Result;
use autobuild::api::condition::ConditionType;
use autobuild::api::{Reason, Server, names};
use autobuild::job::{Action, Step};
use e2e::autobuild::Running;
use e2e::database::{Engine, Pair};
use e2e::fleet::{BootFiles, Fleet, LIMIT, Layout, Link, Proxy, QUICK_INSTALLS, is_ready, message};
use e2e::wait::{Look, say, wait_for};
use kube::api::{Patch, PatchParams};
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
    let fleet = Fleet::with(Layout::new(5).emulator(QUICK_INSTALLS).database(&url)).await.unwrap();
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

/// Declares a machine whose installation takes a while, and waits until it has begun; the rule of that.
async fn begin(fleet: &Fleet, name: &str, install_ms: u64) -> u64 {
    let lasts = json!({ "kind": "InstallDuration", "ms": install_ms });
    let rule = fleet.bmcs().host_rule(json!({ "system": name, "behaviour": lasts })).await.unwrap();
    fleet.declare(name, json!({ "image": { "name": "debian-12" } })).await.unwrap();
    fleet.wait(name, "in the middle of an installation", is_being_installed).await.unwrap();
    rule
}

fn is_being_installed(server: &Server) -> bool {
    let job = server.status.as_ref().and_then(|status| status.job.as_ref());
    job.is_some_and(|job| job.action == Action::Build && job.step == Step::AwaitInstall)
}

fn is_read(server: &Server) -> bool {
    message(server, ConditionType::Fresh, Reason::RecentlyRead).is_some()
}

/// The job that was in flight came to its end, and its machine was installed by it alone.
async fn went_on(fleet: &Fleet, name: &str) {
    installed(fleet, name, "").await;
    assert_eq!(fleet.installs(name).await.unwrap(), 1, "{name}");
    let builds = fleet.records().finished(name, Action::Build.as_str()).await.unwrap();
    let results: Vec<&str> = builds.iter().map(|past| past.result.as_str()).collect();
    assert_eq!(results, ["Succeeded"], "{name}: {builds:?}");
    let told = fleet.events(name).await.unwrap();
    assert!(told.iter().all(|(reason, _)| reason != Reason::HistoryLost.as_str()), "{name}: {told:?}");
}

#[rstest]
#[case::mysql(Engine::MySql)]
#[case::mariadb(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
async fn installations_in_flight_go_on_after_a_failover_and_a_restore_that_have_their_rows(
    #[case] engine: Engine,
) {
    if crate::is_left_out(engine) {
        return;
    }
    let begun = Instant::now();
    let (site, _files, mut boot, base) = site(engine).await;
    let fleet = &site.fleet;
    // One of the watched namespaces is gone: it is nobody's business but its own.
    let mut controller = controller_beside(fleet, "gone-for-long").await;
    let mut worker = fleet.worker("worker").await.unwrap();
    let [name, one, two, kept, lost] = [1, 2, 3, 4, 5].map(system);
    fleet.declare(&name, json!({ "image": { "name": "debian-12" } })).await.unwrap();
    installed(fleet, &name, "").await;

    // A database that hangs is told.
    site.proxy.set(Link::Silent);
    until_it_says(&boot, "database: ").await;
    until_it_says(&controller, "database: ").await;
    site.proxy.set(Link::Up);
    boot.wait_ready().await.unwrap();
    reimage(fleet, &name, "hung").await;

    // A failover that loses nothing: no process is restarted, and what was in flight goes on.
    begin(fleet, &one, 10_000).await;
    site.pair.caught_up().await.unwrap();
    site.pair.kill_primary().await.unwrap();
    site.pair.promote().await.unwrap();
    site.fail_over();
    until_started_over(&worker).await;
    went_on(fleet, &one).await;
    reimage(fleet, &name, "failed-over").await;
    boot.wait_ready().await.unwrap();

    // The same by a new epoch.
    begin(fleet, &two, 10_000).await;
    let new_epoch = ["migrate", "--new-epoch"];
    let url = [("DATABASE_URL", fleet.database_url())];
    let before = started_over(&worker).await;
    fleet.autobuild().run("new-epoch", &new_epoch, &url).await.unwrap();
    // What is begun before everybody knows of it is of the history before.
    until_started_over_again(&worker, before).await;
    went_on(fleet, &two).await;
    reimage(fleet, &name, "new-epoch").await;

    // A restore: one installation is in the backup, another one was begun after it.
    let script = begin_by_hand(fleet, &base, &kept).await;
    site.back_up().await;
    let slow = begin(fleet, &lost, 600_000).await;
    for process in [&controller, &worker, &boot] {
        assert!(process.process().stop(LIMIT).await.unwrap().success());
    }
    site.restore().await;
    fleet.autobuild().run("restored", &new_epoch, &url).await.unwrap();
    for process in [&mut controller, &mut worker, &mut boot] {
        process.restart().await.unwrap();
    }
    let told = fleet.wait_event(&lost, Reason::HistoryLost).await.unwrap();
    assert!(told.contains("look at the machine"), "{told}");
    call_home(&script).await;
    installed(fleet, &kept, "").await;
    assert_eq!(fleet.records().finished(&kept, Action::Build.as_str()).await.unwrap().len(), 1);
    reimage(fleet, &name, "restored").await;
    assert_eq!(fleet.installs(&lost).await.unwrap(), 1, "nobody asked for it");
    fleet.bmcs().end_host_rule(slow).await.unwrap();
    // What is owed to it is found to be paid, by one look and not by many.
    fleet.wait(&lost, "read in this history", is_read).await.unwrap();
    let looks = fleet.records().finished(&lost, Action::PowerOn.as_str()).await.unwrap();
    assert!(looks.len() <= 1, "{looks:?}");
    let uid = fleet.get(&lost).await.unwrap().metadata.uid.unwrap();
    let annotations = json!({ "metadata": { "annotations": { names::CONFIRM: uid } } });
    fleet.servers().patch(&lost, &PatchParams::default(), &Patch::Merge(annotations)).await.unwrap();
    reimage(fleet, &lost, "by-a-person").await;
    assert_eq!(fleet.installs(&lost).await.unwrap(), 2);
    assert_eq!(fleet.installs(&name).await.unwrap(), 5);
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

async fn until_it_answers(base: &str, mac: &str, status: u16, text: &str) -> String {
    wait_for(&format!("the boot service to answer {status}"), LIMIT, async || {
        let answer = ask(base, mac).await?;
        let holds = answer.0 == status && answer.1.contains(text);
        Ok(if holds { Look::Holds(answer.1) } else { Look::NotYet(format!("{answer:?}")) })
    })
    .await
    .unwrap()
}

/// Declares a machine that never comes past its self-test, and asks for its script in its place: the script.
async fn begin_by_hand(fleet: &Fleet, base: &str, name: &str) -> String {
    let rule = json!({ "system": name, "behaviour": { "kind": "StayInPost" } });
    fleet.bmcs().host_rule(rule).await.unwrap();
    fleet.declare(name, json!({ "image": { "name": "debian-12" } })).await.unwrap();
    fleet.wait(name, "its machine is waited for", waits_for_its_machine).await.unwrap();
    let script = until_it_answers(base, &card(fleet, name).await, 200, "autobuild.url=").await;
    fleet.wait(name, "in the middle of an installation", is_being_installed).await.unwrap();
    script
}

/// The card of a machine's session, as it asks with it.
async fn card(fleet: &Fleet, name: &str) -> String {
    let session = sqlx::query_scalar::<_, String>("SELECT mac FROM boot_session WHERE name = ?").bind(name);
    session.fetch_one(fleet.records().pool()).await.unwrap().replace(':', "-")
}

/// What runs on a machine says that it is installed.
async fn call_home(script: &str) {
    let session = script.split("autobuild.url=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let url = format!("{}/installed", session.unwrap().trim_end_matches('/'));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(client.post(url).send().await.unwrap().status(), 200);
}

fn waits_for_its_machine(server: &Server) -> bool {
    let job = server.status.as_ref().and_then(|status| status.job.as_ref());
    job.is_some_and(|job| job.action == Action::Build && job.step == Step::AwaitBoot)
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
    let script = begin_by_hand(fleet, &base, &name).await;
    let mac = card(fleet, &name).await;
    site.pair.caught_up().await.unwrap();
    controller.process().stop(LIMIT).await.unwrap();
    site.pair.kill_primary().await.unwrap();
    site.pair.promote().await.unwrap();
    site.fail_over();
    until_started_over(&worker).await;
    until_it_says(&worker, "until a controller has derived every job again").await;
    boot.wait_ready().await.unwrap();
    let (status, text) = ask(&base, &mac).await.unwrap();
    assert_eq!(status, 503, "{text}");
    // Nobody knows what its machine has come to: it may be installed, and is not given its script again. What it tells is heard.
    controller.restart().await.unwrap();
    until_it_answers(&base, &mac, 200, "exit").await;
    let asked_again = "it asked for its script again after the database was failed over";
    fleet
        .wait(&name, "told that it asked again", |server| {
            let job = server.status.as_ref().and_then(|status| status.job.as_ref());
            let told = job.and_then(|job| job.progress.as_ref());
            told.is_some_and(|told| told.message.contains(asked_again))
        })
        .await
        .unwrap();
    call_home(&script).await;
    installed(fleet, &name, "").await;
    assert_eq!(fleet.records().finished(&name, Action::Build.as_str()).await.unwrap().len(), 1);
    fleet.end().await.unwrap();
}
