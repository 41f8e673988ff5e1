//! `If-Match`, as BMCs demand it.

use serde_json::{Value, json};

use super::maker::{Log, Maker, Reply, Request, above, ok, status};
use super::*;

/// What a BMC demands of the header.
type Demand = fn(&str, Option<&str>, u32) -> bool;

/// A BMC with an ETag that changes with each change, and a demand by method; `refused` is what it says otherwise.
async fn bmc(etag: fn(u32) -> String, in_header: bool, refused: u16, demand: Demand) -> Maker {
    let answer = move |changes: &mut u32, request: &Request| -> Reply {
        if let Some(reply) = above(request) {
            return reply;
        }
        if request.method == "GET" {
            let mut system = json!({
                "Id": "one", "PowerState": "On",
                "Boot": {"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None"},
                "Actions": {"#ComputerSystem.Reset": {"target": "/rf/one/reset"}},
            });
            let etag = etag(*changes);
            if in_header || etag.is_empty() {
                return Reply { headers: vec![("etag", etag)], ..ok(&system) };
            }
            system["@odata.etag"] = json!(etag);
            return ok(&system);
        }
        if !demand(&request.method, request.if_match.as_deref(), *changes) {
            return status(if request.if_match.is_none() { refused } else { 412 });
        }
        *changes += 1;
        status(204)
    };
    Maker::new(0, answer).await
}

/// A boot override, a reset, and both once more by another client of the same process: what was sent for each.
async fn four(maker: &Maker) -> Vec<Vec<String>> {
    let connector = Connector::new(settings());
    let mut all = Vec::new();
    for _ in 0..2 {
        let bmc = maker.client_of(&connector).await;
        for kind in [RequestKind::BootFromNetworkOnce, RequestKind::ForceOff] {
            bmc.probe().await.unwrap();
            maker.log.clear();
            let done = bmc.send(kind, LONG).await;
            assert!(done.is_ok(), "{done:?} after {:?}", maker.log.changes());
            let guards = maker.log.changes();
            all.push(
                guards
                    .iter()
                    .map(|line| line.split_once(" if ").map_or("-", |(_, tag)| tag).to_owned())
                    .collect(),
            );
        }
    }
    all
}

#[tokio::test]
async fn what_a_bmc_demands_is_sent_once_more_and_first_the_next_time() {
    let weak: fn(u32) -> String = |n| format!("W/\"{n}\"");
    let strong: fn(u32) -> String = |n| format!("\"{n}\"");
    let none: fn(u32) -> String = |_| String::new();
    let as_given: Demand = |_, tag, n| tag == Some(&format!("W/\"{n}\"")) || tag == Some("*");
    for in_header in [false, true] {
        for demand in [428, 412] {
            let sent = four(&bmc(weak, in_header, demand, as_given).await).await;
            assert_eq!(sent, [vec!["-", "W/\"0\""], vec!["-", "W/\"1\""], vec!["W/\"2\""], vec!["W/\"3\""]]);
        }
    }
    // Demanded of a PATCH alone, and refused with an action: learnt apart.
    let patch_alone: Demand =
        |method, tag, n| if method == "PATCH" { tag == Some(&format!("\"{n}\"")) } else { tag.is_none() };
    let sent = four(&bmc(strong, false, 428, patch_alone).await).await;
    assert_eq!(sent, [vec!["\"0\""], vec!["\"1\"", "1", "-"], vec!["\"2\""], vec!["-"]]);
    let unquoted: Demand = |_, tag, n| tag == Some(&n.to_string());
    let sent = four(&bmc(strong, true, 428, unquoted).await).await;
    assert_eq!(sent[0], ["\"0\"", "0"]);
    assert_eq!(sent[2..], [["2"], ["3"]]);
    let stripped: Demand = |_, tag, n| tag == Some(&format!("\"{n}\""));
    let sent = four(&bmc(weak, true, 428, stripped).await).await;
    assert_eq!(sent[0], ["-", "W/\"0\"", "\"0\""]);
    assert_eq!(sent[2..], [["\"2\""], ["\"3\""]]);
    let any: Demand = |_, tag, _| tag == Some("*");
    let sent = four(&bmc(none, true, 428, any).await).await;
    assert_eq!(sent, [vec!["-", "*"], vec!["-", "*"], vec!["*"], vec!["*"]]);
    // The usual one is spoken to as ever.
    let usual: Demand = |_, tag, n| tag.is_none() || tag == Some(&format!("\"{n}\""));
    let sent = four(&bmc(strong, false, 428, usual).await).await;
    assert_eq!(sent, [["\"0\""], ["\"1\""], ["\"2\""], ["\"3\""]]);
}

