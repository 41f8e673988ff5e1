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
}
