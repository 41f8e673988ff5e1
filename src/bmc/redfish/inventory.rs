//! What is in the machine, as far as its BMC tells. Whatever is missing or odd is left out; the order is always the
//! same, so that a machine that did not change reads the same.

#![expect(clippy::disallowed_methods, reason = "what hardly ever changes is read after a while")]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::Document;
use super::learnt::{Drives, OF_ONE_MAX, Parts};
use super::line::Line;
use super::parts::{
    accelerator, disk, function, is_absent, is_backplane, link, name, natural, nic, positive,
};
use super::preconditions::Tags;
use super::system;
use crate::api::hardware::{Accelerator, BmcStatus, Disk, Hardware, HardwarePart, Health, Nic};
use crate::bmc::error::{BmcError, BmcErrorKind};
use crate::bmc::text::{FIELD_MAX, field, printable, serial};

const NICS_MAX: usize = 64;
const DISKS_MAX: usize = 128;
const CONTROLLERS_MAX: usize = 32;
const PROCESSORS_MAX: usize = 64;
const ACCELERATORS_MAX: usize = 64;
const MODULES_MAX: usize = 128;
const ADAPTERS_MAX: usize = 16;
const CHASSIS_MAX: usize = 4;
/// A machine that counts more has something else among them.
const SOCKETS_USUAL: i64 = 4;

/// For how long parts that hardly ever change are not read again, while the system sums them up in the same way.
const RARELY: Duration = Duration::from_hours(6);

/// The same of each single drive, while the same ones are there.
const DRIVES_RARELY: Duration = Duration::from_mins(30);

/// Reads everything below a system that was read just now. At most some 500 requests, all within the time of an inspection.
/// What matters most comes first, so that a slow BMC loses the least. A part that is there and cannot be read is named in the
/// end, and what was read of it is as good as nothing; only a login that is refused in the middle is an error.
pub(super) async fn read(line: &mut Line<'_>, found: &Document) -> Result<Hardware, BmcError> {
    let told = &found.value;
    let identity = system::identity(told);
    let mut reader = Reader { line, unread: Vec::new() };
    let nics = reader.nics(found).await?;
    let disks = reader.disks(found).await?;
    let parts = reader.rare_parts(found).await?;
    reader.unread.sort_by_key(|part| *part as u8);
    let manufacturer = field(told, "Manufacturer");
    let is_dell = manufacturer.as_deref().is_some_and(|name| name.to_ascii_lowercase().contains("dell"));
    let host = reader.line.route.peers.host().to_owned();
    let habits = reader.line.learnt.of(&host, |facts| facts.habits.clone());
    Ok(Hardware {
        service_tag: serial(told, "SKU").filter(|_| is_dell),
        manufacturer,
        model: field(told, "Model"),
        serial_number: identity.serial_number,
        uuid: identity.uuid,
        bios_version: field(told, "BiosVersion"),
        cpus: parts.cpus,
        memory_gib: summary(told, "MemorySummary", "TotalSystemMemoryGiB")
            .and_then(positive)
            .or(parts.memory_gib),
        nics,
        disks,
        accelerators: parts.accelerators,
        health: health(told),
        bmc: Some(BmcStatus {
            firmware: parts.firmware,
            boot_mode: super::boot::mode(told).filter(|mode| !mode.is_empty()),
            habits: habits.into_iter().map(|habit| habit.name().to_owned()).collect(),
        })
        .filter(|bmc| *bmc != BmcStatus::default()),
        unread: reader.unread,
    })
}

fn summary<'a>(told: &'a Value, summary: &str, value: &str) -> Option<&'a Value> {
    told.get(summary)?.get(value)
}

fn health(told: &Value) -> Option<Health> {
    let status = told.get("Status")?;
    let word = ["HealthRollup", "Health"].into_iter().find_map(|name| status.get(name)?.as_str())?;
    match word {
        "OK" => Some(Health::OK),
        "Warning" => Some(Health::Warning),
        "Critical" => Some(Health::Critical),
        _ => None,
    }
}

/// Reads parts, and remembers what it could not read.
struct Reader<'r, 'line> {
    line: &'r mut Line<'line>,
    unread: Vec<HardwarePart>,
}

