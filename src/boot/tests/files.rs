//! The cache.

use std::sync::atomic::Ordering;

use super::site::{KERNEL, Site, sha256};
use crate::api::Artifact;
use crate::boot::download::DownloadError;

fn file(site: &Site, path: &str, bytes: &[u8]) -> Artifact {
    Artifact { url: format!("http://{}/{path}", site.mirror_at), sha256: sha256(bytes) }
}

async fn failure(site: &Site, artifact: &Artifact) -> DownloadError {
    site.artifacts.get(artifact).await.err().expect("an error")
}

#[tokio::test]
async fn who_comes_at_once_shares_one_download_and_who_comes_later_needs_none() {
    let site = Site::new().await;
    let kernel = file(&site, "linux", KERNEL);
    let all = futures::future::join_all((0..8).map(|_| site.artifacts.get(&kernel))).await;
    for present in all {
        assert_eq!(std::fs::read(present.unwrap().path()).unwrap(), KERNEL);
    }
    site.artifacts.get(&kernel).await.unwrap();
    assert_eq!(site.mirror.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_file_that_somebody_removed_is_downloaded_again() {
    let site = Site::new().await;
    let kernel = file(&site, "linux", KERNEL);
    let path = site.artifacts.get(&kernel).await.unwrap().path();
    std::fs::remove_file(&path).unwrap();
    site.artifacts.get(&kernel).await.unwrap();
    assert!(path.exists());
}

#[tokio::test]
async fn another_file_than_the_image_says_is_never_there() {
    let site = Site::new().await;
    let error = failure(&site, &file(&site, "linux", b"something else")).await;
    assert!(matches!(error, DownloadError::Digest { .. }), "{error}");
    let error = failure(&site, &file(&site, "large", &[b'x'; 5000])).await;
    assert_eq!(error, DownloadError::TooLarge(2048));
    let error = failure(&site, &file(&site, "missing", b"")).await;
    assert!(error.to_string().contains("404"), "{error}");
    let bad = Artifact { sha256: "../../etc/passwd".into(), ..file(&site, "linux", b"") };
    assert!(matches!(failure(&site, &bad).await, DownloadError::NoDigest(_)));
}

#[tokio::test]
async fn only_allowed_hosts_are_asked_and_followed() {
    let site = Site::new().await;
    let elsewhere = Artifact { url: "http://127.0.0.1:9/linux".into(), sha256: sha256(KERNEL) };
    assert!(matches!(failure(&site, &elsewhere).await, DownloadError::Refused(_)));
    assert_eq!(site.mirror.asked.load(Ordering::SeqCst), 0);
    let kernel = file(&site, "linux", KERNEL);
    for to in ["http://127.0.0.1:9/linux", "https://169.254.169.254/latest", "file:///etc/passwd"] {
        *site.mirror.redirect.lock().unwrap() = Some(to.to_owned());
        let error = failure(&site, &kernel).await;
        assert!(matches!(error, DownloadError::Refused(_)), "{to}: {error}");
    }
    *site.mirror.redirect.lock().unwrap() = Some("/again".to_owned());
    assert_eq!(failure(&site, &kernel).await, DownloadError::Redirects);
    *site.mirror.redirect.lock().unwrap() = None;
    site.artifacts.get(&kernel).await.unwrap();
}
