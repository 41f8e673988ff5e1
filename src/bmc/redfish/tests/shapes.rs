//! Trees of other makers, served from a table of documents.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::hostile::{Raw, raw, request};
use super::*;

/// What was asked, in order: the request line, and a line `if-match: …` where there was one.
pub(super) type Asked = Arc<Mutex<Vec<String>>>;

/// Serves each document at its path, one connection for each request; a number is a status without a body.
pub(super) async fn tree(documents: Value) -> (Raw, Asked) {
    let documents: Arc<BTreeMap<String, Value>> = Arc::new(serde_json::from_value(documents).unwrap());
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    let raw = raw(move |mut stream, _| {
        let (documents, log) = (Arc::clone(&documents), Arc::clone(&log));
        async move {
            let text = request(&mut stream).await;
            let line = text.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
            log.lock().unwrap().push(line.clone());
            let if_match = text.lines().find(|line| line.to_ascii_lowercase().starts_with("if-match"));
            log.lock().unwrap().extend(if_match.map(str::to_owned));
            let found = documents.get(line.trim_start_matches("GET ")).cloned().unwrap_or(json!(404));
            let (status, body) = match found.as_u64() {
                Some(status) => (status, String::new()),
                None => (200, found.to_string()),
            };
            // It closes without saying so, as many do.
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    })
    .await;
    (raw, asked)
}

#[allow(clippy::needless_pass_by_value)]
pub(super) fn with(system: Value, more: Value) -> Value {
    let mut all = json!({
        "/redfish/v1/": {"Systems": {"@odata.id": "/rf/all"}},
        "/rf/all": {"Members": [{"@odata.id": "/rf/one"}]},
        "/rf/one": system,
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

async fn inspect(documents: Value) -> Result<crate::job::Reading, BmcError> {
    let (raw, _) = tree(documents).await;
    at(&Connector::new(settings()), raw.port, "").await.inspect().await
}

#[tokio::test]
async fn links_are_followed_wherever_they_lead_and_the_order_is_ours() {
    let reading = inspect(with(
        json!({
            "Id": "one", "PowerState": "On", "SerialNumber": "0000000000", "Manufacturer": "To be filled by O.E.M.",
            "Model": "Rack 3", "MemorySummary": {"TotalSystemMemoryGiB": 127.5},
            "Processors": {"@odata.id": "/rf/cpus"}, "EthernetInterfaces": {"@odata.id": "/rf/nics"},
            "SimpleStorage": {"@odata.id": "/rf/simple"},
        }),
        json!({
            "/rf/cpus": {"Members": [{"@odata.id": "/rf/c1"}, {"@odata.id": "/rf/g1"}, {"@odata.id": "/rf/c2"}]},
            "/rf/c1": {"Id": "1", "ProcessorType": "CPU"}, "/rf/c2": {"Id": "2", "ProcessorType": "CPU"},
            "/rf/g1": {"Id": "3", "ProcessorType": "GPU"},
            "/rf/nics": {"Members": [{"@odata.id": "/rf/n10"}], "Members@odata.nextLink": "/rf/nics2"},
            "/rf/nics2": {"Members": [{"@odata.id": "/rf/n2"}, {"@odata.id": "/rf/gone"}]},
            "/rf/n10": {"Id": "NIC10", "PermanentMACAddress": "02-AA-BB-CC-DD-0A"},
            "/rf/n2": {"Id": "NIC2", "MACAddress": "02:AA:BB:CC:DD:02", "SpeedMbps": 1000},
            "/rf/simple": {"Members": [{"@odata.id": "/rf/s1"}]},
            "/rf/s1": {"Devices": [{"Name": "SATA 2", "CapacityBytes": 5}, {"Name": "SATA 1", "Model": "M"}, 7]},
        }),
    ))
    .await
    .unwrap();
    assert_eq!((reading.power, reading.identity.serial_number), (PowerState::PoweredOn, None));
    let hardware = reading.hardware;
    assert_eq!((hardware.manufacturer, hardware.model.as_deref()), (None, Some("Rack 3")));
    assert_eq!((hardware.cpus, hardware.memory_gib), (Some(2), Some(127)));
    let macs: Vec<_> = hardware.nics.iter().filter_map(|nic| nic.mac_address.as_deref()).collect();
    assert_eq!(macs, ["02:aa:bb:cc:dd:02", "02:aa:bb:cc:dd:0a"]);
    let disks: Vec<_> = hardware.disks.iter().map(|disk| disk.name.as_str()).collect();
    assert_eq!(disks, ["SATA 1", "SATA 2"]);
}

#[tokio::test]
async fn a_part_that_is_there_and_cannot_be_read_is_told_and_one_that_is_missing_is_not() {
    use crate::api::hardware::HardwarePart::{Disks, NetworkInterfaces, Processors};
    let link = json!({"@odata.id": "/rf/broken"});
    let elsewhere = json!({"@odata.id": "http://192.0.2.1/x"});
    let both = json!({"Id": "one", "Storage": link, "EthernetInterfaces": link});
    for (system, broken, unread) in [
        (both.clone(), json!(404), vec![]),
        (both.clone(), json!(410), vec![]),
        (both.clone(), json!(405), vec![]),
        (both.clone(), json!(501), vec![]),
        (both.clone(), json!({"Members": []}), vec![]),
        (both.clone(), json!({"Members@odata.count": 0}), vec![]),
        (both.clone(), json!({"Members": [1, {}, null]}), vec![]),
        (json!({"Id": "one", "Storage": null}), json!(500), vec![]),
        (both.clone(), json!(500), vec![NetworkInterfaces, Disks]),
        (both.clone(), json!(403), vec![NetworkInterfaces, Disks]),
        (both.clone(), json!(503), vec![NetworkInterfaces, Disks]),
        (both, json!({"Members": {"a": 1}}), vec![NetworkInterfaces, Disks]),
        (
            json!({"Id": "one", "EthernetInterfaces": [], "Processors": "x"}),
            json!(404),
            vec![Processors, NetworkInterfaces],
        ),
        (json!({"Id": "one", "Storage": elsewhere, "ProcessorSummary": 1}), json!(404), vec![Disks]),
        (
            json!({"Id": 5, "Actions": 1, "UUID": {}, "LastResetTime": 5, "SerialNumber": []}),
            json!(404),
            vec![],
        ),
    ] {
        let told = format!("{system} {broken}");
        let reading = inspect(with(system, json!({"/rf/broken": broken}))).await.unwrap();
        let expected = crate::api::hardware::Hardware { unread, ..Default::default() };
        assert_eq!(reading.hardware, expected, "{told}");
    }
}

#[tokio::test]
async fn a_login_that_is_refused_in_the_middle_fails_an_inspection() {
    let system = json!({"Id": "one", "Storage": {"@odata.id": "/rf/part"}});
    let error = inspect(with(system, json!({"/rf/part": 401}))).await.unwrap_err();
    assert_eq!(error.kind, BmcErrorKind::Credentials);
}

#[tokio::test]
async fn one_card_that_cannot_be_read_does_not_hide_the_others_and_the_bmcs_own_is_none() {
    let reading = inspect(with(
        json!({"Id": "one", "EthernetInterfaces": {"@odata.id": "/rf/nics"}}),
        json!({
            "/rf/nics": {"Members": [{"@odata.id": "/rf/ib"}, {"@odata.id": "/rf/usb"}, {"@odata.id": "/rf/bad"}, {"@odata.id": "/rf/n1"}]},
            "/rf/ib": {"Id": "A", "MACAddress": "80:00:02:08:fe:80:00:00:00:00:00:00:00:11:22:33:44:55:66:77",
                       "PermanentMACAddress": "00:11:22:33:44:55:66:77"},
            "/rf/usb": {"Id": "B", "MACAddress": "02:00:5e:00:53:01", "Links": {"HostInterface": {"@odata.id": "/rf/hi"}}},
            "/rf/bad": 500,
            "/rf/n1": {"Id": "C", "MACAddress": "02:AA:BB:CC:DD:01"},
        }),
    ))
    .await
    .unwrap();
    let macs: Vec<_> = reading.hardware.nics.iter().filter_map(|nic| nic.mac_address.as_deref()).collect();
    assert_eq!(macs, ["00:11:22:33:44:55:66:77", "02:aa:bb:cc:dd:01"]);
    assert_eq!(reading.hardware.cards(), ["02:aa:bb:cc:dd:01".parse().unwrap()]);
    assert!(reading.hardware.may_have_more_nics());
}

#[tokio::test]
async fn a_system_is_known_by_its_own_id_where_its_path_is_another() {
    let documents = with(json!({"Id": "Node-A", "@odata.id": "/rf/one", "PowerState": "Off"}), json!({}));
    let (raw, _) = tree(documents).await;
    let connector = Connector::new(settings());
    let bmc = at(&connector, raw.port, "/redfish/v1/Systems/Node-A").await;
    assert_eq!(bmc.probe().await.unwrap().power, PowerState::PoweredOff);
    assert_eq!(bmc.probe().await.unwrap().power, PowerState::PoweredOff);
    assert_eq!(bmc.system().as_deref(), Some("one"));
    let error = at(&connector, raw.port, "/redfish/v1/Systems/Node-B").await.probe().await.unwrap_err();
    assert!(error.message.contains("\"Node-B\"") && error.message.contains("it has one"), "{error}");
}

#[tokio::test]
async fn a_bmc_that_shows_another_system_is_not_obeyed() {
    let documents = with(json!({"Id": "two", "@odata.id": "/rf/two", "PowerState": "Off"}), json!({}));
    let error = inspect(documents).await.unwrap_err();
    assert_eq!(error.kind, BmcErrorKind::Protocol);
    assert!(error.message.contains("\"one\"") && error.message.contains("\"two\""), "{error}");
}

#[tokio::test]
async fn the_reset_goes_where_the_system_says_with_what_it_offers() {
    let system = |target: &str| {
        json!({"Id": "one", "@odata.etag": "\"7\"", "PowerState": "Off", "Actions": {"#ComputerSystem.Reset": {
            "target": target, "@Redfish.ActionInfo": "/rf/info"}}})
    };
    let info = json!({"/rf/info": {"Parameters": [{"Name": "ResetType", "AllowableValues": ["ForceOn", "ForceOff"]}]}});
    let (raw, asked) = tree(with(system("/rf/act"), info.clone())).await;
    let bmc = at(&Connector::new(settings()), raw.port, "").await;
    bmc.probe().await.unwrap();
    let error = bmc.send(RequestKind::GracefulShutdown, LONG).await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::Unsupported, Delivery::NotSent));
    assert!(error.message.contains("it offers ForceOn, ForceOff"), "{}", error.message);
    bmc.probe().await.unwrap();
    let error = bmc.send(RequestKind::PowerOn, LONG).await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::NotFound, Delivery::Answered));
    let asked = asked.lock().unwrap().clone();
    assert_eq!(
        asked[3..],
        ["GET /rf/info", "GET /rf/one", "POST /rf/act", "if-match: \"7\""],
        "the offered types are read once"
    );

    let (raw, _) = tree(with(system("http://192.0.2.1/rf/act"), info)).await;
    let bmc = at(&Connector::new(settings()), raw.port, "").await;
    bmc.probe().await.unwrap();
    let error = bmc.send(RequestKind::PowerOn, LONG).await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::AddressNotAllowed, Delivery::NotSent));
}

