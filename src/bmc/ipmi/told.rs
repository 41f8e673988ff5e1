//! What ipmitool prints, as values. Pure.

use crate::api::hardware::{Hardware, HardwareIdentity, PowerState};
use crate::api::placeholder;
use crate::bmc::text::{identifying, printable, told};
use crate::bmc::{BootOverride, OverrideEnabled, OverrideTarget};

/// `Chassis Power is on`.
pub(super) fn power(stdout: &str) -> PowerState {
    match stdout.lines().find_map(|line| line.trim().strip_prefix("Chassis Power is ")) {
        Some("on") => PowerState::PoweredOn,
        Some("off") => PowerState::PoweredOff,
        _ => PowerState::Unknown,
    }
}

/// The GUID of the system, which is the UUID of its SMBIOS.
pub(super) fn uuid(stdout: &str) -> Option<String> {
    let uuid = printable(value(stdout, "System GUID")?, 64).to_lowercase();
    (!placeholder::is_placeholder_uuid(&uuid)).then_some(uuid)
}

/// The serial number in the FRU: of the product, or of the chassis where nobody filled that.
pub(super) fn serial(fru: &str) -> Option<String> {
    ["Product Serial", "Chassis Serial"].into_iter().find_map(|name| identifying(value(fru, name)?))
}

/// What the FRU and the BMC's description tell of the machine. IPMI knows no processors, memory, disks and NICs.
pub(super) fn hardware(identity: &HardwareIdentity, fru: &str, controller: &str) -> Hardware {
    let of = |text: &str, name: &str| told(value(text, name)?);
    Hardware {
        manufacturer: of(fru, "Product Manufacturer")
            .or_else(|| of(fru, "Board Mfg"))
            .or_else(|| of(controller, "Manufacturer Name")),
        model: of(fru, "Product Name").or_else(|| of(fru, "Board Product")),
        serial_number: identity.serial_number.clone(),
        uuid: identity.uuid.clone(),
        ..Hardware::default()
    }
}

/// The boot flags, from the bytes that ipmitool shows beside its own words for them.
pub(super) fn boot_override(stdout: &str) -> Option<BootOverride> {
    let data = value(stdout, "Boot parameter data")?;
    let byte = |at: usize| u8::from_str_radix(data.get(at..at + 2)?, 16).ok();
    let (flags, device) = (byte(0)?, byte(2)?);
    Some(BootOverride {
        enabled: match (flags & 0x80 != 0, flags & 0x40 != 0) {
            (false, _) => OverrideEnabled::Disabled,
            (true, false) => OverrideEnabled::Once,
            (true, true) => OverrideEnabled::Continuous,
        },
        target: match (device >> 2) & 0x0f {
            0 => OverrideTarget::None,
            1 => OverrideTarget::Network,
            2 | 3 => OverrideTarget::Disk,
            5 | 8 => OverrideTarget::Cd,
            _ => OverrideTarget::Other,
        },
        http_uri: None,
    })
}

