//! The cache.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use http::StatusCode;

use super::site::{INITRD, KERNEL, Site, sha256};
use crate::api::Artifact;
use crate::boot::Space;
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

#[tokio::test]
async fn a_url_that_trickles_keeps_nobody_waiting_who_has_the_file_from_elsewhere() {
    let site = Site::new().await;
    let slow = file(&site, "trickle", KERNEL);
    let waits = site.artifacts.get(&slow);
    let quick = async {
        // Until the slow one has begun.
        while site.mirror.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        site.artifacts.get(&file(&site, "linux", KERNEL)).await.unwrap()
    };
    // First to finish wins: whoever waits for the slow one has it too.
    let (slow, quick) = tokio::join!(waits, quick);
    assert_eq!(slow.unwrap().path(), quick.path());
}

#[tokio::test]
async fn a_server_that_sends_next_to_nothing_is_left_and_what_it_promises_takes_no_room() {
    let site = Site::new().await;
    let kernel = site.artifacts.get(&file(&site, "linux", KERNEL)).await.unwrap().path();
    let (one, two) = (file(&site, "promises", b"a"), file(&site, "promises", b"b"));
    let (one, two) = tokio::join!(site.artifacts.get(&one), site.artifacts.get(&two));
    for ended in [one, two] {
        assert!(matches!(ended.err(), Some(DownloadError::TooSlow(512))));
    }
    assert!(kernel.exists(), "two promises of half of the cache each made it go");
}

#[tokio::test]
async fn a_name_that_leads_to_this_host_is_not_asked_unless_the_operator_says_so() {
    let site = Site::new().await;
    let at = site.mirror_at;
    for url in [format!("https://localhost:{}/linux", at.port()), format!("https://{}:1/linux", at.ip())] {
        let error = failure(&site, &Artifact { url: url.clone(), sha256: sha256(KERNEL) }).await;
        assert!(error.to_string().contains("which is loopback"), "{url}: {error}");
        assert!(!error.may_pass());
    }
    assert_eq!(site.mirror.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_full_disk_gets_rid_of_what_nobody_reads_and_takes_the_rest() {
    let site = Site::new().await;
    let old = site.artifacts.get(&file(&site, "linux", KERNEL)).await.unwrap().path();
    *site.disk.refuses.lock().unwrap() = (1, Some(ErrorKind::StorageFull));
    site.artifacts.get(&file(&site, "initrd", INITRD)).await.unwrap();
    assert!(!old.exists());
    assert_eq!((site.mirror.asked.load(Ordering::SeqCst), site.artifacts.trouble()), (2, None));
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_told_left_alone_for_a_while_and_tried_again() {
    for (kind, says) in [
        (ErrorKind::StorageFull, "the disk of the cache is full"),
        (ErrorKind::QuotaExceeded, "the disk of the cache is full"),
        (ErrorKind::ReadOnlyFilesystem, "the cache cannot be written"),
        (ErrorKind::Other, "the cache cannot be written"),
    ] {
        let site = Site::new().await;
        let kernel = file(&site, "linux", KERNEL);
        *site.disk.refuses.lock().unwrap() = (1, Some(kind));
        let error = failure(&site, &kernel).await;
        assert!(error.to_string().starts_with(says) && error.may_pass(), "{error}");
        assert_eq!(site.artifacts.trouble(), Some(error.to_string()));
        // Nothing is downloaded as long as the pause lasts; what ends it is a try.
        let mut asked = 0;
        while site.artifacts.get(&kernel).await.is_err() {
            asked = site.mirror.asked.load(Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
        assert!(asked <= 1 && site.artifacts.trouble().is_none(), "{kind}: asked {asked} times");
    }
}

#[tokio::test]
async fn what_cannot_fit_is_refused_before_its_first_byte() {
    let site = Site::new().await;
    let large = file(&site, "promises", b"");
    *site.disk.space.lock().unwrap() = Some(Space { total: 1000, free: 1000 });
    assert_eq!(failure(&site, &large).await, DownloadError::NeverFits { bytes: 2048, most: 1000 });
    *site.disk.space.lock().unwrap() = Some(Space { total: 100_000, free: 1000 });
    let full = failure(&site, &large).await;
    assert!(matches!(&full, DownloadError::DiskFull(_)), "{full}");
    assert!(full.to_string().contains("2048 bytes are needed") && site.artifacts.trouble().is_some());
}

#[tokio::test]
async fn whoever_looks_at_the_server_is_told_what_its_machine_waits_for() {
    let site = Site::new().await;
    site.mirror.away.store(true, Ordering::SeqCst);
    let (_, session) = site.boot().await;
    for _ in 0..3 {
        assert_eq!(site.get(&format!("{session}/kernel")).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
    let told = site.store.0.lock().unwrap().waits.clone();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("waits for spec.source.kernel") && told[0].contains("503"), "{told:?}");
    site.mirror.away.store(false, Ordering::SeqCst);
    while site.get(&format!("{session}/kernel")).await.0 != StatusCode::OK {
        tokio::task::yield_now().await;
    }
    assert_eq!(site.store.0.lock().unwrap().waits[1..], ["spec.source.kernel is there"]);
}
