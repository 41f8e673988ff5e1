//! Virtual media.

use serde_json::json;

use super::shapes::{tree, with};
use super::*;
use crate::bmc::{Beside, ImageUrl, Media, OverrideTarget};

fn image() -> ImageUrl {
    ImageUrl::parse("https://images.example/a.iso").unwrap()
}

#[tokio::test]
async fn an_image_is_inserted_booted_from_once_and_ejected() {
    let site = site(|fleet| fleet, settings()).await;
    let bmc = site.one().await;
    bmc.probe().await.unwrap();
    assert_eq!(bmc.media().await.unwrap(), Media::Empty);
    bmc.send_with(RequestKind::InsertMedia, Beside::Image(&image()), LONG).await.unwrap();
    assert_eq!(bmc.media().await.unwrap(), Media::Inserted(Some(image().as_str().to_owned())));
    assert_eq!(site.system("system-0002").await.media().await.unwrap(), Media::Empty);
    bmc.probe().await.unwrap();
    bmc.send(RequestKind::BootFromMediaOnce, LONG).await.unwrap();
    assert_eq!(bmc.boot_override().await.unwrap().target, OverrideTarget::Cd);
    bmc.send(RequestKind::EjectMedia, LONG).await.unwrap();
    assert_eq!(bmc.media().await.unwrap(), Media::Empty);
    assert_eq!(site.fleet.entries(Which::Mutating, None, 0).len(), 3, "each was one request");
}

#[tokio::test]
async fn an_insertion_fails_with_what_is_known_of_its_delivery() {
    let site = site(|fleet| fleet, settings()).await;
    let bmc = site.one().await;
    bmc.probe().await.unwrap();
    let insert = || async { bmc.send_with(RequestKind::InsertMedia, Beside::Image(&image()), LONG).await };
    let error = bmc.send(RequestKind::InsertMedia, LONG).await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::Refused, Delivery::NotSent));
    site.behaves(Behaviour::Status {
        status: 503,
        retry_after_s: None,
        body: None,
        message_id: None,
        message_args: Vec::new(),
    });
    let error = insert().await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::Busy(None), Delivery::NotSent), "a read failed");
    site.behaves(Behaviour::AnswerLost {});
    let error = insert().await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::Unreachable, Delivery::Unknown));
    site.fleet.clear_faults();
    let error = insert().await.unwrap_err();
    assert_eq!(
        (error.kind, error.delivery),
        (BmcErrorKind::Busy(None), Delivery::Answered),
        "it is there already"
    );
}

#[tokio::test]
async fn a_bmc_without_the_actions_gets_a_patch_of_its_drive() {
    let documents = with(
        json!({"Id": "one", "PowerState": "Off", "Links": {"ManagedBy": [{"@odata.id": "/rf/m"}]}}),
        json!({
            "/rf/m": {"Id": "m", "VirtualMedia": {"@odata.id": "/rf/vm"}},
            "/rf/vm": {"Members": [{"@odata.id": "/rf/a"}, {"@odata.id": "/rf/b"}]},
            "/rf/a": {"Id": "Floppy", "MediaTypes": ["Floppy"]},
            "/rf/b": {"Id": "CD", "MediaTypes": ["CD"], "@odata.etag": "\"5\"", "Inserted": false},
        }),
    );
    let (raw, asked) = tree(documents).await;
    let bmc = at(&Connector::new(settings()), raw.port, "").await;
    bmc.probe().await.unwrap();
    // The table of documents answers nothing but reads.
    let error = bmc.send_with(RequestKind::InsertMedia, Beside::Image(&image()), LONG).await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::NotFound, Delivery::Answered));
    bmc.send(RequestKind::EjectMedia, LONG).await.unwrap_err();
    let asked = asked.lock().unwrap().clone();
    let patches: Vec<_> = asked.iter().filter(|line| !line.starts_with("GET")).collect();
    assert_eq!(patches, ["PATCH /rf/b", "if-match: \"5\"", "PATCH /rf/b", "if-match: \"5\""]);
}

#[tokio::test]
async fn a_system_without_a_drive_says_so_before_anything_is_sent() {
    let (raw, asked) = tree(with(json!({"Id": "one", "PowerState": "Off"}), json!({}))).await;
    let bmc = at(&Connector::new(settings()), raw.port, "").await;
    bmc.probe().await.unwrap();
    assert_eq!(bmc.media().await.unwrap(), Media::NoDrive);
    let error = bmc.send_with(RequestKind::InsertMedia, Beside::Image(&image()), LONG).await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::Unsupported, Delivery::NotSent));
    assert!(error.message.contains("no virtual CD drive"), "{}", error.message);
    assert!(asked.lock().unwrap().iter().all(|line| line.starts_with("GET")));
}
