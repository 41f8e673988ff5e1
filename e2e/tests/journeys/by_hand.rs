//! Power that is switched by the button, behind AutoBuild's back.

use autobuild::api::hardware::PowerState;
use autobuild::job::{Action, JobResult};
use e2e::fleet::{Fleet, Layout, is_ready};
use serde_json::json;

use crate::steps::{asked_for, ended, system};

#[tokio::test(flavor = "multi_thread")]
async fn power_that_was_switched_by_the_button_is_corrected_where_it_is_wished_and_else_only_shown() {
    let fleet = Fleet::with(Layout::new(2).emulator(&["--initial-power", "on"])).await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "2s");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let (wished, free) = (system(1), system(2));
    fleet.declare(&wished, json!({ "power": "PoweredOn" })).await.unwrap();
    fleet.declare(&free, json!({})).await.unwrap();
    for name in [&wished, &free] {
        fleet.wait_ready(name).await.unwrap();
        fleet.bmcs().press(name, "Off").await.unwrap();
    }
    ended(&fleet, &wished, Action::PowerOn, JobResult::Succeeded).await.unwrap();
    assert_eq!(fleet.bmcs().power(&wished).await.unwrap(), "On");
    asked_for(&fleet, &wished, &["on"]).await.unwrap();
    fleet
        .wait(&free, "Ready, shown as off", |server| {
            let power = server.status.as_ref().and_then(|status| status.power);
            power == Some(PowerState::PoweredOff) && is_ready(server)
        })
        .await
        .unwrap();
    asked_for(&fleet, &free, &[]).await.unwrap();
    // The looks that found this are nobody's business.
    for name in [&wished, &free] {
        let looks = fleet.shown().jobs(name).into_values().filter(|action| action == "Inspect").count();
        assert!(looks <= 1, "{name}: {looks} inspections were shown");
        let events = fleet.events(name).await.unwrap();
        // The first one may be shown while it runs: that is its beginning.
        let told = events.iter().filter(|(_, note)| note.starts_with("Inspect succeeded")).count();
        assert!(told <= 1, "{events:?}");
    }
    fleet.end().await.unwrap();
}
