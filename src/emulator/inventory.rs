//! What a machine is made of, derived from the fleet's seed and the system's name, so that it is the same in every run.

use sha2::{Digest, Sha256};

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nic {
    pub(super) id: String,
    pub(super) mac: String,
    pub(super) speed_mbps: u32,
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) id: String,
    pub(super) model: &'static str,
    pub(super) serial: String,
    pub(super) media: &'static str,
    pub(super) protocol: &'static str,
    pub(super) bytes: u64,
}

/// The parts of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inventory {
    pub(super) manufacturer: &'static str,
    pub(super) model: &'static str,
    pub(super) serial: String,
    pub(super) uuid: String,
    pub(super) bios: String,
    pub(super) processor_model: &'static str,
    pub(super) processors: u32,
    pub(super) cores_each: u32,
    pub(super) dimms: u32,
    pub(super) dimm_gib: u32,
    pub(super) nics: Vec<Nic>,
    pub(super) disks: Vec<Disk>,
}

/// Invented makers, so that nobody takes the emulator for a quirk of a real one.
const MODELS: [(&str, &str, &str); 3] = [
    ("Example Computing", "EX-1000", "Example CPU 8-core"),
    ("Sample Servers", "SR-220", "Example CPU 16-core"),
    ("Specimen Systems", "Rack 3", "Example CPU 32-core"),
];
const CORES: [u32; 3] = [8, 16, 32];

impl Inventory {
    /// The machine of that name in the fleet of that seed.
    pub(super) fn of(seed: u64, name: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_be_bytes());
        hash.update(name.as_bytes());
        let bytes: [u8; 32] = hash.finalize().into();
        let kind = usize::from(bytes[0]) % MODELS.len();
        let (manufacturer, model, processor_model) = MODELS[kind];
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[1..17]);
        let serial = bytes[17..22].iter().fold(String::from("EMU"), |text, byte| format!("{text}{byte:02X}"));
        Self {
            manufacturer,
            model,
            uuid: uuid::Builder::from_random_bytes(uuid).into_uuid().to_string(),
            bios: format!("{}.{}.{}", 1 + kind, bytes[22] % 10, bytes[23] % 10),
            processor_model,
            processors: 1 + u32::from(bytes[24] % 2),
            cores_each: CORES[kind],
            dimms: 4 << (bytes[25] % 3),
            dimm_gib: 16 << (bytes[26] % 2),
            nics: (1..=2_u8)
                .map(|port| Nic {
                    id: format!("NIC{port}"),
                    // A locally administered address: bit 1 of the first byte is set, bit 0 is not.
                    mac: format!(
                        "02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
                        bytes[27],
                        bytes[28],
                        bytes[29],
                        bytes[30],
                        (bytes[31] & 0xfe) | (port - 1)
                    ),
                    speed_mbps: if port == 1 { 25_000 } else { 1_000 },
                })
                .collect(),
            disks: (0..2_u8 + bytes[23] % 3)
                .map(|bay| Disk {
                    id: format!("Disk{bay}"),
                    model: if bay == 0 { "Example NVMe 480" } else { "Example SSD 1920" },
                    serial: format!("{serial}D{bay}"),
                    media: "SSD",
                    protocol: if bay == 0 { "NVMe" } else { "SATA" },
                    bytes: if bay == 0 { 480_103_981_056 } else { 1_920_383_410_176 },
                })
                .collect(),
            serial,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_and_name_give_the_same_machine() {
        assert_eq!(Inventory::of(1, "node-0001"), Inventory::of(1, "node-0001"));
        assert_ne!(Inventory::of(1, "node-0001"), Inventory::of(2, "node-0001"));
    }

    #[test]
    fn serial_numbers_uuids_and_macs_of_ten_thousand_machines_differ() {
        let machines: Vec<_> = (0..10_000).map(|n| Inventory::of(0, &format!("node-{n}"))).collect();
        let distinct = |texts: Vec<&String>| texts.into_iter().collect::<BTreeSet<_>>().len();
        assert_eq!(distinct(machines.iter().map(|m| &m.serial).collect()), 10_000);
        assert_eq!(distinct(machines.iter().map(|m| &m.uuid).collect()), 10_000);
        assert_eq!(distinct(machines.iter().flat_map(|m| m.nics.iter().map(|n| &n.mac)).collect()), 20_000);
    }
}
