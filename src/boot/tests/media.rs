//! An ISO in the virtual CD drive, and what runs from it.

use axum::body::Body;
use http::{Request, StatusCode};

use super::site::{KERNEL, MAC, Site};
use crate::boot::{BootToken, CallHome, Medium};

async fn with_iso() -> (Site, String) {
    let site = Site::new().await;
    let token = BootToken::generate().unwrap();
    site.arm_with_iso(&token);
    let path = "http://10.0.0.5:8080".parse::<crate::boot::PublicUrl>().unwrap().medium(&token);
    (site, path.strip_prefix("http://10.0.0.5:8080").unwrap().to_owned())
}

#[tokio::test]
async fn a_bmc_reads_the_iso_in_parts_and_what_runs_from_it_has_a_token_of_its_own() {
    let (site, iso) = with_iso().await;
    let bmc = "192.0.2.99";
    let head = Request::head(&iso).body(Body::empty()).unwrap();
    let (status, headers, body) = site.send(bmc, head).await;
    assert_eq!((status, body.len()), (StatusCode::OK, 0));
    assert_eq!(headers["content-length"], KERNEL.len().to_string());
    assert_eq!(headers["accept-ranges"], "bytes");
    let part = Request::get(&iso).header("range", "bytes=5-6").body(Body::empty()).unwrap();
    let (status, headers, body) = site.send(bmc, part).await;
    assert_eq!((status, body.as_slice()), (StatusCode::PARTIAL_CONTENT, &KERNEL[5..7]));
    assert_eq!(headers["content-range"], format!("bytes 5-6/{}", KERNEL.len()));
    let beyond = Request::get(&iso).header("range", "bytes=9999-").body(Body::empty()).unwrap();
    assert_eq!(site.send(bmc, beyond).await.0, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(site.store.0.lock().unwrap().armed.as_ref().unwrap().medium, Medium::Read);
    // The BMC's token is good for the ISO alone.
    let session = iso.strip_suffix("/boot.iso").unwrap();
    assert_eq!(site.get(&format!("{session}/install")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(site.post(&format!("{session}/installed"), "").await.0, StatusCode::NOT_FOUND);
    let (status, told) = site.get(&format!("/boot/{MAC}/session")).await;
    assert_eq!(status, StatusCode::OK);
    let mut lines = told.lines();
    let url = lines.next().unwrap().strip_prefix("autobuild.url=http://10.0.0.5:8080").unwrap();
    site.store.0.lock().unwrap().failed_over = true;
    let again = site.get(&format!("/boot/{MAC}/session")).await.0;
    assert_eq!(again, StatusCode::NOT_FOUND, "it was told in another history");
    assert!(lines.next().unwrap().starts_with("autobuild.image=sha256:"), "{told}");
    assert_eq!(site.get(&format!("{url}/install")).await.0, StatusCode::OK);
    assert_eq!(site.get(&iso).await.0, StatusCode::OK, "the medium is read on");
    assert_eq!(site.post(&format!("{url}/installed"), "").await.0, StatusCode::OK);
    assert_eq!(site.store.0.lock().unwrap().heard, [CallHome::Installed]);
    assert_eq!(site.get(&format!("/boot/{MAC}/session")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_iso_of_a_session_is_downloaded_before_anybody_asks_for_it() {
    let (site, iso) = with_iso().await;
    let mut known = std::collections::HashMap::new();
    site.service.stock().fetch_ahead(&mut known).await;
    assert_eq!(known.len(), 1);
    let artifact = known.values().next().unwrap();
    assert_eq!(std::fs::read(site.artifacts.get(artifact).await.unwrap().path()).unwrap(), KERNEL);
    assert_eq!(site.get(&iso).await.0, StatusCode::OK);
    assert_eq!(site.mirror.asked.load(std::sync::atomic::Ordering::SeqCst), 1, "downloaded once");
    site.store.0.lock().unwrap().armed = None;
    site.service.stock().fetch_ahead(&mut known).await;
    assert!(known.is_empty());
}

#[tokio::test]
async fn a_session_is_told_only_where_a_medium_waits_and_a_medium_has_no_script() {
    let site = Site::new().await;
    assert_eq!(site.get(&format!("/boot/{MAC}/session")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(site.get("/boot/52-54-00-00-00-01/session").await.0, StatusCode::NOT_FOUND);
    let (site, iso) = with_iso().await;
    assert_eq!(site.get(&format!("/boot/{MAC}")).await, (StatusCode::OK, "#!ipxe\nexit\n".into()));
    let other = BootToken::generate().unwrap();
    site.arm_with_iso(&other);
    assert_eq!(site.get(&iso).await.0, StatusCode::NOT_FOUND, "a newer token counts");
}
