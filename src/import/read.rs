//! One look at a BMC. It reads; nothing here can change a machine.

use crate::api::bmc_address::{BmcAddress, BmcScheme};
use crate::bmc::credentials::Credentials;
use crate::bmc::{BmcError, BmcErrorKind, Connector, Trust, pin};
use crate::job::Reading;

/// How the certificate of a BMC is judged while it is read.
#[derive(Debug, Clone)]
pub enum Judge {
    /// As workers will.
    By(Trust),
    /// The one that it shows now is taken for its own; no password is sent before it is pinned.
    AsSeen,
}

/// What a BMC told.
#[derive(Debug, Clone)]
pub struct Found {
    /// Power, identity and inventory.
    pub reading: Reading,
    /// The fingerprint that was pinned, where [`Judge::AsSeen`] saw one.
    pub pinned: Option<String>,
}

/// Reads the BMC at that address, with one login.
pub async fn read(
    connector: &Connector,
    address: &BmcAddress,
    credentials: Credentials,
    judge: &Judge,
) -> Result<Found, BmcError> {
    let (trust, pinned) = match judge {
        Judge::By(trust) => (trust.clone(), None),
        Judge::AsSeen if address.scheme() != BmcScheme::RedfishHttps => (Trust::System, None),
        Judge::AsSeen => {
            let seen = certificate(connector, address, credentials.clone()).await?;
            (pin(&seen).map_or(Trust::System, Trust::Pin), Some(seen))
        }
    };
    let bmc = connector.open(address, credentials, trust).await?;
    Ok(Found { reading: bmc.inspect().await?, pinned })
}

/// The fingerprint of the certificate that the BMC shows: of a handshake that no certificate passes.
async fn certificate(
    connector: &Connector,
    address: &BmcAddress,
    credentials: Credentials,
) -> Result<String, BmcError> {
    let bmc = connector.open(address, credentials, Trust::Pin([0; 32])).await?;
    match bmc.probe().await {
        Err(BmcError { kind: BmcErrorKind::Tls, certificate: Some(seen), .. }) => Ok(seen),
        Err(error) => Err(error),
        Ok(_) => Err(BmcError::new(
            BmcErrorKind::Protocol,
            crate::bmc::Delivery::Answered,
            "its certificate cannot be told: write certificateSHA256 by hand",
        )),
    }
}
