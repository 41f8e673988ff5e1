//! Handshakes: who is let in, and what a refused one tells.

use super::*;

async fn probe(site: &Site, port: SocketAddr, trust: Trust) -> Result<(), BmcError> {
    let address = format!("redfish+https://{port}/redfish/v1/Systems/system-0001");
    open(&site.connector, &address, trust).await.unwrap().probe().await.map(|_| ())
}

#[tokio::test]
async fn a_certificate_of_the_ca_for_this_host_is_trusted_by_address_and_by_name() {
    let site = site(|fleet| fleet, settings()).await;
    let ca = Trust::Ca(site.bound.ca_pem.clone().into_bytes());
    let https = site.bound.https.unwrap();
    probe(&site, https, ca.clone()).await.unwrap();
    let address = format!("redfish+https://localhost:{}/redfish/v1/Systems/system-0001", https.port());
    let bmc = open(&site.connector, &address, ca).await.unwrap();
    bmc.probe().await.unwrap();
    assert_eq!(bmc.peer(), https);
    bmc.send(RequestKind::PowerOn, LONG).await.unwrap();
    assert_eq!(site.fleet.counters().applied, 1);
}

#[tokio::test]
async fn a_pin_takes_the_place_of_chain_and_name() {
    let site = site(|fleet| fleet, settings()).await;
    let self_signed = site.bound.https_self_signed.unwrap();
    let right = crate::bmc::pin(&site.bound.self_signed_fingerprint).unwrap();
    probe(&site, self_signed, Trust::Pin(right)).await.unwrap();
    let error = probe(&site, self_signed, Trust::Pin([7; 32])).await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::Tls, Delivery::NotSent));
    assert!(error.message.contains(&site.bound.self_signed_fingerprint), "{}", error.message);
    assert!(error.message.contains("spec.bmc.tls.certificateSHA256"), "{}", error.message);
}

#[tokio::test]
async fn a_refused_handshake_tells_the_fingerprint_and_how_to_pin_it() {
    let site = site(|fleet| fleet, settings()).await;
    let ca = Trust::Ca(site.bound.ca_pem.clone().into_bytes());
    let self_signed = site.bound.https_self_signed.unwrap();
    for (port, trust, part) in [
        (self_signed, ca.clone(), site.bound.self_signed_fingerprint.as_str()),
        (
            self_signed,
            Trust::Ca(site.bound.ca_pem.clone().into_bytes()),
            "nobody that is trusted has signed it",
        ),
        (site.bound.https_wrong_name.unwrap(), ca, "it is for another host"),
    ] {
        let error = probe(&site, port, trust).await.unwrap_err();
        assert_eq!((error.kind, error.delivery), (BmcErrorKind::Tls, Delivery::NotSent));
        for part in [part, "SHA-256 fingerprint is ", "spec.bmc.tls.certificateSHA256"] {
            assert!(error.message.contains(part), "{}", error.message);
        }
    }
    assert_eq!(site.requests(), 0, "no password went to a host that is not trusted");
}

#[tokio::test]
async fn an_unverified_certificate_is_taken_and_counted() {
    let site = site(|fleet| fleet, settings()).await;
    probe(&site, site.bound.https_wrong_name.unwrap(), Trust::Unverified).await.unwrap();
    assert!(crate::metrics::page().contains("autobuild_bmc_unverified_connections_total"));
}

#[tokio::test]
async fn a_port_without_tls_is_told_apart() {
    let site = site(|fleet| fleet, settings()).await;
    let error = probe(&site, site.bound.http.unwrap(), Trust::Pin([0; 32])).await.unwrap_err();
    assert_eq!(error.kind, BmcErrorKind::Tls);
    assert!(error.message.contains("does not speak TLS"), "{}", error.message);
}
