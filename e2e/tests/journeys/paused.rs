//! `spec.paused`: nothing is begun, what was begun is brought to a safe end.

use anyhow::{Result, ensure};
use autobuild::api::Reason;
use autobuild::api::condition::ConditionType;
use autobuild::job::{Action, JobResult};
use e2e::fleet::{Fleet, LIMIT, Layout, is_current, truth};
use e2e::wait::{Look, wait_for};
use serde_json::json;

use crate::steps::{asked_for, ended, handled, system};

async fn nothing_is_begun(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.declare(name, json!({})).await?;
    fleet.wait_ready(name).await?;
    fleet.change(name, json!({ "paused": true, "power": "PoweredOff", "rebootToken": "one" })).await?;
    let paused = |server: &autobuild::api::Server| {
        truth(server, ConditionType::Paused) == Some("True")
            && truth(server, ConditionType::Ready) == Some("False")
            && is_current(server)
    };
    fleet.wait(name, "paused with a difference", paused).await?;
    // Nor does a fresh look begin anything.
    ensure!(fleet.records().job(name).await?.is_none(), "a job was enqueued");
    asked_for(fleet, name, &[]).await?;
    fleet.change(name, json!({ "paused": null, "power": null })).await?;
    handled(fleet, name, "one").await?;
    asked_for(fleet, name, &["off", "on"]).await
}

/// Whether the BMC answers the off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Given,
    Lost,
}

/// A reboot whose off was sent ends with the machine on, whatever is wished meanwhile.
async fn a_running_reboot_is_ended(fleet: &Fleet, name: &str, answer: Answer) -> Result<()> {
    fleet.declare(name, json!({})).await?;
    fleet.wait_ready(name).await?;
    // The off is answered at once, or not at all, and takes its time: longer than an answer is waited for.
    let mut behaviours = vec![json!({ "kind": "AsyncDelay", "ms": 1500 })];
    if answer == Answer::Lost {
        behaviours = vec![json!({ "kind": "AsyncDelay", "ms": 5000 }), json!({ "kind": "AnswerLost" })];
    }
    for behaviour in behaviours {
        fleet
            .bmcs()
            .fault(json!({ "system": name, "method": "POST", "count": 1, "behaviour": behaviour }))
            .await?;
    }
    fleet.change(name, json!({ "rebootToken": "one" })).await?;
    off_was_sent(fleet, name).await?;
    fleet.change(name, json!({ "paused": true })).await?;
    fleet
        .wait(name, "paused, without a job", |server| {
            let job = server.status.as_ref().and_then(|status| status.job.as_ref());
            truth(server, ConditionType::Paused) == Some("True") && job.is_none() && is_current(server)
        })
        .await?;
    ensure!(fleet.bmcs().power(name).await? == "On", "paused, and left off");
    asked_for(fleet, name, &["off", "on"]).await?;
    fleet.change(name, json!({ "paused": false })).await?;
    handled(fleet, name, "one").await?;
    asked_for(fleet, name, &["off", "on"]).await
}

/// A queued job goes without a trace on the BMC, and comes back.
async fn a_queued_job_goes(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.declare(name, json!({})).await?;
    fleet.wait_ready(name).await?;
    let away = fleet.bmcs().misbehave(name, json!({ "kind": "Offline", "by": "ServiceUnavailable" })).await?;
    fleet.change(name, json!({ "power": "PoweredOff" })).await?;
    wait_for("a power-off that waits", LIMIT, async || {
        let job = fleet.records().job(name).await?;
        let waits = job.as_ref().is_some_and(|job| job.action == "PowerOff" && job.waiting_for.is_some());
        Ok(if waits { Look::Holds(()) } else { Look::NotYet(format!("{job:?}")) })
    })
    .await?;
    fleet.change(name, json!({ "paused": true })).await?;
    wait_for("it to be gone", LIMIT, async || {
        let job = fleet.records().job(name).await?;
        Ok(if job.is_none() { Look::Holds(()) } else { Look::NotYet(format!("{job:?}")) })
    })
    .await?;
    fleet.wait_reason(name, ConditionType::Paused, Reason::Paused).await?;
    fleet.bmcs().mend(away).await?;
    fleet.change(name, json!({ "paused": false })).await?;
    ended(fleet, name, Action::PowerOff, JobResult::Succeeded).await?;
    asked_for(fleet, name, &["off"]).await
}

pub(crate) async fn off_was_sent(fleet: &Fleet, name: &str) -> Result<()> {
    wait_for(&format!("{name}: the off to arrive"), LIMIT, async || {
        let asked = fleet.bmcs().resets(name).await?;
        Ok(if asked.is_empty() { Look::NotYet(format!("{asked:?}")) } else { Look::Holds(()) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_paused_nothing_is_begun_and_what_was_begun_ends_safely() {
    let fleet = Fleet::with(Layout::new(4).emulator(&["--initial-power", "on"])).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let (one, two, three, four) = (system(1), system(2), system(3), system(4));
    tokio::try_join!(
        nothing_is_begun(&fleet, &one),
        a_running_reboot_is_ended(&fleet, &two, Answer::Given),
        a_running_reboot_is_ended(&fleet, &four, Answer::Lost),
        a_queued_job_goes(&fleet, &three)
    )
    .unwrap();
    fleet.end().await.unwrap();
}
