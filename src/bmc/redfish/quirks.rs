//! The habits of BMCs that differ from the standard, or from each other: one row each. Everything else asks here for a
//! name, so that a person sees which habits were met and can tell the maker.
//!
//! A habit is known by an answer of the BMC; maker and model decide only where no answer tells. What was met is kept for each
//! BMC by [`super::learnt`].

use serde_json::Value;

/// A habit that a BMC was seen to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Habit {
    /// A change needs `If-Match`.
    IfMatchDemanded,
    /// An ETag that was given is refused as it was given.
    IfMatchRefused,
    /// The boot override is taken by the settings resource alone.
    BootInSettings,
    /// A boot override without the mode falls back to another one.
    BootModeSentAlong,
    /// Virtual media are a CD drive on USB.
    VirtualCdOnUsb,
    /// An insertion takes nothing but the image.
    MediaImageAlone,
    /// An insertion needs more than the image.
    MediaParametersMissing,
    /// Not every CD slot fetches an image.
    MediaBySlot,
    /// An insertion is done later.
    MediaByTask,
    /// Several systems, of which one can be switched.
    SystemsOfOneMachine,
    /// Nodes that have one serial number, and no UUID.
    NodesWithOneSerialNumber,
}

/// What is to be known of a habit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Its name in status.
    pub(super) name: &'static str,
    /// Who was seen to have it.
    pub(super) seen_at: &'static str,
    /// How it is known.
    pub(super) known_by: &'static str,
    /// What is done about it.
    pub(super) done: &'static str,
    /// Where it was reported, or which document has it.
    pub(super) source: &'static str,
}

impl Habit {
    /// All of them, in the order of the table.
    #[cfg(test)]
    pub(super) const ALL: &'static [Self] = &[
        Self::IfMatchDemanded,
        Self::IfMatchRefused,
        Self::BootInSettings,
        Self::BootModeSentAlong,
        Self::VirtualCdOnUsb,
        Self::MediaImageAlone,
        Self::MediaParametersMissing,
        Self::MediaBySlot,
        Self::MediaByTask,
        Self::SystemsOfOneMachine,
        Self::NodesWithOneSerialNumber,
    ];

    /// Its name in status.
    pub(super) const fn name(self) -> &'static str {
        self.row().name
    }

    /// Its row.
    pub(super) const fn row(self) -> Row {
        match self {
            Self::IfMatchDemanded => Row {
                name: "IfMatchDemanded",
                seen_at: "AMI MegaRAC, some Lenovo, NVIDIA DGX",
                known_by: "428 to a change, or 412 to one without If-Match",
                done: "the resource is read again, and its ETag sent as it was given, weak or not; * where there is none",
                source: "gofish 171, Redfish-Tacklebox 22, community.general 6434",
            },
            Self::IfMatchRefused => Row {
                name: "IfMatchRefused",
                seen_at: "Lenovo, Huawei, Gigabyte; BMCs that compare with the ETag of the action",
                known_by: "412 to an ETag that was read right before",
                done: "the ETag is spelled as a strong one, then without quotes, then left out",
                source: "sushy's connector, smart-proxy 930",
            },
            Self::BootInSettings => Row {
                name: "BootInSettings",
                seen_at: "iDRAC 10, AMI MegaRAC",
                known_by: "the system refuses its Boot properties as not writable, and @Redfish.Settings names a resource that has them",
                done: "what the system refuses is sent to the settings resource, with its own ETag, and read there",
                source: "community.general 11297, gofish 511, maas 534, Redfish-Tacklebox 111",
            },
            Self::BootModeSentAlong => Row {
                name: "BootModeSentAlong",
                seen_at: "Supermicro, AMI MegaRAC, ASRock Rack",
                known_by: "maker, and BootSourceOverrideMode in the system: these fall back to another mode without being told",
                done: "the mode that is wished for, or the one that is shown, is sent with each override",
                source: "Redfishtool 106, community.general 3509, metal-operator 81",
            },
            Self::VirtualCdOnUsb => Row {
                name: "VirtualCdOnUsb",
                seen_at: "Supermicro",
                known_by: "maker, and UsbCd among the offered targets: Cd is offered and does not boot; ARS-111GL-NHR boots Cd",
                done: "UsbCd is taken before Cd",
                source: "sushy's system resource",
            },
            Self::MediaImageAlone => Row {
                name: "MediaImageAlone",
                seen_at: "Supermicro X11 and X12",
                known_by: "a refusal of Inserted or WriteProtected with the action",
                done: "the action is given Image and no other parameter",
                source: "sushy's release note on the payload of InsertMedia",
            },
            Self::MediaParametersMissing => Row {
                name: "MediaParametersMissing",
                seen_at: "Lenovo XCC, NVIDIA DGX",
                known_by: "a refusal that names TransferProtocolType, TransferMethod, UserName or Password",
                done: "what it names is added",
                source: "ansible-collections 4839, sushy's virtual media resource",
            },
            Self::MediaBySlot => Row {
                name: "MediaBySlot",
                seen_at: "Huawei, Lenovo XCC",
                known_by: "several CD slots, of which not all have InsertMedia",
                done: "a slot with the action is used, and a free one before one with a medium of somebody else",
                source: "sushy's virtual media resource",
            },
            Self::MediaByTask => Row {
                name: "MediaByTask",
                seen_at: "Lenovo XCC, Dell iDRAC 9",
                known_by: "202 to an insertion",
                done: "the task is followed, and its failure told",
                source: "DSP0266 on asynchronous operations",
            },
            Self::SystemsOfOneMachine => Row {
                name: "SystemsOfOneMachine",
                seen_at: "NVIDIA GB300, HGX B200",
                known_by: "several systems, of which a single one has a reset action",
                done: "an address without a system means that one",
                source: "captured trees of a host and its baseboard of accelerators",
            },
            Self::NodesWithOneSerialNumber => Row {
                name: "NodesWithOneSerialNumber",
                seen_at: "Cray EX, Intel multi-node boards",
                known_by: "several systems, and no UUID",
                done: "the identity of a machine is its serial number and its system",
                source: "captured trees of multi-node boards",
            },
        }
    }
}

