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
    let reading = bmc.inspect().await?;
    Ok(Found { reading, pinned })
}

/// The addresses of the machines that an address means: of a BMC with several systems, those that can be switched, where the
/// address names none of them. A system that cannot be switched, such as a board of accelerators, is no machine.
pub async fn machines(
    connector: &Connector,
    address: &BmcAddress,
    credentials: Credentials,
    judge: &Judge,
) -> Result<Vec<BmcAddress>, BmcError> {
    if address.scheme() == BmcScheme::Ipmi {
        return Ok(vec![address.clone()]);
    }
    let trust = match judge {
        Judge::By(trust) => trust.clone(),
        Judge::AsSeen if address.scheme() != BmcScheme::RedfishHttps => Trust::System,
        Judge::AsSeen => {
            let seen = certificate(connector, address, credentials.clone()).await?;
            pin(&seen).map_or(Trust::System, Trust::Pin)
        }
    };
    let bmc = connector.open(address, credentials, trust).await?;
    if let Some(system) = address.system() {
        bmc.probe().await?;
        if bmc.is_switchable() {
            return Ok(vec![address.clone()]);
        }
        let message = format!(
            "the system {system:?} has no reset action: it is no machine that can be switched, but a part of one; name another, or \
             none, in the address"
        );
        return Err(BmcError::new(BmcErrorKind::Unsupported, crate::bmc::Delivery::Answered, message));
    }
    let systems = bmc.systems().await?;
    if systems.len() < 2 {
        return Ok(vec![address.clone()]);
    }
    let base = address.normalised();
    let each = systems.iter().map(|system| format!("{base}/redfish/v1/Systems/{system}"));
    Ok(each.filter_map(|text| BmcAddress::parse(&text).ok()).collect())
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
