//! BMCs that do not answer, or not as they should: each is told apart, the others go on, and it recovers by itself.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use autobuild::api::Reason;
use autobuild::api::condition::ConditionType;
use e2e::fleet::{Fleet, LIMIT, metric};
use e2e::wait::{Look, wait_for};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{Case, all, says};

/// From the first look on the BMC behaves so; then it is mended.
async fn misbehaving(
    fleet: &Fleet,
    system: &str,
    behaviour: Value,
    reason: Reason,
    parts: &[&str],
) -> Result<()> {
    let rule = fleet.bmcs().misbehave(system, behaviour).await?;
    fleet.declare(system, json!({ "power": "PoweredOn" })).await?;
    says(&fleet.wait_reason(system, ConditionType::Reachable, reason).await?, parts)?;
    // A BMC that asks for patience is at work; about the others Ready says the same.
    let ready = if reason == Reason::BMCBusy { Reason::Inspecting } else { reason };
    says(&fleet.wait_reason(system, ConditionType::Ready, ready).await?, parts)?;
    let changes = fleet.bmcs().changes(system).await?;
    ensure!(changes.is_empty(), "it was asked for {changes:?}");
    fleet.bmcs().mend(rule).await?;
    fleet.wait_ready(system).await?;
    let resets = fleet.bmcs().resets(system).await?;
    ensure!(resets == ["on"], "it was asked for {resets:?}");
    Ok(())
}

async fn nobody_listens(fleet: &Fleet, system: &str) -> Result<()> {
    let free = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let right = fleet.manifest(system)["spec"]["bmc"]["address"].clone();
    fleet.declare(system, json!({ "bmc": { "address": format!("redfish+https://{free}") } })).await?;
    let message = fleet.wait_reason(system, ConditionType::Ready, Reason::Unreachable).await?;
    says(&message, &["cannot be connected to", &free.to_string(), "check spec.bmc.address"])?;
    fleet.change(system, json!({ "bmc": { "address": right } })).await?;
    fleet.wait_ready(system).await?;
    Ok(())
}

/// Wherever a BMC sends us, the password does not go there.
async fn redirected(fleet: &Fleet, system: &str) -> Result<()> {
    let stranger = TcpListener::bind("127.0.0.1:0").await?;
    let address = stranger.local_addr()?;
    let visits = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&visits);
    let listening = tokio::spawn(async move {
        while stranger.accept().await.is_ok() {
            seen.fetch_add(1, Ordering::SeqCst);
        }
    });
    let location = format!("https://{address}/redfish/v1/Systems/{system}");
    let behaviour = json!({ "kind": "Redirect", "location": location });
    misbehaving(fleet, system, behaviour, Reason::AddressNotAllowed, &["redirect"]).await?;
    listening.abort();
    let visits = visits.load(Ordering::SeqCst);
    ensure!(visits == 0, "the stranger was connected to {visits} times");
    Ok(())
}

async fn no_such_system(fleet: &Fleet, system: &str) -> Result<()> {
    let right = fleet.manifest(system)["spec"]["bmc"]["address"].clone();
    let wrong = right.as_str().unwrap_or_default().replace(system, "Levitating-1");
    fleet.declare(system, json!({ "power": "PoweredOn", "bmc": { "address": wrong } })).await?;
    let message = fleet.wait_reason(system, ConditionType::Stalled, Reason::SystemNotFound).await?;
    says(&message, &["no system \"Levitating-1\"", "correct the id in spec.bmc.address"])?;
    fleet.change(system, json!({ "bmc": { "address": right } })).await?;
    fleet.wait_ready(system).await?;
    Ok(())
}

async fn another_machine(fleet: &Fleet, system: &str) -> Result<()> {
    fleet.declare(system, json!({})).await?;
    fleet.wait_ready(system).await?;
    let behaviour = json!({ "kind": "OtherIdentity", "serial_number": "OTHER-1", "uuid": "00000000-0000-4000-8000-000000000001" });
    let rule = fleet.bmcs().misbehave(system, behaviour).await?;
    fleet.change(system, json!({ "power": "PoweredOn" })).await?;
    let message = fleet.wait_reason(system, ConditionType::Stalled, Reason::IdentityMismatch).await?;
    says(
        &message,
        &["OTHER-1", "this Server's is the one with", "Set spec.bmc.address", "delete this Server"],
    )?;
    let changes = fleet.bmcs().changes(system).await?;
    ensure!(changes.is_empty(), "the other machine was asked for {changes:?}");
    fleet.bmcs().mend(rule).await?;
    fleet.wait_ready(system).await?;
    Ok(())
}