/// Makers of whom no answer tells a habit, so that their name has to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Maker {
    Ami,
    AsrockRack,
    Supermicro,
    #[default]
    Another,
}

impl Maker {
    /// The maker of the BMC of a system: by the maker of the machine, or by what an AMI BMC always has.
    pub(super) fn of(system: &Value) -> Self {
        let name =
            system.get("Manufacturer").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let path = system.get("@odata.id").and_then(Value::as_str).unwrap_or_default();
        let is_ami = || {
            system.get("Oem").and_then(|oem| oem.get("Ami")).is_some()
                || path.trim_end_matches('/').ends_with("/Systems/Self")
                || matches!(name.as_str(), "ami" | "americanmegatrends" | "americanmegatrendsinc")
        };
        match () {
            () if name.contains("supermicro") => Self::Supermicro,
            () if name.contains("asrock") => Self::AsrockRack,
            () if is_ami() => Self::Ami,
            () => Self::Another,
        }
    }

    /// Whether an override without `BootSourceOverrideMode` falls back to another mode.
    pub(super) const fn forgets_boot_mode(self) -> bool {
        match self {
            Self::Ami | Self::AsrockRack | Self::Supermicro => true,
            Self::Another => false,
        }
    }

    /// The names of a CD drive in a boot override, best first.
    pub(super) fn cd_targets(self, system: &Value) -> &'static [&'static str] {
        let model = system.get("Model").and_then(Value::as_str).unwrap_or_default();
        // The one model of this maker that boots Cd.
        if self == Self::Supermicro && !model.contains("ARS-111GL-NHR") {
            &["UsbCd", "Cd"]
        } else {
            &["Cd", "UsbCd"]
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use std::collections::BTreeSet;

    use std::fmt::Write as _;

    use serde_json::json;

    use super::*;

    /// The page of the documentation.
    fn markdown() -> String {
        let mut page = String::from(
            "# Habits of BMCs\n\nWhat BMCs do in another way than the standard, or than each other, and what AutoBuild does about it.\n\
             `status.bmc.habits` of a Server names those that were met, and `kubectl autobuild why NAME` shows them: a ticket for the \
             maker may name them.\n\
             This page is generated: `UPDATE_GENERATED=1 cargo test -p autobuild --lib habits`.\n\n\
             | habit | seen at | known by | what is done | source |\n|---|---|---|---|---|\n",
        );
        for habit in Habit::ALL {
            let Row { name, seen_at, known_by, done, source } = habit.row();
            let _ = writeln!(page, "| `{name}` | {seen_at} | {known_by} | {done} | {source} |");
        }
        page
    }

    #[test]
    fn the_committed_page_of_habits_lists_each_of_them() {
        let path = std::path::Path::new("docs/src/bmc-habits.md");
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), markdown());
    }

    #[test]
    fn a_maker_is_known_by_the_name_of_the_machine_or_by_its_own_mark() {
        for (system, expected) in [
            (json!({"Manufacturer": "Supermicro"}), Maker::Supermicro),
            (json!({"Manufacturer": "Super Micro Computer, Inc."}), Maker::Supermicro),
            (json!({"Manufacturer": "ASRockRack"}), Maker::AsrockRack),
            (json!({"Manufacturer": "Example", "Oem": {"Ami": {}}}), Maker::Ami),
            (json!({"Manufacturer": "Example", "@odata.id": "/redfish/v1/Systems/Self"}), Maker::Ami),
            (json!({"Manufacturer": "Dell Inc."}), Maker::Another),
            (json!({"Manufacturer": "Miami"}), Maker::Another),
            (json!({}), Maker::Another),
        ] {
            assert_eq!(Maker::of(&system), expected, "{system}");
        }
        let first = |model: &str| Maker::Supermicro.cd_targets(&json!({"Model": model}))[0];
        assert_eq!((first("SYS-1029"), first("ARS-111GL-NHR")), ("UsbCd", "Cd"));
        assert_eq!(Maker::Another.cd_targets(&json!({}))[0], "Cd");
    }

    #[test]
    fn each_habit_has_a_row_and_a_name_of_its_own() {
        let names: BTreeSet<_> = Habit::ALL.iter().map(|habit| habit.name()).collect();
        assert_eq!(names.len(), Habit::ALL.len());
        for habit in Habit::ALL {
            let row = habit.row();
            let texts = [row.name, row.seen_at, row.known_by, row.done, row.source];
            assert!(texts.iter().all(|text| !text.is_empty()), "{habit:?}");
            assert!(row.name.bytes().all(|b| b.is_ascii_alphanumeric()), "{habit:?}");
        }
    }
}
