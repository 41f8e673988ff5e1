//! Whatever happens after a job switched its machine off, the machine ends on, or everybody is told that it was left off
//! and how to go on: every kind of job, by every trouble, by every way out of a job.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use autobuild::api::Reason;
use autobuild::api::condition::{ConditionType, find};
use autobuild::job::Action;
use e2e::fleet::{BootFiles, Fleet, LIMIT, Layout, Link, Past, Proxy, QUICK_INSTALLS, describe};
use e2e::wait::{Look, say, wait_for};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

/// What switches the machine off.
const ACTIONS: [Action; 3] = [Action::Reboot, Action::Reimage, Action::Wipe];

/// What keeps it off.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Conflict,
    SystemPost,
    Busy,
    ErrorWithWords,
    Closed,
    Hang,
    AnotherMachine,
}

const TROUBLES: [Trouble; 7] = [
    Trouble::Conflict,
    Trouble::SystemPost,
    Trouble::Busy,
    Trouble::ErrorWithWords,
    Trouble::Closed,
    Trouble::Hang,
    Trouble::AnotherMachine,
];

/// How the job is left while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WayOut {
    /// The trouble is over within the job's patience.
    Waited,
    /// It outlasts it.
    GivenUp,
    Paused,
    AnotherWish,
    Deleted,
}

const WAYS: [WayOut; 5] =
    [WayOut::Waited, WayOut::GivenUp, WayOut::Paused, WayOut::AnotherWish, WayOut::Deleted];

/// Longer than the trouble that is waited out.
const PATIENCE: &str = "8s";
const SHORT_MS: u64 = 4_000;

#[derive(Debug, Clone)]
struct Case {
    system: String,
    action: Action,
    trouble: Trouble,
    way: WayOut,
}

/// Every combination; a sample has each of the values of each of the three.
fn cases(only_a_sample: bool) -> Vec<Case> {
    let mut all = Vec::new();
    for (a, action) in ACTIONS.into_iter().enumerate() {
        for (t, trouble) in TROUBLES.into_iter().enumerate() {
            for (w, way) in WAYS.into_iter().enumerate() {
                if !only_a_sample || (a + t + w) % WAYS.len() == 0 {
                    all.push((action, trouble, way));
                }
            }
        }
    }
    let numbered = all.into_iter().enumerate();
    let case = |(number, (action, trouble, way)): (usize, _)| {
        let system = format!("system-{:04}", number + 1);
        Case { system, action, trouble, way }
    };
    numbered.map(case).collect()
}

fn status(status: u16, words: &str) -> Value {
    let message = json!([{ "MessageId": format!("Oem.1.0.{words}"), "Message": words }]);
    let body = json!({ "error": { "code": "Base.1.0.GeneralError", "message": words, "@Message.ExtendedInfo": message } });
    json!({ "kind": "Status", "status": status, "body": body.to_string() })
}

/// Begins the trouble: at the second reset, which is the one that switches on; another machine answers at once.
async fn begin(fleet: &Fleet, case: &Case) -> Result<u64> {
    let behaviour = match case.trouble {
        Trouble::Conflict => status(409, "ResourceInUse"),
        Trouble::SystemPost => status(400, "UnableToModifyDuringSystemPOST"),
        Trouble::Busy => status(503, "ServiceTemporarilyUnavailable"),
        Trouble::ErrorWithWords => status(500, "The service is busy, try again later"),
        Trouble::Closed => json!({ "kind": "Close" }),
        Trouble::Hang => json!({ "kind": "Hang" }),
        Trouble::AnotherMachine => json!({
            "kind": "OtherIdentity", "serial_number": "OTHER", "uuid": "99999999-0000-0000-0000-000000000000",
        }),
    };
    let mut rule = json!({ "system": case.system, "behaviour": behaviour });
    if !matches!(case.trouble, Trouble::AnotherMachine) {
        rule["path"] = "*ComputerSystem.Reset*".into();
        rule["method"] = "POST".into();
    }
    if case.way == WayOut::Waited {
        rule["for_ms"] = SHORT_MS.into();
    }
    fleet.bmcs().fault(rule).await
}

async fn is_off(fleet: &Fleet, name: &str) -> Result<()> {
    wait_for(&format!("{name}: off"), LIMIT, async || {
        let power = fleet.bmcs().power(name).await?;
        Ok(if power == "On" { Look::NotYet(power) } else { Look::Holds(()) })
    })
    .await
}

