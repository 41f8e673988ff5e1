//! What the document of one part of a machine says. Pure.

use serde_json::{Value, json};

use super::answer::Document;
use crate::api::hardware::{self, Accelerator, AcceleratorKind, Disk, Nic, NicKind, NicLink};
use crate::bmc::text::{FIELD_MAX, field, printable, told as told_text};

/// In bytes.
const SMALLEST_DISK: i64 = 1_000_000_000;

/// Whether there is nothing in that socket, slot or bay.
pub(super) fn is_absent(told: &Value) -> bool {
    let state = told.get("Status").and_then(|status| status.get("State")).and_then(Value::as_str);
    state == Some("Absent")
}

pub(super) fn accelerator(told: &Value, kind: &str) -> Option<Accelerator> {
    Some(Accelerator {
        name: name(told)?,
        kind: match kind {
            "GPU" => AcceleratorKind::GPU,
            "DPU" => AcceleratorKind::DPU,
            "FPGA" => AcceleratorKind::FPGA,
            _ => AcceleratorKind::Accelerator,
        },
        manufacturer: field(told, "Manufacturer"),
        model: field(told, "Model"),
    })
}

/// The BMC's own card in the machine, on USB: the same one in each of many machines, and nothing boots from it.
fn is_bmcs_own(told: &Value) -> bool {
    let links = told.get("Links");
    let host_interface = ["HostInterface", "HostInterfaces"]
        .into_iter()
        .filter_map(|name| links?.get(name))
        .any(|link| link.is_object() || link.as_array().is_some_and(|all| !all.is_empty()));
    let named = ["Id", "Name"].into_iter().filter_map(|name| told.get(name)?.as_str()).any(|text| {
        let plain: String =
            text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        plain == "tomanager"
            || ["hostinterface", "usbnic", "usbrndis", "virtualusb"].iter().any(|own| plain.contains(own))
    });
    let on_usb = told.get("UefiDevicePath").and_then(Value::as_str).is_some_and(|path| path.contains("USB("));
    host_interface || named || on_usb
}

/// A VLAN, or another interface on a card that is told of by itself.
fn is_virtual(told: &Value, all: &[Document]) -> bool {
    if told.get("EthernetInterfaceType").and_then(Value::as_str) == Some("Virtual") {
        return true;
    }
    let vlan = told.get("VLAN").filter(|vlan| vlan.get("VLANEnable").and_then(Value::as_bool) == Some(true));
    let Some(number) = vlan.and_then(|vlan| vlan.get("VLANId")).and_then(Value::as_u64) else { return false };
    let related = ["RelatedInterfaces", "AffiliatedInterfaces"].into_iter().any(|name| {
        let links = told.get("Links").and_then(|links| links.get(name)).and_then(Value::as_array);
        links.is_some_and(|all| !all.is_empty())
    });
    let id = told.get("Id").and_then(Value::as_str).unwrap_or_default();
    let named_after = [format!(".{number}"), format!("_{number}"), format!("VLAN{number}")];
    let address = told.get("MACAddress").and_then(Value::as_str).and_then(mac);
    let of_another = |other: &&Document| {
        other.value.get("Id") != told.get("Id")
            && address.is_some()
            && other.value.get("MACAddress").and_then(Value::as_str).and_then(mac) == address
    };
    related || named_after.iter().any(|end| id.ends_with(end)) || all.iter().any(|other| of_another(&other))
}

/// The address that a card is known by: the one in use where that is one of Ethernet, else the permanent one.
fn address(used: Option<String>, permanent: Option<String>) -> Option<String> {
    let is_ethernet = |mac: &Option<String>| mac.as_deref().is_some_and(hardware::is_ethernet);
    if is_ethernet(&used) || !is_ethernet(&permanent) { used.or(permanent) } else { permanent }
}

pub(super) fn nic(told: &Value, all: &[Document]) -> Option<Nic> {
    if is_bmcs_own(told) || is_absent(told) {
        return None;
    }
    let of = |name: &str| told.get(name).and_then(Value::as_str).and_then(mac);
    let mac_address = address(of("MACAddress"), of("PermanentMACAddress"));
    let kind = mac_address.as_deref().map(|mac| match hardware::is_ethernet(mac) {
        _ if is_virtual(told, all) => NicKind::Virtual,
        true => NicKind::Ethernet,
        false => NicKind::InfiniBand,
    });
    let is_off = told.get("InterfaceEnabled").and_then(Value::as_bool) == Some(false);
    Some(Nic {
        name: name(told)?,
        mac_address,
        speed_mbps: told.get("SpeedMbps").and_then(positive),
        link: match told.get("LinkStatus").and_then(Value::as_str) {
            _ if is_off => Some(NicLink::Down),
            Some("LinkUp") => Some(NicLink::Up),
            Some("LinkDown" | "NoLink") => Some(NicLink::Down),
            _ => None,
        },
        kind,
    })
}

/// A function of a network adapter.
pub(super) fn function(told: &Value) -> Option<Nic> {
    let kind = told.get("NetDevFuncType").and_then(Value::as_str);
    if is_absent(told) || !matches!(kind, None | Some("Ethernet" | "iSCSI" | "InfiniBand")) {
        return None;
    }
    let of = |part: &str, name: &str| told.get(part)?.get(name)?.as_str().and_then(mac);
    let ethernet = address(of("Ethernet", "MACAddress"), of("Ethernet", "PermanentMACAddress"));
    let is_infiniband = kind == Some("InfiniBand");
    let mac_address = if is_infiniband { of("InfiniBand", "PermanentPortGUID") } else { ethernet };
    Some(Nic {
        name: name(told)?,
        kind: Some(if is_infiniband { NicKind::InfiniBand } else { NicKind::Ethernet }),
        mac_address: Some(mac_address?),
        ..Nic::default()
    })
}

