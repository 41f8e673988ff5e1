//! The virtual CD drive.

use Effect::{Applied, Pretended, Refused};

use super::*;

const DRIVE: &str = "/redfish/v1/Managers/system-0001/VirtualMedia/CD1";

#[tokio::test(start_paused = true)]
async fn an_image_is_inserted_once_and_ejected() {
    let fleet = fleet();
    let act = async |action: &str, body: Value| {
        ask(&fleet, "POST", &format!("{DRIVE}/Actions/VirtualMedia.{action}"), body).await.0
    };
    let image = json!({"Image": "https://images.example/a.iso"});
    assert_eq!(read(&fleet, DRIVE).await["Inserted"], false);
    assert_eq!(act("InsertMedia", json!({"Image": "ftp://x"})).await, StatusCode::BAD_REQUEST);
    assert_eq!(act("InsertMedia", image.clone()).await, StatusCode::NO_CONTENT);
    assert_eq!(read(&fleet, DRIVE).await["Image"], image["Image"]);
    assert_eq!(fleet.system("system-0001").unwrap().media.as_deref(), image["Image"].as_str());
    assert_eq!(fleet.system("system-0002").unwrap().media, None);
    assert_eq!(act("InsertMedia", image.clone()).await, StatusCode::CONFLICT);
    fault(&fleet, json!({"count": 1, "behaviour": {"kind": "Lie"}})).await;
    assert_eq!(act("EjectMedia", json!({})).await, StatusCode::NO_CONTENT);
    assert_eq!(read(&fleet, DRIVE).await["Inserted"], true);
    fault(&fleet, json!({"count": 1, "behaviour": {"kind": "AsyncDelay", "ms": 5000}})).await;
    assert_eq!(act("EjectMedia", json!({})).await, StatusCode::NO_CONTENT);
    assert_eq!(read(&fleet, DRIVE).await["Inserted"], true);
    pass(5).await;
    assert_eq!(read(&fleet, DRIVE).await["Inserted"], false);
    let effects: Vec<Effect> =
        fleet.entries(Which::Mutating, Some("system-0001"), 0).iter().map(|entry| entry.effect).collect();
    assert_eq!(effects, [Refused, Applied, Refused, Pretended, Applied]);
    assert_eq!(ask(&fleet, "PATCH", DRIVE, image).await.0, StatusCode::METHOD_NOT_ALLOWED);
}