/// Notes a part that is there and cannot be read; whether it is worth trying the next document of it.
fn missed(unread: &mut Vec<HardwarePart>, part: HardwarePart, error: BmcError) -> Result<bool, BmcError> {
    if error.kind == BmcErrorKind::Credentials {
        return Err(error);
    }
    tracing::debug!(part = part.as_str(), "a part of a machine cannot be read: {error}");
    if !unread.contains(&part) {
        unread.push(part);
    }
    Ok(!matches!(error.kind, BmcErrorKind::Unreachable | BmcErrorKind::Timeout))
}

impl Reader<'_, '_> {
    /// The documents of the members of a collection that `found` links to as `name`.
    async fn documents(
        &mut self,
        part: HardwarePart,
        found: &Document,
        name: &str,
        most: usize,
    ) -> Result<Vec<Document>, BmcError> {
        self.documents_at(part, &found.path, found.value.get(name), most).await
    }

    async fn documents_at(
        &mut self,
        part: HardwarePart,
        at: &str,
        link: Option<&Value>,
        most: usize,
    ) -> Result<Vec<Document>, BmcError> {
        let Self { line, unread } = self;
        let read = line.optional_documents(at, link, most, &mut |error| missed(unread, part, error)).await;
        match read {
            Ok(documents) => Ok(documents),
            Err(error) => missed(&mut self.unread, part, error).map(|_| Vec::new()),
        }
    }

    /// One document that may be missing.
    async fn one(
        &mut self,
        part: HardwarePart,
        at: &str,
        link: &Value,
    ) -> Result<Option<Document>, BmcError> {
        match self.line.optional(at, link).await {
            Ok(document) => Ok(document),
            Err(error) => missed(&mut self.unread, part, error).map(|_| None),
        }
    }

    /// Processors, memory and the BMC's firmware: read when their summary is another one, or after a while.
    async fn rare_parts(&mut self, found: &Document) -> Result<Parts, BmcError> {
        let host = self.line.route.peers.host().to_owned();
        let told = &found.value;
        let of = |name: &str| told.get(name).cloned().unwrap_or_default();
        let sign =
            json!([of("ProcessorSummary"), of("MemorySummary"), of("BiosVersion"), of("SerialNumber")]);
        let known = self.line.learnt.of(&host, |facts| facts.parts.get(&found.path).cloned());
        let fresh = known.filter(|known| {
            known.sign == sign
                && known.read_at.is_some_and(|at| Instant::now().saturating_duration_since(at) < RARELY)
        });
        if let Some(known) = fresh {
            return Ok(known);
        }
        let before = self.unread.len();
        let (cpus, accelerators) = self.processors(found).await?;
        let memory_gib = match summary(told, "MemorySummary", "TotalSystemMemoryGiB").and_then(positive) {
            Some(_) => None,
            None => self.memory(found).await?,
        };
        let firmware = self.firmware(found).await?;
        let read_at = Some(Instant::now());
        let parts = Parts { read_at, sign, cpus, accelerators, memory_gib, firmware };
        if self.unread.len() == before {
            self.line.learnt.of(&host, |facts| {
                if facts.parts.len() < OF_ONE_MAX || facts.parts.contains_key(&found.path) {
                    facts.parts.insert(found.path.clone(), parts.clone());
                }
            });
        }
        Ok(parts)
    }

