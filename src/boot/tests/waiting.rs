//! Installers that ask once, while something is away.

use std::net::Ipv4Addr;
use std::time::Duration;

use axum::body::Body;
use futures::FutureExt as _;
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::site::Site;
use crate::boot::{BootListener, BootService, Patience};

/// Longer than any test, with tries all the time.
const PATIENT: Patience =
    Patience { whole: Duration::from_hours(1), pause: Duration::from_millis(1), machines: 4 };
const DATA: [&str; 4] = ["install", "install/user-data", "user-data", "meta-data"];

async fn ask(service: &BootService, path: &str) -> StatusCode {
    let request = Request::get(path).body(Body::empty()).unwrap();
    service.answer(Ipv4Addr::LOCALHOST.into(), request).await.status()
}

#[tokio::test]
async fn data_that_installers_ask_for_once_is_waited_for_while_the_database_is_away() {
    let site = Site::new().await;
    let (_, session) = site.boot().await;
    let service = site.replica(PATIENT);
    for path in DATA {
        let path = format!("{session}/{path}");
        site.store.0.lock().unwrap().away = true;
        let mut asks = std::pin::pin!(ask(&service, &path));
        while site.store.0.lock().unwrap().refused < 3 {
            assert!(asks.as_mut().now_or_never().is_none(), "{path}: it is answered");
            tokio::task::yield_now().await;
        }
        site.store.0.lock().unwrap().away = false;
        assert_eq!(asks.await, StatusCode::OK, "{path}");
        site.store.0.lock().unwrap().refused = 0;
    }
}

#[tokio::test]
async fn data_is_waited_for_while_the_api_server_is_away() {
    let site = Site::new().await;
    let (_, session) = site.boot().await;
    let (service, path) = (site.replica(PATIENT), format!("{session}/install"));
    site.cluster.0.lock().unwrap().away = true;
    let back = async {
        while site.cluster.0.lock().unwrap().refused < 3 {
            tokio::task::yield_now().await;
        }
        site.cluster.0.lock().unwrap().away = false;
    };
    assert_eq!(tokio::join!(ask(&service, &path), back).0, StatusCode::OK);
}

#[tokio::test]
async fn what_is_refused_for_good_or_asked_for_again_is_answered_at_once() {
    let site = Site::new().await;
    let (_, session) = site.boot().await;
    let service = site.replica(PATIENT);
    let other = format!("/s/{}/install", "ab".repeat(32));
    assert_eq!(ask(&service, &other).await, StatusCode::NOT_FOUND);
    site.store.0.lock().unwrap().away = true;
    for path in
        [format!("{session}/kernel"), format!("{session}/initrd"), "/boot/52-54-00-12-34-56".to_owned()]
    {
        assert_eq!(ask(&service, &path).await, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
}

#[tokio::test]
async fn what_stays_away_is_told_in_the_end_and_so_many_machines_are_waited_for_at_most() {
    let site = Site::new().await;
    let (_, session) = site.boot().await;
    let path = format!("{session}/install");
    site.store.0.lock().unwrap().away = true;
    let short = site.replica(Patience { whole: Duration::from_millis(20), ..PATIENT });
    assert_eq!(ask(&short, &path).await, StatusCode::SERVICE_UNAVAILABLE);
    let service = site.replica(PATIENT);
    let mut waiting: Vec<_> = (0..PATIENT.machines).map(|_| Box::pin(ask(&service, &path))).collect();
    for one in &mut waiting {
        assert!(one.as_mut().now_or_never().is_none());
    }
    assert_eq!(ask(&service, &path).await, StatusCode::SERVICE_UNAVAILABLE, "one more");
    // A machine that has gone makes room.
    drop(waiting.pop());
    assert!(Box::pin(ask(&service, &path)).as_mut().now_or_never().is_none());
}

#[tokio::test]
async fn who_is_waited_for_is_answered_when_the_process_is_asked_to_end() {
    let site = Site::new().await;
    let (_, session) = site.boot().await;
    site.store.0.lock().unwrap().away = true;
    let listener = BootListener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, stop) = (listener.address, CancellationToken::new());
    let serving = tokio::spawn(listener.serve(site.replica(PATIENT), stop.clone(), Duration::from_hours(1)));
    let mut machine = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {session}/install HTTP/1.1\r\nhost: a\r\n\r\n");
    machine.write_all(request.as_bytes()).await.unwrap();
    while site.store.0.lock().unwrap().refused < 3 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    let mut told = String::new();
    machine.read_to_string(&mut told).await.unwrap();
    assert!(told.starts_with("HTTP/1.1 503"), "{told}");
    serving.await.unwrap();
}
