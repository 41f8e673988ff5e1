//! What is in the machine, as far as its BMC tells. Whatever is missing or odd is left out; the order is always the
//! same, so that a machine that did not change reads the same.

use serde_json::Value;

use super::answer::Document;
use super::line::Line;
use super::system;
use crate::api::hardware::{self, Disk, Hardware, HardwarePart, Nic};
use crate::bmc::error::{BmcError, BmcErrorKind};
use crate::bmc::text::{FIELD_MAX, field, printable, serial};

const NICS_MAX: usize = 64;
const DISKS_MAX: usize = 128;
const CONTROLLERS_MAX: usize = 32;
const PROCESSORS_MAX: usize = 32;

/// Reads everything below a system that was read just now. At most some 500 requests, all within the time of an inspection;
/// a usual machine takes 20. A part that is there and cannot be read is named in the end, and what was read of it is as good
/// as nothing; only a login that is refused in the middle is an error.
pub(super) async fn read(line: &mut Line<'_>, found: &Document) -> Result<Hardware, BmcError> {
    let told = &found.value;
    let identity = system::identity(told);
    let summary = |name: &str, value: &str| told.get(name).and_then(|summary| summary.get(value));
    let mut reader = Reader { line, unread: Vec::new() };
    let cpus = match summary("ProcessorSummary", "Count").and_then(positive) {
        Some(count) => Some(count),
        None => reader.processors(found).await?,
    };
    let nics = reader.nics(found).await?;
    let disks = reader.disks(found).await?;
    Ok(Hardware {
        manufacturer: field(told, "Manufacturer"),
        model: field(told, "Model"),
        serial_number: identity.serial_number,
        uuid: identity.uuid,
        bios_version: field(told, "BiosVersion"),
        cpus,
        memory_gib: summary("MemorySummary", "TotalSystemMemoryGiB").and_then(positive),
        nics,
        disks,
        unread: reader.unread,
    })
}

/// Reads parts, and remembers what it could not read.
struct Reader<'r, 'line> {
    line: &'r mut Line<'line>,
    unread: Vec<HardwarePart>,
}

impl Reader<'_, '_> {
    /// Notes a part that is there and cannot be read; whether it is worth trying the next document of it.
    fn missed(&mut self, part: HardwarePart, error: BmcError) -> Result<Next, BmcError> {
        if error.kind == BmcErrorKind::Credentials {
            return Err(error);
        }
        tracing::debug!(part = part.as_str(), "a part of a machine cannot be read: {error}");
        if !self.unread.contains(&part) {
            self.unread.push(part);
        }
        Ok(match error.kind {
            BmcErrorKind::Unreachable | BmcErrorKind::Timeout => Next::Never,
            _ => Next::Try,
        })
    }

    async fn members(
        &mut self,
        part: HardwarePart,
        found: &Document,
        name: &str,
        most: usize,
    ) -> Result<Vec<String>, BmcError> {
        match self.line.optional_members(&found.path, found.value.get(name), most).await {
            Ok(paths) => Ok(paths),
            Err(error) => self.missed(part, error).map(|_| Vec::new()),
        }
    }

    /// The documents at these paths.
    async fn documents(&mut self, part: HardwarePart, paths: Vec<String>) -> Result<Vec<Document>, BmcError> {
        let mut documents = Vec::new();
        for path in paths {
            match self.line.optional("/", &link(&path)).await {
                Ok(document) => documents.extend(document),
                Err(error) => {
                    if self.missed(part, error)? == Next::Never {
                        break;
                    }
                }
            }
        }
        Ok(documents)
    }

    async fn processors(&mut self, found: &Document) -> Result<Option<i64>, BmcError> {
        const PART: HardwarePart = HardwarePart::Processors;
        let paths = self.members(PART, found, "Processors", PROCESSORS_MAX).await?;
        let mut count = 0;
        for part in self.documents(PART, paths).await? {
            let kind = part.value.get("ProcessorType").and_then(Value::as_str);
            // Accelerators are in this collection too.
            count += i64::from(matches!(kind, None | Some("CPU")));
        }
        Ok((count > 0).then_some(count))
    }

    async fn nics(&mut self, found: &Document) -> Result<Vec<Nic>, BmcError> {
        const PART: HardwarePart = HardwarePart::NetworkInterfaces;
        let paths = self.members(PART, found, "EthernetInterfaces", NICS_MAX).await?;
        let mut nics: Vec<Nic> = self.documents(PART, paths).await?.iter().filter_map(nic).collect();
        nics.sort_by(|a, b| {
            let rest = |nic: &Nic| (nic.mac_address.clone(), nic.speed_mbps);
            natural(&a.name, &b.name).then_with(|| rest(a).cmp(&rest(b)))
        });
        Ok(nics)
    }

