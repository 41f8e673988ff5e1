//! BMCs whose answers are hard to read, or hold more than anybody keeps: nothing crashes over a text, and a part that cannot
//! be read is not a part that is missing.

use anyhow::{Result, ensure};
use autobuild::api::condition::ConditionType;
use autobuild::api::hardware::{Hardware, HardwarePart};
use autobuild::api::{Reason, Server};
use e2e::fleet::Fleet;
use serde_json::{Value, json};

use crate::{Case, all, says};

fn hardware(server: &Server) -> Hardware {
    server.status.as_ref().and_then(|status| status.hardware.clone()).unwrap_or_default()
}

async fn crashes(fleet: &Fleet) -> Result<i64> {
    fleet.records().number("SELECT CAST(COALESCE(SUM(crashes), 0) AS SIGNED) FROM job").await
}

/// It is read whole, and switched on.
async fn read_whole(fleet: &Fleet, system: &str, behaviour: Value) -> Result<()> {
    fleet.bmcs().misbehave(system, behaviour).await?;
    fleet.declare(system, json!({ "power": "PoweredOn" })).await?;
    let server = fleet.wait_ready(system).await?;
    let all = hardware(&server);
    ensure!(all.nics.len() == 2 && all.disks.len() >= 2 && all.unread.is_empty(), "{all:#?}");
    ensure!(fleet.bmcs().power(system).await? == "On");
    Ok(())
}

/// Everything that it tells is cut to what is kept.
async fn overdone(fleet: &Fleet, system: &str) -> Result<()> {
    fleet.bmcs().misbehave(system, json!({ "kind": "LongTexts", "length": 2_000 })).await?;
    fleet.declare(system, json!({ "power": "PoweredOn" })).await?;
    let server = fleet.wait_ready(system).await?;
    let all = hardware(&server);
    let told = all.model.clone().unwrap_or_default();
    ensure!(told.chars().count() == 128 && !told.chars().any(char::is_control), "{all:#?}");
    ensure!(fleet.bmcs().power(system).await? == "On");
    Ok(())
}

/// A refusal of a whole page.
async fn talks_too_much(fleet: &Fleet, system: &str) -> Result<()> {
    let words = format!("no\u{1b}[31m \u{1f980}{}", "x".repeat(100_000));
    let behaviour = json!({ "kind": "Status", "status": 400, "body": json!({ "error": { "message": words } }).to_string() });
    fleet.declare(system, json!({})).await?;
    fleet.wait_ready(system).await?;
    fleet.bmcs().fault(json!({ "system": system, "method": "POST", "behaviour": behaviour })).await?;
    fleet.change(system, json!({ "power": "PoweredOn" })).await?;
    let message = fleet.wait_reason(system, ConditionType::Stalled, Reason::RequestRefused).await?;
    says(&message, &["refuses", "no [31m \u{1f980}xxx"])?;
    ensure!(message.chars().count() < 1_000, "{message}");
    Ok(())
}

/// The id of a message with what goes with it is all that it says, and it means "not yet".
async fn in_its_self_test(fleet: &Fleet, system: &str) -> Result<()> {
    let behaviour = json!({
        "kind": "Status", "status": 400, "message_id": "iLO.2.37.UnableToModifyDuringSystemPOST", "message_args": ["PowerState"]
    });
    fleet.declare(system, json!({})).await?;
    fleet.wait_ready(system).await?;
    let rule =
        fleet.bmcs().fault(json!({ "system": system, "method": "POST", "behaviour": behaviour })).await?;
    fleet.change(system, json!({ "power": "PoweredOn" })).await?;
    let message = fleet.wait_reason(system, ConditionType::Reachable, Reason::BMCBusy).await?;
    says(&message, &["does not do On yet (400)", "UnableToModifyDuringSystemPOST (PowerState)"])?;
    fleet.bmcs().mend(rule).await?;
    fleet.wait_ready(system).await?;
    Ok(())
}

/// Its cards cannot be read at first, then they can, then they cannot again.
async fn unread_for_a_while(fleet: &Fleet, system: &str, behaviour: Value) -> Result<()> {
    let rule = json!({ "system": system, "path": "*/EthernetInterfaces*", "behaviour": behaviour });
    let first = fleet.bmcs().fault(rule.clone()).await?;
    fleet.declare(system, json!({ "power": "PoweredOn" })).await?;
    let server = fleet.wait_ready(system).await?;
    let all = hardware(&server);
    ensure!(all.nics.is_empty() && all.unread == [HardwarePart::NetworkInterfaces], "{all:#?}");
    ensure!(all.disks.len() >= 2, "the other parts are read: {all:#?}");
    let said = fleet.wait_reason(system, ConditionType::Reachable, Reason::Answered).await?;
    says(&said, &["its network interfaces could not be read"])?;
    fleet.bmcs().mend(first).await?;
    fleet
        .wait(system, "its cards", |server| {
            hardware(server).nics.len() == 2 && hardware(server).unread.is_empty()
        })
        .await?;
    fleet.bmcs().fault(rule).await?;
    let server = fleet.wait(system, "unread again", |server| !hardware(server).unread.is_empty()).await?;
    ensure!(hardware(&server).nics.len() == 2, "what was known is kept: {server:#?}");
    ensure!(e2e::fleet::is_ready(&server), "{server:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_a_bmc_crashes_a_step_and_what_cannot_be_read_is_not_missing() {
    let fleet = Fleet::start(8).await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "3s");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let fleet = &fleet;
    let cases: Vec<Case<'_>> = vec![
        ("too long", Box::pin(overdone(fleet, "system-0001"))),
        ("gzip", Box::pin(read_whole(fleet, "system-0002", json!({ "kind": "Compressed" })))),
        (
            "deflate",
            Box::pin(read_whole(
                fleet,
                "system-0003",
                json!({ "kind": "Compressed", "encoding": "deflate" }),
            )),
        ),
        ("a mark", Box::pin(read_whole(fleet, "system-0004", json!({ "kind": "ByteOrderMark" })))),
        ("a long refusal", Box::pin(talks_too_much(fleet, "system-0005"))),
        ("a self-test", Box::pin(in_its_self_test(fleet, "system-0006"))),
        (
            "cards behind a 500",
            Box::pin(unread_for_a_while(fleet, "system-0007", json!({ "kind": "Status", "status": 500 }))),
        ),
        (
            "cards in an unknown encoding",
            Box::pin(unread_for_a_while(
                fleet,
                "system-0008",
                json!({ "kind": "Compressed", "encoding": "br" }),
            )),
        ),
    ];
    all(cases).await;
    assert_eq!(crashes(fleet).await.unwrap(), 0);
    fleet.end().await.unwrap();
}
