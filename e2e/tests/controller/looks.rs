//! Wishes that come while a machine is being looked at.

use autobuild::api::Reason;
use autobuild::api::condition::ConditionType;
use autobuild::api::hardware::PowerState;
use autobuild::api::names;
use autobuild::job::{Action, ServerUid};
use autobuild::queue::Claim;
use serde_json::json;

use crate::TURN;
use crate::site::{Site, condition, wait};

/// A quiet look that a worker has begun.
async fn look(site: &Site, name: &str) -> Claim {
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    site.change(name, json!({"metadata": {"annotations": {names::RECONCILE_REQUESTED_AT: now}}})).await;
    let claim = site.claim(Action::Inspect).await;
    assert!(claim.quiet());
    claim
}

/// Waits until somebody waits for the end of the look.
async fn until_asked_to_stop(site: &Site, uid: &ServerUid) {
    wait("the look to be asked to stop", async || {
        site.queue.observe(uid).await.unwrap().job.is_some_and(|job| job.cancel.is_some())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_comes_while_a_machine_is_looked_at_is_begun_when_the_look_ends() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let _controller = site.controller("a", &[], "").await;
    let uid = site.ready("one", json!({"power": "PoweredOn"})).await;
    let wishes = [
        (json!({"power": "PoweredOff"}), Action::PowerOff, PowerState::PoweredOff),
        (json!({"power": "PoweredOn", "priority": "Urgent"}), Action::PowerOn, PowerState::PoweredOn),
        (json!({"rebootToken": "t"}), Action::Reboot, PowerState::PoweredOn),
    ];
    for (wish, action, then) in wishes {
        let claim = look(&site, "one").await;
        site.change("one", json!({"spec": wish})).await;
        until_asked_to_stop(&site, &uid).await;
        let server = site
            .until("one", "what comes first", |status| {
                status.conditions.iter().any(|one| one.reason == Reason::NotEnqueuedYet.as_str())
            })
            .await;
        let says = condition(&server, ConditionType::Reconciling);
        assert_eq!(
            says,
            Some(("True", "NotEnqueuedYet")),
            "no worker is to blame for a job that is not there"
        );
        // It finds what was known: nothing of that is told to anybody.
        let known = site.queue.observe(&uid).await.unwrap().known.unwrap().reading.unwrap().power;
        site.complete(claim, known).await;
        let claim = site.claim(action).await;
        let claim = if action == Action::Reboot { site.request(claim, Some("t")).await } else { claim };
        site.complete(claim, then).await;
        site.until("one", "Ready again", |status| crate::site::is_ready(status) && status.job.is_none())
            .await;
    }
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_does_not_wait_for_a_look() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let _controller = site.controller("a", &[], "").await;
    let uid = site.ready("one", json!({})).await;
    // Nobody ends it.
    let _claim = look(&site, "one").await;
    site.delete("one").await;
    site.gone("one").await;
    assert_eq!(site.queue.observe(&uid).await.unwrap().known, None);
    assert_eq!((site.count("job").await, site.count("bmc_claim").await), (0, 0));
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_look_that_nobody_told_of_holds_a_wish_up_for_seconds_only() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let _controller = site.controller("a", &[], "").await;
    let uid = site.ready("one", json!({"power": "PoweredOn"})).await;
    let _claim = look(&site, "one").await;
    site.change("one", json!({"spec": {"power": "PoweredOff"}})).await;
    until_asked_to_stop(&site, &uid).await;
    site.until_feed_is_empty().await;
    // A worker of another release, or a hand in the database.
    site.query("DELETE FROM job").await;
    site.claim(Action::PowerOff).await;
    site.end().await;
}