    /// The sockets that have a CPU, and what else computes. Accelerators and empty sockets are in this collection too, and in
    /// the summary of some.
    async fn processors(&mut self, found: &Document) -> Result<(Option<i64>, Vec<Accelerator>), BmcError> {
        const PART: HardwarePart = HardwarePart::Processors;
        let summed = summary(&found.value, "ProcessorSummary", "Count").and_then(positive);
        if found.value.get("Processors").is_none_or(Value::is_null) {
            return Ok((summed, Vec::new()));
        }
        let host = self.line.route.peers.host().to_owned();
        if let Some(summed) = summed.filter(|_| self.line.learnt.of(&host, |facts| facts.expand).is_none()) {
            // One by one they are read only where there are more of them than sockets.
            let links =
                self.line.optional_members(&found.path, found.value.get("Processors"), PROCESSORS_MAX).await;
            match links.map(|links| i64::try_from(links.len()).unwrap_or(i64::MAX)) {
                Ok(all) if all > summed || summed > SOCKETS_USUAL => {}
                Ok(_) => return Ok((Some(summed), Vec::new())),
                Err(error) => {
                    return missed(&mut self.unread, PART, error).map(|_| (Some(summed), Vec::new()));
                }
            }
        }
        let (mut cpus, mut accelerators) = (0, Vec::new());
        for part in self.documents(PART, found, "Processors", PROCESSORS_MAX).await? {
            if is_absent(&part.value) {
                continue;
            }
            match part.value.get("ProcessorType").and_then(Value::as_str) {
                None | Some("CPU") => cpus += 1,
                Some("Core" | "Thread" | "OEM") => {}
                Some(kind) => accelerators.extend(accelerator(&part.value, kind)),
            }
        }
        accelerators.sort_by(|a, b| natural(&a.name, &b.name));
        accelerators.truncate(ACCELERATORS_MAX);
        let is_read = !self.unread.contains(&PART);
        Ok((Some(cpus).filter(|cpus| *cpus > 0 && is_read).or(summed), accelerators))
    }

    /// Without a summary, the modules added up.
    async fn memory(&mut self, found: &Document) -> Result<Option<i64>, BmcError> {
        // What cannot be read of it is only a number that is missing.
        let before = self.unread.clone();
        let modules = self.documents(HardwarePart::Processors, found, "Memory", MODULES_MAX).await?;
        self.unread = before;
        let filled = modules.iter().filter(|module| !is_absent(&module.value));
        let mib = filled.filter_map(|module| module.value.get("CapacityMiB").and_then(positive));
        Ok(Some(mib.fold(0_i64, i64::saturating_add) / 1024).filter(|gib| *gib > 0))
    }

    async fn firmware(&mut self, found: &Document) -> Result<Option<String>, BmcError> {
        let links = found.value.get("Links");
        let managers =
            ["ManagedBy", "Managers"].into_iter().find_map(|name| links?.get(name)?.as_array()?.first());
        let Some(manager) = managers else { return Ok(None) };
        let before = self.unread.clone();
        let manager = self.one(HardwarePart::Processors, &found.path, manager).await?;
        self.unread = before;
        Ok(manager.and_then(|manager| field(&manager.value, "FirmwareVersion")))
    }

    async fn nics(&mut self, found: &Document) -> Result<Vec<Nic>, BmcError> {
        const PART: HardwarePart = HardwarePart::NetworkInterfaces;
        let interfaces = self.documents(PART, found, "EthernetInterfaces", NICS_MAX).await?;
        let mut nics: Vec<Nic> = interfaces.iter().filter_map(|part| nic(&part.value, &interfaces)).collect();
        // Some have the addresses at the functions of their adapters alone.
        let told = Hardware { nics: nics.clone(), ..Hardware::default() };
        if told.cards().is_empty() {
            let functions = self.functions(found).await?;
            nics.extend(functions.iter().filter_map(|part| function(&part.value)));
        }
        nics.sort_by(|a, b| {
            let rest = |nic: &Nic| (nic.mac_address.clone(), nic.speed_mbps);
            natural(&a.name, &b.name).then_with(|| rest(a).cmp(&rest(b)))
        });
        nics.truncate(NICS_MAX);
        Ok(nics)
    }

    /// The functions of the system's network adapters: from its own interfaces, or from its chassis.
    async fn functions(&mut self, found: &Document) -> Result<Vec<Document>, BmcError> {
        const PART: HardwarePart = HardwarePart::NetworkInterfaces;
        let mut functions = Vec::new();
        for interface in self.documents(PART, found, "NetworkInterfaces", ADAPTERS_MAX).await? {
            let own = interface.value.get("NetworkDeviceFunctions");
            let some = self.documents_at(PART, &interface.path, own, NICS_MAX).await?;
            if !some.is_empty() {
                functions.extend(some);
                continue;
            }
            let adapter = interface.value.get("Links").and_then(|links| links.get("NetworkAdapter"));
            if let Some(adapter) = adapter
                && let Some(adapter) = self.one(PART, &interface.path, adapter).await?
            {
                functions.extend(self.documents(PART, &adapter, "NetworkDeviceFunctions", NICS_MAX).await?);
            }
        }
        if functions.is_empty() {
            let chassis =
                found.value.get("Links").and_then(|links| links.get("Chassis")).and_then(Value::as_array);
            for link in chassis.into_iter().flatten().take(CHASSIS_MAX) {
                let Some(chassis) = self.one(PART, &found.path, link).await? else { continue };
                for adapter in self.documents(PART, &chassis, "NetworkAdapters", ADAPTERS_MAX).await? {
                    functions
                        .extend(self.documents(PART, &adapter, "NetworkDeviceFunctions", NICS_MAX).await?);
                }
            }
        }
        functions.truncate(NICS_MAX);
        Ok(functions)
    }

