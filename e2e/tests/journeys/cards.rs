//! The network card that boots is one of the claimed machine, and what boots is that machine.

use autobuild::api::condition::ConditionType;
use autobuild::api::{Reason, Server};
use autobuild::job::{Action, JobResult};
use e2e::fleet::{BootFiles, Fleet, LIMIT, Layout, QUICK_INSTALLS};
use e2e::wait::{Look, wait_for};
use serde_json::json;

use crate::steps::{cards, ended, fresh_look, get, system};

fn ready_message(server: &Server) -> String {
    let status = server.status.as_ref();
    let ready = status.and_then(|status| status.conditions.iter().find(|one| one.type_ == "Ready"));
    ready.map(|ready| ready.message.clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_names_another_machines_card_gets_nothing_and_its_owner_loses_nothing() {
    let layout = Layout::new(2).emulator(&["--initial-power", "on"]).emulator(QUICK_INSTALLS);
    let fleet = Fleet::with(layout).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    fleet.image("debian-12", &files, &[]).await.unwrap();
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let (owner, other) = (system(1), system(2));
    let image = json!({ "image": { "name": "debian-12" }, "provisioning": "Adopt" });
    for name in [&owner, &other] {
        fleet.declare(name, image.clone()).await.unwrap();
        fleet.wait_ready(name).await.unwrap();
    }
    let card = cards(&fleet, &owner).await.unwrap().remove(0);
    let wish = json!({ "bootMACAddress": card, "provisioning": "Install", "reimageToken": "one" });
    fleet.change(&other, wish).await.unwrap();
    let why = fleet.wait_reason(&other, ConditionType::Stalled, Reason::BootMACMismatch).await.unwrap();
    for said in [card.clone(), cards(&fleet, &other).await.unwrap().remove(0)] {
        assert!(why.contains(&said), "{why}");
    }
    assert!(fleet.bmcs().changes(&other).await.unwrap().is_empty(), "nothing was sent");
    // The owner's own starts and installations are what they were.
    fleet.change(&owner, json!({ "rebootToken": "one" })).await.unwrap();
    ended(&fleet, &owner, Action::Reboot, JobResult::Succeeded).await.unwrap();
    assert_eq!(fleet.installs(&owner).await.unwrap(), 0);
    fleet.change(&owner, json!({ "provisioning": "Install", "reimageToken": "one" })).await.unwrap();
    ended(&fleet, &owner, Action::Reimage, JobResult::Succeeded).await.unwrap();
    // And so are the other's, once it names a card of its own.
    fleet.change(&other, json!({ "bootMACAddress": null })).await.unwrap();
    ended(&fleet, &other, Action::Reimage, JobResult::Succeeded).await.unwrap();
    for name in [&owner, &other] {
        assert_eq!(fleet.installs(name).await.unwrap(), 1, "{name}");
    }
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_is_taken_back_before_anything_was_carried_out_decides_nothing() {
    let fleet = Fleet::with(Layout::new(1).emulator(QUICK_INSTALLS)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    fleet.image("debian-12", &files, &[]).await.unwrap();
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let flags = fleet.worker_flags().set("--boot-deadline", "40s");
    let _worker = fleet.worker_with("worker", &flags, &[]).await.unwrap();
    let name = system(1);
    fleet.declare(&name, json!({})).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    let second = cards(&fleet, &name).await.unwrap().remove(1);
    let rule = json!({
        "system": &name, "path": "*Systems/*", "method": "PATCH", "behaviour": { "kind": "Status", "status": 503 },
    });
    let rule = fleet.bmcs().fault(rule).await.unwrap();
    // The machine never boots from that card.
    let wish = json!({ "image": { "name": "debian-12" }, "bootMACAddress": second });
    fleet.change(&name, wish).await.unwrap();
    wait_for("a request that was refused", LIMIT, async || {
        let asked = fleet.bmcs().changes(&name).await?.len();
        Ok(if asked > 0 { Look::Holds(()) } else { Look::NotYet(asked.to_string()) })
    })
    .await
    .unwrap();
    fleet.change(&name, json!({ "bootMACAddress": null })).await.unwrap();
    fleet.bmcs().mend(rule).await.unwrap();
    ended(&fleet, &name, Action::Build, JobResult::Succeeded).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    assert_eq!(fleet.installs(&name).await.unwrap(), 1);
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_tells_of_another_machines_card_takes_nothing_from_it() {
    let fleet = Fleet::with(Layout::new(1).emulator(QUICK_INSTALLS)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    fleet.image("debian-12", &files, &[]).await.unwrap();
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    fleet.declare(&name, json!({})).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    let card = cards(&fleet, &name).await.unwrap().remove(0);
    // Somebody whose BMC was asked before tells of the same card, whatever it is in truth.
    let claim = "UPDATE bmc_claim SET server_uid = 'another', namespace = 'elsewhere', name = 'secret-name' WHERE host = ?";
    let key = format!("mac:{card}");
    sqlx::query(claim).bind(&key).execute(fleet.records().pool()).await.unwrap();
    let wish = json!({ "bootMACAddress": card, "image": { "name": "debian-12" } });
    fleet.change(&name, wish).await.unwrap();
    let waits = |server: &Server| ready_message(server).contains("is held by another Server");
    let server = fleet.wait(&name, "waits for its card", waits).await.unwrap();
    assert!(!ready_message(&server).contains("secret-name"), "{}", ready_message(&server));
    assert!(fleet.bmcs().changes(&name).await.unwrap().is_empty(), "nothing was sent");
    // It has not failed: when the other one is let go, a look is enough.
    sqlx::query("DELETE FROM bmc_claim WHERE host = ?")
        .bind(&key)
        .execute(fleet.records().pool())
        .await
        .unwrap();
    fleet.change(&name, json!({ "priority": "Urgent" })).await.unwrap();
    ended(&fleet, &name, Action::Build, JobResult::Succeeded).await.unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_machine_or_another_card_gets_no_script_and_status_says_which() {
    let fleet = Fleet::start(2).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    fleet.image("debian-12", &files, &[]).await.unwrap();
    let (_boot, base) = fleet.boot_and_url("boot", &files).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    // The machines never come past their self-test: this test speaks for them.
    fleet.bmcs().host_rule(json!({ "behaviour": { "kind": "StayInPost" } })).await.unwrap();
    let (first, second) = (system(1), system(2));
    for name in [&first, &second] {
        fleet.declare(name, json!({})).await.unwrap();
        fleet.wait_ready(name).await.unwrap();
        fleet.change(name, json!({ "image": { "name": "debian-12" } })).await.unwrap();
        let armed = "SELECT COUNT(*) FROM boot_session JOIN job ON job.server_uid = boot_session.server_uid \
                     WHERE job.name = ? AND job.step = 'AwaitBoot'";
        wait_for("a session", LIMIT, async || {
            let open: i64 = sqlx::query_scalar(armed).bind(name).fetch_one(fleet.records().pool()).await?;
            Ok(if open == 1 { Look::Holds(()) } else { Look::NotYet("none".to_owned()) })
        })
        .await
        .unwrap();
    }
    let own = cards(&fleet, &first).await.unwrap();
    let address = |card: &str| format!("{base}/boot/{}", card.replace(':', "-"));
    // Another machine, by its firmware's word.
    let foreign = format!("{}?uuid=4c4c4544-0038-5a10-8053-b4c04f584b31&serial=X", address(&own[0]));
    assert_eq!(get(&foreign).await.unwrap().0, 404);
    let told = |server: &Server| ready_message(server).contains("4c4c4544-0038-5a10-8053-b4c04f584b31");
    fleet.wait(&first, "told of another machine", told).await.unwrap();
    // The right one, in the other order of its bytes.
    let identity = fleet.get(&first).await.unwrap().status.unwrap().bmc_identity.unwrap();
    let right = format!("{}?uuid={}", address(&own[0]), identity.uuid.unwrap().to_uppercase());
    let (status, script) = get(&right).await.unwrap();
    assert!(status == 200 && script.contains("autobuild.url="), "{status} {script}");
    // Another card of the machine: it goes on, and its job knows at once.
    let theirs = cards(&fleet, &second).await.unwrap();
    let (status, script) = get(&address(&theirs[1])).await.unwrap();
    assert_eq!((status, script.as_str()), (200, "#!ipxe\nexit\n"));
    let both = |text: &str| theirs[..2].iter().all(|card| text.contains(card.as_str()));
    fleet.wait(&second, "both addresses", |server| both(&ready_message(server))).await.unwrap();
    let why = fleet.wait_reason(&second, ConditionType::Stalled, Reason::NeverBooted).await.unwrap();
    assert!(both(&why) && why.contains("a guess"), "{why}");
    assert!(fleet.get(&second).await.unwrap().status.unwrap().image.is_none(), "nothing was installed");
    // A card that nobody has is told to nobody.
    assert_eq!(get(&address("52:54:00:ff:ff:ff")).await.unwrap().0, 404);
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_are_claimed_with_the_first_look_and_go_with_their_server() {
    let fleet = Fleet::start(1).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    fleet.declare(&name, json!({})).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    let claimed = "SELECT COUNT(*) FROM bmc_claim WHERE host LIKE 'mac:%' AND proven = 1";
    assert_eq!(fleet.records().number(claimed).await.unwrap(), 2);
    // Whoever takes them away: the next look has them again.
    sqlx::query("DELETE FROM bmc_claim WHERE host LIKE 'mac:%'")
        .execute(fleet.records().pool())
        .await
        .unwrap();
    fresh_look(&fleet, &name).await.unwrap();
    assert_eq!(fleet.records().number(claimed).await.unwrap(), 2);
    fleet.delete(&name).await.unwrap();
    fleet.wait_gone(&name).await.unwrap();
    assert_eq!(fleet.records().number("SELECT COUNT(*) FROM bmc_claim").await.unwrap(), 0);
    fleet.end().await.unwrap();
}
