//! What a boot service believes: the machine of the session that is open, and nobody else, once.

use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use autobuild::job::{Action, JobResult};
use e2e::fleet::{BootFiles, Fleet, LIMIT, Layout, QUICK_INSTALLS};
use e2e::wait::{Look, wait_for};
use serde_json::json;

use crate::steps::{cards, ended, system};

/// Asks the boot service as a machine would: the status and the text.
async fn ask(url: &str, post: Option<&str>) -> Result<(u16, String)> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = match post {
        Some(body) => {
            client.post(url).header("content-type", "application/x-www-form-urlencoded").body(body.to_owned())
        }
        None => client.get(url),
    };
    let answer = request.send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// The script of a MAC address, and where its session is: `None` while the machine has nothing to boot.
async fn script(base: &str, mac: &str) -> Result<Option<String>> {
    let (status, text) = ask(&format!("{base}/boot/{mac}"), None).await?;
    ensure!(status == 200 || status == 404, "{status}: {text}");
    Ok(text.split_whitespace().find_map(|word| word.strip_prefix("autobuild.url=")).map(str::to_owned))
}

/// Waits until a session is open, and fetches its script.
async fn fetched(base: &str, mac: &str) -> Result<String> {
    wait_for("a boot session", LIMIT, async || {
        Ok(script(base, mac).await?.map_or_else(|| Look::NotYet("nothing to boot".to_owned()), Look::Holds))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_forged_replayed_late_or_foreign_changes_nothing() {
    let fleet = Fleet::start(2).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    fleet.image("debian-12", &files, &[]).await.unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let boot = fleet.boot_at("boot", &address, &files).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let (name, other) = (system(1), system(2));
    // The machines never come past their self-test: this test speaks for them.
    fleet.bmcs().host_rule(json!({ "behaviour": { "kind": "StayInPost" } })).await.unwrap();
    let mut macs = Vec::new();
    for name in [&name, &other] {
        fleet.declare(name, json!({})).await.unwrap();
        fleet.wait_ready(name).await.unwrap();
        let mac = cards(&fleet, name).await.unwrap().remove(1);
        let wish = json!({ "image": { "name": "debian-12" }, "bootMACAddress": &mac });
        fleet.change(name, wish).await.unwrap();
        macs.push(mac.replace(':', "-"));
    }
    let base = format!("http://{address}");
    let first = fetched(&base, &macs[0]).await.unwrap();
    let foreign = fetched(&base, &macs[1]).await.unwrap();
    let newest = fetched(&base, &macs[0]).await.unwrap();
    assert_ne!(first, newest, "each script has a token of its own");
    // What is stored and logged of it is its hash.
    let tables = fleet.records().dump().await.unwrap();
    for session in [&first, &foreign, &newest] {
        let token = session.rsplit('/').next().unwrap();
        assert!(token.len() == 64 && !tables.contains(token), "a table has a token");
        assert!(fleet.logged(token).unwrap().is_empty(), "a log has a token");
    }
    let forged = format!("{base}/s/{}", "ab".repeat(32));
    let unknown = format!("{base}/boot/52-54-00-ff-ff-ff");
    let refused = ask(&unknown, None).await.unwrap();
    // Forged, and late: of a script that a newer one has replaced. All refusals look alike.
    for url in [format!("{forged}/installed"), format!("{first}/installed"), format!("{first}/failed")] {
        assert_eq!(ask(&url, Some("reason=x")).await.unwrap(), refused, "{url}");
    }
    assert_eq!(ask(&format!("{newest}/booted"), Some("")).await.unwrap().0, 200);
    assert_eq!(ask(&format!("{newest}/progress"), Some("percent=40&message=writing")).await.unwrap().0, 200);
    let nonsense = Some("percent=400&message=x");
    assert_eq!(ask(&format!("{newest}/progress"), nonsense).await.unwrap(), refused);
    fleet
        .wait(&name, "40 %", |server| {
            let job = server.status.as_ref().and_then(|status| status.job.as_ref());
            job.and_then(|job| job.progress.as_ref()).is_some_and(|told| told.percent == 40)
        })
        .await
        .unwrap();
    // The other machine's call ends the other one's installation.
    assert_eq!(ask(&format!("{foreign}/installed"), Some("")).await.unwrap().0, 200);
    ended(&fleet, &other, Action::Build, JobResult::Succeeded).await.unwrap();
    assert!(fleet.records().job(&name).await.unwrap().is_some(), "a foreign call ended it");
    // Once, and no more.
    assert_eq!(ask(&format!("{newest}/installed"), Some("")).await.unwrap().0, 200);
    assert_eq!(ask(&format!("{newest}/installed"), Some("")).await.unwrap(), refused);
    let server = ended(&fleet, &name, Action::Build, JobResult::Succeeded).await.unwrap();
    for late in ["installed", "failed", "progress", "booted"] {
        assert_eq!(
            ask(&format!("{newest}/{late}"), Some("percent=1&reason=x")).await.unwrap(),
            refused,
            "{late}"
        );
    }
    let version = server.metadata.resource_version.context("no version").unwrap();
    // What a later installation of the same machine has to say is its own.
    fleet.change(&name, json!({ "reimageToken": "again" })).await.unwrap();
    let again = fetched(&base, &macs[0]).await.unwrap();
    assert_eq!(ask(&format!("{newest}/installed"), Some("")).await.unwrap(), refused);
    assert_eq!(ask(&format!("{again}/installed"), Some("")).await.unwrap().0, 200);
    let server = ended(&fleet, &name, Action::Reimage, JobResult::Succeeded).await.unwrap();
    assert_ne!(server.metadata.resource_version, Some(version));
    assert_eq!(script(&base, &macs[0]).await.unwrap(), None, "it boots from its disk");
    drop(boot);
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_restarts_in_the_middle_of_a_reimage_is_waited_for_and_asked_for_nothing_twice() {
    let layout = Layout::new(3).emulator(&["--initial-power", "on"]).emulator(QUICK_INSTALLS);
    let fleet = Fleet::with(layout).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    fleet.image("debian-12", &files, &[]).await.unwrap();
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let names: Vec<String> = (1..=3).map(system).collect();
    for name in &names {
        fleet
            .declare(name, json!({ "image": { "name": "debian-12" }, "provisioning": "Adopt" }))
            .await
            .unwrap();
        fleet.wait_ready(name).await.unwrap();
    }
    // It goes after so many requests that change something: the override, the off, the on.
    for (skip, name) in names.iter().enumerate() {
        let goes = json!({
            "system": name, "method": "POST", "skip": skip, "for_ms": 6000, "behaviour": { "kind": "Offline", "by": "Reset" }
        });
        fleet.bmcs().fault(goes).await.unwrap();
        fleet.change(name, json!({ "provisioning": "Install", "reimageToken": "one" })).await.unwrap();
    }
    for name in &names {
        ended(&fleet, name, Action::Reimage, JobResult::Succeeded).await.unwrap();
        assert_eq!(fleet.installs(name).await.unwrap(), 1, "{name}");
        let applied = fleet.bmcs().changes(name).await.unwrap();
        let resets = applied.iter().filter(|one| one.effect == "Applied" && one.reset.is_some()).count();
        assert_eq!(resets, 2, "{name}: {applied:?}");
    }
    fleet.end().await.unwrap();
}
