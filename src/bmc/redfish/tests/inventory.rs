//! What is in machines of several makers, and how few requests it takes to read.

use serde_json::{Value, json};

use super::maker::{Maker, Reply, Request, ok, status};
use super::*;
use crate::api::hardware::{AcceleratorKind, Hardware, Health, NicKind, NicLink};

/// A BMC that serves these documents, and expands collections where `expands` says so.
async fn tree(documents: Value, expands: bool) -> Maker {
    let answer = move |(): &mut (), request: &Request| -> Reply {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let Some(found) = documents.get(path) else { return status(404) };
        if let Some(number) = found.as_u64() {
            return status(u16::try_from(number).unwrap());
        }
        let mut shown = found.clone();
        if !query.is_empty() {
            if !expands {
                return status(501);
            }
            for member in shown["Members"].as_array_mut().into_iter().flatten() {
                let path = member["@odata.id"].as_str().unwrap().to_owned();
                if let Some(whole) = documents.get(&path).filter(|whole| whole.is_object()) {
                    *member = whole.clone();
                    member["@odata.id"] = json!(path);
                }
            }
        }
        ok(&shown)
    };
    Maker::new((), answer).await
}

#[allow(clippy::needless_pass_by_value)]
fn documents(system: Value, more: Value) -> Value {
    let mut all = json!({
        "/redfish/v1/": {"Systems": {"@odata.id": "/redfish/v1/Systems"}},
        "/redfish/v1/Systems": {"Members": [{"@odata.id": "/redfish/v1/Systems/1"}]},
        "/redfish/v1/Systems/1": system,
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

fn link(path: &str) -> Value {
    json!({"@odata.id": path})
}

async fn hardware(system: Value, more: Value) -> Hardware {
    tree(documents(system, more), false).await.client().await.inspect().await.unwrap().hardware
}

/// The names of cards that boot, in the order in which they are taken.
async fn cards(interfaces: &[Value]) -> Vec<String> {
    let members: Vec<Value> = (0..interfaces.len()).map(|at| link(&format!("/n/{at}"))).collect();
    let mut more = json!({"/n": {"Members": members}});
    for (at, interface) in interfaces.iter().enumerate() {
        more[format!("/n/{at}")] = interface.clone();
    }
    let hardware =
        hardware(json!({"Id": "1", "PowerState": "On", "EthernetInterfaces": link("/n")}), more).await;
    hardware.cards().iter().map(crate::api::Mac::with_colons).collect()
}

#[tokio::test]
async fn the_bmcs_own_card_and_a_vlan_are_none_to_boot_from_and_one_with_link_comes_first() {
    let own = [
        json!({"Id": "ToManager", "MACAddress": "02:00:5e:00:53:01", "Status": {"State": "Disabled"},
               "Links": {"HostInterface": link("/redfish/v1/Managers/BMC/HostInterfaces/1")}}),
        json!({"Id": "ToManager", "MACAddress": "02:00:5e:00:53:01"}),
        json!({"Id": "7", "Name": "Host Interface", "MACAddress": "02:00:5e:00:53:01"}),
        json!({"Id": "7", "UefiDevicePath": "PciRoot(0x0)/Pci(0x14,0x0)/USB(0xD,0x0)/MAC(02005E005301,0x1)", "MACAddress": "02:00:5e:00:53:01"}),
        json!({"Id": "7", "MACAddress": "02:00:5e:00:53:01", "Links": {"HostInterfaces": [link("/x")]}}),
    ];
    for one in own {
        assert!(cards(std::slice::from_ref(&one)).await.is_empty(), "{one}");
        let both = cards(&[one.clone(), json!({"Id": "8", "MACAddress": "02:00:5e:00:53:08"})]).await;
        assert_eq!(both, ["02:00:5e:00:53:08"], "{one}");
    }
    let vlan = json!({"Id": "eth0.100", "MACAddress": "02:00:5e:00:53:09", "LinkStatus": "LinkUp", "VLAN": {"VLANEnable": true, "VLANId": 100}});
    assert!(cards(&[vlan]).await.is_empty());
    let tagged =
        json!({"Id": "NIC1", "MACAddress": "02:00:5e:00:53:09", "VLAN": {"VLANEnable": true, "VLANId": 100}});
    assert_eq!(cards(&[tagged]).await.len(), 1, "a card may have a tag of its own");
    let with = |id: &str, last: u8, status: Value| json!({"Id": id, "MACAddress": format!("02:00:5e:00:53:{last:02x}"), "LinkStatus": status});
    let order = cards(&[
        with("1", 1, json!("LinkDown")),
        with("2", 2, Value::Null),
        with("3", 3, json!("LinkUp")),
        with("4", 4, json!("NoLink")),
        json!({"Id": "5", "MACAddress": "02:00:5e:00:53:05", "LinkStatus": "LinkUp", "InterfaceEnabled": false}),
        json!({"Id": "6", "MACAddress": "02:00:5e:00:53:06", "Status": {"State": "Absent"}}),
    ])
    .await;
    let last: Vec<&str> = order.iter().map(|mac| &mac[15..]).collect();
    assert_eq!(last, ["03", "02", "01", "04", "05"]);
}

#[tokio::test]
async fn addresses_that_only_the_functions_of_adapters_have_are_found() {
    let functions = json!({"Members": [link("/f/1"), link("/f/2"), link("/f/3")]});
    let of = |kind: &str, last: u8| json!({"Id": format!("f{last}"), "NetDevFuncType": kind, "Ethernet": {"MACAddress": format!("02:00:5e:00:53:{last:02x}")}});
    let common = |mut more: Value| {
        more["/fs"] = functions.clone();
        more["/f/1"] = of("Ethernet", 1);
        more["/f/2"] = of("FibreChannel", 2);
        more["/f/3"] = json!({"Id": "f3", "Ethernet": {"PermanentMACAddress": "02:00:5e:00:53:03"}});
        more
    };
    let adapter = json!({"Id": "a", "NetworkDeviceFunctions": link("/fs")});
    let interfaces = json!({"/is": {"Members": [link("/i")]}});
    for (system, more) in [
        (json!({"NetworkInterfaces": link("/is")}), {
            let mut more = interfaces.clone();
            more["/i"] = json!({"Id": "i", "NetworkDeviceFunctions": link("/fs")});
            more
        }),
        (json!({"NetworkInterfaces": link("/is")}), {
            let mut more = interfaces;
            more["/i"] = json!({"Id": "i", "Links": {"NetworkAdapter": link("/a")}});
            more["/a"] = adapter.clone();
            more
        }),
        (
            json!({"Links": {"Chassis": [link("/c")]}}),
            json!({"/c": {"Id": "c", "NetworkAdapters": link("/as")}, "/as": {"Members": [link("/a")]}, "/a": adapter}),
        ),
    ] {
        let mut all = json!({"Id": "1", "PowerState": "On"});
        all.as_object_mut().unwrap().extend(system.as_object().unwrap().clone());
        let hardware = hardware(all, common(more)).await;
        let macs: Vec<_> = hardware.nics.iter().filter_map(|nic| nic.mac_address.as_deref()).collect();
        assert_eq!(macs, ["02:00:5e:00:53:01", "02:00:5e:00:53:03"], "{system}");
        assert!(hardware.nics.iter().all(|nic| nic.kind == Some(NicKind::Ethernet)));
    }
}

#[tokio::test]
async fn processors_are_cpus_and_what_else_computes_is_told_by_itself() {
    let processors: Vec<Value> = (1..=5).map(|number| link(&format!("/p/{number}"))).collect();
    let hardware = hardware(
        json!({"Id": "1", "PowerState": "On", "ProcessorSummary": {"Count": 4}, "Processors": link("/p"), "Memory": link("/m"),
               "Status": {"Health": "OK", "HealthRollup": "Warning"}, "Manufacturer": "Dell Inc.", "SKU": "ABC1234", "SerialNumber": "CN7"}),
        json!({
            "/p": {"Members": processors},
            "/p/1": {"Id": "CPU.1", "ProcessorType": "CPU"},
            "/p/2": {"Id": "CPU.2", "ProcessorType": "CPU", "Status": {"State": "Absent"}},
            "/p/3": {"Id": "GPU_10", "ProcessorType": "GPU", "Manufacturer": "Example", "Model": "G1"},
            "/p/4": {"Id": "GPU_2", "ProcessorType": "GPU"},
            "/p/5": {"Id": "DPU", "ProcessorType": "DPU"},
            "/m": {"Members": [link("/m/1"), link("/m/2"), link("/m/3")]},
            "/m/1": {"Id": "1", "CapacityMiB": 16384}, "/m/2": {"Id": "2", "CapacityMiB": 16384},
            "/m/3": {"Id": "3", "CapacityMiB": 16384, "Status": {"State": "Absent"}},
        }),
    )
    .await;
    assert_eq!((hardware.cpus, hardware.memory_gib), (Some(1), Some(32)));
    let told: Vec<_> = hardware.accelerators.iter().map(|one| (one.name.as_str(), one.kind)).collect();
    let (gpu, dpu) = (AcceleratorKind::GPU, AcceleratorKind::DPU);
    assert_eq!(told, [("DPU", dpu), ("GPU_2", gpu), ("GPU_10", gpu)]);
    assert_eq!((hardware.health, hardware.service_tag.as_deref()), (Some(Health::Warning), Some("ABC1234")));
}

#[tokio::test]
async fn an_empty_bay_is_no_disk_and_disks_of_two_controllers_have_names_of_their_own() {
    let told = hardware(
        json!({"Id": "1", "PowerState": "On", "Storage": link("/s")}),
        json!({
            "/s": {"Members": [link("/s/1"), link("/s/2")]},
            "/s/1": {"Id": "RAID", "Drives": [link("/d/1"), link("/d/2"), link("/d/3")]},
            "/s/2": {"Id": "AHCI", "Drives": [link("/e/1"), link("/e/2")]},
            "/d/1": {"Id": "0", "Model": "M", "SerialNumber": "S1", "CapacityBytes": 960_197_124_096_i64, "PhysicalLocation": {"PartLocation": {"ServiceLabel": "Bay 3"}}},
            "/d/2": {"Id": "1", "Status": {"State": "Absent"}, "Name": "Empty Bay"},
            "/d/3": {"Id": "2", "Name": "Empty Bay", "CapacityBytes": null, "Model": "Empty"},
            "/e/1": {"Id": "0", "Model": "M", "SerialNumber": "S2", "CapacityBytes": 512, "PhysicalLocation": {"PartLocation": {"LocationOrdinalValue": 4}}},
            "/e/2": {"Id": "7", "Name": "Disk.Direct.7"},
        }),
    )
    .await;
    let disks: Vec<_> =
        told.disks.iter().map(|disk| (disk.name.as_str(), disk.size_bytes, disk.slot.as_deref())).collect();
    assert_eq!(disks, [("AHCI/0", None, Some("4")), ("RAID/0", Some(960_197_124_096), Some("Bay 3"))]);
    assert_eq!(told.disks[0].controller.as_deref(), Some("AHCI"));
    let old = hardware(
        json!({"Id": "1", "PowerState": "On", "SimpleStorage": link("/s")}),
        json!({"/s": {"Members": [link("/s/1")]}, "/s/1": {"Id": "1", "Devices": [
            {"Name": "Disk 1", "Model": "M", "CapacityBytes": 1_000_204_886_016_i64},
            {"Name": "Backplane 1 on Connector 0", "Model": "BP14G+"},
            {"Name": "Bay 2", "Status": {"State": "Absent"}, "CapacityBytes": null}]}}),
    )
    .await;
    assert_eq!(old.disks.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>(), ["Disk 1"]);
}

#[tokio::test]
async fn a_page_with_the_link_to_the_next_one_alone_is_followed() {
    let told = hardware(
        json!({"Id": "1", "PowerState": "On", "EthernetInterfaces": link("/n")}),
        json!({
            "/n": {"Members@odata.nextLink": "/n/page2"},
            "/n/page2": {"Members": [link("/n/1")], "Members@odata.nextLink": "/n/page3"},
            "/n/page3": {"Members": [link("/n/2")]},
            "/n/1": {"Id": "1", "MACAddress": "02:00:5e:00:53:01", "LinkStatus": "LinkUp"},
            "/n/2": {"Id": "2", "MACAddress": "02:00:5e:00:53:02"},
        }),
    )
    .await;
    assert_eq!((told.nics.len(), told.nics[0].link), (2, Some(NicLink::Up)));
}

/// An ordinary server of 26 documents: four cards, two controllers with four disks each, two processors.
fn ordinary(expand: bool) -> Value {
    let members = |kind: &str, count: usize| json!({"Members": (1..=count).map(|n| link(&format!("/{kind}/{n}"))).collect::<Vec<_>>()});
    let mut more = json!({"/n": members("n", 4), "/s": members("s", 2), "/p": members("p", 2), "/m": {"Id": "BMC", "FirmwareVersion": "7.00"}});
    for number in 1..=4 {
        more[format!("/n/{number}")] =
            json!({"Id": number.to_string(), "MACAddress": format!("02:00:5e:00:53:0{number}")});
    }
    for number in 1..=2 {
        let drives: Vec<Value> = (1..=4).map(|drive| link(&format!("/d/{number}{drive}"))).collect();
        more[format!("/s/{number}")] = json!({"Id": format!("C{number}"), "Drives": drives});
        more[format!("/p/{number}")] = json!({"Id": format!("CPU{number}"), "ProcessorType": "CPU"});
        for drive in 1..=4 {
            more[format!("/d/{number}{drive}")] = json!({"Id": format!("{number}{drive}"), "Model": "M", "SerialNumber": format!("S{number}{drive}"), "CapacityBytes": 960_197_124_096_i64});
        }
    }
    let mut all = documents(
        json!({"Id": "1", "PowerState": "On", "SerialNumber": "AB1", "ProcessorSummary": {"Count": 2}, "MemorySummary": {"TotalSystemMemoryGiB": 64},
               "EthernetInterfaces": link("/n"), "Storage": link("/s"), "Processors": link("/p"), "Links": {"ManagedBy": [link("/m")]},
               "Actions": {"#ComputerSystem.Reset": {"target": "/r", "@Redfish.ActionInfo": "/none"}}}),
        more,
    );
    if expand {
        all["/redfish/v1/"]["ProtocolFeaturesSupported"] =
            json!({"ExpandQuery": {"NoLinks": true, "Levels": true, "MaxLevels": 1}});
    }
    all
}

#[tokio::test]
async fn an_inspection_reads_little_where_collections_are_expanded_and_the_next_one_less_everywhere() {
    // 22 in the plain way, of which it is to take half: root, systems, system, description, cards, controllers, disks.
    for (expand, lies, first, next) in [(true, false, 16, 5), (false, false, 22, 10), (true, true, 23, 10)] {
        let maker = tree(ordinary(expand), expand && !lies).await;
        let connector = Connector::new(settings());
        let one = maker.client_of(&connector).await.inspect().await.unwrap();
        assert_eq!((one.hardware.nics.len(), one.hardware.disks.len(), one.hardware.cpus), (4, 8, Some(2)));
        assert_eq!(one.hardware.bmc.as_ref().unwrap().firmware.as_deref(), Some("7.00"));
        assert!(one.hardware.unread.is_empty());
        let reads = maker.log.reads();
        assert!(reads.len() <= first, "{} {reads:?}", reads.len());
        maker.log.clear();
        let bmc = maker.client_of(&connector).await;
        assert_eq!(bmc.inspect().await.unwrap(), one);
        let reads = maker.log.reads();
        assert!(reads.len() <= next, "{} {reads:?}", reads.len());
        assert!(!reads.iter().any(|path| path == "/none"), "what is not there is not asked for again");
        maker.log.clear();
        maker.client_of(&connector).await.probe().await.unwrap();
        assert_eq!(maker.log.reads(), ["/redfish/v1/Systems/1"], "a probe is one request");
    }
}

#[tokio::test]
async fn a_slow_bmc_tells_its_power_and_identity_and_the_parts_that_came_late_are_missing() {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let documents = std::sync::Arc::new(ordinary(false));
    let raw = super::hostile::raw(move |mut stream, _| {
        let (asked, documents) = (std::sync::Arc::clone(&asked), std::sync::Arc::clone(&documents));
        async move {
            use tokio::io::AsyncWriteExt as _;
            let text = super::hostile::request(&mut stream).await;
            let path = text.split_whitespace().nth(1).unwrap_or_default().to_owned();
            // After the first cards it answers nothing any more.
            if asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 6 {
                std::future::pending::<()>().await;
            }
            let body = documents.get(&path).map(Value::to_string);
            let (status, body) = body.map_or((404, String::new()), |body| (200, body));
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    })
    .await;
    let times = ConnectorSettings { inspect_timeout: Duration::from_secs(1), ..settings() };
    let reading = at(&Connector::new(times), raw.port, "").await.inspect().await.unwrap();
    assert_eq!(
        (reading.power, reading.identity.serial_number.as_deref()),
        (PowerState::PoweredOn, Some("AB1"))
    );
    assert!(reading.hardware.unread.contains(&crate::api::hardware::HardwarePart::Disks));
    let error = at(
        &Connector::new(ConnectorSettings { inspect_timeout: Duration::from_millis(200), ..settings() }),
        raw.port,
        "",
    )
    .await
    .inspect()
    .await
    .unwrap_err();
    assert_eq!(error.kind, BmcErrorKind::Timeout);
    assert!(error.message.contains("all that is read at once has"), "{error}");
}

/// A BMC of several systems: which of them have a reset action.
fn several(systems: &[(&str, bool)]) -> Value {
    let mut all = json!({
        "/redfish/v1/": {"Systems": link("/redfish/v1/Systems")},
        "/redfish/v1/Systems": {"Members": systems.iter().map(|(id, _)| link(&format!("/redfish/v1/Systems/{id}"))).collect::<Vec<_>>()},
    });
    for (id, has_reset) in systems {
        let mut system = json!({"Id": id, "PowerState": "On", "SerialNumber": "BOARD7"});
        if *has_reset {
            system["Actions"] = json!({"#ComputerSystem.Reset": {"target": "/r"}});
        }
        all[format!("/redfish/v1/Systems/{id}")] = system;
    }
    all
}

#[tokio::test]
async fn of_a_host_and_its_baseboard_the_one_that_can_be_switched_is_meant_and_nodes_are_told_apart() {
    let pair = tree(several(&[("HGX_Baseboard_0", false), ("System_0", true)]), false).await;
    let bmc = pair.client().await;
    bmc.probe().await.unwrap();
    assert_eq!(bmc.system().as_deref(), Some("System_0"));
    assert_eq!(bmc.systems().await.unwrap(), ["System_0"]);
    let nodes = tree(several(&[("Node0", true), ("Node1", true)]), false).await;
    let error = nodes.client().await.probe().await.unwrap_err();
    assert!(error.message.contains("Node0, Node1"), "{error}");
    let connector = Connector::new(settings());
    let mut seen = Vec::new();
    for node in ["Node0", "Node1"] {
        let bmc = at(&connector, nodes.raw.port, &format!("/redfish/v1/Systems/{node}")).await;
        seen.push(bmc.probe().await.unwrap().identity);
        assert_eq!(bmc.inspect().await.unwrap().identity, *seen.last().unwrap());
    }
    assert!(seen[0].is_another(&seen[1]), "{seen:?}");
    assert_eq!(seen[1].system.as_deref(), Some("Node1"));
    let alone = tree(several(&[("1", true)]), false).await;
    assert_eq!(alone.client().await.probe().await.unwrap().identity.system, None);
}
