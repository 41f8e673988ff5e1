//! BMCs that say yes and mean something else: nothing counts as done that was not seen.

use anyhow::{Result, ensure};
use autobuild::api::Reason;
use autobuild::api::condition::ConditionType;
use autobuild::job::Action;
use e2e::fleet::{Fleet, LIMIT, Layout, is_ready};
use e2e::wait::{Look, wait_for};
use serde_json::{Value, json};

use crate::{Case, all, says};

async fn with_rule(
    fleet: &Fleet,
    system: &str,
    behaviour: Value,
    count: Option<u32>,
    wish: Value,
) -> Result<u64> {
    fleet.declare(system, json!({})).await?;
    fleet.wait_ready(system).await?;
    let mut rule = json!({ "system": system, "method": "POST", "behaviour": behaviour });
    if let Some(count) = count {
        rule["count"] = json!(count);
    }
    let id = fleet.bmcs().fault(rule).await?;
    fleet.change(system, wish).await?;
    Ok(id)
}

/// It accepts and nothing comes of it; asked again when a person says so.
async fn pretends(fleet: &Fleet, system: &str, behaviour: Value) -> Result<()> {
    let rule = with_rule(fleet, system, behaviour, None, json!({ "power": "PoweredOn" })).await?;
    let message = fleet.wait_reason(system, ConditionType::Stalled, Reason::PowerStateMismatch).await?;
    says(
        &message,
        &["accepted", "still reads PoweredOff", "not PoweredOn", "look at the machine and its BMC"],
    )?;
    ensure!(fleet.records().finished(system, "PowerOn").await?.iter().all(|past| past.result == "Failed"));
    let note = fleet.wait_event(system, Reason::PowerStateMismatch).await?;
    says(&note, &["still reads PoweredOff"])?;
    let resets = fleet.bmcs().resets(system).await?;
    ensure!(resets == ["on"], "it was asked for {resets:?}");
    fleet.bmcs().mend(rule).await?;
    let at = k8s_openapi::jiff::Timestamp::now().to_string();
    let annotation = format!("{}={at}", autobuild::api::names::RECONCILE_REQUESTED_AT);
    fleet.kubectl().in_namespace(fleet.namespace()).run(&["annotate", "server", system, &annotation]).await?;
    fleet.wait_ready(system).await?;
    ensure!(fleet.bmcs().power(system).await? == "On");
    Ok(())
}

/// It gets there and falls back: the next inspection notices, and it is asked again.
async fn reverts(fleet: &Fleet, system: &str) -> Result<()> {
    let behaviour = json!({ "kind": "Revert", "after_ms": 4000 });
    with_rule(fleet, system, behaviour, Some(1), json!({ "power": "PoweredOn" })).await?;
    wait_for("the machine to be asked again", LIMIT, async || {
        let resets = fleet.bmcs().resets(system).await?;
        Ok(if resets == ["on", "on"] { Look::Holds(()) } else { Look::NotYet(format!("{resets:?}")) })
    })
    .await?;
    fleet
        .wait(system, "on for good", |server| {
            let last = server.status.as_ref().and_then(|status| status.last_job.as_ref());
            last.is_some_and(|job| job.action == Action::PowerOn) && is_ready(server)
        })
        .await?;
    wait_for("the machine to be on", LIMIT, async || {
        let power = fleet.bmcs().power(system).await?;
        Ok(if power == "On" { Look::Holds(()) } else { Look::NotYet(power) })
    })
    .await
}

async fn ignores_grace(fleet: &Fleet, system: &str) -> Result<()> {
    fleet.bmcs().press(system, "On").await?;
    with_rule(fleet, system, json!({ "kind": "IgnoreGraceful" }), None, json!({ "power": "PoweredOff" }))
        .await?;
    fleet.wait_ready(system).await?;
    let changes = fleet.bmcs().changes(system).await?;
    let resets: Vec<&str> = changes.iter().filter_map(|one| one.reset.as_deref()).collect();
    ensure!(resets == ["GracefulShutdown", "ForceOff"], "it was asked for {resets:?}");
    ensure!(fleet.bmcs().power(system).await? == "Off");
    Ok(())
}

/// It refuses to shut down softly until the deadline: then the power is cut, and that is told.
async fn refuses_grace_for_good(fleet: &Fleet, system: &str) -> Result<()> {
    fleet.bmcs().press(system, "On").await?;
    let behaviour = json!({ "kind": "Status", "status": 503 });
    fleet
        .bmcs()
        .fault(json!({ "system": system, "reset": "GracefulShutdown", "behaviour": behaviour }))
        .await?;
    fleet.declare(system, json!({ "power": "PoweredOff" })).await?;
    fleet.wait_ready(system).await?;
    let asked = asked_for(fleet, system).await?;
    ensure!(asked == ["ForceOff"], "it carried out {asked:?}");
    let note = fleet.wait_event(system, Reason::ShutdownForced).await?;
    says(&note, &["the power was cut without a shutdown", "refused for 2 s"])?;
    Ok(())
}

/// The request takes effect, and its answer never comes: it is not sent again.
async fn sent_once(fleet: &Fleet, system: &str, behaviour: Value) -> Result<()> {
    with_rule(fleet, system, behaviour, Some(1), json!({ "power": "PoweredOn" })).await?;
    fleet.wait_ready(system).await?;
    let resets = fleet.bmcs().resets(system).await?;
    ensure!(resets == ["on"], "it was asked for {resets:?}");
    Ok(())
}