#[tokio::test]
async fn an_endless_collection_ends() {
    let endless = json!({"/rf/nics": {"Members": [], "Members@odata.nextLink": "/rf/nics"}});
    let (raw, asked) =
        tree(with(json!({"Id": "one", "EthernetInterfaces": {"@odata.id": "/rf/nics"}}), endless)).await;
    at(&Connector::new(settings()), raw.port, "").await.inspect().await.unwrap();
    assert!(asked.lock().unwrap().len() < 50);
}

#[tokio::test]
async fn of_very_many_parts_as_many_are_told_as_status_holds() {
    let parts = |kind: &str, count: usize| {
        let members = (0..count).map(|number| json!({"@odata.id": format!("/rf/{kind}{number}")}));
        json!({"Members": members.collect::<Vec<_>>()})
    };
    let mut more = json!({"/rf/nics": parts("n", 70), "/rf/simple": {"Members": [{"@odata.id": "/rf/s"}]}});
    for number in 0..70 {
        let card = json!({"Id": number.to_string(), "MACAddress": format!("02:00:00:00:00:{number:02}")});
        more[format!("/rf/n{number}")] = card;
    }
    let disks = (0..140).map(|number| json!({"Name": number.to_string(), "CapacityBytes": 5}));
    more["/rf/s"] = json!({"Devices": disks.collect::<Vec<_>>()});
    let system = json!({
        "Id": "one", "PowerState": "On", "EthernetInterfaces": {"@odata.id": "/rf/nics"},
        "SimpleStorage": {"@odata.id": "/rf/simple"},
    });
    let hardware = inspect(with(system, more)).await.unwrap().hardware;
    assert_eq!((hardware.nics.len(), hardware.disks.len()), (64, 128));
}
