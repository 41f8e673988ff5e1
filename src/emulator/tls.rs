//! The certificates: one from a CA of the fleet's own, and two that a careful client refuses.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

/// Certificates or their keys could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Making a key or a certificate failed.
    #[error("no certificate could be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refused it.
    #[error("the certificate cannot be served: {0}")]
    Config(#[from] rustls::Error),
}

/// What a TLS listener shows.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) config: Arc<ServerConfig>,
    /// SHA-256 of the certificate, lower-case hexadecimal.
    pub(super) fingerprint: String,
}

/// All certificates of a fleet.
#[derive(Debug, Clone)]
pub(super) struct Identities {
    /// The CA, for clients.
    pub(super) ca_pem: String,
    /// Signed by the CA, for `127.0.0.1`, `::1`, `localhost` and the addresses on which the fleet listens.
    pub(super) good: Identity,
    /// For the same names, signed by itself.
    pub(super) self_signed: Identity,
    /// Signed by the CA, for another host.
    pub(super) wrong_name: Identity,
}

fn params(name: &str, hosts: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

fn identity(certificate: CertificateDer<'static>, key: &KeyPair) -> Result<Identity, TlsError> {
    let digest: [u8; 32] = Sha256::digest(&certificate).into();
    let fingerprint = digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(Identity { config: Arc::new(config), fingerprint })
}

impl Identities {
    /// Makes a new CA and new certificates, for the loopback and these further addresses.
    pub(super) fn generate(further: impl IntoIterator<Item = IpAddr>) -> Result<Self, TlsError> {
        let mut hosts = ["127.0.0.1", "::1", "localhost"].map(str::to_owned).to_vec();
        for address in further.into_iter().filter(|address| !address.is_unspecified()) {
            let address = address.to_string();
            if !hosts.contains(&address) {
                hosts.push(address);
            }
        }
        let mut ca = params("AutoBuild emulator CA", &[])?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_key = KeyPair::generate()?;
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(ca, ca_key);

        let key = KeyPair::generate()?;
        let signed = |name, hosts: &[String]| {
            Ok::<_, TlsError>(params(name, hosts)?.signed_by(&key, &issuer)?.der().clone())
        };
        Ok(Self {
            ca_pem,
            good: identity(signed("AutoBuild emulator", &hosts)?, &key)?,
            wrong_name: identity(signed("another BMC", &["another-bmc.example.com".to_owned()])?, &key)?,
            self_signed: {
                let own = KeyPair::generate()?;
                identity(params("self-signed BMC", &hosts)?.self_signed(&own)?.der().clone(), &own)?
            },
        })
    }
}
