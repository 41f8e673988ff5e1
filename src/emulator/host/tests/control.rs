//! The control interface and the scenario file, as far as hosts go.

use super::super::super::Scenario;
use super::*;

#[tokio::test]
async fn boot_url_disk_and_rules_are_set_and_shown_by_the_control_interface() {
    let fleet = Fleet::builder().systems(2).build().unwrap();
    let get = async |path: &str| ask(&fleet, "GET", path, Value::Null).await.1;
    assert_eq!(get("/emulator/boot-url").await, json!({"url": null}));
    let set = json!({"url": "http://192.0.2.1:8080"});
    assert_eq!(ask(&fleet, "POST", "/emulator/boot-url", set).await.0, StatusCode::NO_CONTENT);
    assert_eq!(fleet.boot_url().unwrap().to_string(), "http://192.0.2.1:8080");
    let refused = json!({"url": "https://192.0.2.1"});
    let (status, body) = ask(&fleet, "POST", "/emulator/boot-url", refused).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(body.as_str().unwrap().contains("https://192.0.2.1"), "{body}");

    let disk = format!("/emulator/systems/{ONE}/disk");
    assert_eq!(ask(&fleet, "POST", &disk, json!({"disk": "Unknown"})).await.0, StatusCode::NO_CONTENT);
    let view = get(&format!("/emulator/systems/{ONE}")).await;
    assert_eq!((&view["disk"], &view["booted"]), (&json!({"kind": "Unknown"}), &json!("Nothing")));
    assert_eq!(ask(&fleet, "POST", "/emulator/systems/x/disk", json!({"disk": "Empty"})).await.0, 404);

    let rule = json!({"system": ONE, "count": 1, "behaviour": {"kind": "Hang", "at_percent": 10}});
    let (status, body) = ask(&fleet, "POST", "/emulator/hosts", rule).await;
    assert_eq!((status, &body["id"]), (StatusCode::CREATED, &json!(1)));
    assert_eq!(get("/emulator/hosts").await["rules"][0]["rule"]["behaviour"]["at_percent"], 10);
    let nobody = json!({"system": "rack-9", "behaviour": {"kind": "StayInPost"}});
    let (status, body) = ask(&fleet, "POST", "/emulator/hosts", nobody).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body["error"].as_str().unwrap().contains("rack-9"), "{body}");
    assert_eq!(ask(&fleet, "DELETE", "/emulator/hosts/1", Value::Null).await.0, StatusCode::NO_CONTENT);
    assert_eq!(ask(&fleet, "DELETE", "/emulator/hosts/1", Value::Null).await.0, StatusCode::NOT_FOUND);
    assert_eq!(ask(&fleet, "DELETE", "/emulator/hosts", Value::Null).await.1["deleted"], 0);

    let all = get("/emulator/hosts/behaviours").await;
    assert_eq!(all.as_array().unwrap().len(), HostBehaviour::examples().len());
    assert!(all[0]["explain"].is_string());
    assert_eq!(get("/emulator/effects/hosts").await["entries"], json!([]));
}

#[tokio::test]
async fn a_scenario_declares_disks_and_hosts() {
    let digest = format!("sha256:{}", "cd".repeat(32));
    let scenario = Scenario::parse(&format!(
        "systems:\n- {{name: system-0002, power: PoweredOn, disk: '{digest}'}}\n- {{name: system-0003, disk: Unknown}}\n\
         hosts:\n- {{system: system-0001, behaviour: {{kind: LosePower, at_percent: 70}}}}\n"
    ))
    .unwrap();
    let fleet = Fleet::builder().systems(3).scenario(scenario).build().unwrap();
    let disks = fleet.systems().into_iter().map(|view| view.disk).collect::<Vec<_>>();
    assert_eq!(disks, [Disk::Empty, digest.parse().unwrap(), Disk::Unknown]);
    assert_eq!(fleet.system("system-0002").unwrap().booted, Booted::DiskImage);
    assert_eq!(fleet.host_rules()[0].rule.behaviour, HostBehaviour::LosePower { at_percent: 70 });

    let wrong = Scenario::parse("hosts: [{system: rack-9, behaviour: {kind: StayInPost}}]").unwrap();
    let error = Fleet::builder().scenario(wrong).build().unwrap_err().to_string();
    assert!(error.contains("hosts[0].system is 'rack-9'"), "{error}");
    let error = Scenario::parse("systems: [{name: system-0001, disk: Full}]").unwrap_err().to_string();
    assert!(error.contains("Full") && error.contains("Empty"), "{error}");
}