async fn annotate(fleet: &Fleet, name: &str, annotation: &str) -> Result<()> {
    let kubectl = fleet.kubectl().in_namespace(fleet.namespace());
    kubectl.run(&["annotate", "--overwrite", "server", name, annotation]).await?;
    Ok(())
}

/// A machine that runs, and the wish that switches it off.
async fn ask(fleet: &Fleet, case: &Case) -> Result<()> {
    let name = &case.system;
    let policy = if case.action == Action::Wipe { "Wipe" } else { "Retain" };
    let spec = json!({ "deletionPolicy": policy, "image": { "name": "one" }, "provisioning": "Adopt", "shutdownMode": "Forced" });
    let server = fleet.declare(name, spec).await?;
    fleet.wait_ready(name).await?;
    let uid = server.metadata.uid.context("no uid")?;
    match case.action {
        Action::Reboot => {
            fleet.change(name, json!({ "rebootToken": "one" })).await?;
        }
        Action::Reimage => {
            fleet.change(name, json!({ "provisioning": "Install", "image": { "name": "two" } })).await?;
        }
        _ => {
            annotate(fleet, name, &format!("autobuild.dev/confirm={uid}")).await?;
            fleet.delete(name).await?;
        }
    }
    Ok(())
}

async fn leave(fleet: &Fleet, case: &Case) -> Result<()> {
    let name = &case.system;
    match (case.way, case.action) {
        (WayOut::Waited | WayOut::GivenUp, _) => {}
        (WayOut::Paused, _) => {
            fleet.change(name, json!({ "paused": true })).await?;
        }
        (WayOut::AnotherWish, Action::Reboot) => {
            fleet.change(name, json!({ "rebootToken": "two" })).await?;
        }
        (WayOut::AnotherWish, Action::Reimage) => {
            fleet.change(name, json!({ "provisioning": "Adopt" })).await?;
        }
        (WayOut::AnotherWish | WayOut::Deleted, Action::Wipe) => {
            fleet.change(name, json!({ "deletionPolicy": "Retain" })).await?;
        }
        (WayOut::AnotherWish | WayOut::Deleted, _) => fleet.delete(name).await?,
    }
    Ok(())
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    On,
    Erased,
    Told,
    ToldAndGone,
}

const SAYS: &str = "switched the machine off";

/// Where it came to rest, and whether somebody was told where that is off.
async fn at_rest(fleet: &Fleet, case: &Case) -> Result<Ended> {
    let name = &case.system;
    let patience = LIMIT * 2;
    wait_for(&format!("{case:?}: an end"), patience, async || {
        let power = fleet.bmcs().power(name).await?;
        let job = fleet.records().job(name).await?;
        let Some(server) = fleet.servers().get_opt(name).await? else {
            let history = fleet.records().history(name).await?;
            let told = is_told(&history);
            let erased = history.iter().any(|past| past.action == "Wipe" && past.result == "Succeeded");
            return match (power.as_str(), told) {
                ("On", _) => Ok(Look::Holds(Ended::On)),
                _ if erased => Ok(Look::Holds(Ended::Erased)),
                (_, true) => Ok(Look::Holds(Ended::ToldAndGone)),
                _ => bail!("{name} is gone and {power}, and nobody was told: {history:?}"),
            };
        };
        let stalled =
            server.status.as_ref().and_then(|status| find(&status.conditions, ConditionType::Stalled));
        let told = stalled.is_some_and(|stalled| {
            let reason = Reason::parse(&stalled.reason);
            stalled.message.contains(SAYS) && reason.is_some_and(|reason| reason.remedy().is_some())
        });
        let begun = fleet.bmcs().resets(name).await?.len() > 1;
        // What was told is tried again for ever.
        let over = job.as_ref().is_none_or(|job| job.action == "PowerOn");
        Ok(match (power.as_str(), job.is_none()) {
            ("On", true) if begun => Look::Holds(Ended::On),
            ("Off", _) if told && over => Look::Holds(Ended::Told),
            _ => Look::NotYet(format!("{power}, {job:?}, {}", describe(&server))),
        })
    })
    .await
}

fn is_told(history: &[Past]) -> bool {
    history.iter().any(|past| past.reason == Reason::LeftPoweredOff.as_str())
}

