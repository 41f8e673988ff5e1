//! Through which address and login a BMC was read: what was read belongs to that address, and says nothing of another one.

use serde::{Deserialize, Serialize};

use super::named_hash::NamedHash;
use crate::api::bmc_address::BmcAddress;
use crate::api::{BmcSpec, CaRefKind};

/// SHA-256 over address, Secret and TLS settings, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReadThrough(pub String);

impl ReadThrough {
    /// What is read with this part of spec. However the address is written, it is the same one.
    pub fn of(bmc: &BmcSpec) -> Self {
        let address = BmcAddress::parse(&bmc.address)
            .map_or_else(|_| bmc.address.clone(), |address| address.normalised());
        let mut hash = NamedHash::new("read-through/1");
        hash.text(&address);
        hash.text(&bmc.credentials_ref.name);
        let tls = bmc.tls.as_ref();
        hash.optional(tls.and_then(|tls| tls.certificate_sha256.as_deref()));
        let ca = tls.and_then(|tls| tls.ca_ref.as_ref());
        hash.optional(ca.map(|ca| match ca.kind {
            CaRefKind::ConfigMap => "ConfigMap",
            CaRefKind::Secret => "Secret",
        }));
        hash.optional(ca.map(|ca| ca.name.as_str()));
        hash.optional(ca.map(|ca| ca.key.as_str()));
        hash.optional(tls.and_then(|tls| tls.verify).map(|_| "Disabled"));
        Self(hash.finish())
    }

    /// Nothing that a spec can stand for: what was read before belongs to no address any more.
    pub fn nothing() -> Self {
        Self("-".to_owned())
    }
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;
    use crate::api::{BmcTls, CredentialsRef, TlsVerify};

    fn bmc(address: &str, secret: &str, tls: Option<BmcTls>) -> BmcSpec {
        BmcSpec {
            address: address.into(),
            credentials_ref: CredentialsRef { name: secret.into() },
            tls,
            boot_mode: None,
        }
    }

    #[test]
    fn one_address_is_one_however_it_is_written_and_another_path_login_or_trust_is_another() {
        let key = ReadThrough::of(&bmc("redfish+https://BMC-1.example", "a", None));
        assert_eq!(key, ReadThrough::of(&bmc("redfish+https://bmc-1.example:443/", "a", None)));
        let unverified = BmcTls { verify: Some(TlsVerify::Disabled), ..BmcTls::default() };
        let pinned = BmcTls { certificate_sha256: Some("ab".repeat(32)), ..BmcTls::default() };
        for other in [
            bmc("redfish+https://bmc-2.example", "a", None),
            bmc("redfish+https://bmc-1.example:8443", "a", None),
            bmc("redfish+https://bmc-1.example/redfish/v1/Systems/2", "a", None),
            bmc("redfish+https://bmc-1.example", "b", None),
            bmc("redfish+https://bmc-1.example", "a", Some(unverified)),
            bmc("redfish+https://bmc-1.example", "a", Some(pinned)),
        ] {
            assert_ne!(key, ReadThrough::of(&other), "{other:?}");
        }
        assert_ne!(key, ReadThrough::nothing());
    }
}
