//! Leaders that die, leave or are late.

use std::time::Duration;

use autobuild::api::hardware::PowerState;
use autobuild::api::{Phase, names};
use autobuild::job::Action;
use e2e::autobuild::Running;
use e2e::process::Signal;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::TURN;
use crate::site::{Site, is_ready, wait};

async fn leads(controller: &Running) -> bool {
    let (_, metrics) = controller.get("/metrics").await.unwrap();
    metrics.contains("leader_election_master_status{name=\"autobuild-controller\"} 1")
}

async fn until_it_leads(controller: &Running) {
    wait("the controller to lead", async || leads(controller).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_takes_over_from_one_that_was_killed_and_from_one_that_left() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let first = site.controller("first", &[], "").await;
    until_it_leads(&first).await;
    let second = site.controller("second", &[], "").await;
    wait("the second to stand by", async || {
        second.get("/readyz").await.unwrap() == (200, "ok: standby\n".to_owned())
    })
    .await;
    assert!(!leads(&second).await);
    site.ready("one", json!({})).await;
    first.process().kill().await.unwrap();
    until_it_leads(&second).await;
    site.change("one", json!({"spec": {"power": "PoweredOff"}})).await;
    let claim = site.claim(Action::PowerOff).await;
    let third = site.controller("third", &["--lease-duration", "1h"], "").await;
    // It gives the Lease back, so nobody waits for it to run out.
    second.process().stop(Duration::from_secs(20)).await.unwrap();
    until_it_leads(&third).await;
    let claim = site.request(claim, None).await;
    site.complete(claim, PowerState::PoweredOff).await;
    site.until("one", "off", |status| is_ready(status) && status.power == Some(PowerState::PoweredOff)).await;
    let fourth = site.controller("fourth", &[], "").await;
    third.process().stop(Duration::from_secs(20)).await.unwrap();
    until_it_leads(&fourth).await;
    assert_eq!(site.history().await.len(), 2, "one inspection and one power-off");
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_edited_to_last_a_day_is_told_with_the_way_out() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    let leases = site.leases();
    let edited = serde_json::from_value(json!({
        "metadata": {"name": "autobuild-controller"},
        "spec": {"holderIdentity": "gone", "leaseDurationSeconds": 86400},
    }));
    leases.create(&PostParams::default(), &edited.unwrap()).await.unwrap();
    let controller = site.controller("waits", &["--lease-duration", "2s"], "").await;
    wait("the Lease to be told", async || {
        let (status, said) = controller.get("/readyz").await.unwrap();
        status == 503
            && ["86400", "gone", "kubectl delete lease autobuild-controller -n autobuild-system"]
                .iter()
                .all(|part| said.contains(part))
    })
    .await;
    assert!(!leads(&controller).await);
    leases.delete("autobuild-controller", &DeleteParams::default()).await.unwrap();
    until_it_leads(&controller).await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_around_feed_and_patch_leaves_nothing_out_of_status() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let begun = site.controller("begun", &[], "").await;
    site.ready("one", json!({"power": "PoweredOn"})).await;
    site.until_feed_is_empty().await;
    begun.process().stop(Duration::from_secs(20)).await.unwrap();
    for (round, point) in
        ["controller.feed.read", "controller.patch.before", "controller.patch.after"].into_iter().enumerate()
    {
        let token = format!("round-{round}");
        let name = format!("doomed-{round}");
        let doomed = site.controller(&name, &[], "").await;
        site.change("one", json!({"spec": {"rebootToken": token}})).await;
        let claim = site.claim(Action::Reboot).await;
        site.until("one", "Rebooting", |status| status.phase == Some(Phase::Rebooting)).await;
        doomed.process().kill().await.unwrap();
        let armed = site.controller(&format!("armed-{round}"), &[], &format!("{point}=return")).await;
        let claim = site.request(claim, Some(&token)).await;
        site.complete(claim, PowerState::PoweredOn).await;
        armed.process().wait(Duration::from_mins(1)).await.unwrap();
        let next = site.controller(&format!("next-{round}"), &[], "").await;
        let server = site
            .until("one", "the end of the reboot", |status| {
                is_ready(status)
                    && status.job.is_none()
                    && status.reboot_tokens.contains(&token)
                    && status.last_job.as_ref().is_some_and(|last| last.action == Action::Reboot)
            })
            .await;
        assert_eq!(server.status.unwrap().reboot_tokens.len(), round + 1);
        site.until_feed_is_empty().await;
        assert_eq!(
            site.history().await.len(),
            2 + round,
            "{point}: the first look, and one reboot for each token"
        );
        next.process().stop(Duration::from_secs(20)).await.unwrap();
    }
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_frozen_beyond_its_lease_changes_nothing() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let frozen = site.controller("frozen", &[], "").await;
    site.ready("one", json!({})).await;
    site.until_feed_is_empty().await;
    frozen.process().signal(Signal::STOP).unwrap();
    let next = site.controller("next", &[], "").await;
    until_it_leads(&next).await;
    site.change("one", json!({"spec": {"rebootToken": "once"}})).await;
    let claim = site.claim(Action::Reboot).await;
    frozen.process().signal(Signal::CONT).unwrap();
    wait("the frozen one to see that it does not lead", async || !leads(&frozen).await).await;
    let claim = site.request(claim, Some("once")).await;
    site.complete(claim, PowerState::PoweredOn).await;
    site.until("one", "the end of the reboot", |status| is_ready(status) && status.reboot_tokens == ["once"])
        .await;
    assert_eq!((site.count("job").await, site.history().await.len()), (0, 2));
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_made_on_an_older_object_is_refused() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let _controller = site.controller("a", &[], "").await;
    site.ready("one", json!({})).await;
    let old = site.get("one").await.metadata.resource_version;
    site.change("one", json!({"metadata": {"labels": {"a": "b"}}})).await;
    let apply = json!({
        "apiVersion": "autobuild.dev/v1alpha1", "kind": "Server",
        "metadata": {"name": "one", "resourceVersion": old}, "status": {"phase": "Pending"},
    });
    let how = PatchParams::apply(names::STATUS_MANAGER).force();
    let refused = site.servers().patch_status("one", &how, &Patch::Apply(&apply)).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.is_conflict()));
    site.end().await;
}
