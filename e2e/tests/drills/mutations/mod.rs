//! One thing of a converged fleet is changed by a hand that must not: a row of the database, a label, status, what is said of a
//! Secret. No machine is switched, installed or erased for that. What was changed is ignored, healed or told.
//!
//! Every machine gets one change at a time, all of them at once; before the next one its rows are as they were.

mod forged;
mod objects;
mod rows;

use anyhow::{Context as _, Result, ensure};
use autobuild::api::condition::{ConditionType, find};
use autobuild::api::hardware::PowerState;
use autobuild::api::{OSImage, Phase, Reason, Server};
use e2e::autobuild::Running;
use e2e::fleet::{BootFiles, Fleet, LIMIT, Layout, QUICK_INSTALLS, truth};
use e2e::wait::{Look, say, wait_for};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use crate::steps::systems;
use forged::Wishes;
use objects::Edit;
use rows::{Change, Tables};

/// How a machine of the fleet is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Decommissioned,
    Installed,
    Adopted,
    Off,
    Plain,
    /// It ran something of its own, is off, and nothing is wished of it.
    Idle,
}

impl Kind {
    /// The first one's life has ended; of the others there are some of each.
    fn of(number: usize) -> Self {
        match number {
            0 => Self::Decommissioned,
            number => [Self::Installed, Self::Adopted, Self::Off, Self::Plain, Self::Idle][number % 5],
        }
    }
}

fn at_rest(server: &Server) -> bool {
    let status = server.status.as_ref();
    truth(server, ConditionType::Ready) == Some("True")
        && status.is_some_and(|status| {
            status.job.is_none() && status.observed_generation == server.metadata.generation
        })
}

/// A fleet in which nothing is left to do.
async fn converged(fleet: &Fleet, names: &[String]) -> Result<()> {
    for (number, name) in names.iter().enumerate() {
        let spec = match Kind::of(number) {
            Kind::Decommissioned => json!({ "image": { "name": "debian-12" }, "power": "PoweredOn" }),
            Kind::Installed => json!({ "image": { "name": "debian-12" }, "power": "PoweredOn" }),
            Kind::Adopted => json!({ "image": { "name": "debian-12" }, "provisioning": "Adopt" }),
            Kind::Off => json!({ "power": "PoweredOff" }),
            Kind::Plain | Kind::Idle => json!({}),
        };
        // Blank machines are built without a word.
        let blank = matches!(Kind::of(number), Kind::Decommissioned | Kind::Installed | Kind::Off);
        fleet.bmcs().press(name, if blank { "Off" } else { "On" }).await?;
        fleet.declare(name, spec).await?;
    }
    for (number, name) in names.iter().enumerate() {
        fleet.shown().until(name, "at rest", at_rest).await?;
        match Kind::of(number) {
            Kind::Decommissioned => {
                let uid = fleet.get(name).await?.metadata.uid.context("no uid")?;
                let confirmed = json!({ "metadata": { "annotations": { "autobuild.dev/confirm": uid } },
                    "spec": { "lifecycle": "Decommissioned" } });
                objects::merge(fleet, name, &confirmed).await?;
            }
            Kind::Installed => {
                fleet.change(name, json!({ "reimageToken": "one", "rebootToken": "one" })).await?;
            }
            Kind::Plain => {
                fleet.change(name, json!({ "rebootToken": "one" })).await?;
            }
            // Somebody shuts it down at the machine.
            Kind::Idle => fleet.bmcs().press(name, "Off").await?,
            Kind::Adopted | Kind::Off => {}
        }
    }
    for (number, name) in names.iter().enumerate() {
        let ended = |server: &Server| {
            let status = server.status.as_ref();
            let is_off = status.and_then(|status| status.power) == Some(PowerState::PoweredOff);
            at_rest(server)
                && (Kind::of(number) != Kind::Idle || is_off)
                && (Kind::of(number) != Kind::Decommissioned
                    || server.status.as_ref().and_then(|status| status.phase) == Some(Phase::Decommissioned))
        };
        fleet.shown().until(name, "at rest again", ended).await?;
    }
    Ok(())
}

