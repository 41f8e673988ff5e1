//! The drills with two tenants: one may edit what is in its own namespace, and tries to harm the other one with that.

mod latency;
mod tenant;
mod trickle;

use std::ops::RangeInclusive;

use anyhow::{Context as _, Result, ensure};
use autobuild::api::condition::ConditionType;
use autobuild::api::hardware::PowerState;
use autobuild::api::{Reason, Server};
use autobuild::job::{Action, JobResult};
use e2e::fleet::{BootFiles, Fleet, LIMIT, Layout, QUICK_INSTALLS, is_ready};
use e2e::wait::{Look, say, wait_for};
use serde_json::{Value, json};

use crate::steps::controller_flags;
use tenant::Tenant;
use trickle::Trickle;

/// The slots of the worker, of which one is kept for urgent jobs.
const SLOTS: usize = 8;
/// As many of them as one tenant holds at most.
const SHARE: usize = 6;

/// The machines of the honest tenant, and one of the hostile one that is well.
const HONEST: [&str; 2] = ["system-0001", "system-0002"];
const OWN: &str = "system-0003";
/// Machines of the hostile tenant that have a BMC of their own each, and those behind one BMC.
const ALONE: RangeInclusive<usize> = 10..=19;
const CHASSIS: RangeInclusive<usize> = 20..=59;

fn system(number: usize) -> String {
    format!("system-{number:04}")
}

fn power(server: &Server) -> Option<PowerState> {
    server.status.as_ref().and_then(|status| status.power)
}

fn has_ended(server: &Server, action: Action) -> bool {
    let last = server.status.as_ref().and_then(|status| status.last_job.as_ref());
    last.is_some_and(|job| job.action == action && job.result == JobResult::Succeeded) && is_ready(server)
}

/// The login that the tenant has for BMCs of its own. That it opens the other tenant's too helps it nothing.
fn with_login(mut spec: Value) -> Value {
    spec["bmc"]["credentialsRef"] = json!({ "name": "own" });
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_may_write_harms_no_other_one() {
    let layout = Layout::new(59).emulator(&["--initial-power", "on", "--own-ports", "19"]);
    let fleet = Fleet::with(layout.emulator(QUICK_INSTALLS)).await.unwrap();
    let hostile = Tenant::enter(&fleet).await.unwrap();
    let (files, slow) = (BootFiles::serve().await.unwrap(), Trickle::serve().await.unwrap());
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let flags = fleet.boot_flags("boot", &address, files.address()).unwrap();
    let flags = flags.switch(&format!("--http-source={}", slow.address()));
    let _boot = fleet.boot_as("boot", &flags, &[]).await.unwrap();
    fleet.bmcs().boot_from(&format!("http://{address}")).await.unwrap();
    let both = format!("{},{}", fleet.namespace(), hostile.namespace());
    let flags = controller_flags(&fleet).set("--watch-namespaces", both);
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    // What hangs does so for longer than anything here takes.
    let slots = SLOTS.to_string();
    let flags = fleet.worker_flags().with(&[
        ("--slots", slots.as_str()),
        ("--request-timeout", "120s"),
        ("--shutdown-deadline", "1s"),
    ]);
    let _worker = fleet.worker_with("worker", &flags, &[]).await.unwrap();

    let own = [("username", fleet.username()), ("password", fleet.password())];
    hostile.secret("own", "autobuild.dev/bmc-credentials", &own).await.unwrap();
    let mut table = Table::default();
    squats(&fleet, &hostile, &mut table).await.unwrap();
    fleet.image("debian-12", &files, &[]).await.unwrap();
    let image = json!({ "image": { "name": "debian-12" }, "provisioning": "Adopt" });
    fleet.declare(HONEST[0], image.clone()).await.unwrap();
    hostile.image("debian-12", &files.source(&[])).await.unwrap();
    hostile.declare(OWN, OWN, &with_login(image)).await.unwrap();
    fleet.wait_ready(HONEST[0]).await.unwrap();
    hostile.wait(OWN, "Ready", is_ready).await.unwrap();
    guesses(&fleet, &hostile, &mut table).await.unwrap();
    boots_for_another(&fleet, &hostile, &mut table).await.unwrap();
    reads_other_secrets(&fleet, &hostile, &mut table).await.unwrap();
    trickles(&fleet, &hostile, &files, &slow, &mut table).await.unwrap();
    hangs(&fleet, &hostile, &mut table).await.unwrap();
    say(table);
    fleet.end().await.unwrap();
}

/// What was tried, what became of it, and how the other tenant fared.
#[derive(Default)]
struct Table(Vec<[String; 3]>);

impl Table {
    fn row(&mut self, tried: &str, answer: &str, other: &str) {
        self.0.push([tried, answer, other].map(str::to_owned));
    }

    fn add(&mut self, tried: &str, reason: Reason, said: &str, other: &str) {
        let said: String = said.chars().take(70).collect();
        self.row(tried, &format!("{reason}: {said}…"), other);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "tenants: what was tried, and how it ended")?;
        self.0.iter().try_for_each(|[tried, answer, other]| writeln!(f, "  {tried:<45} {answer:<90} {other}"))
    }
}

