//! What a host does with an image in its virtual CD drive.

use super::*;

const DIGEST: &str = "sha256:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";
const CD: &str = "Cd";

async fn insert(site: &Site) {
    let path = format!("/redfish/v1/Managers/{ONE}/VirtualMedia/CD1/Actions/VirtualMedia.InsertMedia");
    let image = json!({"Image": format!("{}/boot.iso", site.server.url)});
    assert_eq!(ask(&site.fleet, "POST", &path, image).await.0, StatusCode::NO_CONTENT);
}

async fn boot_from_cd(site: &Site) {
    let boot = json!({"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": CD});
    site.boot_next(ONE, boot).await;
    site.reset(ONE, "On").await;
}

#[tokio::test]
async fn a_host_that_boots_from_virtual_media_asks_for_its_session_installs_and_calls_home() {
    let site = site().await;
    site.arm(ONE, Armed::Medium(DIGEST));
    insert(&site).await;
    boot_from_cd(&site).await;
    site.did(&HostAct::CalledHome { status: 200 }).await;
    let asked = site.server.asked();
    assert_eq!(asked[..4], ["GET boot.iso", "GET session", "POST booted", "GET install"], "{asked:?}");
    let view = site.view();
    assert_eq!((view.disk, view.booted, view.installs), (DIGEST.parse().unwrap(), Booted::DiskImage, 1));
    assert!(view.media.is_some(), "nobody ejected it, and the second start was from the disk");
}

#[tokio::test]
async fn an_empty_drive_and_a_session_that_nobody_armed_lead_to_the_disk() {
    let site = site().await;
    boot_from_cd(&site).await;
    until("it has started", || site.view().resets == 1 && site.view().power == PowerState::On).await;
    assert!(site.server.asked().is_empty(), "{:?}", site.server.asked());
    insert(&site).await;
    site.boot_next(ONE, json!({"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": CD})).await;
    site.reset(ONE, "ForceRestart").await;
    until("it gave up", || !site.gave_up().is_empty()).await;
    assert_eq!(site.gave_up(), [(Stage::Session, Why::Refused { status: 404 })]);
    assert_eq!(site.destroyed(ONE), 0);
}
