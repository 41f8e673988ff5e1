//! How a BMC's certificate is judged, and what fingerprint was seen.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use sha2::{Digest as _, Sha256};

use super::key::{Key, SHORT_RSA};

/// How a BMC's certificate is judged. Nothing of it matters over plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// By the certificate authorities of the system that the worker runs on.
    System,
    /// By these certificate authorities (PEM, one or more) and no others.
    Ca(Vec<u8>),
    /// It is the certificate with this SHA-256 fingerprint (of its DER form); chain and name do not matter.
    Pin([u8; 32]),
    /// Any certificate: whoever sits between can read the password.
    Unverified,
}

/// Certificates that cannot be judged by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TrustError {
    /// The PEM text holds no certificate that can be used.
    #[error(
        "spec.bmc.tls.caRef: {0}; store one or more certificates in PEM form under the key that it names"
    )]
    Ca(String),
    /// The worker's system trusts nobody.
    #[error(
        "the worker's system has no certificate authorities: set spec.bmc.tls.caRef or certificateSHA256, or let the \
         operator install the package ca-certificates"
    )]
    NoSystemRoots,
    /// The TLS library refuses the settings.
    #[error("TLS cannot be set up: {0}")]
    Library(String),
}

/// The TLS settings for one BMC, and the last fingerprint that was seen with them.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    /// The same for a pinned certificate whose RSA key is too short for the TLS library.
    short_rsa: Option<Arc<ClientConfig>>,
    pin: Option<[u8; 32]>,
    seen: Seen,
}

/// The last certificate that a BMC showed: its fingerprint and its key.
type Seen = Arc<Mutex<Option<([u8; 32], Option<Key>)>>>;

impl Tls {
    /// Settings that judge by `trust`. Reads the system's certificates on first need.
    pub(super) fn new(trust: &Trust) -> Result<Self, TrustError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let seen = Seen::default();
        let (judge, pin) = match trust {
            Trust::System => (Judge::Chain(chain(system_roots()?, &provider)?), None),
            Trust::Ca(pem) => (Judge::Chain(chain(Arc::new(ca_roots(pem)?), &provider)?), None),
            Trust::Pin(pin) => (Judge::Pin(*pin), Some(*pin)),
            Trust::Unverified => (Judge::Nobody, None),
        };
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Verifier { judge, algorithms, seen: Arc::clone(&seen) };
        let config = settings(&provider, rustls::DEFAULT_VERSIONS, verifier)?;
        // Schemes of TLS 1.2 alone: the BMC then signs in a way that can be checked with a short key.
        let short_rsa = |pin| {
            let (judge, seen) = (Judge::Pin(pin), Arc::clone(&seen));
            settings(&provider, &[&rustls::version::TLS12], Verifier { judge, algorithms: SHORT_RSA, seen })
        };
        let short_rsa = pin.map(short_rsa).transpose()?;
        Ok(Self { config, short_rsa, pin, seen })
    }

    /// The settings for another handshake, where one with the pinned certificate failed because its key is too short.
    pub(super) fn another(&self) -> Option<Arc<ClientConfig>> {
        let weak = self.shows_the_pinned_one() && self.key().is_some_and(|key| key.is_weak());
        self.short_rsa.clone().filter(|_| weak)
    }

    /// Whether the last certificate is the one that `spec.bmc.tls.certificateSHA256` names.
    pub(super) fn shows_the_pinned_one(&self) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.pin.is_some() && seen.as_ref().map(|(digest, _)| *digest) == self.pin
    }

    /// The key in the last certificate, where it can be read.
    pub(super) fn key(&self) -> Option<Key> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.1.clone()
    }

    /// The fingerprint of the last certificate that a BMC showed, as `spec.bmc.tls.certificateSHA256` takes it.
    pub(super) fn seen(&self) -> Option<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().map(|(digest, _)| hexadecimal(digest))
    }

    /// Forgets the last fingerprint, before another handshake.
    pub(super) fn forget(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Reads a `spec.bmc.tls.certificateSHA256`: 64 hexadecimal digits, with or without colons.
pub fn pin(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let mut pin = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in pin.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(*pair.get(at)?).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(pin)
}

fn hexadecimal(digest: &[u8; 32]) -> String {
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn chain(
    roots: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TrustError> {
    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(|error| TrustError::Library(error.to_string()))
}

fn ca_roots(pem: &[u8]) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| TrustError::Ca("its text is not PEM".to_owned()))?;
        roots
            .add(certificate)
            .map_err(|error| TrustError::Ca(format!("a certificate is unusable ({error})")))?;
    }
    if roots.is_empty() {
        return Err(TrustError::Ca("it holds no certificate".to_owned()));
    }
    Ok(roots)
}

fn system_roots() -> Result<Arc<RootCertStore>, TrustError> {
    static ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "some of the system's certificate authorities cannot be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        Arc::new(roots)
    });
    if ROOTS.is_empty() { Err(TrustError::NoSystemRoots) } else { Ok(Arc::clone(&ROOTS)) }
}

fn no_key() -> rustls::Error {
    CertificateError::BadEncoding.into()
}

fn settings(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    verifier: Verifier,
) -> Result<Arc<ClientConfig>, TrustError> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(|error| TrustError::Library(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // A resumed session shows no certificate, and some BMCs resume badly.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
enum Judge {
    Chain(Arc<WebPkiServerVerifier>),
    Pin([u8; 32]),
    Nobody,
}

#[derive(Debug)]
struct Verifier {
    judge: Judge,
    algorithms: WebPkiSupportedAlgorithms,
    seen: Seen,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let digest: [u8; 32] = Sha256::digest(end_entity).into();
        let seen = Some((digest, Key::of(end_entity)));
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        match &self.judge {
            Judge::Chain(chain) => {
                chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            Judge::Pin(pin) if *pin == digest => Ok(ServerCertVerified::assertion()),
            Judge::Pin(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            Judge::Nobody => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.judge {
            // That the BMC has the certificate's key says nothing where anybody's certificate will do.
            Judge::Nobody => Ok(HandshakeSignatureValid::assertion()),
            Judge::Chain(_) => verify_tls12_signature(message, certificate, signed, &self.algorithms),
            Judge::Pin(_) => {
                Key::of(certificate).ok_or_else(no_key)?.signed_tls12(message, signed, &self.algorithms)
            }
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.judge {
            Judge::Nobody => Ok(HandshakeSignatureValid::assertion()),
            Judge::Chain(_) => verify_tls13_signature(message, certificate, signed, &self.algorithms),
            Judge::Pin(_) => {
                Key::of(certificate).ok_or_else(no_key)?.signed_tls13(message, signed, &self.algorithms)
            }
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_with_and_without_colons() {
        let digest: [u8; 32] = Sha256::digest(b"certificate").into();
        let text = hexadecimal(&digest);
        assert_eq!(pin(&text), Some(digest));
        assert_eq!(pin(&text.to_uppercase()), Some(digest));
        let colons: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(pin(&colons.join(":")), Some(digest));
        for wrong in ["", "ab", &text[1..], &format!("{text}00"), &text.replace(&text[..1], "g")] {
            assert_eq!(pin(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ca_text_without_a_certificate_is_refused_with_the_field() {
        for pem in [&b""[..], b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let error = Tls::new(&Trust::Ca(pem.to_vec())).unwrap_err().to_string();
            assert!(error.starts_with("spec.bmc.tls.caRef: "), "{error}");
        }
    }
}