/// What must not change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Machine {
    asked: usize,
    power: String,
    disk: String,
    installs: u64,
}

async fn machine(fleet: &Fleet, name: &str) -> Result<Machine> {
    Ok(Machine {
        asked: fleet.bmcs().changes(name).await?.len(),
        power: fleet.bmcs().power(name).await?,
        disk: fleet.disk(name).await?,
        installs: fleet.installs(name).await?,
    })
}

/// What status says of a machine at rest.
#[derive(Debug, Clone, PartialEq)]
struct Said {
    power: Option<PowerState>,
    phase: Option<Phase>,
    image: Option<(String, String, bool)>,
    tokens: (Vec<String>, Vec<String>),
    ended: (bool, bool),
    conditions: Vec<(String, String, String)>,
}

fn said(server: &Server) -> Said {
    let status = server.status.clone().unwrap_or_default();
    let condition = |one: &Condition| (one.type_.clone(), one.status.clone(), one.reason.clone());
    // The rows are as old as when they were kept, and a machine whose life has ended is not read again.
    let is_steady = |one: &&Condition| one.type_ != ConditionType::Fresh.as_str();
    Said {
        power: status.power,
        phase: status.phase,
        // What is adopted again has another time.
        image: status.image.map(|image| (image.name, image.digest, image.adopted)),
        tokens: (status.reboot_tokens, status.reimage_tokens),
        ended: (status.wiped_at.is_some(), status.decommissioned_at.is_some()),
        conditions: status.conditions.iter().filter(is_steady).map(condition).collect(),
    }
}

/// Whether a change was ignored or healed, or somebody is told: what is not Ready has a reason in words.
fn is_told(server: &Server) -> bool {
    let status = server.status.as_ref();
    let ready = status.and_then(|status| find(&status.conditions, ConditionType::Ready));
    ready.is_some_and(|ready| {
        ready.status == "True" || (Reason::parse(&ready.reason).is_some() && !ready.message.is_empty())
    })
}

/// Whether a person was told what only a person can decide. A forged job that was taken away after it had shown as begun
/// counts as one that the database lost; and a look that met what was changed may write its refusal after the rows are back.
fn is_left_to_a_person(server: &Server) -> bool {
    truth(server, ConditionType::Stalled) == Some("True")
}

/// One thing that is done to one machine.
#[derive(Debug, Clone)]
enum Mutation {
    Row(Change),
    Object(Edit),
}

/// The digest of an `OSImage`.
async fn digest(fleet: &Fleet, name: &str) -> Result<String> {
    let images: Api<OSImage> = Api::namespaced(fleet.client(), fleet.namespace());
    Ok(images.get(name).await?.spec.digest())
}

/// A machine that runs, or ran, something of its own is told to have an image by an ordinary commit, after somebody wrote into its
/// row what is on its disks. Only a person can give up what is there.
async fn no_data_lost(fleet: &Fleet, tables: &Tables, names: &[String], uids: &[String]) -> Result<()> {
    let somebodys: Vec<usize> =
        (0..names.len()).filter(|number| matches!(Kind::of(*number), Kind::Plain | Kind::Idle)).collect();
    let uids_of: Vec<String> = somebodys.iter().map(|number| uids[*number].clone()).collect();
    for contents in forged::takes_the_word_away() {
        let mut before = Vec::new();
        for number in &somebodys {
            before.push(machine(fleet, &names[*number]).await?);
            tables.apply(&tables.forged(&uids[*number], "contents", contents.clone())?).await?;
        }
        tables.wait_for_looks(&uids_of).await?;
        for number in &somebodys {
            fleet.change(&names[*number], json!({ "image": { "name": "debian-13" } })).await?;
        }
        for (number, before) in somebodys.iter().zip(&before) {
            let name = &names[*number];
            let what = format!("{contents:?} and an image for {name}");
            let told = fleet.shown().until(name, "left to a person", is_left_to_a_person).await;
            told.with_context(|| what.clone())?;
            let now = machine(fleet, name).await?;
            ensure!(now == *before, "{what}: {before:?} became {now:?}");
            fleet.change(name, json!({ "image": null })).await?;
        }
        tables.restore(&uids_of).await?;
        for number in &somebodys {
            objects::restore(fleet, &names[*number]).await?;
            fleet.shown().until(&names[*number], "at rest without an image", at_rest).await?;
        }
    }
    Ok(())
}