    async fn disks(&mut self, found: &Document) -> Result<Vec<Disk>, BmcError> {
        let mut disks = self.drives(found).await?;
        if disks.is_empty() {
            disks = self.simple(found).await?;
        }
        // Some number the disks of each controller by itself.
        let names: Vec<String> = disks.iter().map(|disk| disk.name.clone()).collect();
        for disk in &mut disks {
            let repeats = names.iter().filter(|name| **name == disk.name).count() > 1;
            if let (true, Some(controller)) = (repeats, &disk.controller) {
                disk.name = printable(&format!("{controller}/{}", disk.name), FIELD_MAX);
            }
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
        const PART: HardwarePart = HardwarePart::Disks;
        let mut links: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut whole = Vec::new();
        for controller in self.documents(PART, found, "Storage", CONTROLLERS_MAX).await? {
            let drives =
                controller.value.get("Drives").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            for drive in drives {
                let link = super::read::link_of(drive);
                let Some(Ok(path)) = link.map(|link| self.line.route.origin.follow(&controller.path, link))
                else {
                    continue;
                };
                // A drive with two paths is one drive.
                links.entry(path.clone()).or_insert_with(|| name(&controller.value));
                if drive.get("Id").is_some() {
                    whole.push(Document { path, tags: Tags::default(), value: drive.clone() });
                }
            }
        }
        let host = self.line.route.peers.host().to_owned();
        let sign: Vec<String> = links.keys().cloned().collect();
        let known = self.line.learnt.of(&host, |facts| facts.drives.get(&found.path).cloned());
        let is_fresh = |at: Instant| Instant::now().saturating_duration_since(at) < DRIVES_RARELY;
        if let Some(known) = known.filter(|known| known.sign == sign && is_fresh(known.read_at)) {
            return Ok(known.disks);
        }
        let before = self.unread.len();
        let mut disks = Vec::new();
        // Sorted before the cut, so that it is always the same ones.
        for (path, controller) in links.into_iter().take(DISKS_MAX) {
            let drive = match whole.iter().position(|one| one.path == path) {
                Some(at) => Some(whole.swap_remove(at)),
                None => match self.line.optional("/", &link(&path)).await {
                    Ok(drive) => drive,
                    Err(error) => {
                        if !missed(&mut self.unread, PART, error)? {
                            break;
                        }
                        None
                    }
                },
            };
            let told = drive.as_ref().map(|drive| &drive.value);
            disks.extend(told.and_then(|told| disk(told, serial(told, "SerialNumber"), controller)));
        }
        if self.unread.len() == before && !self.unread.contains(&PART) {
            let drives = Drives { read_at: Instant::now(), sign, disks: disks.clone() };
            self.line.learnt.of(&host, |facts| {
                if facts.drives.len() < OF_ONE_MAX || facts.drives.contains_key(&found.path) {
                    facts.drives.insert(found.path.clone(), drives);
                }
            });
        }
        Ok(disks)
    }

    /// `SimpleStorage` of older BMCs: the devices stand in the controller itself.
    async fn simple(&mut self, found: &Document) -> Result<Vec<Disk>, BmcError> {
        let mut disks = Vec::new();
        for controller in self.documents(HardwarePart::Disks, found, "SimpleStorage", CONTROLLERS_MAX).await?
        {
            let devices =
                controller.value.get("Devices").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let disk = |told: &Value| disk(told, None, name(&controller.value));
            disks.extend(devices.iter().filter(|told| !is_backplane(told)).filter_map(disk));
        }
        Ok(disks)
    }
}