/// The trouble is over: a machine that was left off comes on. One whose deletion has had its time is let go with a word.
async fn mended(fleet: &Fleet, case: &Case, ended: Ended) -> Result<()> {
    let name = &case.system;
    if ended != Ended::Told {
        return Ok(());
    }
    let how = if case.action == Action::Wipe {
        json!({ "paused": false, "deletionPolicy": "Retain" })
    } else {
        json!({ "paused": false })
    };
    fleet.change(name, how).await?;
    if fleet.servers().get_opt(name).await?.is_some() {
        let now = k8s_openapi::jiff::Timestamp::now();
        annotate(fleet, name, &format!("autobuild.dev/reconcile-requested-at={now}")).await.ok();
    }
    wait_for(&format!("{case:?}: on again"), LIMIT, async || {
        let power = fleet.bmcs().power(name).await?;
        let gone = fleet.servers().get_opt(name).await?.is_none();
        let told = case.action == Action::Wipe && gone && is_told(&fleet.records().history(name).await?);
        Ok(if power == "On" || told { Look::Holds(()) } else { Look::NotYet(power) })
    })
    .await
}

async fn drill(fleet: &Fleet, case: &Case) -> Result<Ended> {
    let name = &case.system;
    ask(fleet, case).await?;
    is_off(fleet, name).await?;
    let rule = begin(fleet, case).await?;
    leave(fleet, case).await?;
    let ended = at_rest(fleet, case).await?;
    fleet.bmcs().mend(rule).await?;
    mended(fleet, case, ended).await?;
    if case.way == WayOut::Waited {
        // On a busy machine the patience of a wipe may be over before the trouble is: then it is switched on again.
        let is_well = ended == Ended::On || (case.action == Action::Wipe && ended == Ended::Erased);
        ensure!(is_well, "{case:?} ended {ended:?}");
    }
    Ok(ended)
}