    async fn disks(&mut self, found: &Document) -> Result<Vec<Disk>, BmcError> {
        let mut disks = self.drives(found).await?;
        if disks.is_empty() {
            disks = self.simple(found).await?;
        }
        disks.sort_by(|a, b| {
            let rest = |disk: &Disk| (disk.serial_number.clone(), disk.model.clone(), disk.size_bytes);
            natural(&a.name, &b.name).then_with(|| rest(a).cmp(&rest(b)))
        });
        disks.truncate(DISKS_MAX);
        Ok(disks)
    }

    /// `Storage`, its controllers, their `Drives`.
    async fn drives(&mut self, found: &Document) -> Result<Vec<Disk>, BmcError> {
        let controllers = self.members(HardwarePart::Disks, found, "Storage", CONTROLLERS_MAX).await?;
        let mut paths = Vec::new();
        for controller in self.documents(HardwarePart::Disks, controllers).await? {
            let drives =
                controller.value.get("Drives").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let links = drives.iter().filter_map(super::read::link_of);
            let origin = &self.line.route.origin;
            paths.extend(links.filter_map(|link| origin.follow(&controller.path, link).ok()));
        }
        // A drive with two paths is one drive. Sorted before the cut, so that it is always the same ones.
        paths.sort();
        paths.dedup();
        paths.truncate(DISKS_MAX);
        let drives = self.documents(HardwarePart::Disks, paths).await?;
        Ok(drives.iter().filter_map(|part| disk(&part.value, serial(&part.value, "SerialNumber"))).collect())
    }

    /// `SimpleStorage` of older BMCs: the devices stand in the controller itself.
    async fn simple(&mut self, found: &Document) -> Result<Vec<Disk>, BmcError> {
        let controllers = self.members(HardwarePart::Disks, found, "SimpleStorage", CONTROLLERS_MAX).await?;
        let mut disks = Vec::new();
        for controller in self.documents(HardwarePart::Disks, controllers).await? {
            let devices =
                controller.value.get("Devices").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            disks.extend(devices.iter().filter_map(|told| disk(told, None)));
        }
        Ok(disks)
    }
}

/// Whether the next document of a part may be read.
#[derive(PartialEq, Eq)]
enum Next {
    Try,
    /// Nobody answers any more, or the time is over.
    Never,
}

fn nic(part: &Document) -> Option<Nic> {
    let told = &part.value;
    // The BMC's own card in the machine, and the same one in each of many machines.
    if told.get("Links").and_then(|links| links.get("HostInterface")).is_some_and(Value::is_object) {
        return None;
    }
    let address = |name: &str| told.get(name).and_then(Value::as_str).and_then(mac);
    let (used, permanent) = (address("MACAddress"), address("PermanentMACAddress"));
    let is_ethernet = |mac: &Option<String>| mac.as_deref().is_some_and(hardware::is_ethernet);
    let mac_address =
        if is_ethernet(&used) || !is_ethernet(&permanent) { used.or(permanent) } else { permanent };
    Some(Nic { name: name(told)?, mac_address, speed_mbps: told.get("SpeedMbps").and_then(positive) })
}

fn disk(told: &Value, serial_number: Option<String>) -> Option<Disk> {
    Some(Disk {
        name: name(told)?,
        model: field(told, "Model"),
        serial_number,
        size_bytes: told.get("CapacityBytes").and_then(positive),
    })
}

fn link(path: &str) -> Value {
    serde_json::json!({"@odata.id": path})
}

/// The id, which tells parts apart; `Name` is often the same for all of them.
fn name(told: &Value) -> Option<String> {
    ["Id", "Name"].iter().find_map(|name| {
        let text = printable(told.get(name)?.as_str()?, FIELD_MAX);
        (!text.is_empty()).then_some(text)
    })
}

/// A number above zero, rounded down.
fn positive(value: &Value) -> Option<i64> {
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
fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    let key = |text: &str| {
        let mut parts: Vec<Part> = Vec::new();
        for c in text.chars() {
            match (c.to_digit(10).map(u128::from), parts.last_mut()) {
                (Some(digit), Some(Part::Number(number))) => {
                    *number = number.saturating_mul(10).saturating_add(digit);
                }
                (Some(digit), _) => parts.push(Part::Number(digit)),
                (None, Some(Part::Text(text))) => text.push(c),
                (None, _) => parts.push(Part::Text(c.to_string())),
            }
        }
        parts
    };
    key(a).cmp(&key(b)).then_with(|| a.cmp(b))
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part {
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
