//! The documents of the Redfish tree.

use serde_json::{Value, json};

use super::answer::Answer;
use super::boot::Boot;
use super::fault::{Behaviour, UnknownPower};
use super::fleet::Fleet;
use super::inventory::Inventory;
use super::manager::ManagerReset;
use super::media;
use super::power::ResetType;
use super::system::{ResetTime, System};
use super::target::{Parts, Target};
use super::time::Millis;

pub(super) const ROOT: &str = "/redfish/v1";

/// The document of a target that belongs to no system. `members` are the systems that this listener shows.
pub(super) fn fleet_document(target: Target<'_>, members: &[&str]) -> Option<Answer> {
    let services = ["Systems", "Managers", "Chassis"]
        .map(|name| json!({"name": name, "kind": "Singleton", "url": format!("{ROOT}/{name}")}));
    Some(match target {
        Target::Versions => Answer::json(json!({"v1": format!("{ROOT}/")})),
        Target::Root => Answer::json(root()),
        Target::Odata => Answer::json(json!({
            "@odata.context": format!("{ROOT}/$metadata"),
            "value": services,
        })),
        Target::Metadata => Answer::text("application/xml", METADATA),
        Target::Systems => Answer::json(collection("Systems", "ComputerSystem", members)),
        Target::Managers => Answer::json(collection("Managers", "Manager", members)),
        Target::ChassisAll => Answer::json(collection("Chassis", "Chassis", members)),
        _ => return None,
    })
}

const METADATA: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<edmx:Edmx xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx" Version="4.0">
  <edmx:Reference Uri="http://redfish.dmtf.org/schemas/v1/ServiceRoot_v1.xml"><edmx:Include Namespace="ServiceRoot"/></edmx:Reference>
  <edmx:Reference Uri="http://redfish.dmtf.org/schemas/v1/ComputerSystem_v1.xml"><edmx:Include Namespace="ComputerSystem"/></edmx:Reference>
  <edmx:Reference Uri="http://redfish.dmtf.org/schemas/v1/Manager_v1.xml"><edmx:Include Namespace="Manager"/></edmx:Reference>
  <edmx:Reference Uri="http://redfish.dmtf.org/schemas/v1/Chassis_v1.xml"><edmx:Include Namespace="Chassis"/></edmx:Reference>
  <edmx:Reference Uri="http://redfish.dmtf.org/schemas/v1/VirtualMedia_v1.xml"><edmx:Include Namespace="VirtualMedia"/></edmx:Reference>
  <edmx:DataServices>
    <Schema xmlns="http://docs.oasis-open.org/odata/ns/edm" Namespace="Service">
      <EntityContainer Name="Service" Extends="ServiceRoot.v1_16_0.ServiceContainer"/>
    </Schema>
  </edmx:DataServices>
</edmx:Edmx>
"#;

pub(super) fn link(path: impl AsRef<str>) -> Value {
    json!({"@odata.id": format!("{ROOT}/{}", path.as_ref())})
}

fn root() -> Value {
    json!({
        "@odata.type": "#ServiceRoot.v1_16_0.ServiceRoot",
        "@odata.id": format!("{ROOT}/"),
        "Id": "RootService",
        "Name": "AutoBuild emulator",
        "RedfishVersion": "1.18.0",
        "Vendor": "AutoBuild",
        "Product": "AutoBuild BMC emulator",
        "ProtocolFeaturesSupported": {
            "FilterQuery": false, "SelectQuery": false, "OnlyMemberQuery": false, "ExcerptQuery": false,
        },
        "Systems": link("Systems"),
        "Managers": link("Managers"),
        "Chassis": link("Chassis"),
        "SessionService": link("SessionService"),
        "AccountService": link("AccountService"),
        "Tasks": link("TaskService"),
        "Links": {"Sessions": link("SessionService/Sessions")},
    })
}

pub(super) fn collection(path: &str, kind: &str, members: &[&str]) -> Value {
    let title = path.rsplit('/').next().unwrap_or(path);
    json!({
        "@odata.type": format!("#{kind}Collection.{kind}Collection"),
        "@odata.id": format!("{ROOT}/{path}"),
        "Name": format!("{title} Collection"),
        "Members@odata.count": members.len(),
        "Members": members.iter().map(|member| link(format!("{path}/{member}"))).collect::<Vec<_>>(),
    })
}

/// A machine at one moment, as its BMC sees it through the misbehaviours of this request.
pub(super) struct Shown<'a> {
    fleet: &'a Fleet,
    system: &'a System,
    inventory: Inventory,
    power: Value,
    boot: Boot,
    media: Option<String>,
    last_reset: Option<Millis>,
    /// The ETag of the system.
    pub(super) etag: String,
}

