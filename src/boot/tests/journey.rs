//! A machine is installed.

use axum::body::Body;
use http::{Request, StatusCode};

use super::site::{INITRD, KERNEL, MAC, Site};
use crate::boot::CallHome;

#[tokio::test]
async fn a_machine_boots_installs_and_reports_until_its_session_is_over() {
    let site = Site::new().await;
    let (_, chain) = site.get("/boot.ipxe").await;
    let asks = "${mac:hexhyp}?uuid=${uuid}&serial=${serial:uristring}";
    assert_eq!(chain, format!("#!ipxe\nchain --autofree http://10.0.0.5:8080/boot/{asks} || exit\n"));
    let (script, session) = site.boot().await;
    let digest = site.image.spec.digest();
    let url = format!("http://10.0.0.5:8080{session}");
    let lines: Vec<&str> = script.lines().collect();
    assert!(
        lines[1].starts_with(&format!(
            "kernel {url}/kernel autobuild.url={url} autobuild.image={digest} initrd=initrd BOOTIF=01-{MAC} "
        )),
        "{script}"
    );
    assert!(
        lines[1].contains(" interface=auto hostname=node-1 ") && lines[1].ends_with("/install quiet"),
        "{script}"
    );
    assert_eq!(&lines[2..], [format!("initrd {url}/initrd").as_str(), "boot"]);
    assert_eq!(site.get(&format!("{session}/kernel")).await.1.as_bytes(), KERNEL);
    assert_eq!(site.get(&format!("{session}/initrd")).await.1.as_bytes(), INITRD);
    let wanted = format!("hostname node-1\npost {url}/installed\n");
    assert_eq!(site.get(&format!("{session}/install")).await, (StatusCode::OK, wanted));
    let (_, meta) = site.get(&format!("{session}/meta-data")).await;
    assert_eq!(meta, "{\"instance-id\":\"u-1-3\",\"local-hostname\":\"node-1\"}\n");
    for empty in ["user-data", "vendor-data"] {
        assert_eq!(site.get(&format!("{session}/{empty}")).await, (StatusCode::OK, String::new()));
    }
    for (path, form) in [
        ("booted", ""),
        ("progress", "percent=40&message=writing%0Athe+disk"),
        ("failed", "reason=no+disk"),
        ("installed", ""),
    ] {
        assert_eq!(site.post(&format!("{session}/{path}"), form).await, (StatusCode::OK, String::new()));
    }
    assert_eq!(
        site.store.0.lock().unwrap().heard,
        [
            CallHome::Booted,
            CallHome::Progress { percent: 40, line: "writing the disk".into() },
            CallHome::Failed { reason: "no disk".into() },
            CallHome::Installed,
        ]
    );
    assert_eq!(site.post(&format!("{session}/installed"), "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(site.get(&format!("{session}/kernel")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_machine_without_a_session_boots_from_its_disk() {
    let site = Site::new().await;
    {
        let mut kept = site.store.0.lock().unwrap();
        kept.armed = None;
        kept.idle = Some(MAC.parse().unwrap());
    }
    assert_eq!(site.get(&format!("/boot/{MAC}")).await, (StatusCode::OK, "#!ipxe\nexit\n".into()));
}

#[tokio::test]
async fn the_newest_script_counts() {
    let site = Site::new().await;
    let (_, first) = site.boot().await;
    let (_, second) = site.boot().await;
    assert_ne!(first, second);
    assert_eq!(site.get(&format!("{first}/kernel")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(site.get(&format!("{second}/kernel")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_script_that_was_given_in_another_history_is_not_given_again_and_its_installation_goes_on() {
    let site = Site::new().await;
    let (_, session) = site.boot().await;
    site.store.0.lock().unwrap().failed_over = true;
    assert_eq!(site.get(&format!("/boot/{MAC}")).await, (StatusCode::OK, "#!ipxe\nexit\n".into()));
    let told = site.store.0.lock().unwrap().waits.clone();
    assert!(matches!(told.as_slice(), [told] if told.contains("failed over or restored")), "{told:?}");
    assert_eq!(site.get(&format!("{session}/install")).await.0, StatusCode::OK);
    assert_eq!(site.post(&format!("{session}/installed"), "").await.0, StatusCode::OK);
    assert_eq!(site.store.0.lock().unwrap().heard, [CallHome::Installed]);
}

#[tokio::test]
async fn a_part_of_a_file_can_be_asked_for() {
    let site = Site::new().await;
    let (_, session) = site.boot().await;
    let path = format!("{session}/kernel");
    let whole = Request::get(&path).body(Body::empty()).unwrap();
    let (status, headers, _) = site.send("192.0.2.7", whole).await;
    assert_eq!((status, headers["content-length"].to_str().unwrap()), (StatusCode::OK, "18"));
    let part = Request::get(&path).header("range", "bytes=5-6").body(Body::empty()).unwrap();
    let (status, headers, body) = site.send("192.0.2.7", part).await;
    assert_eq!((status, body.as_slice()), (StatusCode::PARTIAL_CONTENT, b"is".as_slice()));
    assert_eq!(headers["content-range"].to_str().unwrap(), "bytes 5-6/18");
}