async fn through(cases: Vec<Case>, at_once: usize) {
    // Long enough for the trouble to begin between off and on.
    let emulator = [QUICK_INSTALLS, &["--initial-power", "on", "--power-off-delay", "2500"]].concat();
    let fleet = Fleet::with(Layout::new(cases.len() as u32).emulator(&emulator)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    for name in ["one", "two", "wipe"] {
        fleet.image(name, &files, &[&format!("release={name}")]).await.unwrap();
    }
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let flags = fleet.controller_flags().set("--destruction-budget", "unlimited").set("--undo-wait", "20s");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let flags = fleet.worker_flags().with(&[("--power-on-patience", PATIENCE), ("--slots", "64")]);
    let _worker = fleet.worker_with("worker", &flags, &[]).await.unwrap();
    let drills = stream::iter(&cases).map(|case| {
        let fleet = &fleet;
        async move { (case, drill(fleet, case).await) }
    });
    let results: Vec<(&Case, Result<Ended>)> = drills.buffer_unordered(at_once).collect().await;
    let mut table: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut failed = Vec::new();
    for (case, result) in results {
        let ended = result.as_ref().map_or_else(|_| "FAILED".to_owned(), |ended| format!("{ended:?}"));
        let row = format!("{:?} {:?}", case.action, case.trouble);
        table.entry(row).or_default().push(format!("{:?}: {ended}", case.way));
        failed.extend(result.err().map(|error| format!("{case:?}: {error:#}")));
    }
    for (row, mut ends) in table {
        ends.sort();
        say(format!("{row:<28} {}", ends.join(", ")));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_switched_off_ends_on_or_is_told_to_be_left_off_in_a_sample_of_all_troubles() {
    through(cases(true), 24).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the long drill: make soak"]
async fn what_a_job_switched_off_ends_on_or_is_told_to_be_left_off_whatever_happens() {
    through(cases(false), 40).await;
}

/// A reboot, an installation and a wipe go on without the API server, and without the worker's rights.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_switched_off_is_switched_on_without_the_api_server() {
    let emulator = [QUICK_INSTALLS, &["--initial-power", "on"]].concat();
    for rights_gone in [false, true] {
        let fleet = Fleet::with(Layout::new(3).emulator(&emulator)).await.unwrap();
        let files = BootFiles::serve().await.unwrap();
        for name in ["one", "two", "wipe"] {
            fleet.image(name, &files, &[&format!("release={name}")]).await.unwrap();
        }
        let _boot = fleet.boot("boot", &files).await.unwrap();
        let _controller = fleet.controller("controller").await.unwrap();
        let (proxy, kubeconfig) =
            Proxy::before_api_server(fleet.cluster().worker(), fleet.dir()).await.unwrap();
        let worker = fleet.launch("worker", &fleet.worker_flags(), &kubeconfig, &[]).await.unwrap();
        worker.wait_ready().await.unwrap();
        let case = |number: usize, action| Case {
            system: format!("system-{number:04}"),
            action,
            trouble: Trouble::Hang,
            way: WayOut::Waited,
        };
        let all = [case(1, Action::Reboot), case(2, Action::Reimage), case(3, Action::Wipe)];
        let mut rules = Vec::new();
        for case in &all {
            // What switches on, after what switched off, is "not yet" until the API server is away.
            let rule = json!({ "system": case.system, "path": "*ComputerSystem.Reset*", "method": "POST", "skip": 1,
                "behaviour": status(503, "ServiceTemporarilyUnavailable") });
            rules.push(fleet.bmcs().fault(rule).await.unwrap());
            ask(&fleet, case).await.unwrap();
        }
        for case in &all {
            is_off(&fleet, &case.system).await.unwrap();
        }
        let kubectl = fleet.kubectl().in_namespace(fleet.namespace());
        if rights_gone {
            kubectl.run(&["delete", "rolebinding", "autobuild-worker"]).await.unwrap();
        } else {
            proxy.set(Link::Silent);
        }
        for (case, rule) in all.iter().zip(rules) {
            fleet.bmcs().mend(rule).await.unwrap();
            let before = fleet.bmcs().resets(&case.system).await.unwrap().len();
            wait_for(&format!("{}: on", case.system), LIMIT, async || {
                let resets = fleet.bmcs().resets(&case.system).await?;
                let on = resets.get(before).is_some_and(|reset| reset == "on");
                Ok(if on { Look::Holds(()) } else { Look::NotYet(format!("{resets:?}")) })
            })
            .await
            .unwrap();
        }
        fleet.end().await.unwrap();
    }
}

/// The undo of a power-off has its deadline, and the API server is away for longer: what is wished meanwhile nobody knows.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_switched_off_and_taken_back_comes_on_however_long_the_api_server_is_away() {
    let fleet = Fleet::with(Layout::new(1).emulator(&["--initial-power", "on"])).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let (proxy, kubeconfig) = Proxy::before_api_server(fleet.cluster().worker(), fleet.dir()).await.unwrap();
    let flags = fleet.worker_flags().set("--undo-deadline", "2s");
    let worker = fleet.launch("worker", &flags, &kubeconfig, &[]).await.unwrap();
    worker.wait_ready().await.unwrap();
    let name = "system-0001";
    fleet.declare(name, json!({ "shutdownMode": "Forced" })).await.unwrap();
    fleet.wait_ready(name).await.unwrap();
    let slow = json!({ "system": name, "path": "*ComputerSystem.Reset*", "method": "POST", "count": 1,
        "behaviour": { "kind": "AsyncDelay", "ms": 3_000 } });
    fleet.bmcs().fault(slow).await.unwrap();
    fleet.change(name, json!({ "power": "PoweredOff" })).await.unwrap();
    wait_for("the off to be accepted", LIMIT, async || {
        let resets = fleet.bmcs().resets(name).await?;
        Ok(if resets.is_empty() { Look::NotYet("nothing was sent".to_owned()) } else { Look::Holds(()) })
    })
    .await
    .unwrap();
    proxy.set(Link::Silent);
    fleet.change(name, json!({ "power": null })).await.unwrap();
    // Its undo is tried in vain, again and again, for longer than it may be.
    let early = "SELECT COUNT(*) FROM job WHERE action = 'PowerOff' AND NOT (step = 'PowerOn' AND reason <=> 'APIUnavailable' \
                 AND attempt >= 3)";
    wait_for("three tries of the undo", LIMIT * 2, async || {
        let early = fleet.records().number(early).await?;
        Ok(if early == 0 { Look::Holds(()) } else { Look::NotYet("its undo is young".to_owned()) })
    })
    .await
    .unwrap();
    proxy.set(Link::Up);
    wait_for("the machine to be on", LIMIT, async || {
        let power = fleet.bmcs().power(name).await?;
        Ok(if power == "On" { Look::Holds(()) } else { Look::NotYet(power) })
    })
    .await
    .unwrap();
    fleet.wait_ready(name).await.unwrap();
    fleet.end().await.unwrap();
}
