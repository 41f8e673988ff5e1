//! Servers that go.

use autobuild::api::Phase;
use autobuild::api::hardware::PowerState;
use autobuild::job::Action;
use autobuild::queue::Fenced;
use serde_json::json;

use crate::TURN;
use crate::site::{Site, succeeded, wait};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_had_begun_is_waited_for_and_then_told() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let _controller = site.controller("a", &["--undo-wait", "3s"], "").await;
    let uid = site.ready("one", json!({})).await;
    site.change("one", json!({"spec": {"rebootToken": "t"}})).await;
    let claim = site.claim(Action::Reboot).await;
    let claim = site.open_request(claim, Some("t")).await;
    site.delete("one").await;
    site.until("one", "Deleting", |status| status.phase == Some(Phase::Deleting)).await;
    // The request may still take effect, and its worker lives: the claim of the BMC stays.
    wait("the undo wait to be over", async || {
        site.events().await.iter().any(|reason| reason == "ReleasedWithoutUndo")
    })
    .await;
    assert!(site.servers().get_opt("one").await.unwrap().is_some());
    assert_eq!(site.count("bmc_claim").await, 1);
    let Fenced::Done(claim) = site.queue.close_request(claim, String::new()).await.unwrap() else {
        panic!("the claim was lost")
    };
    site.gone("one").await;
    assert_eq!(site.queue.complete(claim, succeeded(PowerState::PoweredOn)).await.unwrap(), Fenced::Lost);
    assert_eq!(site.queue.observe(&uid).await.unwrap().known, None);
    assert_eq!((site.count("job").await, site.count("bmc_claim").await), (0, 0));
    assert_eq!(site.history().await.last().unwrap(), "ReleasedWithoutUndo");
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_off_that_cannot_come_true_ends_and_is_told() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let _controller = site.controller("a", &["--undo-wait", "500ms", "--power-off-wait", "1s"], "").await;
    site.ready("one", json!({"deletionPolicy": "PowerOff"})).await;
    site.delete("one").await;
    // Nobody takes the job.
    site.gone("one").await;
    wait("the event", async || site.events().await.iter().any(|reason| reason == "ReleasedWithoutPowerOff"))
        .await;
    assert!(site.history().await.iter().any(|reason| reason == "ReleasedWithoutPowerOff"));
    assert_eq!(
        (site.count("job").await, site.count("queue").await, site.count("bmc_claim").await),
        (0, 0, 0)
    );
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_server_lost_its_finalizer_by_force_does_not_keep_the_bmc() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let controller = site.controller("a", &[], "").await;
    let uid = site.ready("one", json!({})).await;
    controller.process().kill().await.unwrap();
    site.change("one", json!({"metadata": {"finalizers": null}})).await;
    site.delete("one").await;
    let _next = site.controller("b", &[], "").await;
    wait("the row to go", async || site.queue.observe(&uid).await.unwrap().known.is_none()).await;
    assert_eq!(site.count("bmc_claim").await, 0);
    site.end().await;
}