/// A disk; nothing where the bay is empty.
pub(super) fn disk(told: &Value, serial_number: Option<String>, controller: Option<String>) -> Option<Disk> {
    let model = field(told, "Model");
    // Less than this has no disk: it is a slip of the firmware.
    let size_bytes = told.get("CapacityBytes").and_then(positive).filter(|size| *size >= SMALLEST_DISK);
    let says = |name: &str| told.get(name).and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    let says_empty = ["Name", "Model", "Description"].iter().any(|name| says(name).contains("empty"));
    let knows_nothing = size_bytes.is_none() && model.is_none() && serial_number.is_none();
    if is_absent(told)
        || (size_bytes.is_none() && says_empty)
        || (knows_nothing && told.get("CapacityBytes").is_none())
    {
        return None;
    }
    let slot = told.get("PhysicalLocation").and_then(|at| at.get("PartLocation"));
    let label = slot.and_then(|slot| slot.get("ServiceLabel")).and_then(Value::as_str).and_then(told_text);
    let ordinal = || slot?.get("LocationOrdinalValue")?.as_i64().map(|number| number.to_string());
    let old = || told.get("Location")?.as_array()?.first()?.get("Info")?.as_str().and_then(told_text);
    Some(Disk {
        name: name(told)?,
        slot: label.or_else(ordinal).or_else(old),
        model,
        serial_number,
        size_bytes,
        controller,
    })
}

/// What holds the disks is a device too, in `SimpleStorage`.
pub(super) fn is_backplane(told: &Value) -> bool {
    let named = ["Name", "Model"].into_iter().filter_map(|name| told.get(name)?.as_str());
    told.get("CapacityBytes").and_then(positive).is_none()
        && (field(told, "Model").is_none()
            || named.into_iter().any(|name| name.to_ascii_lowercase().contains("backplane")))
}

pub(super) fn link(path: &str) -> Value {
    json!({"@odata.id": path})
}

/// The id, which tells parts apart; `Name` is often the same for all of them.
pub(super) fn name(told: &Value) -> Option<String> {
    ["Id", "Name"].iter().find_map(|name| {
        let text = printable(told.get(name)?.as_str()?, FIELD_MAX);
        (!text.is_empty()).then_some(text)
    })
}

/// A number above zero, rounded down.
pub(super) fn positive(value: &Value) -> Option<i64> {
    let number = value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        // Beyond this a float has no exact neighbours, and no machine has so much of anything.
        (number.is_finite() && number.abs() < 9e15).then_some(number as i64)
    })?;
    (number > 0).then_some(number)
}

/// An Ethernet or InfiniBand (EUI-64) address in lower case with colons.
fn mac(text: &str) -> Option<String> {
    let digits: String =
        text.chars().filter(|c| !matches!(c, ':' | '-' | '.')).map(|c| c.to_ascii_lowercase()).collect();
    let fits = matches!(digits.len(), 12 | 16) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if !fits || digits.bytes().all(|b| b == b'0') {
        return None;
    }
    let pairs: Vec<&str> = (0..digits.len()).step_by(2).filter_map(|at| digits.get(at..at + 2)).collect();
    Some(pairs.join(":"))
}

/// `NIC2` before `NIC10`: runs of digits count as numbers.
pub(super) fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    let key = |text: &str| {
        let mut parts: Vec<Run> = Vec::new();
        for c in text.chars() {
            match (c.to_digit(10).map(u128::from), parts.last_mut()) {
                (Some(digit), Some(Run::Number(number))) => {
                    *number = number.saturating_mul(10).saturating_add(digit);
                }
                (Some(digit), _) => parts.push(Run::Number(digit)),
                (None, Some(Run::Text(text))) => text.push(c),
                (None, _) => parts.push(Run::Text(c.to_string())),
            }
        }
        parts
    };
    key(a).cmp(&key(b)).then_with(|| a.cmp(b))
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Run {
    Number(u128),
    Text(String),
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_sort_as_people_count() {
        let mut names = ["NIC10", "NIC2", "NIC.1-2", "NIC.1-10", "eth0", "NIC1"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["NIC1", "NIC2", "NIC10", "NIC.1-2", "NIC.1-10", "eth0"]);
    }

    #[test]
    fn macs_have_one_spelling() {
        for (told, expected) in [
            ("02:AB:cd:00:00:01", Some("02:ab:cd:00:00:01")),
            ("02-AB-CD-00-00-01", Some("02:ab:cd:00:00:01")),
            ("02abcd000001", Some("02:ab:cd:00:00:01")),
            ("00:00:00:00:00:00", None),
            ("", None),
            ("02:ab:cd:00:00:0g", None),
            ("not a mac", None),
        ] {
            assert_eq!(mac(told).as_deref(), expected, "{told}");
        }
    }

    #[test]
    fn numbers_are_whole_and_above_zero() {
        for (told, expected) in [
            (json!(2), Some(2)),
            (json!(31.9), Some(31)),
            (json!(0), None),
            (json!(-1), None),
            (json!("2"), None),
            (json!(1e300), None),
            (json!(null), None),
        ] {
            assert_eq!(positive(&told), expected, "{told}");
        }
    }
}
