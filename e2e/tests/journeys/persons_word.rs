//! What begins and what does not: a person's word is heard whatever it says, and what nobody asked for is not begun.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use autobuild::api::condition::ConditionType;
use autobuild::api::{Reason, Server};
use e2e::fleet::{BootFiles, Fleet, LIMIT, Layout, QUICK_INSTALLS};
use e2e::wait::wait_until;
use serde_json::json;

use crate::steps::{at_rest, system};

async fn says(fleet: &Fleet, name: &str, word: &str) -> Result<()> {
    let annotation = format!("autobuild.dev/reconcile-requested-at={word}");
    let kubectl = fleet.kubectl().in_namespace(fleet.namespace());
    kubectl.run(&["annotate", "--overwrite", "server", name, &annotation]).await?;
    Ok(())
}

fn handled(server: &Server) -> Option<&str> {
    server.status.as_ref()?.last_handled_reconcile_at.as_deref()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_new_word_is_heard_once_whatever_it_says() {
    let fleet = Fleet::with(Layout::new(1).emulator(&["--initial-power", "on"])).await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "1h");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    fleet.declare(&name, json!({ "power": "PoweredOn" })).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    for word in ["banana", "1999-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "banana"] {
        says(&fleet, &name, word).await.unwrap();
        fleet.wait(&name, word, |server| handled(server) == Some(word) && at_rest(server)).await.unwrap();
    }
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_password_that_was_refused_for_a_while_is_tried_again_by_a_persons_word() {
    let fleet = Fleet::with(Layout::new(1).emulator(&["--initial-power", "on"])).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    fleet.declare(&name, json!({ "power": "PoweredOn" })).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    let refuses = fleet.bmcs().misbehave(&name, json!({ "kind": "WrongPassword" })).await.unwrap();
    says(&fleet, &name, "one").await.unwrap();
    let told = fleet.wait_reason(&name, ConditionType::Stalled, Reason::CredentialsInvalid).await.unwrap();
    wait_until("it to be told that and when they are tried again", LIMIT, async || {
        let server = fleet.get(&name).await?;
        let text = e2e::fleet::describe(&server);
        Ok(["twice since", "logged in before", "reconcile-requested-at"]
            .iter()
            .all(|part| text.contains(part)))
    })
    .await
    .with_context(|| told.clone())
    .unwrap();
    let before = fleet.bmcs().bad_logins(&name).await.unwrap();
    // A word is one try, and only one.
    says(&fleet, &name, "two").await.unwrap();
    fleet.wait(&name, "the word to be heard", |server| handled(server) == Some("two")).await.unwrap();
    fleet.bmcs().mend(refuses).await.unwrap();
    ensure_tries(&fleet, &name, before + 1).await.unwrap();
    says(&fleet, &name, "three").await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    ensure_tries(&fleet, &name, before + 1).await.unwrap();
    fleet.end().await.unwrap();
}

async fn ensure_tries(fleet: &Fleet, name: &str, expected: u64) -> Result<()> {
    let tries = fleet.bmcs().bad_logins(name).await?;
    ensure!(tries == expected, "{tries} logins were refused, {expected} are right");
    Ok(())
}

/// Writes a job and its boot session as if it were about to hear of its machine.
async fn forge(fleet: &Fleet, server: &Server, mac: &str, digest: &str) -> Result<()> {
    let (uid, name) =
        (server.metadata.uid.clone().context("uid")?, server.metadata.name.clone().context("name")?);
    let fields: BTreeMap<&str, String> = [
        ("server_uid", format!("'{uid}'")),
        ("id", "77".to_owned()),
        ("namespace", format!("'{}'", fleet.namespace())),
        ("name", format!("'{name}'")),
        ("site", "'nowhere'".to_owned()),
        ("shard", "0".to_owned()),
        ("action", "'Reimage'".to_owned()),
        ("lane", "1".to_owned()),
        ("order_ms", "1".to_owned()),
        ("q_state", "3".to_owned()),
        ("q_ord", "9999999999999".to_owned()),
        ("intent", "'forged'".to_owned()),
        ("cause", "'forged'".to_owned()),
        ("quiet", "0".to_owned()),
        ("step", "'AwaitBoot'".to_owned()),
        ("checkpoint", "''".to_owned()),
        ("request_stored", "1".to_owned()),
        ("waiting_for", "'NetworkBoot'".to_owned()),
        ("requester", "'nobody'".to_owned()),
        ("enqueued_at_ms", "1".to_owned()),
        ("started_at_ms", "2".to_owned()),
    ]
    .into();
    let names: Vec<&str> = fields.keys().copied().collect();
    let values: Vec<&str> = fields.values().map(String::as_str).collect();
    let job = format!("INSERT INTO job ({}) VALUES ({})", names.join(", "), values.join(", "));
    let session = format!(
        "INSERT INTO boot_session (server_uid, job_id, namespace, name, mac, image, digest, purpose) \
         VALUES ('{uid}', 77, '{}', '{name}', '{mac}', 'debian-12', '{digest}', 'Install')",
        fleet.namespace()
    );
    let place = format!(
        "INSERT INTO queue (site, shard, state, ord, id, server_uid) VALUES ('nowhere', 0, 3, 9999999999999, 77, '{uid}')"
    );
    for text in [place, job, session] {
        sqlx::query(sqlx::AssertSqlSafe(text)).execute(fleet.records().pool()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_forged_hand_out_no_script() {
    let layout = Layout::new(1).emulator(&["--initial-power", "on"]).emulator(QUICK_INSTALLS);
    let fleet = Fleet::with(layout).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    fleet.image("debian-12", &files, &[]).await.unwrap();
    let (_boot, url) = fleet.boot_and_url("boot", &files).await.unwrap();
    let controller = fleet.controller("controller").await.unwrap();
    let worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    fleet.declare(&name, json!({ "image": { "name": "debian-12" }, "provisioning": "Adopt" })).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    fleet.change(&name, json!({ "provisioning": "Install" })).await.unwrap();
    let server = fleet.wait(&name, "at rest", at_rest).await.unwrap();
    worker.process().stop(LIMIT).await.unwrap();
    let status = server.status.clone().unwrap();
    let mac =
        status.hardware.unwrap().nics.into_iter().find_map(|nic| nic.mac_address).unwrap().to_lowercase();
    let script = format!("{url}/boot/{}", mac.replace(':', "-"));
    let ask = async || -> Result<(u16, String)> {
        let answer = reqwest::Client::builder().no_proxy().build()?.get(&script).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    };
    forge(&fleet, &server, &mac, &status.image.unwrap().digest).await.unwrap();
    let (code, text) = ask().await.unwrap();
    assert!(code != 200 && !text.contains("kernel"), "{code} {text}");
    // The controller looks at the rows, and does not believe them either.
    says(&fleet, &name, "look").await.unwrap();
    wait_until("the forged job to be stopped", LIMIT, async || {
        Ok(fleet.records().number("SELECT COUNT(*) FROM job WHERE cancel IS NOT NULL").await? == 1)
    })
    .await
    .unwrap();
    let (code, text) = ask().await.unwrap();
    assert!(!text.contains("kernel"), "{code} {text}");
    assert_eq!(fleet.installs(&name).await.unwrap(), 0);
    controller.process().stop(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_somebody_switches_on_while_its_build_is_refused_is_built_on_a_persons_word() {
    let fleet = Fleet::with(Layout::new(1).emulator(QUICK_INSTALLS)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    fleet.image("debian-12", &files, &[]).await.unwrap();
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    fleet.declare(&name, json!({})).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    let rule = json!({
        "system": &name, "path": "*Systems/*", "method": "PATCH", "behaviour": { "kind": "Status", "status": 503 },
    });
    let rule = fleet.bmcs().fault(rule).await.unwrap();
    fleet.change(&name, json!({ "image": { "name": "debian-12" } })).await.unwrap();
    wait_until("a request that was refused", LIMIT, async || {
        Ok(!fleet.bmcs().changes(&name).await?.is_empty())
    })
    .await
    .unwrap();
    // What runs then is somebody's.
    fleet.bmcs().press(&name, "On").await.unwrap();
    fleet.bmcs().mend(rule).await.unwrap();
    fleet.wait_reason(&name, ConditionType::Stalled, Reason::ConfirmBuild).await.unwrap();
    assert_eq!(fleet.installs(&name).await.unwrap(), 0);
    assert_eq!(fleet.bmcs().power(&name).await.unwrap(), "On", "and it is left alone");
    fleet.end().await.unwrap();
}
