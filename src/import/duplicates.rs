//! Two lines, one machine. Pure.

use crate::api::bmc_address::BmcAddress;
use crate::api::hardware::HardwareIdentity;

/// By what two lines are the same machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sameness {
    /// One address, however spelled.
    Address,
    /// One SMBIOS UUID.
    Uuid(String),
    /// One serial number, where a UUID is missing.
    Serial(String),
}

impl Sameness {
    /// For messages.
    pub fn text(&self) -> String {
        match self {
            Self::Address => "the same BMC address".to_owned(),
            Self::Uuid(uuid) => format!("the same UUID {uuid}"),
            Self::Serial(serial) => format!("the same serial number {serial}"),
        }
    }
}

/// A machine that was read.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its address.
    pub address: &'a BmcAddress,
    /// What its BMC says that it is; placeholders are left out of it where it is read.
    pub identity: &'a HardwareIdentity,
}

/// Whether two addresses lead to one machine. An address without a system means the whole BMC.
pub fn same_address(a: &BmcAddress, b: &BmcAddress) -> bool {
    let (a, b) = (a.claim_key(), b.claim_key());
    a.host == b.host && (a.system == b.system || a.system.is_empty() || b.system.is_empty())
}

fn same(a: Seen<'_>, b: Seen<'_>) -> Option<Sameness> {
    if same_address(a.address, b.address) {
        return Some(Sameness::Address);
    }
    // Different systems behind one BMC are different machines, whatever they have in common.
    let (a_key, b_key) = (a.address.claim_key(), b.address.claim_key());
    if a_key.host == b_key.host {
        return None;
    }
    // Makers give different machines the same serial number, so the UUID alone where both have one.
    if let (Some(a), Some(b)) = (&a.identity.uuid, &b.identity.uuid) {
        return (a == b).then(|| Sameness::Uuid(a.clone()));
    }
    let serial = a.identity.serial_number.as_ref()?;
    let is_same = b.identity.serial_number.as_ref() == Some(serial) && !a.identity.is_another(b.identity);
    is_same.then(|| Sameness::Serial(serial.clone()))
}

/// For each machine the place of an earlier one that it is the same as.
pub fn later_ones(all: &[Seen<'_>]) -> Vec<Option<(usize, Sameness)>> {
    all.iter()
        .enumerate()
        .map(|(place, one)| {
            all.iter()
                .take(place)
                .enumerate()
                .find_map(|(earlier, other)| Some((earlier, same(*other, *one)?)))
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_found_twice_by_address_uuid_or_serial_number() {
        let machine = |address: &str, serial: Option<&str>, uuid: Option<&str>| {
            let identity = HardwareIdentity {
                serial_number: serial.map(str::to_owned),
                uuid: uuid.map(str::to_owned),
                system: None,
            };
            (BmcAddress::parse(address).unwrap(), identity)
        };
        let all = [
            machine("redfish+https://a", Some("S1"), Some("u1")),
            machine("redfish+https://A:443/redfish/v1/Systems/1", Some("S9"), Some("u9")),
            machine("redfish+https://b", Some("S1"), Some("u2")),
            machine("redfish+https://c", Some("S2"), Some("u1")),
            machine("ipmi://d", Some("S1"), None),
            machine("ipmi://e", None, None),
            machine("ipmi://f", None, None),
            machine("redfish+https://g/redfish/v1/Systems/Node0", Some("S7"), None),
            machine("redfish+https://g/redfish/v1/Systems/Node1", Some("S7"), None),
        ];
        let seen: Vec<Seen<'_>> = all.iter().map(|(address, identity)| Seen { address, identity }).collect();
        assert_eq!(
            later_ones(&seen),
            [
                None,
                Some((0, Sameness::Address)),
                None,
                Some((0, Sameness::Uuid("u1".to_owned()))),
                Some((0, Sameness::Serial("S1".to_owned()))),
                None,
                None,
                None,
                None,
            ]
        );
    }
}
