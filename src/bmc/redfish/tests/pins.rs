//! Pinned certificates that the TLS library itself would refuse: an old BMC's, of the first version of X.509, with an RSA key of
//! 1024 bits, signed by SHA-1. It was made for these tests and is used nowhere.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{
    ServerConfig, SignatureAlgorithm, SignatureScheme, SupportedProtocolVersion, version::TLS12,
    version::TLS13,
};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::hostile::{Raw, raw};
use super::{short_rsa, *};

/// Who signs the handshake.
#[derive(Debug, Clone, Copy)]
enum Signs {
    /// Whoever has the key.
    Owner,
    /// Whoever has copied the certificate.
    Copy,
}

#[derive(Debug)]
struct Signature(Signs, SignatureScheme);

impl SigningKey for Signs {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let known = [SignatureScheme::RSA_PKCS1_SHA256, SignatureScheme::RSA_PSS_SHA256];
        let scheme = known.into_iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(Signature(*self, scheme)))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::RSA
    }
}

impl Signer for Signature {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(match (self.0, self.1) {
            (Signs::Owner, SignatureScheme::RSA_PKCS1_SHA256) => {
                short_rsa::sign(&Sha256::digest(message).into())
            }
            // Nothing checks PSS with a short key.
            _ => vec![1; 128],
        })
    }

    fn scheme(&self) -> SignatureScheme {
        self.1
    }
}

fn certificate() -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(include_bytes!("short_rsa.pem")).unwrap()
}

/// A BMC with one system that shows this certificate.
async fn bmc(signs: Signs, versions: &[&'static SupportedProtocolVersion]) -> Raw {
    let key = CertifiedKey::new(vec![certificate()], Arc::new(signs));
    let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(key));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    raw(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).await.unwrap_or(0);
            let body = match String::from_utf8_lossy(&asked[..length]).split_whitespace().nth(1) {
                Some("/redfish/v1/") => r#"{"Systems":{"@odata.id":"/redfish/v1/Systems"}}"#,
                Some("/redfish/v1/Systems") => r#"{"Members":[{"@odata.id":"/redfish/v1/Systems/1"}]}"#,
                _ => r#"{"Id":"1","PowerState":"On"}"#,
            };
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

async fn probe(bmc: &Raw, trust: Trust) -> Result<(), BmcError> {
    let address = format!("redfish+https://{}/redfish/v1/Systems/1", bmc.port);
    open(&Connector::new(settings()), &address, trust).await.unwrap().probe().await.map(|_| ())
}

fn right() -> Trust {
    Trust::Pin(Sha256::digest(certificate()).into())
}

#[tokio::test]
async fn a_pinned_certificate_needs_no_more_than_its_key() {
    for versions in [&[&TLS12][..], &[&TLS13, &TLS12]] {
        let bmc = bmc(Signs::Owner, versions).await;
        probe(&bmc, right()).await.unwrap();
        let error = probe(&bmc, Trust::Pin([7; 32])).await.unwrap_err();
        assert!(error.message.contains("is not spec.bmc.tls.certificateSHA256"), "{error}");
    }
}

#[tokio::test]
async fn where_pin_and_certificate_agree_the_true_cause_is_told() {
    for (signs, versions) in [(Signs::Owner, &[&TLS13][..]), (Signs::Copy, &[&TLS12])] {
        let error = probe(&bmc(signs, versions).await, right()).await.unwrap_err();
        assert_eq!((&error.kind, error.delivery), (&BmcErrorKind::Tls, Delivery::NotSent));
        for part in
            ["the certificate that spec.bmc.tls.certificateSHA256 names", "RSA with 1024 bits", "install"]
        {
            assert!(error.message.contains(part), "{error}");
        }
        assert!(!error.message.contains("is not spec"), "{error}");
    }
}

#[tokio::test]
async fn whoever_shows_a_copy_of_a_pinned_certificate_gets_no_password() {
    let copied = bmc(Signs::Copy, &[&TLS13, &TLS12]).await;
    let error = probe(&copied, right()).await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::Tls, Delivery::NotSent));
}

#[tokio::test]
async fn a_pin_is_advised_where_it_would_work() {
    let ca = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&ca).unwrap();
    let error =
        probe(&bmc(Signs::Owner, &[&TLS12]).await, Trust::Ca(ca.pem().into_bytes())).await.unwrap_err();
    assert!(error.message.contains("certificateSHA256 can pin it"), "{error}");
}