/// The value in the first line `name : value`.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let named = |line: &'a str| line.split_once(':').filter(|(before, _)| before.trim() == name);
    text.lines().find_map(named).map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRU: &str = " Chassis Type          : Rack Mount Chassis\n\
        \x20Chassis Serial        : CH-77\n\
        \x20Board Mfg Date        : Mon Jan  1 00:00:00 1996\n\
        \x20Board Mfg             : Example\n\
        \x20Board Product         : Board 7\n\
        \x20Board Serial          : BRD-0001\n\
        \x20Product Manufacturer  : Example Computers: Racks\n\
        \x20Product Name          : Rack 3\n\
        \x20Product Serial        : SN-0001\n";
    const CONTROLLER: &str = "Device ID                 : 0\n\
        Firmware Revision         : 9.08\n\
        Manufacturer ID           : 4753\n\
        Manufacturer Name         : MontaVista Software, Inc.\n\
        Product Name              : Unknown (0xF02)\n";

    #[test]
    fn power_is_on_off_or_unknown() {
        assert_eq!(power("Chassis Power is on\n"), PowerState::PoweredOn);
        assert_eq!(power("\n Chassis Power is off\n"), PowerState::PoweredOff);
        assert_eq!(power("Chassis Power is confused\n"), PowerState::Unknown);
        assert_eq!(power(""), PowerState::Unknown);
    }

    #[test]
    fn a_guid_is_a_uuid_unless_nobody_filled_it() {
        let told = "System GUID   : 5A5B5C5D-0000-4000-8000-000000000001\nGUID Encoding : RFC4122\n";
        assert_eq!(uuid(told).as_deref(), Some("5a5b5c5d-0000-4000-8000-000000000001"));
        let old = "System GUID  : 31303043-534d-2500-90d8-7a1c12c0ffee\nTimestamp    : 02/22/1996 09:48:19\n";
        assert_eq!(uuid(old).as_deref(), Some("31303043-534d-2500-90d8-7a1c12c0ffee"));
        assert_eq!(uuid("System GUID  : 00000000-0000-0000-0000-000000000000\n"), None);
        assert_eq!(uuid("IPMI command failed: Invalid command\n"), None);
    }

    #[test]
    fn hardware_is_what_the_product_says_else_the_board_else_the_bmc() {
        assert_eq!(serial(FRU).as_deref(), Some("SN-0001"));
        let identity = HardwareIdentity { serial_number: serial(FRU), uuid: None, system: None };
        let all = hardware(&identity, FRU, CONTROLLER);
        assert_eq!(all.manufacturer.as_deref(), Some("Example Computers: Racks"));
        assert_eq!((all.model.as_deref(), all.serial_number.as_deref()), (Some("Rack 3"), Some("SN-0001")));

        let unfilled = FRU.replace("SN-0001", "0123456789").replace("Rack 3", "To be filled by O.E.M.");
        assert_eq!(serial(&unfilled).as_deref(), Some("CH-77"));
        assert_eq!(hardware(&identity, &unfilled, CONTROLLER).model.as_deref(), Some("Board 7"));
        let bare = hardware(&HardwareIdentity::default(), "", CONTROLLER);
        assert_eq!(bare.manufacturer.as_deref(), Some("MontaVista Software, Inc."));
        assert_eq!(bare.model, None);
    }

    #[test]
    fn boot_flags_are_read_from_their_bytes() {
        for (data, enabled, target) in [
            ("8004000000", OverrideEnabled::Once, OverrideTarget::Network),
            ("a004000000", OverrideEnabled::Once, OverrideTarget::Network),
            ("e008000000", OverrideEnabled::Continuous, OverrideTarget::Disk),
            ("0004000000", OverrideEnabled::Disabled, OverrideTarget::Network),
            ("8000000000", OverrideEnabled::Once, OverrideTarget::None),
            ("8014000000", OverrideEnabled::Once, OverrideTarget::Cd),
            ("803c000000", OverrideEnabled::Once, OverrideTarget::Other),
        ] {
            let told = format!(
                "Boot parameter version: 1\nBoot parameter 5 is valid/unlocked\nBoot parameter data: {data}\n \
                 Boot Flags :\n   - Boot Device Selector : Force PXE\n"
            );
            assert_eq!(
                boot_override(&told).unwrap(),
                BootOverride { enabled, target, http_uri: None },
                "{data}"
            );
        }
        assert_eq!(boot_override("Boot parameter data: 8\n"), None);
        assert_eq!(boot_override("Boot parameter data: ääää\n"), None);
    }

    proptest! {
        #[test]
        fn no_output_makes_the_parsers_panic(text in "(\\PC{0,20}|System GUID|Boot parameter data|Product Serial)[ :\n]{0,3}\\PC{0,40}") {
            let _ = (power(&text), uuid(&text), serial(&text), boot_override(&text));
            let _ = hardware(&HardwareIdentity::default(), &text, &text);
        }
    }
}
