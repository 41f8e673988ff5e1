//! A cache that lags behind what was seen already.

use autobuild::api::Reason;
use autobuild::api::hardware::PowerState;
use autobuild::api::names;
use autobuild::job::{Action, JobResult, Problem};
use autobuild::queue::{End, Fenced, Report};
use e2e::api_proxy::ApiProxy;
use serde_json::json;

use crate::TURN;
use crate::site::{Site, wait};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_decided_on_an_object_that_is_older_than_one_that_was_seen() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let (kubeconfig, dir) = site.kubeconfig();
    let proxy = ApiProxy::start(kubeconfig, dir).await.unwrap();
    let through = proxy.kubeconfig().display().to_string();
    let _controller = site.controller_through(&through, "lagging", &[], "").await;
    let uid = site.ready("one", json!({"power": "PoweredOn"})).await;
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    site.change("one", json!({"metadata": {"annotations": {names::RECONCILE_REQUESTED_AT: now}}})).await;
    let look = site.claim(Action::Inspect).await;
    site.until_feed_is_empty().await;
    // The watch shows nothing of this. A status that has to be written meets it: the object is read live.
    proxy.hold();
    site.change("one", json!({"spec": {"power": "PoweredOff"}})).await;
    let silence = Problem::new(Reason::Unreachable, "no route to host");
    let ended = End { report: Report::Unanswered(silence), ..End::new(JobResult::Succeeded, None) };
    assert_eq!(site.queue.complete(look, ended).await.unwrap(), Fenced::Done(()));
    wait("the job", async || {
        site.queue.observe(&uid).await.unwrap().job.is_some_and(|job| job.action == Action::PowerOff)
    })
    .await;
    // Until it is shown, which takes more reconciles on what the cache has.
    site.until("one", "the job", |status| status.job.is_some()).await;
    site.finish(Action::PowerOff, PowerState::PoweredOff).await;
    site.until("one", "off", |status| status.power == Some(PowerState::PoweredOff) && status.job.is_none())
        .await;
    proxy.let_go();
    let server = site.get("one").await;
    assert_eq!(server.status.unwrap().observed_generation, server.metadata.generation);
    let history = site.history().await;
    assert!(history.iter().all(|reason| reason != Reason::WishChanged.as_str()), "{history:?}");
    // An etcd that was restored counts its generations from an earlier one: what is read live is the truth.
    site.query("UPDATE server_state SET generation = 99, version = version + 1").await;
    site.change("one", json!({"spec": {"power": "PoweredOn"}})).await;
    site.finish(Action::PowerOn, PowerState::PoweredOn).await;
    site.until("one", "on", |status| status.power == Some(PowerState::PoweredOn) && status.job.is_none())
        .await;
    let generation = site.get("one").await.metadata.generation.unwrap();
    assert_eq!(site.queue.observe(&uid).await.unwrap().generation, generation);
    site.end().await;
}