/// A refusal for good says the BMC's own words.
async fn refuses(fleet: &Fleet, system: &str) -> Result<()> {
    let behaviour = json!({ "kind": "Status", "status": 400 });
    let rule = with_rule(fleet, system, behaviour, None, json!({ "power": "PoweredOn" })).await?;
    let message = fleet.wait_reason(system, ConditionType::Stalled, Reason::RequestRefused).await?;
    says(&message, &["refuses", "(400)"])?;
    fleet.bmcs().mend(rule).await?;
    fleet.change(system, json!({ "power": "PoweredOff" })).await?;
    fleet.wait_ready(system).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_counts_as_done_that_was_not_seen_and_nothing_is_sent_twice() {
    let fleet = Fleet::with(Layout::new(8)).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let flags = fleet.worker_flags().with(&[("--power-deadline", "2s"), ("--shutdown-deadline", "2s")]);
    let _worker = fleet.worker_with("worker", &flags, &[]).await.unwrap();
    let fleet = &fleet;
    let late = |then: &str| json!({ "kind": "Late", "effect_ms": 500, "then": then });
    let cases: Vec<Case<'_>> = vec![
        ("a liar", Box::pin(pretends(fleet, "system-0001", json!({ "kind": "Lie" })))),
        ("one that reverts", Box::pin(reverts(fleet, "system-0002"))),
        ("a deaf guest", Box::pin(ignores_grace(fleet, "system-0003"))),
        ("a lost answer", Box::pin(sent_once(fleet, "system-0004", json!({ "kind": "AnswerLost" })))),
        ("late, hanging", Box::pin(sent_once(fleet, "system-0005", late("Hang")))),
        ("late, closed", Box::pin(sent_once(fleet, "system-0006", late("Close")))),
        ("a refusal", Box::pin(refuses(fleet, "system-0007"))),
        ("no grace", Box::pin(refuses_grace_for_good(fleet, "system-0008"))),
    ];
    all(cases).await;
    fleet.end().await.unwrap();
}

/// The resets that it carried out, by their own names: one that was refused changed nothing.
async fn asked_for(fleet: &Fleet, system: &str) -> Result<Vec<String>> {
    let changes = fleet.bmcs().changes(system).await?;
    Ok(changes.into_iter().filter_map(|one| one.reset).collect())
}

/// It runs, and refuses to shut down softly in this way.
async fn refuses_grace(
    fleet: &Fleet,
    system: &str,
    rule: Value,
    wish: Value,
    expected: &[&str],
) -> Result<()> {
    fleet.bmcs().press(system, "On").await?;
    fleet.declare(system, json!({ "power": "PoweredOn" })).await?;
    fleet.wait_ready(system).await?;
    let mut rule = rule;
    rule["system"] = json!(system);
    rule["reset"] = json!("GracefulShutdown");
    fleet.bmcs().fault(rule).await?;
    fleet.change(system, wish).await?;
    let done = |server: &autobuild::api::Server| {
        let last = server.status.as_ref().and_then(|status| status.last_job.as_ref());
        last.is_some_and(|job| job.action != Action::Inspect && job.action != Action::PowerOn)
            && is_ready(server)
    };
    fleet.wait(system, "done and Ready", done).await?;
    let asked = asked_for(fleet, system).await?;
    ensure!(asked == expected, "it was asked for {asked:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_that_is_refused_for_now_is_asked_for_again_and_only_what_is_not_offered_cuts_the_power() {
    let fleet = Fleet::with(Layout::new(4)).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let flags = fleet.worker_flags().set("--shutdown-deadline", "60s");
    let _worker = fleet.worker_with("worker", &flags, &[]).await.unwrap();
    let fleet = &fleet;
    let off = json!({ "power": "PoweredOff" });
    let status = |status: u16, id: &str| json!({ "kind": "Status", "status": status, "message_id": format!("Base.1.12.{id}") });
    let soft = ["GracefulShutdown"];
    let bare = json!({ "count": 2, "behaviour": { "kind": "Status", "status": 409 } });
    let updating = json!({ "count": 2, "behaviour": status(400, "ResourceInUse") });
    let rebooted = ["GracefulShutdown", "On"];
    let failed = json!({ "count": 2, "behaviour": { "kind": "Html", "status": 500 } });
    let missing = json!({ "behaviour": status(400, "ActionNotSupported") });
    let cases: Vec<Case<'_>> = vec![
        ("a bare 409", Box::pin(refuses_grace(fleet, "system-0001", bare, off.clone(), &soft))),
        (
            "in use, before a reboot",
            Box::pin(refuses_grace(
                fleet,
                "system-0002",
                updating,
                json!({ "rebootToken": "one" }),
                &rebooted,
            )),
        ),
        ("a page", Box::pin(refuses_grace(fleet, "system-0003", failed, off.clone(), &soft))),
        ("not offered", Box::pin(refuses_grace(fleet, "system-0004", missing, off, &["ForceOff"]))),
    ];
    all(cases).await;
    let note = fleet.wait_event("system-0004", Reason::ShutdownForced).await.unwrap();
    says(&note, &["the power was cut without a shutdown", "ActionNotSupported"]).unwrap();
    fleet.end().await.unwrap();
}
