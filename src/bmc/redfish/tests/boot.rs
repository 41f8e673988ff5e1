//! Overrides of the boot order.

use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt as _;

use super::hostile::{raw, request};
use super::*;
use crate::bmc::{Beside, BootOverride, ImageUrl, OverrideEnabled, OverrideTarget};

#[tokio::test]
async fn a_boot_override_is_one_patch_and_the_next_start_uses_it_up() {
    let site = site(|fleet| fleet, settings()).await;
    let bmc = site.one().await;
    for (request, target) in [
        (RequestKind::BootFromNetworkOnce, OverrideTarget::Network),
        (RequestKind::BootFromHttpOnce, OverrideTarget::Http),
    ] {
        let since = site.fleet.entries(Which::Mutating, None, 0).last().map_or(0, |entry| entry.seq);
        bmc.probe().await.unwrap();
        bmc.send(request, LONG).await.unwrap();
        let entries = site.fleet.entries(Which::Mutating, None, since);
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].action, Some(Action::Patch { properties: vec!["Boot".to_owned()] }));
        let before = site.requests();
        let read = bmc.boot_override().await.unwrap();
        assert_eq!(
            read,
            BootOverride { enabled: OverrideEnabled::Once, target, http_uri: Some(String::new()) }
        );
        assert_eq!(site.requests() - before, 1, "the read is one request");
    }
    bmc.send(RequestKind::PowerOn, LONG).await.unwrap();
    assert!(bmc.boot_override().await.unwrap().is_clear());
}

#[tokio::test]
async fn an_override_can_be_taken_back() {
    let site = site(|fleet| fleet, settings()).await;
    let bmc = site.one().await;
    bmc.probe().await.unwrap();
    bmc.send(RequestKind::BootFromNetworkOnce, LONG).await.unwrap();
    bmc.probe().await.unwrap();
    bmc.send(RequestKind::ClearBootOverride, LONG).await.unwrap();
    let read = bmc.boot_override().await.unwrap();
    assert!(read.is_clear(), "{read:?}");
}

#[tokio::test]
async fn the_boot_program_of_http_boot_is_set_and_taken_back() {
    let site = site(|fleet| fleet, settings()).await;
    let bmc = site.one().await;
    let program = ImageUrl::parse("http://192.0.2.5/snponly.efi").unwrap();
    bmc.probe().await.unwrap();
    bmc.send_with(RequestKind::BootFromHttpOnce, Beside::BootUri(&program), LONG).await.unwrap();
    let read = bmc.boot_override().await.unwrap();
    assert_eq!((read.target, read.http_uri.as_deref()), (OverrideTarget::Http, Some(program.as_str())));
    // A clearing that says nothing of it leaves it.
    bmc.send(RequestKind::ClearBootOverride, LONG).await.unwrap();
    let read = bmc.boot_override().await.unwrap();
    assert!(read.is_clear());
    assert_eq!(read.http_uri.as_deref(), Some(program.as_str()));
    bmc.send_with(RequestKind::ClearBootOverride, Beside::NoBootUri, LONG).await.unwrap();
    assert_eq!(bmc.boot_override().await.unwrap().http_uri.as_deref(), Some(""));
}

#[tokio::test]
async fn a_system_that_changed_since_the_probe_keeps_its_boot_order() {
    let site = site(|fleet| fleet, settings()).await;
    let bmc = site.one().await;
    bmc.probe().await.unwrap();
    site.fleet.press("system-0001", ButtonPower::On);
    let error = bmc.send(RequestKind::BootFromNetworkOnce, LONG).await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::Busy(None), Delivery::Answered));
    assert_eq!(site.fleet.counters().applied, 0);
}

#[tokio::test]
async fn nobody_knows_whether_an_override_without_an_answer_was_set() {
    let site = site(|fleet| fleet, settings()).await;
    let bmc = site.one().await;
    bmc.probe().await.unwrap();
    site.behaves(Behaviour::AnswerLost {});
    let error = bmc.send(RequestKind::BootFromNetworkOnce, LONG).await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::Unreachable, Delivery::Unknown));
    site.fleet.clear_faults();
    assert_eq!(bmc.boot_override().await.unwrap().target, OverrideTarget::Network);
    assert_eq!(site.fleet.counters().applied, 1, "it was sent once");
}

#[tokio::test]
async fn a_bmc_that_knows_no_boot_program_is_given_the_override_alone() {
    let given: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&given);
    let raw = raw(move |mut stream, _| {
        let log = Arc::clone(&log);
        async move {
            let text = request(&mut stream).await;
            let body = match text.split_whitespace().nth(1) {
                Some("/redfish/v1/") => r#"{"Systems":{"@odata.id":"/all"}}"#,
                Some("/all") => r#"{"Members":[{"@odata.id":"/one"}]}"#,
                _ => r#"{"Id":"one","PowerState":"Off","Boot":{"BootSourceOverrideEnabled":"Disabled"}}"#,
            };
            if text.starts_with("PATCH") {
                log.lock().unwrap().push(text);
            }
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(head.as_bytes()).await;
        }
    })
    .await;
    let bmc = at(&Connector::new(settings()), raw.port, "").await;
    let program = ImageUrl::parse("http://192.0.2.5/snponly.efi").unwrap();
    bmc.probe().await.unwrap();
    bmc.send_with(RequestKind::BootFromHttpOnce, Beside::BootUri(&program), LONG).await.unwrap();
    let given = given.lock().unwrap();
    let body: serde_json::Value = serde_json::from_str(given[0].split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let alone =
        serde_json::json!({"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "UefiHttp"});
    assert_eq!((given.len(), &body["Boot"]), (1, &alone));
}
