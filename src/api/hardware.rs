//! What a BMC tells about its machine, in the form of `status`.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Mac;

/// The power state that was read back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PowerState {
    /// The machine is on (Redfish `On`).
    PoweredOn,
    /// The machine is off (Redfish `Off`).
    PoweredOff,
    /// The machine is between off and on (Redfish `PoweringOn`).
    PoweringOn,
    /// The machine is between on and off (Redfish `PoweringOff`).
    PoweringOff,
    /// The BMC did not say, or said something else.
    #[default]
    Unknown,
}

impl PowerState {
    /// The name in the API, logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PoweredOn => "PoweredOn",
            Self::PoweredOff => "PoweredOff",
            Self::PoweringOn => "PoweringOn",
            Self::PoweringOff => "PoweringOff",
            Self::Unknown => "Unknown",
        }
    }
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which machine it is, as far as its BMC says. Placeholders such as `To be filled by O.E.M.` are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HardwareIdentity {
    /// The serial number of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub serial_number: Option<String>,
    /// The SMBIOS UUID, in lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub uuid: Option<String>,
}

/// One network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Nic {
    /// The BMC's name for it.
    #[schemars(length(max = 128))]
    pub name: String,
    /// The MAC address in lower case with colons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub mac_address: Option<String>,
    /// The speed in Mbit/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_mbps: Option<i64>,
}

/// One disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// The BMC's name for it.
    #[schemars(length(max = 128))]
    pub name: String,
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub model: Option<String>,
    /// The serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub serial_number: Option<String>,
    /// The size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
}

impl Hardware {
    /// The addresses of its Ethernet cards in the order of its BMC, each once. What is no such address, as those of
    /// InfiniBand are, boots nothing here.
    pub fn cards(&self) -> Vec<Mac> {
        let mut cards = Vec::with_capacity(self.nics.len());
        for mac in self.nics.iter().filter_map(|nic| nic.mac_address.as_deref()?.parse().ok()) {
            if !cards.contains(&mac) {
                cards.push(mac);
            }
        }
        cards
    }
}

/// What is in the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hardware {
    /// The manufacturer of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub manufacturer: Option<String>,
    /// The model of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub model: Option<String>,
    /// The serial number of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub serial_number: Option<String>,
    /// The SMBIOS UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub uuid: Option<String>,
    /// The BIOS version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub bios_version: Option<String>,
    /// The number of processors (sockets).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<i64>,
    /// The memory in GiB, rounded down.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "memoryGiB")]
    pub memory_gib: Option<i64>,
    /// The network interfaces, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub nics: Vec<Nic>,
    /// The disks, at most 128.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub disks: Vec<Disk>,
    /// Parts that the BMC has and could not be read the last time: what is shown of them is what was known before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub unread: Vec<HardwarePart>,
}

/// A part of a machine that is read by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum HardwarePart {
    /// The processors.
    Processors,
    /// The network interfaces.
    NetworkInterfaces,
    /// The disks and their controllers.
    Disks,
}

impl HardwarePart {
    /// The name in the API and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Processors => "Processors",
            Self::NetworkInterfaces => "NetworkInterfaces",
            Self::Disks => "Disks",
        }
    }

    /// In a sentence.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Processors => "its processors",
            Self::NetworkInterfaces => "its network interfaces",
            Self::Disks => "its disks",
        }
    }
}

impl Hardware {
    /// Takes over what was known before of the parts that could not be read now.
    #[must_use]
    pub fn keeping(mut self, before: &Self) -> Self {
        for part in &self.unread {
            match part {
                HardwarePart::Processors => self.cpus = before.cpus.or(self.cpus),
                HardwarePart::NetworkInterfaces if !before.nics.is_empty() => {
                    self.nics.clone_from(&before.nics);
                }
                HardwarePart::Disks if !before.disks.is_empty() => self.disks.clone_from(&before.disks),
                HardwarePart::NetworkInterfaces | HardwarePart::Disks => {}
            }
        }
        self
    }

    /// The address of the first Ethernet card: what a machine boots from where nobody says another.
    pub fn first_ethernet(&self) -> Option<&str> {
        self.nics.iter().filter_map(|nic| nic.mac_address.as_deref()).find(|mac| is_ethernet(mac))
    }

    /// Whether there may be network interfaces that nobody could read yet.
    pub fn may_have_more_nics(&self) -> bool {
        self.unread.contains(&HardwarePart::NetworkInterfaces)
    }
}

/// Whether an address is one of Ethernet (six bytes): those of InfiniBand have eight or twenty.
pub fn is_ethernet(mac: &str) -> bool {
    mac.len() == "00:00:00:00:00:00".len()
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;

    fn nic(mac: &str) -> Nic {
        Nic { name: mac.to_owned(), mac_address: Some(mac.to_owned()), speed_mbps: None }
    }

    #[test]
    fn what_was_known_of_a_part_that_cannot_be_read_is_kept_and_of_others_is_not() {
        let before = Hardware {
            cpus: Some(2),
            nics: vec![nic("02:00:00:00:00:01")],
            disks: vec![Disk { name: "a".into(), ..Disk::default() }],
            ..Hardware::default()
        };
        let now = Hardware {
            nics: vec![nic("02:00:00:00:00:02")],
            unread: vec![HardwarePart::NetworkInterfaces, HardwarePart::Processors],
            ..Hardware::default()
        };
        let kept = now.clone().keeping(&before);
        assert_eq!((kept.cpus, &kept.nics), (Some(2), &before.nics));
        assert!(kept.disks.is_empty() && kept.unread == now.unread);
        assert_eq!(now.clone().keeping(&Hardware::default()), now, "half of it is more than nothing");
    }

    #[test]
    fn the_first_ethernet_card_boots_and_infiniband_never() {
        let nics = vec![nic("00:11:22:33:44:55:66:77"), nic("02:00:00:00:00:01"), nic("02:00:00:00:00:02")];
        let hardware = Hardware { nics, ..Hardware::default() };
        assert_eq!(hardware.first_ethernet(), Some("02:00:00:00:00:01"));
    }
}