/// A fleet at rest, with its controller, its worker and its boot service.
struct AtRest {
    fleet: Fleet,
    _files: BootFiles,
    _boot: Running,
    controller: Running,
    worker: Running,
    tables: Tables,
    names: Vec<String>,
    uids: Vec<String>,
    /// What must not change of each machine.
    before: Vec<Machine>,
    /// What status says of it.
    saying: Vec<Said>,
}

impl AtRest {
    async fn new(size: usize) -> Result<Self> {
        let fleet = Fleet::with(Layout::new(size as u32).emulator(QUICK_INSTALLS)).await?;
        let files = BootFiles::serve().await?;
        fleet.image("debian-12", &files, &[]).await?;
        fleet.image("wipe", &files, &[]).await?;
        fleet.image("debian-13", &files, &[]).await?;
        let boot = fleet.boot("boot", &files).await?;
        let flags = fleet.controller_flags().set("--inspect-period", "2s");
        let controller = fleet.controller_with("controller", &flags, &[]).await?;
        let worker = fleet.worker("worker").await?;
        let names = systems(size);
        converged(&fleet, &names).await?;
        let wishes = Wishes::of(digest(&fleet, "debian-12").await?, digest(&fleet, "wipe").await?);
        let mut tables = Tables::read(fleet.records().pool(), wishes).await?;
        let (mut uids, mut servers, mut before, mut saying) = (vec![], vec![], vec![], vec![]);
        for name in &names {
            let server = fleet.get(name).await?;
            saying.push(said(&server));
            let uid = server.metadata.uid.clone().context("no uid")?;
            servers.push((uid.clone(), server));
            uids.push(uid);
            before.push(machine(&fleet, name).await?);
        }
        tables.keep(&servers).await?;
        Ok(Self {
            fleet,
            _files: files,
            _boot: boot,
            controller,
            worker,
            tables,
            names,
            uids,
            before,
            saying,
        })
    }

    /// Puts what was changed back, and waits until everything is as it was.
    async fn restore(&self, batch: usize, what: impl Fn(usize) -> String) -> Result<()> {
        let Self { fleet, tables, names, uids, .. } = self;
        tables.restore(uids).await?;
        for name in names {
            objects::restore(fleet, name).await?;
        }
        for (number, (name, before)) in names.iter().zip(&self.saying).enumerate() {
            let as_before = |server: &Server| at_rest(server) && said(server) == *before;
            let what = || format!("batch {batch}: {}", what(number));
            let healed = |server: &Server| as_before(server) || is_left_to_a_person(server);
            let server = fleet.shown().until(name, "as it was after its rows are back", healed).await;
            if !as_before(&server.with_context(what)?) {
                tables.restore(std::slice::from_ref(&uids[number])).await?;
                objects::ask_again(fleet, name, &format!("{batch}")).await?;
                fleet
                    .shown()
                    .until(name, "as it was after a person's word", as_before)
                    .await
                    .with_context(what)?;
            }
        }
        Ok(())
    }

    /// The machines to which something was done.
    async fn harmed(&self, what: impl Fn(usize) -> String) -> Result<Vec<String>> {
        let mut harmed = Vec::new();
        for (number, (name, before)) in self.names.iter().zip(&self.before).enumerate() {
            let now = machine(&self.fleet, name).await?;
            if now != *before {
                harmed.push(format!("{name}: {}: {before:?} became {now:?}", what(number)));
            }
            let told = self.fleet.shown().until(name, "Ready, or told why not", is_told).await;
            told.with_context(|| what(number))?;
        }
        Ok(harmed)
    }
}