impl<'a> Shown<'a> {
    pub(super) fn new(fleet: &'a Fleet, system: &'a System, now: Millis, faults: &[Behaviour]) -> Self {
        let mut shown = system.at(now, |state| Self {
            fleet,
            system,
            inventory: system.inventory(fleet.0.seed, state),
            power: json!(state.power.state()),
            boot: state.boot.clone(),
            media: state.media.image().map(str::to_owned),
            last_reset: state.last_reset,
            etag: etag(state.version),
        });
        for fault in faults {
            match fault {
                Behaviour::PowerUnknown { shown: UnknownPower::Unknown } => shown.power = json!("Unknown"),
                Behaviour::PowerUnknown { shown: UnknownPower::Null } => shown.power = Value::Null,
                Behaviour::PowerUnknown { shown: UnknownPower::Absent } => shown.power = json!({}),
                Behaviour::OtherIdentity { serial_number, uuid } => {
                    if let Some(serial) = serial_number {
                        shown.inventory.serial.clone_from(serial);
                    }
                    if let Some(uuid) = uuid {
                        shown.inventory.uuid.clone_from(uuid);
                    }
                }
                _ => {}
            }
        }
        shown
    }

    /// The document of a target that belongs to this system.
    pub(super) fn document(&self, target: Target<'_>) -> Option<Value> {
        match target {
            Target::System(_) => Some(self.system()),
            Target::Manager(_) => Some(self.manager()),
            Target::VirtualMedia(_) => Some(collection(&self.media_path(), "VirtualMedia", &[media::DRIVE])),
            Target::CdDrive(_) => {
                let path = format!("{ROOT}/{}/{}", self.media_path(), media::DRIVE);
                Some(media::render(&path, self.media.as_deref()))
            }
            Target::Chassis(_) => Some(self.chassis()),
            Target::Parts(_, parts) => Some(self.parts(parts)),
            Target::Part(_, parts, id) => self.part(parts, id),
            Target::Drive(_, id) => self.drive(id),
            _ => None,
        }
    }

    fn path(&self, below: &str) -> String {
        format!("Systems/{}{below}", self.system.name)
    }

    fn media_path(&self) -> String {
        format!("Managers/{}/VirtualMedia", self.system.name)
    }

    fn system(&self) -> Value {
        let parts = &self.inventory;
        let name = &self.system.name;
        let cores = parts.processors * parts.cores_each;
        let mut system = json!({
            "@odata.type": "#ComputerSystem.v1_22_0.ComputerSystem",
            "@odata.id": format!("{ROOT}/{}", self.path("")),
            "@odata.etag": self.etag,
            "Id": name,
            "Name": name,
            "SystemType": "Physical",
            "Manufacturer": parts.manufacturer,
            "Model": parts.model,
            "SerialNumber": parts.serial,
            "UUID": parts.uuid,
            "BiosVersion": parts.bios,
            "PowerState": self.power,
            "Status": {"State": "Enabled", "Health": "OK"},
            "Boot": self.boot.render(),
            "ProcessorSummary": {
                "Count": parts.processors,
                "CoreCount": cores,
                "LogicalProcessorCount": cores * 2,
                "Model": parts.processor_model,
            },
            "MemorySummary": {"TotalSystemMemoryGiB": parts.dimms * parts.dimm_gib},
            "Processors": link(self.path("/Processors")),
            "Memory": link(self.path("/Memory")),
            "EthernetInterfaces": link(self.path("/EthernetInterfaces")),
            "Storage": link(self.path("/Storage")),
            "Links": {
                "Chassis": [link(format!("Chassis/{name}"))],
                "ManagedBy": [link(format!("Managers/{name}"))],
            },
            "Actions": {"#ComputerSystem.Reset": {
                "target": format!("{ROOT}/{}", self.path("/Actions/ComputerSystem.Reset")),
                "ResetType@Redfish.AllowableValues": ResetType::ALL,
            }},
        });
        if let Some(object) = system.as_object_mut() {
            if self.power.is_object() {
                object.remove("PowerState");
            }
            if let (ResetTime::Reported, Some(at)) = (self.system.reset_time, self.last_reset) {
                object.insert("LastResetTime".to_owned(), json!(self.fleet.0.clock.date_time(at)));
            }
        }
        system
    }

    fn manager(&self) -> Value {
        let name = &self.system.name;
        json!({
            "@odata.type": "#Manager.v1_19_0.Manager",
            "@odata.id": format!("{ROOT}/Managers/{name}"),
            "Id": name,
            "Name": format!("BMC of {name}"),
            "ManagerType": "BMC",
            "FirmwareVersion": format!("BMC {}", self.inventory.bios),
            "PowerState": "On",
            "Status": {"State": "Enabled", "Health": "OK"},
            "VirtualMedia": link(self.media_path()),
            "Links": {
                "ManagerForServers": [link(self.path(""))],
                "ManagerForChassis": [link(format!("Chassis/{name}"))],
            },
            "Actions": {"#Manager.Reset": {
                "target": format!("{ROOT}/Managers/{name}/Actions/Manager.Reset"),
                "ResetType@Redfish.AllowableValues": ManagerReset::ALL.map(ManagerReset::as_str),
            }},
        })
    }