/// The address of a system's BMC by another name.
fn by_name(fleet: &Fleet, system: &str) -> Result<String> {
    let host = fleet.bmcs().https_of(system);
    let port = host.rsplit(':').next().context("no port")?;
    Ok(format!("redfish+https://localhost:{port}/redfish/v1/Systems/{system}"))
}

/// Who only writes a BMC down keeps it from nobody.
async fn squats(fleet: &Fleet, hostile: &Tenant<'_>, table: &mut Table) -> Result<()> {
    let nothing = json!({ "bmc": { "credentialsRef": { "name": "nothing" } } });
    hostile.declare("squatter", HONEST[1], &nothing).await?;
    let said = hostile.wait_reason("squatter", ConditionType::Stalled, Reason::CredentialsMissing).await?;
    fleet.declare(HONEST[1], json!({})).await?;
    fleet.wait_ready(HONEST[1]).await?;
    table.add("writes another's address down first", Reason::CredentialsMissing, &said, "its owner is Ready");
    Ok(())
}

/// Whoever names another's BMC otherwise is not let near it, with whatever password, and learns nothing.
async fn guesses(fleet: &Fleet, hostile: &Tenant<'_>, table: &mut Table) -> Result<()> {
    let guess = [("username", fleet.username()), ("password", "a guess")];
    hostile.secret("guess", "autobuild.dev/bmc-credentials", &guess).await?;
    let before = fleet.bmcs().requests(HONEST[0]).await?.len();
    let address = by_name(fleet, HONEST[0])?;
    let mut told = Vec::new();
    for secret in ["guess", "own"] {
        let spec =
            json!({ "bmc": { "address": address, "credentialsRef": { "name": secret }, "tls": null } });
        hostile.declare("alias", HONEST[0], &spec).await?;
        let said = hostile.wait_reason("alias", ConditionType::Stalled, Reason::BMCClaimed).await?;
        hostile.delete("alias").await?;
        ensure!(
            !said.contains(fleet.namespace()) && !said.contains(HONEST[0]),
            "it names the holder: {said}"
        );
        told.push(said);
    }
    ensure!(told[0] == told[1], "a right password is told from a wrong one: {told:?}");
    let after = fleet.bmcs().requests(HONEST[0]).await?.len();
    ensure!(before == after, "{} requests were sent to the BMC of another", after - before);
    table.add("another name of another's BMC", Reason::BMCClaimed, &told[0], "nothing was sent to it");
    Ok(())
}

/// Who names another machine's card boots nothing, and that machine starts from its own disk.
async fn boots_for_another(fleet: &Fleet, hostile: &Tenant<'_>, table: &mut Table) -> Result<()> {
    let status = fleet.get(HONEST[0]).await?.status.context("no status")?;
    let nics = status.hardware.context("no hardware")?.nics;
    let card = nics.into_iter().find_map(|nic| nic.mac_address).context("no card")?;
    let wish = json!({ "bootMACAddress": card, "provisioning": "Install", "reimageToken": "one" });
    hostile.change(OWN, &wish).await?;
    let said = hostile.wait_reason(OWN, ConditionType::Stalled, Reason::BootMACMismatch).await?;
    ensure!(fleet.bmcs().changes(OWN).await?.is_empty(), "something was sent for it");
    fleet.change(HONEST[0], json!({ "rebootToken": "one" })).await?;
    fleet.wait(HONEST[0], "rebooted", |it| has_ended(it, Action::Reboot)).await?;
    ensure!(fleet.installs(HONEST[0]).await? == 0, "the machine of another was installed");
    table.add(
        "another's MAC address",
        Reason::BootMACMismatch,
        &said,
        "that machine started from its own disk",
    );
    Ok(())
}

