//! Boot overrides of BMCs that take them at another resource, or want to be told the mode.

use serde_json::{Map, Value, json};

use super::maker::{Maker, Reply, Request, above, ok, refusal, status};
use super::*;
use crate::api::BootMode;
use crate::bmc::{BootOverride, OverrideEnabled, OverrideTarget};

const SYSTEM: &str = "/rf/one";
const SETTINGS: &str = "/rf/one/SD";

/// A BMC with a system and its settings, and which properties each of them takes.
struct Two {
    system: Map<String, Value>,
    settings: Map<String, Value>,
    refuse: fn(&str, &str) -> Option<Reply>,
}

fn boot(target: &str) -> Map<String, Value> {
    let enabled = if target == "None" { "Disabled" } else { "Once" };
    let all =
        [("BootSourceOverrideEnabled", enabled), ("BootSourceOverrideTarget", target), ("HttpBootUri", "")];
    all.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
}

fn answer(two: &mut Two, request: &Request) -> Reply {
    if let Some(reply) = above(request) {
        return reply;
    }
    let is_settings = request.path == SETTINGS;
    let place = if is_settings { &mut two.settings } else { &mut two.system };
    if request.method == "GET" {
        let mut shown = json!({"Id": if is_settings { "SD" } else { "one" }, "PowerState": "Off", "Boot": place,
            "@odata.etag": if is_settings { "\"2\"" } else { "W/\"1\"" }});
        if !is_settings {
            shown["@Redfish.Settings"] = json!({"SettingsObject": {"@odata.id": SETTINGS}});
        }
        return ok(&shown);
    }
    let wished = request.body["Boot"].as_object().unwrap();
    if let Some(reply) = wished.keys().find_map(|name| (two.refuse)(&request.path, name)) {
        return reply;
    }
    for (name, value) in wished {
        place.insert(name.clone(), value.clone());
    }
    status(200)
}

async fn bmc(settings: Map<String, Value>, refuse: fn(&str, &str) -> Option<Reply>) -> Maker {
    Maker::new(Two { system: boot("None"), settings, refuse }, answer).await
}

/// Sets an override by one client, reads it by the same one and by another of a process that knows nothing, and takes it back.
async fn set_read_and_clear(maker: &Maker) -> (BootOverride, BootOverride, BootOverride) {
    let bmc = maker.client().await;
    bmc.probe().await.unwrap();
    bmc.send(RequestKind::BootFromNetworkOnce, LONG).await.unwrap();
    let read = bmc.boot_override().await.unwrap();
    let elsewhere = maker.client().await.boot_override().await.unwrap();
    bmc.probe().await.unwrap();
    bmc.send(RequestKind::ClearBootOverride, LONG).await.unwrap();
    (read, elsewhere, bmc.boot_override().await.unwrap())
}

#[tokio::test]
async fn an_override_that_the_system_refuses_is_set_and_shown_at_its_settings() {
    let refusals: [fn(&str, &str) -> Option<Reply>; 6] = [
        |path, _| {
            (path == SYSTEM)
                .then(|| refusal(400, "PropertyNotWritable", &["Boot"], "Boot is a read-only property"))
        },
        |path, _| {
            (path == SYSTEM).then(|| refusal(400, "OperationSupportedInFutureStateURI", &[SETTINGS], ""))
        },
        |path, name| (path == SYSTEM).then(|| refusal(405, "PropertyNotWritable", &[name], "")),
        |path, _| (path == SYSTEM).then(|| status(405)),
        |path, _| (path == SYSTEM).then(|| refusal(400, "SYS999", &[], "The property is read only.")),
        |path, _| (path == SYSTEM).then(|| Reply { body: "Boot is read-only".to_owned(), ..status(400) }),
    ];
    for refuse in refusals {
        let maker = bmc(boot("None"), refuse).await;
        let (read, elsewhere, cleared) = set_read_and_clear(&maker).await;
        assert_eq!((read.enabled, read.target), (OverrideEnabled::Once, OverrideTarget::Network));
        assert_eq!(elsewhere, read, "whoever knows nothing yet sees it too");
        assert!(cleared.is_clear());
        assert_eq!(
            maker.log.changes(),
            ["PATCH /rf/one", "PATCH /rf/one/SD if \"2\"", "PATCH /rf/one/SD if \"2\""],
            "the place is learnt"
        );
    }
}

#[tokio::test]
async fn settings_with_the_boot_order_alone_are_no_place_for_an_override() {
    let order: Map<String, Value> = [("BootOrder".to_owned(), json!(["Boot0001"]))].into_iter().collect();
    let maker = bmc(order.clone(), |_, _| None).await;
    let (read, _, cleared) = set_read_and_clear(&maker).await;
    assert_eq!(read.target, OverrideTarget::Network);
    assert!(cleared.is_clear());
    assert!(maker.log.changes().iter().all(|line| line.starts_with("PATCH /rf/one") && !line.contains("SD")));
    // And what the system refuses is refused, in its words.
    let maker = bmc(order, |_, _| {
        Some(refusal(400, "PropertyNotWritable", &["Boot"], "Boot is a read-only property"))
    })
    .await;
    let bmc = maker.client().await;
    bmc.probe().await.unwrap();
    let error = bmc.send(RequestKind::BootFromNetworkOnce, LONG).await.unwrap_err();
    assert_eq!((&error.kind, error.delivery), (&BmcErrorKind::Refused, Delivery::Answered));
    assert!(error.message.contains("Boot is a read-only property"), "{error}");
    assert_eq!(maker.log.changes().len(), 1);
}

