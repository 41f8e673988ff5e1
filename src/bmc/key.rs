//! The key in a certificate, and whether a handshake was signed with it. A pin names a certificate, so that nothing else of it
//! matters: neither its version, nor who signed it, nor how. Pure.

use std::fmt;

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, alg_id,
};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};

/// What the TLS library asks of an RSA key at least.
const RSA_BITS: usize = 2048;
/// What can be checked at all.
const RSA_BITS_MIN: usize = 1024;
const RSA_BITS_MAX: usize = 8192;

/// The key of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// SubjectPublicKeyInfo, in DER.
    info: Vec<u8>,
    /// The contents of its AlgorithmIdentifier.
    algorithm: Vec<u8>,
    /// The key itself.
    public: Vec<u8>,
}

impl Key {
    /// The key in a certificate (DER); `None` where there is none to be found.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (certificate, _) = element(certificate, SEQUENCE)?;
        let (mut fields, _) = element(certificate.contents, SEQUENCE)?;
        // The version is left out by the first version.
        if let Some((_, rest)) = element(fields.contents, VERSION) {
            fields.contents = rest;
        }
        // Serial number, signature algorithm, issuer, validity, subject.
        let mut rest = fields.contents;
        for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE] {
            rest = element(rest, tag)?.1;
        }
        let (info, _) = element(rest, SEQUENCE)?;
        let (algorithm, rest) = element(info.contents, SEQUENCE)?;
        let (public, _) = element(rest, BIT_STRING)?;
        Some(Self {
            info: info.whole.to_vec(),
            algorithm: algorithm.contents.to_vec(),
            public: public.contents.strip_prefix(&[0])?.to_vec(),
        })
    }

    fn is(&self, algorithm: AlgorithmIdentifier) -> bool {
        self.algorithm == algorithm.as_ref()
    }

    /// The length of an RSA key.
    fn rsa_bits(&self) -> Option<usize> {
        let (numbers, _) = element(&self.public, SEQUENCE).filter(|_| self.is(alg_id::RSA_ENCRYPTION))?;
        let (modulus, _) = element(numbers.contents, INTEGER)?;
        let first = modulus.contents.iter().position(|byte| *byte != 0)?;
        let digits = modulus.contents.get(first..)?;
        Some(digits.len() * 8 - digits.first()?.leading_zeros() as usize)
    }

    /// Whether it is too short for the TLS library, and can be checked all the same.
    pub(super) fn is_weak(&self) -> bool {
        self.rsa_bits().is_some_and(|bits| (RSA_BITS_MIN..RSA_BITS).contains(&bits))
    }

    /// What it is, where the TLS library refuses it.
    pub(super) fn refused(&self) -> Option<String> {
        match self.rsa_bits() {
            Some(bits) => {
                (!(RSA_BITS..=RSA_BITS_MAX).contains(&bits)).then(|| format!("RSA with {bits} bits"))
            }
            None if self.is(alg_id::ECDSA_P256)
                || self.is(alg_id::ECDSA_P384)
                || self.is(alg_id::ED25519) =>
            {
                None
            }
            None => Some("neither RSA, nor ECDSA on P-256 or P-384, nor Ed25519".to_owned()),
        }
    }

    /// What it is, where nothing that it signed can be checked here, so that no pin helps.
    pub(super) fn uncheckable(&self) -> Option<String> {
        self.refused().filter(|_| !self.is_weak())
    }

    /// Checks the signature of a handshake of TLS 1.2.
    pub(super) fn signed_tls12(
        &self,
        message: &[u8],
        signed: &DigitallySignedStruct,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let offered = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
        offered
            .flat_map(|(_, algorithms)| *algorithms)
            .filter(|algorithm| self.is(algorithm.public_key_alg_id()))
            .find_map(|algorithm| algorithm.verify_signature(&self.public, message, signed.signature()).ok())
            .map(|()| HandshakeSignatureValid::assertion())
            .ok_or_else(|| CertificateError::BadSignature.into())
    }

    /// Checks the signature of a handshake of TLS 1.3.
    pub(super) fn signed_tls13(
        &self,
        message: &[u8],
        signed: &DigitallySignedStruct,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let info = SubjectPublicKeyInfoDer::from(self.info.as_slice());
        verify_tls13_signature_with_raw_key(message, &info, signed, algorithms)
    }
}