async fn healthy(fleet: &Fleet, system: &str) -> Result<()> {
    fleet.declare(system, json!({ "power": "PoweredOn" })).await?;
    fleet.wait_ready(system).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bmcs_that_misbehave_are_told_apart_and_recover_while_the_others_go_on() {
    let fleet = Fleet::start(19).await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "3s");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let fleet = &fleet;
    let kind = |name: &str| json!({ "kind": name });
    let status =
        |status: u16, after: u64| json!({ "kind": "Status", "status": status, "retry_after_s": after });
    let bad = |system: &'static str, behaviour: Value, reason: Reason, parts: &'static [&'static str]| {
        Box::pin(async move { misbehaving(fleet, system, behaviour, reason, parts).await })
    };
    let cases: Vec<Case<'_>> = vec![
        (
            "hangs after accept",
            bad(
                "system-0001",
                kind("HangOnAccept"),
                Reason::Unreachable,
                &["did not complete a connection", "check spec.bmc.address"],
            ),
        ),
        (
            "hangs",
            bad(
                "system-0002",
                kind("Hang"),
                Reason::Unreachable,
                &["did not answer in time", "--request-timeout is 2 s"],
            ),
        ),
        (
            "hangs in the body",
            bad(
                "system-0003",
                kind("HangMidBody"),
                Reason::Unreachable,
                &["did not finish its answer in time"],
            ),
        ),
        (
            "a byte a second",
            bad("system-0004", kind("SlowBody"), Reason::Unreachable, &["did not finish its answer in time"]),
        ),
        ("503", bad("system-0005", status(503, 1), Reason::BMCBusy, &["busy (503)", "asked again later"])),
        ("429", bad("system-0006", status(429, 1), Reason::BMCBusy, &["busy (429)", "asked again later"])),
        (
            "HTML",
            bad(
                "system-0007",
                kind("Html"),
                Reason::BMCProtocolError,
                &["not a JSON object", "text/html", "is it a Redfish BMC?"],
            ),
        ),
        (
            "truncated JSON",
            bad("system-0008", kind("TruncatedJson"), Reason::BMCProtocolError, &["not a JSON object"]),
        ),
        (
            "a wrong length",
            bad(
                "system-0009",
                json!({ "kind": "WrongContentLength", "by": 10 }),
                Reason::BMCProtocolError,
                &["in the middle of an answer"],
            ),
        ),
        (
            "10 MB",
            bad("system-0010", kind("HugeBody"), Reason::BMCProtocolError, &["more than 1048576 bytes"]),
        ),
        (
            "closes",
            bad(
                "system-0011",
                kind("Close"),
                Reason::Unreachable,
                &["ended the connection without an answer"],
            ),
        ),
        (
            "no systems",
            bad(
                "system-0012",
                kind("SystemMissing"),
                Reason::SystemNotFound,
                &["no system \"system-0012\"", "correct the id in spec.bmc.address"],
            ),
        ),
        ("500", bad("system-0013", status(500, 0), Reason::BMCProtocolError, &["answered 500"])),
        ("a foreign redirect", Box::pin(redirected(fleet, "system-0014"))),
        ("nobody listens", Box::pin(nobody_listens(fleet, "system-0015"))),
        ("no such system", Box::pin(no_such_system(fleet, "system-0016"))),
        ("another machine", Box::pin(another_machine(fleet, "system-0017"))),
        ("a healthy one", Box::pin(healthy(fleet, "system-0018"))),
        ("another healthy one", Box::pin(healthy(fleet, "system-0019"))),
    ];
    all(cases).await;
    fleet.end().await.unwrap();
}

/// Five machines of a site, none of whose BMCs answers; returns how many of the worker's slots they held at most.
async fn held_by_the_silent(fleet: &Fleet, site: &str, slots: &str, first: u32) -> Result<f64> {
    let flags = fleet.worker_flags().with(&[("--site", site), ("--slots", slots)]);
    let worker = fleet.worker_with(site, &flags, &[]).await?;
    for number in first..first + 5 {
        fleet.declare(&format!("system-{number:04}"), json!({ "site": site })).await?;
    }
    let most = Cell::new(0.0);
    wait_for("many tries", LIMIT, async || {
        let (_, page) = worker.get("/metrics").await?;
        most.set(f64::max(most.get(), metric(&page, "autobuild_worker_unreachable", &[])));
        // The first five are not held back: nobody knows yet.
        let tries = metric(&page, "autobuild_bmc_requests_total", &[]);
        Ok(if tries >= 12.0 { Look::Holds(()) } else { Look::NotYet(format!("{tries} tries")) })
    })
    .await?;
    Ok(most.get())
}

#[tokio::test(flavor = "multi_thread")]
async fn bmcs_that_do_not_answer_hold_a_tenth_of_the_slots_and_one_at_least() {
    let fleet = Fleet::start(10).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    fleet.bmcs().fault(json!({ "behaviour": { "kind": "Hang" } })).await.unwrap();
    let (few, many) =
        tokio::join!(held_by_the_silent(&fleet, "few", "9", 1), held_by_the_silent(&fleet, "many", "20", 6),);
    let held = [few.unwrap(), many.unwrap()].map(|most| most.round() as u32);
    assert_eq!(held, [1, 2]);
    fleet.end().await.unwrap();
}