#[tokio::test]
async fn where_both_take_it_the_system_is_the_place_and_each_property_has_its_own() {
    let maker = bmc(boot("None"), |_, _| None).await;
    set_read_and_clear(&maker).await;
    assert!(maker.log.changes().iter().all(|line| !line.contains("SD")), "{:?}", maker.log.changes());
    // The settings refuse the address, and the system the override.
    let maker = bmc(boot("None"), |path, name| {
        let wrong = (path == SETTINGS) == (name == "HttpBootUri");
        wrong.then(|| refusal(400, "PropertyNotWritable", &[name], ""))
    })
    .await;
    let bmc = maker.client().await;
    let program = crate::bmc::ImageUrl::parse("http://192.0.2.5/snponly.efi").unwrap();
    for _ in 0..2 {
        bmc.probe().await.unwrap();
        bmc.send_with(RequestKind::BootFromHttpOnce, crate::bmc::Beside::BootUri(&program), LONG)
            .await
            .unwrap();
    }
    let read = bmc.boot_override().await.unwrap();
    assert_eq!((read.target, read.http_uri.as_deref()), (OverrideTarget::Http, Some(program.as_str())));
    let places: Vec<_> = maker.log.changes().iter().map(|line| line.contains("SD")).collect();
    assert_eq!(places, [false, true, false, true, false], "{:?}", maker.log.changes());
}

#[tokio::test]
async fn a_machine_in_its_self_test_is_waited_for_and_not_gone_around() {
    let maker = bmc(boot("None"), |path, _| {
        (path == SYSTEM)
            .then(|| refusal(400, "UnableToModifyDuringSystemPOST", &["Boot"], "read only during POST"))
    })
    .await;
    let bmc = maker.client().await;
    bmc.probe().await.unwrap();
    let error = bmc.send(RequestKind::BootFromNetworkOnce, LONG).await.unwrap_err();
    assert_eq!(error.kind, BmcErrorKind::Busy(None));
    assert_eq!(maker.log.changes(), ["PATCH /rf/one"]);
}

/// What is sent of the mode by a machine of that maker.
async fn mode_sent(system: Value, wished: Option<BootMode>) -> Result<Value, BmcError> {
    let answer = move |(): &mut (), request: &Request| match above(request) {
        Some(reply) => reply,
        None if request.method == "GET" => ok(&system),
        None => status(204),
    };
    let maker = Maker::new((), answer).await;
    let bmc = maker.client_of(&Connector::new(settings()).in_boot_mode(wished)).await;
    bmc.probe().await.unwrap();
    bmc.send(RequestKind::BootFromNetworkOnce, LONG).await?;
    Ok(maker.log.bodies()[0]["Boot"]["BootSourceOverrideMode"].clone())
}

#[tokio::test]
async fn the_mode_is_sent_along_where_the_maker_forgets_it_and_elsewhere_only_as_a_wish_that_differs() {
    let system = |maker: &str, mode: Value| {
        json!({"Id": "one", "PowerState": "Off", "Manufacturer": maker, "Boot": {"BootSourceOverrideMode": mode,
            "BootSourceOverrideMode@Redfish.AllowableValues": ["UEFI", "Legacy"]}})
    };
    let (uefi, legacy) = (Some(BootMode::UEFI), Some(BootMode::Legacy));
    for (maker, wished, expected) in [
        ("Supermicro", None, json!("UEFI")),
        ("ASRockRack", None, json!("UEFI")),
        ("AMI", legacy, json!("Legacy")),
        ("Supermicro", uefi, json!("UEFI")),
        ("Dell Inc.", None, Value::Null),
        ("HPE", uefi, Value::Null),
        ("HPE", legacy, json!("Legacy")),
    ] {
        let sent = mode_sent(system(maker, json!("UEFI")), wished).await.unwrap();
        assert_eq!(sent, expected, "{maker} {wished:?}");
    }
    assert_eq!(mode_sent(system("Supermicro", Value::Null), None).await.unwrap(), Value::Null);
    let old = json!({"Id": "one", "PowerState": "Off", "Manufacturer": "Supermicro", "Boot": {}});
    assert_eq!(mode_sent(old, legacy).await.unwrap(), Value::Null, "it has no such property");
    let mut only = system("Supermicro", json!("UEFI"));
    only["Boot"]["BootSourceOverrideMode@Redfish.AllowableValues"] = json!(["UEFI"]);
    let error = mode_sent(only, legacy).await.unwrap_err();
    assert_eq!(error.delivery, Delivery::NotSent);
    assert!(error.message.contains("spec.bmc.bootMode"), "{error}");
}
