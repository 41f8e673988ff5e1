//! Connections that freeze without a word.

use autobuild::api::hardware::PowerState;
use autobuild::job::Action;
use e2e::fleet::Proxy;
use e2e::kubectl::Kubectl;
use serde_json::json;

use crate::TURN;
use crate::site::{Site, wait};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_controller_may_not_watch_is_told_once_with_the_way_out() {
    let _turn = TURN.lock().await;
    let site = Site::new().await;
    let namespace = site.namespace.as_str();
    site.plane.kubectl().run(&["delete", "rolebinding", "--all", "-n", namespace]).await.unwrap();
    let as_controller = Kubectl::new(site.kubeconfig().0);
    wait("the rights to be gone", async || {
        let listed = as_controller.output(&["get", "servers,osimages", "-n", namespace]).await.unwrap();
        listed.stderr.contains("cannot list resource \"servers\"")
    })
    .await;
    let controller = site.controller("barred", &[], "").await;
    let says = async |part: &str| controller.get("/readyz").await.unwrap().1.contains(part);
    // Servers are watched once these are known: else each would look as if it had no credentials.
    for part in ["secrets", "osimages"] {
        wait("the watch to be told", async || {
            says(&format!("{part}: namespace {namespace}: ")).await
                && says("apply manifests/namespace-access").await
        })
        .await;
    }
    let log = std::fs::read_to_string(controller.process().log()).unwrap();
    for part in ["secrets", "osimages"] {
        assert_eq!(log.matches(&format!("the watch of {part} failed")).count(), 1, "{log}");
    }
    assert!(!log.contains("kube_runtime"), "{log}");
    site.end().await;
}

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