/// No Secret is handed to a machine that is for something else.
async fn reads_other_secrets(fleet: &Fleet, hostile: &Tenant<'_>, table: &mut Table) -> Result<()> {
    hostile.secret("opaque", "Opaque", &[("password", "of something else")]).await?;
    for (number, secret) in ["own", "opaque"].into_iter().enumerate() {
        let wish = json!({
            "bootMACAddress": null, "provisioning": "Install", "reimageToken": format!("secret-{number}"),
            "image": { "userDataRef": { "name": secret, "key": "password" } },
        });
        hostile.change(OWN, &wish).await?;
        let said = hostile
            .wait(OWN, "told of its Secret", |server| {
                let said = e2e::fleet::message(server, ConditionType::Stalled, Reason::ImageUnusable);
                said.is_some_and(|said| {
                    said.contains(&format!("{secret:?}")) && said.contains("has the type")
                })
            })
            .await;
        let server = said.with_context(|| format!("user data from the Secret {secret}"))?;
        let said = e2e::fleet::message(&server, ConditionType::Stalled, Reason::ImageUnusable);
        let said = said.unwrap_or_default();
        table.add(
            &format!("user data from {secret:?}"),
            Reason::ImageUnusable,
            &said,
            "it was not handed out",
        );
    }
    ensure!(fleet.installs(OWN).await? == 0, "it was handed out");
    Ok(())
}

/// A URL that trickles keeps nobody from the file who has it from elsewhere.
async fn trickles(
    fleet: &Fleet,
    hostile: &Tenant<'_>,
    files: &BootFiles,
    slow: &Trickle,
    table: &mut Table,
) -> Result<()> {
    let mut source = files.source(&[]);
    source["kernel"]["url"] = json!(slow.url());
    hostile.image("slow", &source).await?;
    let wish = json!({ "image": { "name": "slow", "userDataRef": null }, "reimageToken": "slow" });
    hostile.change(OWN, &wish).await?;
    wait_for("the URL that trickles to be asked", LIMIT, async || {
        Ok(if slow.asked() > 0 { Look::Holds(()) } else { Look::NotYet("it was not asked yet".to_owned()) })
    })
    .await?;
    fleet.change(HONEST[0], json!({ "provisioning": "Install", "reimageToken": "one" })).await?;
    fleet.wait(HONEST[0], "installed", |it| has_ended(it, Action::Reimage)).await?;
    ensure!(fleet.installs(HONEST[0]).await? == 1, "it was installed otherwise");
    table.row("a download of the same digest that trickles", "not refused", "the other one was installed");
    Ok(())
}

/// BMCs that hang, each by itself and a whole chassis, with `Urgent` for all of their machines.
async fn hangs(fleet: &Fleet, hostile: &Tenant<'_>, table: &mut Table) -> Result<()> {
    let honest = HONEST[0];
    let alone: Vec<String> = ALONE.map(system).collect();
    for name in &alone {
        hostile.declare(name, name, &with_login(json!({}))).await?;
    }
    for name in &alone {
        hostile.wait(name, "Ready", is_ready).await?;
    }
    let urgent = json!({ "power": "PoweredOff", "priority": "Urgent" });
    for name in alone.iter().cloned().chain(CHASSIS.map(system)) {
        fleet.bmcs().misbehave(&name, json!({ "kind": "Hang" })).await?;
    }
    for name in CHASSIS.map(system) {
        hostile.declare(&name, &name, &with_login(urgent.clone())).await?;
    }
    for name in &alone {
        hostile.change(name, &urgent).await?;
    }
    // One slot for the chassis, whose other machines come and go.
    let held = wait_for("the hostile tenant to hold its share of the slots", LIMIT, async || {
        let mut held = hostile.claims().await?;
        held.retain(|(name, _)| alone.contains(name));
        let waits = waiting(fleet).await?;
        let is_so = held.len() >= SHARE - 1 && waits > 0;
        Ok(if is_so { Look::Holds(held) } else { Look::NotYet(format!("{held:?} held, {waits} wait")) })
    })
    .await?;
    fleet.change(honest, json!({ "power": "PoweredOff" })).await?;
    fleet.wait(honest, "off", |it| is_ready(it) && power(it) == Some(PowerState::PoweredOff)).await?;
    let now = hostile.claims().await?;
    ensure!(held.is_subset(&now), "{honest} waited until a slot came free: {held:?} were held, {now:?} are");
    ensure!(now.len() <= SHARE, "{now:?} are held by one tenant");
    let held = format!("held {} of {SLOTS} slots", now.len());
    table.row("a chassis and BMCs that hang", &held, "the other tenant's wish was carried out");
    Ok(())
}

/// Jobs that wait for a slot.
async fn waiting(fleet: &Fleet) -> Result<i64> {
    fleet.records().number("SELECT COUNT(*) FROM job WHERE q_state IN (0, 1, 2)").await
}
