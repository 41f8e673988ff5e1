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
    /// Which system of its BMC it is, where the BMC has several and tells no UUID: nodes of one board have one serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub system: Option<String>,
}

impl HardwareIdentity {
    /// Whether both are known and differ, so that it is another machine. What one side does not tell differs in nothing.
    pub fn is_another(&self, other: &Self) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| matches!((a, b), (Some(a), Some(b)) if a != b);
        differ(&self.uuid, &other.uuid)
            || differ(&self.serial_number, &other.serial_number)
            || differ(&self.system, &other.system)
    }
}

/// Whether a network interface has link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum NicLink {
    /// It has link.
    Up,
    /// It has none, or is switched off.
    Down,
    /// Something that this release does not know.
    #[serde(other)]
    Unknown,
}

/// What a network interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum NicKind {
    /// An Ethernet card.
    Ethernet,
    /// An InfiniBand card, which is not booted from.
    InfiniBand,
    /// A VLAN, or another interface without a card of its own, which is not booted from.
    Virtual,
    /// Something that this release does not know.
    #[serde(other)]
    Unknown,
}

/// How well the machine is, as its BMC sums it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Health {
    /// It is well.
    OK,
    /// Something needs attention.
    Warning,
    /// Something needs attention at once.
    Critical,
    /// Something that this release does not know.
    #[serde(other)]
    Unknown,
}

/// What an accelerator is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AcceleratorKind {
    /// A graphics or compute processor.
    GPU,
    /// A data processing unit on a network card.
    DPU,
    /// A programmable one.
    FPGA,
    /// Another one.
    #[default]
    #[serde(other)]
    Accelerator,
}

/// One processor that is no CPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Accelerator {
    /// The BMC's name for it.
    #[schemars(length(max = 128))]
    pub name: String,
    /// What it is.
    #[serde(default)]
    pub kind: AcceleratorKind,
    /// The manufacturer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub manufacturer: Option<String>,
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub model: Option<String>,
}

/// The BMC itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BmcStatus {
    /// The version of its firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub firmware: Option<String>,
    /// The mode that the machine boots in, as the BMC writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub boot_mode: Option<String>,
    /// What it does in another way than others, as it was met; a ticket may name it. The list is in the documentation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64)))]
    pub habits: Vec<String>,
}

impl BmcStatus {
    /// With the habits that were met before by the same firmware: another process may have met them.
    #[must_use]
    fn keeping(mut self, before: &Self) -> Self {
        if self.firmware == before.firmware {
            self.habits.extend(before.habits.iter().cloned());
            self.habits.sort();
            self.habits.dedup();
            self.habits.truncate(64);
        }
        self
    }
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
    /// Whether it has link, where the BMC tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<NicLink>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<NicKind>,
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
    /// The BMC's name for its controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub controller: Option<String>,
    /// Where it is put in, as the BMC calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub slot: Option<String>,
}

impl Nic {
    /// Whether a machine may boot from it here, and how well it suits: one with link comes before one that does not tell, and that
    /// before one without.
    fn rank(&self) -> Option<(u8, Mac)> {
        let mac = self.mac_address.as_deref()?.parse().ok()?;
        match self.kind {
            Some(NicKind::InfiniBand | NicKind::Virtual) => return None,
            Some(NicKind::Ethernet | NicKind::Unknown) | None => {}
        }
        let rank = match self.link {
            Some(NicLink::Up) => 0,
            Some(NicLink::Unknown) | None => 1,
            Some(NicLink::Down) => 2,
        };
        Some((rank, mac))
    }
}

impl Hardware {
    /// The addresses of its Ethernet cards, each once: those with link first, else in the order of its BMC. What is no such
    /// address, as those of InfiniBand are, boots nothing here.
    pub fn cards(&self) -> Vec<Mac> {
        let mut ranked: Vec<(u8, Mac)> = self.nics.iter().filter_map(Nic::rank).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        let mut cards = Vec::with_capacity(ranked.len());
        for (_, mac) in ranked {
            if !cards.contains(&mac) {
                cards.push(mac);
            }
        }
        cards
    }

