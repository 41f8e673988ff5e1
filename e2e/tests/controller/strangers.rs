//! What somebody else writes into `status`.

use autobuild::api::hardware::PowerState;
use autobuild::job::Action;
use e2e::autobuild::Running;
use e2e::fleet::{LIMIT, metric};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::TURN;
use crate::site::{Site, is_ready, wait};

/// Writes into `status` as a person with kubectl does.
async fn write(site: &Site, name: &str, status: Value) {
    let how = PatchParams { field_manager: Some("kubectl-patch".to_owned()), ..PatchParams::default() };
    let patch = json!({ "status": status });
    site.servers().patch_status(name, &how, &Patch::Merge(&patch)).await.unwrap();
}

/// How many patches of status ended so.
async fn patches(controller: &Running, result: &str) -> f64 {
    let (_, page) = controller.get("/metrics").await.unwrap();
    metric(&page, "autobuild_status_patches_total", &[("result", result)])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_writes_into_status_goes_away_and_holds_nothing_up() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let controller = site.controller("a", &[], "").await;
    site.ready("one", json!({})).await;
    site.until_feed_is_empty().await;
    let before = site.get("one").await.status.unwrap();
    let now = "2026-01-01T00:00:00Z";
    let condition = json!({
        "type": "Blessed", "status": "True", "reason": "ByHand", "message": "", "lastTransitionTime": now,
    });
    let job = json!({
        "id": "0000000000000041", "action": "PowerOff", "priority": "Normal", "state": "Running", "step": "PowerOff", "enqueuedAt": now,
    });
    let mut conditions: Vec<Value> =
        before.conditions.iter().map(|one| serde_json::to_value(one).unwrap()).collect();
    conditions.push(condition);
    for status in [json!({"wipedAt": now}), json!({"job": job}), json!({"conditions": conditions})] {
        write(&site, "one", status).await;
        site.until("one", "what was before", |status| *status == before).await;
    }
    // Each took an apply and one patch more, and then nothing is written any more.
    let cleared = patches(&controller, "cleared").await;
    assert!((3.0..7.0).contains(&cleared), "{cleared} patches");
    assert!(patches(&controller, "error").await < 1.0);
    let managers = site.get("one").await.metadata.managed_fields.unwrap_or_default();
    assert!(managers.iter().all(|entry| entry.manager.as_deref() != Some("kubectl-patch")), "{managers:?}");
    // It goes on, and goes.
    site.change("one", json!({"spec": {"power": "PoweredOff"}})).await;
    site.finish(Action::PowerOff, PowerState::PoweredOff).await;
    site.until("one", "off", |status| is_ready(status) && status.power == Some(PowerState::PoweredOff)).await;
    write(&site, "one", json!({"wipedAt": now})).await;
    site.delete("one").await;
    site.gone("one").await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_writes_into_status_causes_nothing() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let _controller = site.controller("a", &[], "").await;
    site.ready("one", json!({ "rebootToken": "first" })).await;
    site.until_feed_is_empty().await;
    let before = site.get("one").await.status.unwrap();
    let later = "2099-01-01T00:00:00Z";
    let job = |action: &str| {
        json!({ "id": "0000000000000042", "action": action, "priority": "Normal", "state": "Running", "step": "PowerOff",
            "enqueuedAt": later, "startedAt": later })
    };
    let digest = format!("sha256:{}", "0".repeat(64));
    let stalled = json!({ "type": "Stalled", "status": "True", "reason": "LeftPoweredOff", "message": "",
        "lastTransitionTime": later });
    for status in [
        json!({ "job": job("Reboot") }),
        json!({ "job": job("Reimage") }),
        json!({ "decommissionedAt": later, "phase": "Decommissioned" }),
        json!({ "image": { "name": "other", "digest": digest, "installedAt": later } }),
        json!({ "rebootTokens": ["second"] }),
        json!({ "conditions": [stalled] }),
    ] {
        let told = status.to_string();
        write(&site, "one", status).await;
        site.until("one", &format!("what was before {told}"), |now| {
            (now.job.is_none(), &now.last_job, &now.image, now.decommissioned_at.is_none(), now.phase)
                == (true, &before.last_job, &before.image, true, before.phase)
                && now.reboot_tokens == before.reboot_tokens
                && is_ready(now)
        })
        .await;
    }
    // The token that somebody wrote there was never used.
    write(&site, "one", json!({ "rebootTokens": ["third"] })).await;
    site.change("one", json!({ "spec": { "rebootToken": "third" } })).await;
    site.finish(Action::Reboot, PowerState::PoweredOn).await;
    site.until("one", "rebooted", |now| now.reboot_tokens.iter().any(|token| token == "third")).await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_job_that_somebody_else_wrote_too_goes_with_it() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let controller = site.controller("a", &[], "").await;
    site.ready("one", json!({ "rebootToken": "first" })).await;
    site.until_feed_is_empty().await;
    controller.process().stop(LIMIT).await.unwrap();
    // A backup of status from another reboot, put back as the next one begins: what both write the same both own.
    let job = json!({
        "id": "0000000000000043", "action": "Reboot", "priority": "Normal", "state": "Queued", "step": "PowerOff",
        "enqueuedAt": "2026-01-01T00:00:00Z",
    });
    write(&site, "one", json!({ "job": job })).await;
    site.change("one", json!({ "spec": { "rebootToken": "second" } })).await;
    let _controller = site.controller("b", &[], "").await;
    let claim = site.request(site.claim(Action::Reboot).await, Some("second")).await;
    site.until("one", "the job", |now| now.job.as_ref().is_some_and(|job| job.started_at.is_some())).await;
    site.complete(claim, PowerState::PoweredOn).await;
    site.until("one", "rebooted", |now| {
        is_ready(now) && now.job.is_none() && now.reboot_tokens.iter().any(|token| token == "second")
    })
    .await;
    site.delete("one").await;
    site.gone("one").await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_is_never_stored_as_written_is_tried_ever_more_rarely_and_keeps_no_server() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let controller = site.controller("a", &[], "").await;
    site.ready("one", json!({})).await;
    site.with_a_webhook().await;
    let mut wished = PowerState::PoweredOff;
    wait("the webhook to be there", async || {
        let power = if wished == PowerState::PoweredOff { "PoweredOff" } else { "PoweredOn" };
        site.change("one", json!({"spec": {"power": power}})).await;
        let action = if wished == PowerState::PoweredOff { Action::PowerOff } else { Action::PowerOn };
        site.finish(action, wished).await;
        wished = if action == Action::PowerOff { PowerState::PoweredOn } else { PowerState::PoweredOff };
        site.get("one").await.status.unwrap().wiped_at.is_some()
    })
    .await;
    // What is wished is done, and a person lets it go.
    site.delete("one").await;
    site.gone("one").await;
    let errors = patches(&controller, "error").await;
    assert!((1.0..30.0).contains(&errors), "{errors} tries");
    site.end().await;
}