/// What checks signatures of short RSA keys. TLS 1.3 signs by PSS alone, for which there is nothing.
pub(super) static SHORT_RSA: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[SHA256, SHA512],
    mapping: &[
        (SignatureScheme::RSA_PKCS1_SHA256, &[SHA256]),
        (SignatureScheme::RSA_PKCS1_SHA512, &[SHA512]),
    ],
};

const SHA256: &dyn SignatureVerificationAlgorithm = &ShortRsa {
    by: &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
    named: alg_id::RSA_PKCS1_SHA256,
};
const SHA512: &dyn SignatureVerificationAlgorithm = &ShortRsa {
    by: &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
    named: alg_id::RSA_PKCS1_SHA512,
};

struct ShortRsa {
    by: &'static dyn VerificationAlgorithm,
    named: AlgorithmIdentifier,
}

impl fmt::Debug for ShortRsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShortRsa")
    }
}

impl SignatureVerificationAlgorithm for ShortRsa {
    fn verify_signature(&self, key: &[u8], message: &[u8], signed: &[u8]) -> Result<(), InvalidSignature> {
        UnparsedPublicKey::new(self.by, key).verify(message, signed).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_ENCRYPTION
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.named
    }
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

struct Element<'a> {
    whole: &'a [u8],
    contents: &'a [u8],
}

/// The first element of DER, where it has this tag, and what is behind it.
fn element(der: &[u8], tag: u8) -> Option<(Element<'_>, &[u8])> {
    let (_, rest) = der.split_first().filter(|(first, _)| **first == tag)?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (digits.iter().fold(0, |all, digit| all << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (contents, behind) = rest.split_at_checked(length)?;
    let head = der.len() - rest.len();
    Some((Element { whole: der.get(..head + length)?, contents }, behind))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_whether_what_it_signs_can_be_checked() {
        for (kind, refused, uncheckable) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, false, false),
            (&rcgen::PKCS_ECDSA_P384_SHA384, false, false),
            (&rcgen::PKCS_ED25519, false, false),
        ] {
            let pair = rcgen::KeyPair::generate_for(kind).unwrap();
            let certificate = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&pair).unwrap();
            let key = Key::of(certificate.der()).unwrap();
            assert_eq!((key.refused().is_some(), key.uncheckable().is_some()), (refused, uncheckable));
        }
        let rsa = |bytes: usize| {
            let mut public = vec![SEQUENCE, 0x82, 0, 0, INTEGER, 0x82, 0, 0, 0];
            public.extend(vec![0xff; bytes]);
            public[6..8].copy_from_slice(&u16::try_from(bytes + 1).unwrap().to_be_bytes());
            let inner = u16::try_from(public.len() - 4).unwrap();
            public[2..4].copy_from_slice(&inner.to_be_bytes());
            Key { info: vec![], algorithm: alg_id::RSA_ENCRYPTION.as_ref().to_vec(), public }
        };
        for (bytes, refused, weak) in [
            (64, true, false),
            (128, true, true),
            (255, true, true),
            (256, false, false),
            (1025, true, false),
        ] {
            let key = rsa(bytes);
            assert_eq!((key.refused().is_some(), key.is_weak()), (refused, weak), "{bytes}");
            assert_eq!(key.uncheckable().is_some(), refused && !weak, "{bytes}");
        }
        let odd = Key { info: vec![], algorithm: alg_id::ECDSA_P521.as_ref().to_vec(), public: vec![] };
        assert!(odd.uncheckable().is_some());
    }

    #[test]
    fn what_is_no_certificate_has_no_key() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let whole = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&pair).unwrap();
        let der = whole.der();
        assert!(Key::of(der).is_some());
        for length in 0..der.len() {
            assert_eq!(Key::of(&der[..length]), None, "{length}");
        }
    }
}
