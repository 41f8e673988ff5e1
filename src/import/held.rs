//! What a cluster has already of a fleet that is to be imported. Pure.

use super::duplicates::same_address;
use crate::api::Server;
use crate::api::bmc_address::BmcAddress;
use crate::api::hardware::HardwareIdentity;

/// A Server that would be applied.
#[derive(Debug, Clone, Copy)]
pub struct Planned<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its address.
    pub address: &'a BmcAddress,
    /// What its BMC says that it is.
    pub identity: &'a HardwareIdentity,
}

/// What of it stands in the way, one sentence each.
pub fn objections(planned: Planned<'_>, servers: &[Server]) -> Vec<String> {
    servers.iter().filter_map(|server| objection(planned, server)).collect()
}

fn objection(planned: Planned<'_>, server: &Server) -> Option<String> {
    let name = server.metadata.name.as_deref().unwrap_or_default();
    let namespace = server.metadata.namespace.as_deref().unwrap_or_default();
    let holds = BmcAddress::parse(&server.spec.bmc.address)
        .is_ok_and(|address| same_address(&address, planned.address));
    let is_named_so = name == planned.name && namespace == planned.namespace;
    let known = server.status.as_ref().and_then(|status| status.bmc_identity.as_ref());
    let equal = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
    let is_same_machine = known.is_some_and(|known| match (&known.uuid, &planned.identity.uuid) {
        (Some(_), Some(_)) => equal(&known.uuid, &planned.identity.uuid),
        // Nodes of one board have one serial number.
        _ => {
            equal(&known.serial_number, &planned.identity.serial_number)
                && !known.is_another(planned.identity)
        }
    });
    match (is_named_so, holds || is_same_machine) {
        (true, true) => {
            Some(format!("the Server {namespace}/{name} is this machine: it is under management already"))
        }
        (true, false) => Some(format!(
            "the name is taken: the Server {namespace}/{name} is at {}; give it another name in the list",
            server.spec.bmc.address
        )),
        (false, true) if holds => {
            Some(format!("the Server {namespace}/{name} holds this BMC: remove the line, or that Server"))
        }
        (false, true) => Some(format!(
            "the Server {namespace}/{name} holds this machine, at {}: remove the line, or that Server",
            server.spec.bmc.address
        )),
        (false, false) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::api::{BmcSpec, ServerSpec, ServerStatus};

    fn there() -> Server {
        let bmc = BmcSpec { address: "redfish+https://10.0.0.1:443/".to_owned(), ..BmcSpec::default() };
        let mut server = Server::new("rack1-01", ServerSpec { bmc, ..ServerSpec::default() });
        server.metadata.namespace = Some("lab".to_owned());
        let identity = HardwareIdentity { serial_number: Some("S1".to_owned()), uuid: None, system: None };
        server.status = Some(ServerStatus { bmc_identity: Some(identity), ..ServerStatus::default() });
        server
    }

    #[test]
    fn names_addresses_and_machines_that_are_there_are_told() {
        let servers = [there()];
        let told = |name, address: &str, serial: &str| {
            let address = BmcAddress::parse(address).unwrap();
            let identity =
                HardwareIdentity { serial_number: Some(serial.to_owned()), uuid: None, system: None };
            objections(Planned { namespace: "lab", name, address: &address, identity: &identity }, &servers)
                .join("")
        };
        assert!(told("rack1-01", "redfish+https://10.0.0.1", "S1").contains("under management already"));
        assert!(told("rack1-01", "redfish+https://10.0.0.9", "S9").contains("the name is taken"));
        assert!(told("other", "redfish+https://10.0.0.1", "S9").contains("holds this BMC"));
        assert!(told("other", "redfish+https://10.0.0.9", "S1").contains("holds this machine, at"));
        assert_eq!(told("other", "redfish+https://10.0.0.9", "S9"), "");
    }
}
