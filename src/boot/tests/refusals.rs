//! What machines are not given, and how they are told.

use axum::body::Body;
use http::{Request, StatusCode};

use super::site::{MAC, Site, server};
use crate::api::Server;

async fn whole(site: &Site, peer: &str, method: &str, path: &str) -> (StatusCode, String, Vec<u8>) {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let (status, headers, body) = site.send(peer, request).await;
    (status, format!("{headers:?}"), body)
}

/// What happens to the cluster or to the session.
type Change = fn(&Site);

#[tokio::test]
async fn every_refusal_is_the_same_one() {
    let site = Site::allowing(&["192.0.2.0/24"]).await;
    let (_, session) = site.boot().await;
    let other = format!("/s/{}", "0".repeat(64));
    let first = whole(&site, "192.0.2.7", "GET", "/").await;
    assert_eq!(first.0, StatusCode::NOT_FOUND);
    for (peer, method, path) in [
        ("198.51.100.1", "GET", format!("/boot/{MAC}")),
        ("198.51.100.1", "GET", "/boot.ipxe".to_owned()),
        ("198.51.100.1", "GET", format!("{session}/kernel")),
        ("192.0.2.7", "GET", "/boot/52-54-00-00-00-01".to_owned()),
        ("192.0.2.7", "GET", "/boot/nobody".to_owned()),
        ("192.0.2.7", "GET", "/boot/%ff".to_owned()),
        ("192.0.2.7", "POST", format!("/boot/{MAC}")),
        ("192.0.2.7", "DELETE", format!("{session}/kernel")),
        ("192.0.2.7", "GET", format!("{other}/kernel")),
        ("192.0.2.7", "GET", format!("{other}/install")),
        ("192.0.2.7", "POST", format!("{other}/installed")),
        ("192.0.2.7", "GET", format!("{session}/installed")),
        ("192.0.2.7", "POST", format!("{session}/progress")),
        ("192.0.2.7", "GET", "/metrics".to_owned()),
    ] {
        assert_eq!(whole(&site, peer, method, &path).await, first, "{peer} {method} {path}");
    }
}

#[tokio::test]
async fn an_address_that_fails_too_often_is_asked_to_wait() {
    let site = Site::new().await;
    let mut status = StatusCode::NOT_FOUND;
    for _ in 0..100 {
        status = site.get("/boot/52-54-00-00-00-01").await.0;
    }
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let elsewhere = whole(&site, "192.0.2.8", "GET", &format!("/boot/{MAC}")).await;
    assert_eq!(elsewhere.0, StatusCode::OK);
}

#[tokio::test]
async fn an_installer_that_looks_for_what_its_image_lacks_has_guessed_nothing() {
    let site = Site::new().await;
    with_image(&site, |spec| spec.install = crate::api::Install::default());
    let (_, session) = site.boot().await;
    for _ in 0..100 {
        assert_eq!(site.get(&format!("{session}/install")).await.0, StatusCode::NOT_FOUND);
    }
    assert_eq!(site.get(&format!("{session}/kernel")).await.0, StatusCode::OK);
    assert!(site.store.0.lock().unwrap().not_served.is_empty());
}

#[tokio::test]
async fn what_no_longer_is_as_the_session_says_is_refused() {
    let changes: [(&str, Change); 6] = [
        ("another uid", |site| {
            let mut other = server();
            other.metadata.uid = Some("u-2".into());
            site.cluster.put("servers/node-1", other);
        }),
        ("paused", |site| {
            let mut paused: Server = server();
            paused.spec.paused = Some(true);
            site.cluster.put("servers/node-1", paused);
        }),
        ("no server", |site| {
            site.cluster.0.lock().unwrap().all.remove("servers/node-1");
        }),
        ("no image", |site| {
            site.cluster.0.lock().unwrap().all.remove("osimages/debian");
        }),
        ("another image", |site| {
            let mut image = site.image.clone();
            image.spec.source.args.push("debug".into());
            site.cluster.put("osimages/debian", image);
        }),
        ("a line break in an argument", |site| {
            let mut image = site.image.clone();
            image.spec.source.args = vec!["a\nchain http://elsewhere".into()];
            site.store.0.lock().unwrap().armed.as_mut().unwrap().digest = image.spec.digest();
            site.cluster.put("osimages/debian", image);
        }),
    ];
    let site = Site::new().await;
    for (what, change) in changes {
        site.arm();
        change(&site);
        assert_eq!(site.get(&format!("/boot/{MAC}")).await.0, StatusCode::NOT_FOUND, "{what}");
        assert!(site.store.0.lock().unwrap().token.is_none(), "{what}");
    }
    site.arm();
    site.boot().await;
}

