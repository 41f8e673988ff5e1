//! An installation of a machine whose cards nobody could read yet.

use autobuild::api::Reason;
use autobuild::api::condition::ConditionType;
use e2e::fleet::{BootFiles, Fleet, Layout, QUICK_INSTALLS};
use serde_json::json;

use crate::installation::installed;
use crate::steps::system;

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_waits_for_cards_that_cannot_be_read_and_never_says_that_there_is_none() {
    let fleet = Fleet::with(Layout::new(1).emulator(QUICK_INSTALLS)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    fleet.image("debian-12", &files, &[]).await.unwrap();
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    let broken = json!({ "kind": "Status", "status": 500 });
    let rule = json!({ "system": name, "path": "*/EthernetInterfaces*", "behaviour": broken });
    let rule = fleet.bmcs().fault(rule).await.unwrap();
    fleet.declare(&name, json!({ "power": "PoweredOn", "image": { "name": "debian-12" } })).await.unwrap();
    let why = fleet.wait_reason(&name, ConditionType::Ready, Reason::BMCProtocolError).await.unwrap();
    assert!(why.contains("network interfaces that cannot be read"), "{why}");
    assert!(fleet.bmcs().changes(&name).await.unwrap().is_empty(), "something was sent");
    fleet.bmcs().mend(rule).await.unwrap();
    installed(&fleet, &name, "debian-12").await.unwrap();
    fleet.end().await.unwrap();
}