/// Runs `batches` batches over a fleet of that size.
async fn no_harm(size: usize, batches: usize, seed: u64) -> Result<()> {
    say(format!("seed {seed}"));
    let mut random = StdRng::seed_from_u64(seed);
    let fleet_at_rest = AtRest::new(size).await?;
    let AtRest { fleet, controller, worker, tables, names, uids, before, .. } = &fleet_at_rest;
    // First of all what changes power, in another order on each machine of a kind.
    let mut careful = Vec::new();
    for (number, uid) in uids.iter().enumerate() {
        let mut changes = tables.careful(uid)?;
        if number > names.len() / 2 {
            changes.reverse();
        }
        changes.truncate(batches / 2);
        careful.push(changes);
    }
    for batch in 0..batches {
        let mut done = Vec::new();
        for ((name, uid), careful) in names.iter().zip(uids).zip(&mut careful) {
            let mutation = if let Some(change) = careful.pop() {
                Mutation::Row(change)
            } else if random.random_ratio(1, 5) {
                Mutation::Object(Edit::ALL.choose(&mut random).copied().context("no edits")?)
            } else {
                Mutation::Row(tables.change(uid, &mut random)?)
            };
            match &mutation {
                Mutation::Row(change) => tables.apply(change).await?,
                Mutation::Object(edit) => edit.apply(fleet, name, &mut random).await?,
            }
            done.push(mutation);
        }
        let shared = tables.change_shared(&mut random).await?;
        // Everybody had the occasion to act on it: the controller decided, and whoever is looked at was looked at.
        tables.wait_for_looks(uids).await?;
        let what = |number: usize| format!("batch {batch}: {:?} with {shared:?}", done[number]);
        let harmed = fleet_at_rest.harmed(what).await?;
        ensure!(harmed.is_empty(), "{harmed:#?}");
        ensure!(
            controller.process().ended()?.is_none() && worker.process().ended()?.is_none(),
            "a process ended"
        );
        if let Some(shared) = &shared {
            tables.restore_shared(shared).await?;
        }
        fleet_at_rest.restore(batch, what).await?;
    }
    no_data_lost(fleet, tables, names, uids).await?;
    for (name, before) in names.iter().zip(before) {
        let now = machine(fleet, name).await?;
        ensure!(now == *before, "{name}: {before:?} became {now:?}");
    }
    fleet.end().await
}

/// How many jobs that have begun each machine is said to have, one after the other.
const BEGUN_BATCHES: usize = 2;

/// Each machine gets a job that has begun, as its row says, and each time another one.
async fn nothing_begun(size: usize) -> Result<()> {
    let fleet_at_rest = AtRest::new(size).await?;
    let AtRest { fleet, controller, worker, tables, uids, .. } = &fleet_at_rest;
    let jobs: Vec<Vec<Change>> = uids.iter().map(|uid| tables.begun_jobs(uid)).collect();
    // Some on each kind of machine, and all of them somewhere.
    for batch in 0..BEGUN_BATCHES {
        let change = |number: usize| &jobs[number][(5 * batch + number) % jobs[number].len()];
        for number in 0..size {
            tables.apply(change(number)).await?;
        }
        wait_for("no forged job to be left", LIMIT, async || {
            let left = tables.at_work(uids).await?;
            Ok(if left.is_empty() { Look::Holds(()) } else { Look::NotYet(format!("{left:?}")) })
        })
        .await?;
        let what = |number: usize| format!("{:?}", change(number));
        let harmed = fleet_at_rest.harmed(what).await?;
        ensure!(harmed.is_empty(), "{harmed:#?}");
        ensure!(
            controller.process().ended()?.is_none() && worker.process().ended()?.is_none(),
            "a process ended"
        );
        fleet_at_rest.restore(batch, what).await?;
    }
    fleet.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_row_has_as_begun_is_not_obeyed_and_goes() {
    nothing_begun(11).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_one_row_or_object_is_changed_to_no_machine_is_harmed() {
    no_harm(10, 6, 20_261_129).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long drill: make soak"]
async fn whatever_many_rows_and_objects_are_changed_to_no_machine_is_harmed() {
    no_harm(30, 60, rand::random()).await.unwrap();
}
