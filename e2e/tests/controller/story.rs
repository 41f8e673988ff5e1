//! One server's life as its owner sees it.

use std::time::Duration;

use autobuild::api::condition::ConditionType;
use autobuild::api::hardware::PowerState;
use autobuild::api::{Phase, names};
use autobuild::job::Action;
use serde_json::json;

use crate::TURN;
use crate::site::{Site, condition, is_ready};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_becomes_ready_and_then_nothing_is_written() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    let controller = site.controller("a", &[], "").await;
    // Without its Secret it says so; the Secret that is made later wakes it.
    let uid = site.server("one", json!({"rebootToken": "came-with-it"})).await;
    let server = site.until("one", "Stalled", |status| status.phase == Some(Phase::Stalled)).await;
    assert_eq!(condition(&server, ConditionType::Stalled), Some(("True", "CredentialsMissing")));
    assert_eq!(server.metadata.finalizers.unwrap(), [names::FINALIZER]);
    site.secret().await;
    let server = site.until("one", "a job", |status| status.job.is_some()).await;
    assert_eq!(server.status.as_ref().unwrap().phase, Some(Phase::Pending));
    assert_eq!(condition(&server, ConditionType::Reconciling).unwrap().0, "True");
    assert_eq!((site.count("job").await, site.count("queue").await), (1, 1));
    site.finish(Action::Inspect, PowerState::PoweredOn).await;
    let server = site.until("one", "Ready", is_ready).await;
    let status = server.status.as_ref().unwrap();
    assert_eq!(status.observed_generation, server.metadata.generation);
    assert_eq!(status.phase, Some(Phase::Ready));
    assert_eq!(condition(&server, ConditionType::Reconciling), None);
    // A token that came with the server asks for nothing.
    assert_eq!(status.reboot_tokens, ["came-with-it"]);
    site.until_feed_is_empty().await;
    // Looks that nobody needs: the label changes no status, and so nothing is written but the label.
    let events = site.events().await.len();
    let history = site.count("job_history").await;
    for look in 0..5 {
        site.change("one", json!({"metadata": {"labels": {"look": look.to_string()}}})).await;
        let labelled = site.get("one").await.metadata.resource_version;
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(site.get("one").await.metadata.resource_version, labelled, "something was written");
    }
    assert_eq!((site.events().await.len(), site.count("job_history").await), (events, history));
    // A new token is one reboot; an old or the same one is none.
    let known = site.queue.observe(&uid).await.unwrap().known.unwrap();
    assert_eq!(known.claimed_address.as_deref(), Some("redfish+https://one.example:443"));
    site.change("one", json!({"spec": {"rebootToken": "again"}})).await;
    let claim = site.claim(Action::Reboot).await;
    site.until("one", "Rebooting", |status| status.phase == Some(Phase::Rebooting)).await;
    let claim = site.request(claim, Some("again")).await;
    site.complete(claim, PowerState::PoweredOn).await;
    site.until("one", "Ready again", |status| is_ready(status) && status.job.is_none()).await;
    site.change("one", json!({"spec": {"rebootToken": "came-with-it"}})).await;
    let server = site.get("one").await;
    let generation = server.metadata.generation;
    let server =
        site.until("one", "the new generation", |status| status.observed_generation == generation).await;
    assert_eq!(server.status.unwrap().reboot_tokens, ["came-with-it", "again"]);
    assert_eq!(site.count("job").await, 0);
    assert!(site.events().await.iter().any(|reason| reason == "TokenAlreadyHandled"));
    // Bad input is said plainly.
    site.server(
        "two",
        json!({"bmc": {"address": "redfish+https://192.0.2.9:0", "credentialsRef": {"name": "bmc"}}}),
    )
    .await;
    let server = site.until("two", "Stalled", |status| status.phase == Some(Phase::Stalled)).await;
    assert_eq!(condition(&server, ConditionType::Stalled), Some(("True", "InvalidAddress")));
    site.server(
        "three",
        json!({"bmc": {"address": "redfish+https://ONE.example:443/", "credentialsRef": {"name": "bmc"}}}),
    )
    .await;
    let server = site.until("three", "Stalled", |status| status.phase == Some(Phase::Stalled)).await;
    assert_eq!(condition(&server, ConditionType::Stalled), Some(("True", "BMCClaimed")));
    // What is deleted with Retain goes at once, and frees its BMC.
    site.delete("one").await;
    site.gone("one").await;
    assert_eq!(site.queue.observe(&uid).await.unwrap().known, None);
    site.until("three", "the claim", |status| status.job.is_some()).await;
    let (_, metrics) = controller.get("/metrics").await.unwrap();
    assert!(metrics.contains("leader_election_master_status{name=\"autobuild-controller\"} 1"), "{metrics}");
    controller.process().stop(Duration::from_secs(20)).await.unwrap();
    site.end().await;
}