    fn chassis(&self) -> Value {
        let name = &self.system.name;
        json!({
            "@odata.type": "#Chassis.v1_25_0.Chassis",
            "@odata.id": format!("{ROOT}/Chassis/{name}"),
            "Id": name,
            "Name": format!("Chassis of {name}"),
            "ChassisType": "RackMount",
            "Manufacturer": self.inventory.manufacturer,
            "Model": self.inventory.model,
            "SerialNumber": self.inventory.serial,
            "Status": {"State": "Enabled", "Health": "OK"},
            "Links": {
                "ComputerSystems": [link(self.path(""))],
                "ManagedBy": [link(format!("Managers/{name}"))],
            },
        })
    }

    fn parts(&self, parts: Parts) -> Value {
        let inventory = &self.inventory;
        let (kind, members): (_, Vec<String>) = match parts {
            Parts::EthernetInterfaces => {
                ("EthernetInterface", inventory.nics.iter().map(|nic| nic.id.clone()).collect())
            }
            Parts::Storage => ("Storage", vec!["1".to_owned()]),
            Parts::Processors => {
                ("Processor", (1..=inventory.processors).map(|n| format!("CPU{n}")).collect())
            }
            Parts::Memory => ("Memory", (1..=inventory.dimms).map(|n| format!("DIMM{n}")).collect()),
        };
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        collection(&self.path(&format!("/{}", parts.as_str())), kind, &members)
    }

    fn part(&self, parts: Parts, id: &str) -> Option<Value> {
        let inventory = &self.inventory;
        let mut part = match parts {
            Parts::EthernetInterfaces => {
                let nic = inventory.nics.iter().find(|nic| nic.id == id)?;
                json!({
                    "@odata.type": "#EthernetInterface.v1_12_0.EthernetInterface",
                    "Name": nic.id,
                    "MACAddress": nic.mac,
                    "PermanentMACAddress": nic.mac,
                    "SpeedMbps": nic.speed_mbps,
                    "InterfaceEnabled": true,
                    "LinkStatus": "LinkUp",
                })
            }
            Parts::Storage => (id == "1").then(|| {
                json!({
                    "@odata.type": "#Storage.v1_17_0.Storage",
                    "Name": "Storage",
                    "Drives@odata.count": inventory.disks.len(),
                    "Drives": inventory.disks.iter().map(|disk| {
                        link(self.path(&format!("/Storage/1/Drives/{}", disk.id)))
                    }).collect::<Vec<_>>(),
                })
            })?,
            Parts::Processors => (1..=inventory.processors).any(|n| format!("CPU{n}") == id).then(|| {
                json!({
                    "@odata.type": "#Processor.v1_20_0.Processor",
                    "Name": id,
                    "Socket": id,
                    "ProcessorType": "CPU",
                    "Model": inventory.processor_model,
                    "TotalCores": inventory.cores_each,
                    "TotalThreads": inventory.cores_each * 2,
                })
            })?,
            Parts::Memory => (1..=inventory.dimms).any(|n| format!("DIMM{n}") == id).then(|| {
                json!({
                    "@odata.type": "#Memory.v1_20_0.Memory",
                    "Name": id,
                    "CapacityMiB": inventory.dimm_gib * 1024,
                    "MemoryDeviceType": "DDR5",
                })
            })?,
        };
        let object = part.as_object_mut()?;
        let path = self.path(&format!("/{}/{id}", parts.as_str()));
        object.insert("@odata.id".to_owned(), json!(format!("{ROOT}/{path}")));
        object.insert("Id".to_owned(), json!(id));
        object.insert("Status".to_owned(), json!({"State": "Enabled", "Health": "OK"}));
        Some(part)
    }

    fn drive(&self, id: &str) -> Option<Value> {
        let disk = self.inventory.disks.iter().find(|disk| disk.id == id)?;
        Some(json!({
            "@odata.type": "#Drive.v1_20_0.Drive",
            "@odata.id": format!("{ROOT}/{}", self.path(&format!("/Storage/1/Drives/{id}"))),
            "Id": id,
            "Name": id,
            "Manufacturer": "Example",
            "Model": disk.model,
            "SerialNumber": disk.serial,
            "MediaType": disk.media,
            "Protocol": disk.protocol,
            "CapacityBytes": disk.bytes,
            "Status": {"State": "Enabled", "Health": "OK"},
        }))
    }
}

/// The ETag of a version of a system.
pub(super) fn etag(version: u64) -> String {
    format!("\"{version:x}\"")
}
