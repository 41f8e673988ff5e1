//! Connections that freeze without a word.

use autobuild::api::hardware::PowerState;
use autobuild::job::Action;
use e2e::fleet::Proxy;
use serde_json::json;

use crate::TURN;
use crate::site::{Site, wait};

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_is_seen_although_every_connection_has_frozen() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    site.secret().await;
    let (kubeconfig, dir) = site.kubeconfig();
    let (proxy, through) = Proxy::before_api_server(kubeconfig, dir).await.unwrap();
    let flags = ["--watch-silence", "3s", "--lease-duration", "30s"];
    let controller = site.controller_through(&through.display().to_string(), "frozen", &flags, "").await;
    site.ready("one", json!({"power": "PoweredOn"})).await;
    proxy.freeze_open();
    site.change("one", json!({"spec": {"power": "PoweredOff"}})).await;
    site.finish(Action::PowerOff, PowerState::PoweredOff).await;
    site.until("one", "off", |status| status.power == Some(PowerState::PoweredOff)).await;
    wait("the watches that went silent to be told of", async || {
        let (_, metrics) = controller.get("/metrics").await.unwrap();
        metrics.contains("autobuild_watches_silent_total")
    })
    .await;
    let (status, said) = controller.get("/readyz").await.unwrap();
    assert!(status != 200 || said.contains("the watch of servers in"), "{said}");
    site.end().await;
}