#[tokio::test]
async fn a_forged_session_is_given_nothing_before_status_shows_its_job() {
    let mut site = Site::new().await;
    let (_, session) = site.boot().await;
    let mut forged = server();
    forged.status = None;
    site.cluster.put("servers/node-1", &forged);
    // What was judged a moment ago is of before.
    site.service = site.another_replica();
    for path in [format!("/boot/{MAC}"), format!("{session}/kernel"), format!("{session}/user-data")] {
        assert_eq!(site.get(&path).await.0, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
    assert!(site.store.0.lock().unwrap().not_served.is_empty(), "it is not the image's fault");
    site.cluster.put("servers/node-1", server());
    site.boot().await;
}

#[tokio::test]
async fn install_data_that_was_changed_is_not_served() {
    let site = Site::new().await;
    let (_, session) = site.boot().await;
    let changed = serde_json::json!({"data": {"preseed": "late_command reboot"}});
    site.cluster.put("configmaps/debian", changed);
    assert_eq!(site.get(&format!("{session}/install")).await.0, StatusCode::NOT_FOUND);
    let told = site.store.0.lock().unwrap().not_served.clone();
    assert!(told.len() == 1 && told[0].contains("make another OSImage for the changed data"), "{told:?}");
}

/// Gives the image another spec, and the session its digest.
fn with_image(site: &Site, change: impl FnOnce(&mut crate::api::OSImageSpec)) {
    let mut image = site.image.clone();
    change(&mut image.spec);
    site.store.0.lock().unwrap().armed.as_mut().unwrap().digest = image.spec.digest();
    site.cluster.put("osimages/debian", image);
}

#[tokio::test]
async fn what_can_never_be_given_is_told_to_the_job_before_a_disk_is_touched() {
    let changes: [(&str, Change); 7] = [
        ("spec.source.args has 1285 bytes in all", |site| {
            with_image(site, |spec| spec.source.args = vec![format!("a.b={}", "x".repeat(252)); 5]);
        }),
        ("preseed/late_command of the install data is run by a shell", |site| {
            let data = "d-i preseed/late_command string echo {{ 'a; reboot' }}";
            site.cluster.put("configmaps/debian", serde_json::json!({"data": {"preseed": data}}));
            let sha256 = super::site::sha256(data.as_bytes());
            with_image(site, |spec| spec.install.sha256 = Some(sha256));
        }),
        ("and the OSImage says 0000", |site| {
            let other = "0".repeat(64);
            with_image(site, |spec| spec.source.kernel.as_mut().unwrap().sha256 = other);
        }),
        ("the scheme \"ftp\" is not spoken", |site| {
            with_image(site, |spec| {
                spec.source.initrd.as_mut().unwrap().url = "ftp://x.example.com/a".into();
            });
        }),
        ("there is no ConfigMap \"debian\"", |site| {
            site.cluster.0.lock().unwrap().all.remove("configmaps/debian");
        }),
        ("undefined value", |site| {
            let data = "hostname {{ vars.rack }}";
            site.cluster.put("configmaps/debian", serde_json::json!({"data": {"preseed": data}}));
            let sha256 = super::site::sha256(data.as_bytes());
            with_image(site, |spec| spec.install.sha256 = Some(sha256));
        }),
        ("there is no Secret \"user-data\"", |site| {
            let mut server = server();
            let image = server.spec.image.as_mut().unwrap();
            image.user_data_ref =
                Some(crate::api::UserDataRef { name: "user-data".into(), key: "all".into(), sha256: None });
            site.cluster.put("servers/node-1", server);
        }),
    ];
    for (why, change) in changes {
        let site = Site::new().await;
        change(&site);
        assert_eq!(site.get(&format!("/boot/{MAC}")).await.0, StatusCode::NOT_FOUND, "{why}");
        let kept = site.store.0.lock().unwrap();
        assert!(kept.token.is_none(), "{why}: a token was given");
        assert!(
            kept.not_served.len() == 1 && kept.not_served[0].contains(why),
            "{why}: {:?}",
            kept.not_served
        );
    }
}

#[tokio::test]
async fn while_database_or_api_is_away_machines_are_asked_to_come_again() {
    let site = Site::new().await;
    let (_, session) = site.boot().await;
    site.cluster.0.lock().unwrap().away = true;
    for path in [format!("/boot/{MAC}"), format!("{session}/install")] {
        assert_eq!(site.get(&path).await.0, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
    // What was judged with the script, a moment ago, is not asked for again.
    assert_eq!(site.get(&format!("{session}/kernel")).await.0, StatusCode::OK);
    // What a machine reports needs no API server.
    assert_eq!(site.post(&format!("{session}/booted"), "").await.0, StatusCode::OK);
    site.cluster.0.lock().unwrap().away = false;
    site.store.0.lock().unwrap().away = true;
    let request = Request::post(format!("{session}/installed")).body(Body::empty()).unwrap();
    let (status, headers, _) = site.send("192.0.2.7", request).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(headers.contains_key("retry-after"));
    site.store.0.lock().unwrap().away = false;
    assert_eq!(site.post(&format!("{session}/installed"), "").await.0, StatusCode::OK);
}

/// The server of the session with a machine that its BMC told of.
fn identified(site: &Site) {
    let mut known = server();
    let identity = crate::api::hardware::HardwareIdentity {
        uuid: Some("4c4c4544-0038-5a10-8053-b4c04f584b30".into()),
        serial_number: Some("S1".into()),
        system: None,
    };
    known.status.get_or_insert_default().bmc_identity = Some(identity);
    site.cluster.put("servers/node-1", known);
}

#[tokio::test]
async fn another_machine_with_the_address_of_the_card_gets_no_script_and_the_job_is_told() {
    let site = Site::new().await;
    identified(&site);
    let other = format!("/boot/{MAC}?uuid=4c4c4544-0038-5a10-8053-b4c04f584b31&serial=S2");
    assert_eq!(site.get(&other).await.0, StatusCode::NOT_FOUND);
    {
        let kept = site.store.0.lock().unwrap();
        assert!(kept.token.is_none(), "a token was given");
        assert!(
            kept.other_machines[0].contains("4c4c4544-0038-5a10-8053-b4c04f584b31"),
            "{:?}",
            kept.other_machines
        );
    }
    let own = format!("/boot/{MAC}?uuid=44454C4C-3800-105A-8053-B4C04F584B30&serial=");
    assert_eq!(site.get(&own).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_report_of_another_machine_is_not_believed_and_one_that_says_nothing_of_itself_is() {
    let site = Site::new().await;
    identified(&site);
    let (_, session) = site.boot().await;
    assert_eq!(site.post(&format!("{session}/installed"), "serial=S2").await.0, StatusCode::NOT_FOUND);
    assert!(site.store.0.lock().unwrap().heard.is_empty());
    assert_eq!(site.store.0.lock().unwrap().other_machines.len(), 1);
    assert_eq!(site.post(&format!("{session}/booted"), "").await.0, StatusCode::OK);
    assert_eq!(site.post(&format!("{session}/installed"), "serial=s1").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_machine_that_asks_with_another_of_its_cards_is_told_to_its_job_and_goes_on() {
    let site = Site::new().await;
    site.store.0.lock().unwrap().second = Some("52-54-00-12-34-57".parse().unwrap());
    assert_eq!(site.get("/boot/52-54-00-12-34-57").await, (StatusCode::OK, "#!ipxe\nexit\n".into()));
    assert_eq!(site.store.0.lock().unwrap().other_cards, ["52-54-00-12-34-57".parse().unwrap()]);
    assert_eq!(site.get("/boot/52-54-00-12-34-58").await.0, StatusCode::NOT_FOUND, "nobody's card");
    assert_eq!(site.store.0.lock().unwrap().other_cards.len(), 1, "is told to nobody");
    site.boot().await;
}

/// A Secret with this type and version.
fn secret(kind: Option<&str>, version: &str) -> serde_json::Value {
    let mut secret = serde_json::json!({
        "metadata": { "name": "data", "uid": "s-1", "resourceVersion": version },
        "data": { "all": "c2VjcmV0", "preseed": "c2VjcmV0" },
    });
    if let Some(kind) = kind {
        secret["type"] = kind.into();
    }
    secret
}

/// Has the installation take its user data, or its install data, from the Secret `data`.
fn takes(site: &Site, user_data: bool) {
    if user_data {
        let mut server = server();
        let data = crate::api::UserDataRef { name: "data".into(), key: "all".into(), sha256: None };
        server.spec.image.as_mut().unwrap().user_data_ref = Some(data);
        site.cluster.put("servers/node-1", server);
    } else {
        with_image(site, |spec| {
            let data = spec.install.data_ref.as_mut().unwrap();
            (data.kind, data.name) = (crate::api::DataRefKind::Secret, "data".into());
            spec.install.sha256 = Some(super::site::sha256(b"secret"));
        });
    }
}

#[tokio::test]
async fn nothing_is_handed_out_of_a_secret_that_is_for_something_else() {
    for user_data in [true, false] {
        let right = if user_data { "autobuild.dev/user-data" } else { "autobuild.dev/install-data" };
        for kind in [
            None,
            Some("Opaque"),
            Some("autobuild.dev/bmc-credentials"),
            Some("kubernetes.io/service-account-token"),
            Some(if user_data { "autobuild.dev/install-data" } else { "autobuild.dev/user-data" }),
        ] {
            let site = Site::new().await;
            takes(&site, user_data);
            site.cluster.put("secrets/data", secret(kind, "1"));
            assert_eq!(site.get(&format!("/boot/{MAC}")).await.0, StatusCode::NOT_FOUND, "{kind:?}");
            let kept = site.store.0.lock().unwrap();
            assert!(kept.token.is_none());
            let told = &kept.not_served[0];
            let says = format!("has the type {:?}", kind.unwrap_or("Opaque"));
            assert!(told.contains(&says) && told.contains(right) && told.contains("Ref"), "{told}");
        }
        let site = Site::new().await;
        takes(&site, user_data);
        site.cluster.put("secrets/data", secret(Some(right), "1"));
        let (_, session) = site.boot().await;
        let path = if user_data { "user-data" } else { "install" };
        assert_eq!(site.get(&format!("{session}/{path}")).await, (StatusCode::OK, "secret".into()));
    }
}

#[tokio::test]
async fn a_session_never_serves_another_secret_or_another_version_than_it_began_with() {
    let other: [(&str, Change); 3] = [
        ("another version", |site| {
            site.cluster.put("secrets/data", secret(Some("autobuild.dev/user-data"), "2"));
        }),
        ("another key", |site| {
            let mut server = server();
            let data = crate::api::UserDataRef { name: "data".into(), key: "preseed".into(), sha256: None };
            server.spec.image.as_mut().unwrap().user_data_ref = Some(data);
            site.cluster.put("servers/node-1", server);
        }),
        ("none", |site| site.cluster.put("servers/node-1", server())),
    ];
    for (what, change) in other {
        let mut site = Site::new().await;
        takes(&site, true);
        site.cluster.put("secrets/data", secret(Some("autobuild.dev/user-data"), "1"));
        let (_, session) = site.boot().await;
        change(&site);
        // One that has judged nothing a moment ago.
        site.service = site.another_replica();
        for path in [format!("{session}/user-data"), format!("/boot/{MAC}")] {
            assert_eq!(site.get(&path).await.0, StatusCode::NOT_FOUND, "{what}: {path}");
        }
        let told = site.store.0.lock().unwrap().not_served.clone();
        assert!(told.iter().all(|told| told.contains("began") && told.contains("reimageToken")), "{told:?}");
    }
}

/// The fields of a schema whose names end in `Ref`.
fn references(schema: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    let Some(fields) = schema["properties"].as_object() else { return };
    for (name, field) in fields {
        let path = format!("{path}.{name}");
        if name.ends_with("Ref") {
            found.push(path.clone());
        }
        references(field, &path, found);
        references(&field["items"], &path, found);
    }
}

#[test]
fn every_reference_of_both_kinds_says_which_secrets_it_reads() {
    use kube::CustomResourceExt as _;
    let mut found = Vec::new();
    for definition in [Server::crd(), crate::api::OSImage::crd()] {
        let all = serde_json::to_value(&definition).unwrap();
        let schema = &all["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        references(schema, definition.spec.names.kind.as_str(), &mut found);
    }
    found.sort();
    let expected = [
        // Secrets of type autobuild.dev/install-data; the test above.
        "OSImage.spec.install.dataRef",
        // Secrets of type autobuild.dev/bmc-credentials, by the worker.
        "Server.spec.bmc.credentialsRef",
        // A CA is no secret: what is no certificate is refused, and nothing of it is told.
        "Server.spec.bmc.tls.caRef",
        // Secrets of type autobuild.dev/user-data; the test above.
        "Server.spec.image.userDataRef",
    ];
    assert_eq!(found, expected, "a new reference names its type of Secret, and is refused any other");
}