    /// Which card is taken to boot from where nobody names one, and why; `None`: there is none.
    pub fn card_taken(&self) -> Option<(Mac, String)> {
        let cards = self.cards();
        let first = *cards.first()?;
        let with_link = self.nics.iter().filter_map(Nic::rank).filter(|(rank, _)| *rank == 0).count();
        let why = match (cards.len(), with_link) {
            (1, _) => "the only Ethernet card".to_owned(),
            (all, 0) => format!("the first of {all} Ethernet cards, none of which is told to have link"),
            (all, 1) => format!("the only one with link of {all} Ethernet cards"),
            (all, some) => format!("the first of {some} with link of {all} Ethernet cards"),
        };
        Some((first, why))
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
    /// Processors that are no CPUs: the first 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub accelerators: Vec<Accelerator>,
    /// How well the machine is, as its BMC sums it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// The service tag, on machines of Dell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub service_tag: Option<String>,
    /// What is stored beside it of the BMC itself; shown as status.bmc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub bmc: Option<BmcStatus>,
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
                HardwarePart::Processors => {
                    self.cpus = before.cpus.or(self.cpus);
                    if !before.accelerators.is_empty() {
                        self.accelerators.clone_from(&before.accelerators);
                    }
                }
                HardwarePart::NetworkInterfaces if !before.nics.is_empty() => {
                    self.nics.clone_from(&before.nics);
                }
                HardwarePart::Disks if !before.disks.is_empty() => self.disks.clone_from(&before.disks),
                HardwarePart::NetworkInterfaces | HardwarePart::Disks => {}
            }
        }
        self.bmc = match (self.bmc.take(), &before.bmc) {
            (Some(now), Some(before)) => Some(now.keeping(before)),
            (now, _) => now,
        };
        self
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
        Nic { name: mac.to_owned(), mac_address: Some(mac.to_owned()), ..Nic::default() }
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
    fn a_card_with_link_boots_and_infiniband_and_a_vlan_never() {
        let with = |mac: &str, link, kind| Nic { link, kind, ..nic(mac) };
        let taken = |nics: Vec<Nic>| {
            let taken = Hardware { nics, ..Hardware::default() }.card_taken();
            taken.map(|(mac, why)| (mac.with_colons(), why))
        };
        let some = |mac: &str, why: &str| Some((mac.to_owned(), why.to_owned()));
        let (one, two) = ("02:00:00:00:00:01", "02:00:00:00:00:02");
        let infiniband = nic("00:11:22:33:44:55:66:77");
        assert_eq!(taken(vec![infiniband.clone(), nic(two)]), some(two, "the only Ethernet card"));
        assert_eq!(
            taken(vec![infiniband.clone(), nic(one), nic(two)]),
            some(one, "the first of 2 Ethernet cards, none of which is told to have link")
        );
        let (up, down) = (Some(NicLink::Up), Some(NicLink::Down));
        assert_eq!(
            taken(vec![with(one, down, None), with(two, up, None)]),
            some(two, "the only one with link of 2 Ethernet cards")
        );
        assert_eq!(
            taken(vec![with(one, down, None), nic(two)]),
            some(two, "the first of 2 Ethernet cards, none of which is told to have link")
        );
        assert_eq!(taken(vec![with(one, up, Some(NicKind::Virtual)), infiniband]), None);
    }

    #[test]
    fn habits_are_kept_until_the_firmware_is_another() {
        let bmc = |firmware: &str, habit: &str| {
            let habits = Some(habit.to_owned()).filter(|habit| !habit.is_empty()).into_iter().collect();
            let bmc = BmcStatus { firmware: Some(firmware.to_owned()), habits, boot_mode: None };
            Hardware { bmc: Some(bmc), ..Hardware::default() }
        };
        let habits = |now: Hardware, before: &Hardware| now.keeping(before).bmc.map(|bmc| bmc.habits);
        assert_eq!(habits(bmc("1", "B"), &bmc("1", "A")), Some(vec!["A".to_owned(), "B".to_owned()]));
        assert_eq!(habits(bmc("2", ""), &bmc("1", "A")), Some(Vec::new()));
        assert_eq!(habits(bmc("1", "B"), &Hardware::default()), Some(vec!["B".to_owned()]));
    }

    #[test]
    fn a_value_of_a_later_release_is_read() {
        let nic: Nic = serde_json::from_str(r#"{"name": "a", "link": "Sleepy", "kind": "TokenRing"}"#)
            .unwrap_or_default();
        assert_eq!((nic.link, nic.kind), (Some(NicLink::Unknown), Some(NicKind::Unknown)));
    }

    #[test]
    fn who_tells_nothing_is_nobody_else() {
        let of = |serial: &str, system: Option<&str>| HardwareIdentity {
            serial_number: Some(serial.to_owned()),
            uuid: None,
            system: system.map(str::to_owned),
        };
        assert!(of("A", Some("Node0")).is_another(&of("A", Some("Node1"))));
        assert!(!of("A", Some("Node0")).is_another(&of("A", None)));
        assert!(of("A", None).is_another(&of("B", None)));
    }
}