#[tokio::test]
async fn a_bmc_that_takes_no_precondition_at_all_is_not_asked_for_ever_and_no_reason_is_invented() {
    let never: Demand = |_, _, _| false;
    for (refused, kind) in [(428, BmcErrorKind::Refused), (412, BmcErrorKind::Busy(None))] {
        let maker = bmc(|n| format!("W/\"{n}\""), false, refused, never).await;
        let bmc = maker.client().await;
        bmc.probe().await.unwrap();
        let error = bmc.send(RequestKind::BootFromNetworkOnce, LONG).await.unwrap_err();
        assert!(matches!(error.kind, BmcErrorKind::Busy(None)) || error.kind == kind, "{error}");
        assert_eq!(error.delivery, Delivery::Answered);
        assert!(!error.message.contains("has changed"), "{error}");
        let first = maker.log.changes().len();
        assert!((2..=6).contains(&first), "{:?}", maker.log.changes());
        bmc.probe().await.unwrap();
        maker.log.clear();
        bmc.send(RequestKind::BootFromNetworkOnce, LONG).await.unwrap_err();
        assert_eq!(maker.log.changes().len(), 1, "the next one is sent as it is");
    }
}

#[tokio::test]
async fn an_etag_that_changes_with_every_read_is_no_change_of_the_machine() {
    let answer = |reads: &mut u32, request: &Request| -> Reply {
        if let Some(reply) = above(request) {
            return reply;
        }
        if request.method == "GET" {
            *reads += 1;
            return ok(&json!({"Id": "one", "PowerState": "On", "@odata.etag": format!("\"{reads}\"")}));
        }
        status(if request.if_match.as_deref() == Some("*") { 204 } else { 412 })
    };
    let maker = Maker::new(0, answer).await;
    let bmc = maker.client().await;
    bmc.probe().await.unwrap();
    bmc.send(RequestKind::BootFromNetworkOnce, LONG).await.unwrap();
    assert!(maker.log.changes().len() <= 6, "{:?}", maker.log.changes());
}

/// Whatever is refused for its precondition while the machine was switched is left alone.
#[tokio::test]
async fn a_machine_that_was_switched_meanwhile_is_left_alone_and_that_is_said() {
    for refused in [428, 412] {
        let answer = move |is_on: &mut bool, request: &Request| -> Reply {
            if let Some(reply) = above(request) {
                return reply;
            }
            if request.method == "GET" {
                let state = if *is_on { "On" } else { "Off" };
                *is_on = false;
                return ok(&json!({"Id": "one", "PowerState": state, "@odata.etag": "W/\"1\"",
                    "Actions": {"#ComputerSystem.Reset": {"target": "/rf/reset"}}}));
            }
            status(if request.if_match.is_none() { refused } else { 204 })
        };
        let maker = Maker::new(true, answer).await;
        let bmc = maker.client().await;
        bmc.probe().await.unwrap();
        let error = bmc.send(RequestKind::ForceOff, LONG).await.unwrap_err();
        assert_eq!((&error.kind, error.delivery), (&BmcErrorKind::Busy(None), Delivery::Answered));
        assert!(error.message.contains("has changed since it was read"), "{error}");
        assert_eq!(maker.log.changes().len(), 1);
    }
}

#[tokio::test]
async fn a_virtual_drive_is_guarded_where_the_bmc_demands_it() {
    let answer = |image: &mut Value, request: &Request| -> Reply {
        if let Some(reply) = above(request) {
            return reply;
        }
        match request.path.as_str() {
            "/rf/one" => {
                ok(&json!({"Id": "one", "PowerState": "On", "VirtualMedia": {"@odata.id": "/rf/vm"}}))
            }
            "/rf/vm" => ok(&json!({"Members": [{"@odata.id": "/rf/cd"}]})),
            "/rf/cd" => ok(
                &json!({"Id": "CD1", "MediaTypes": ["CD"], "@odata.etag": "W/\"7\"", "Image": image, "Inserted": !image.is_null(),
                "Actions": {"#VirtualMedia.InsertMedia": {"target": "/rf/cd/in"}}}),
            ),
            _ if request.if_match.as_deref() == Some("W/\"7\"") => {
                *image = request.body["Image"].clone();
                status(204)
            }
            _ => status(428),
        }
    };
    let maker = Maker::new(Value::Null, answer).await;
    let bmc = maker.client().await;
    bmc.probe().await.unwrap();
    let image = crate::bmc::ImageUrl::parse("https://images.example/a.iso").unwrap();
    bmc.send_with(RequestKind::InsertMedia, crate::bmc::Beside::Image(&image), LONG).await.unwrap();
    let log: &Log = &maker.log;
    assert_eq!(log.changes(), ["POST /rf/cd/in", "POST /rf/cd/in if W/\"7\""]);
}
