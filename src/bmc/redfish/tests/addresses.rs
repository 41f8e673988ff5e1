//! A host with several addresses: which of them is spoken to.

use tokio::io::AsyncWriteExt as _;

use super::hostile::{raw, request};
use super::*;
use crate::bmc::peers::Peers;
use crate::bmc::redfish::{Asker, Redfish, Shared, Times};

/// A client of a host with these addresses, all of which are on this machine.
fn client(peers: &[SocketAddr], shared: &Shared, times: Times) -> Redfish {
    let address = "redfish+http://bmc.example/redfish/v1/Systems/system-0001".parse().unwrap();
    let (first, others) = peers.split_first().unwrap();
    let peers = Peers::new("bmc.example:80".to_owned(), *first, others, shared.experience.clone());
    let asker = Asker { worker: None, request_id: None };
    Redfish::new(&address, peers, &login(), None, asker, times, (shared.clone(), None)).unwrap()
}

const TIMES: Times = Times { connect: LONG, request: LONG, inspect: LONG };

async fn dead() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn an_address_that_refuses_leads_to_the_next_one_which_comes_first_from_then_on() {
    let site = site(|fleet| fleet, settings()).await;
    let (shared, live) = (Shared::default(), site.bound.http.unwrap());
    let peers = [dead().await, live, dead().await];
    let bmc = client(&peers, &shared, TIMES);
    bmc.probe().await.unwrap();
    assert_eq!(bmc.peer(), live);
    bmc.send(RequestKind::PowerOn, LONG).await.unwrap();
    assert_eq!(site.fleet.counters().applied, 1);
    assert_eq!(client(&peers, &shared, TIMES).peer(), live);
}

#[tokio::test]
async fn an_address_that_takes_connections_and_says_nothing_comes_last_the_next_time() {
    let site = site(|fleet| fleet, settings()).await;
    let (shared, live) = (Shared::default(), site.bound.http.unwrap());
    let mute = raw(|mut stream, _| async move {
        request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let peers = [mute.port, live];
    let short = Times { request: Duration::from_millis(200), ..TIMES };
    let error = client(&peers, &shared, short).probe().await.unwrap_err();
    assert_eq!(error.kind, BmcErrorKind::Timeout);
    client(&peers, &shared, TIMES).probe().await.unwrap();
}

#[tokio::test]
async fn where_no_address_answers_each_is_named_with_its_error() {
    let peers = [dead().await, dead().await];
    let error = client(&peers, &Shared::default(), TIMES).probe().await.unwrap_err();
    assert_eq!((&error.kind, error.delivery), (&BmcErrorKind::Unreachable, Delivery::NotSent));
    for peer in peers {
        assert!(error.message.contains(&format!("{peer} (connection refused)")), "{error}");
    }
    assert!(error.message.contains("spec.bmc.address"), "{error}");
}

#[tokio::test]
async fn once_an_address_has_answered_nothing_is_sent_to_another_one() {
    let site = site(|fleet| fleet, settings()).await;
    let stops = raw(|mut stream, served| async move {
        request(&mut stream).await;
        if served == 0 {
            let body = r#"{"Id":"system-0001","PowerState":"Off"}"#;
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    })
    .await;
    let bmc = client(&[stops.port, site.bound.http.unwrap()], &Shared::default(), TIMES);
    let _ = bmc.probe().await;
    assert_eq!(bmc.peer(), stops.port);
    let _ = bmc.probe().await.unwrap_err();
    assert_eq!(site.requests(), 0);
}
