//! What an installed, running fleet survives: its status lost, its database lost, its objects made anew, all of it at once.
//! Nothing of that installs anything.

use std::time::Duration;

use anyhow::{Result, ensure};
use autobuild::api::condition::ConditionType;
use autobuild::api::{Reason, Server};
use e2e::autobuild::Running;
use e2e::fleet::{BootFiles, Fleet, Layout, truth};
use e2e::wait::{Look, wait_for};
use kube::api::{ListParams, PatchParams};
use serde_json::{Value, json};

use crate::steps::{at_rest, system};

/// Machines of the fleet.
const MACHINES: usize = 50;

/// How long fifty machines may take for anything.
const LIMIT: Duration = Duration::from_mins(3);

const FAST: &[&str] =
    &["--install-duration", "0", "--post-delay", "0", "--power-on-delay", "0", "--power-off-delay", "0"];

struct Site {
    fleet: Fleet,
    names: Vec<String>,
    processes: Option<(Running, Running)>,
}

fn wish(image: &str) -> Value {
    json!({ "power": "PoweredOn", "image": { "name": image }, "reimageToken": "first", "rebootToken": "first" })
}

fn has_image(server: &Server) -> bool {
    truth(server, ConditionType::ImageSynced) == Some("True") && at_rest(server)
}

impl Site {
    async fn start(&mut self, round: &str) -> Result<()> {
        let flags = self.fleet.worker_flags().set("--installs", "25");
        self.processes = Some((
            self.fleet.controller(&format!("controller-{round}")).await?,
            self.fleet.worker_with(&format!("worker-{round}"), &flags, &[]).await?,
        ));
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        if let Some((controller, worker)) = self.processes.take() {
            controller.process().stop(LIMIT).await?;
            worker.process().stop(LIMIT).await?;
        }
        Ok(())
    }

    async fn declare_all(&self, image: &str) -> Result<()> {
        let list: Vec<Value> =
            self.names.iter().map(|name| self.fleet.manifest_with(name, &wish(image))).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": list });
        self.fleet.kubectl().run_with_input(&["apply", "-f", "-"], &list.to_string()).await?;
        Ok(())
    }

    /// Waits until all look so.
    async fn all(&self, what: &str, holds: impl Fn(&Server) -> bool) -> Result<()> {
        wait_for(what, LIMIT, async || {
            let all = self.fleet.servers().list(&ListParams::default()).await?.items;
            let not_yet: Vec<String> =
                all.iter().filter(|server| !holds(server)).map(e2e::fleet::describe).take(3).collect();
            let done = not_yet.is_empty() && all.len() == MACHINES;
            Ok(if done { Look::Holds(()) } else { Look::NotYet(not_yet.join("\n")) })
        })
        .await
    }

    /// Waits until every machine was looked at in the present database.
    async fn looked_at(&self) -> Result<()> {
        wait_for("all are looked at", LIMIT, async || {
            let known = self.fleet.records().number("SELECT COUNT(*) FROM machine").await?;
            Ok(if known == MACHINES as i64 {
                Look::Holds(())
            } else {
                Look::NotYet(format!("{known} are known"))
            })
        })
        .await
    }

    /// No machine was installed but once, and none is off.
    async fn nothing_was_destroyed(&self, when: &str) -> Result<()> {
        for name in &self.names {
            let installs = self.fleet.installs(name).await?;
            ensure!(installs == 1, "{when}: {name} was installed {installs} times");
            ensure!(self.fleet.bmcs().power(name).await? == "On", "{when}: {name} is off");
        }
        Ok(())
    }

    async fn forget_database(&self) -> Result<()> {
        for table in [
            "queue",
            "job",
            "server_state",
            "inventory",
            "machine",
            "bmc_claim",
            "budget",
            "boot_session",
            "job_history",
            "worker",
            "login",
        ] {
            let text = format!("DELETE FROM {table}");
            sqlx::query(sqlx::AssertSqlSafe(text)).execute(self.fleet.records().pool()).await?;
        }
        Ok(())
    }

    async fn forget_status(&self) -> Result<()> {
        for name in &self.names {
            let patch = kube::api::Patch::Json::<()>(serde_json::from_value(json!([
                { "op": "replace", "path": "/status", "value": { "observedGeneration": -1 } }
            ]))?);
            self.fleet.servers().patch_status(name, &PatchParams::default(), &patch).await?;
        }
        Ok(())
    }

    /// The objects go without a word to AutoBuild, as with a cluster that is lost.
    async fn forget_objects(&self) -> Result<()> {
        let kubectl = self.fleet.kubectl().in_namespace(self.fleet.namespace());
        for name in &self.names {
            let patch = kube::api::Patch::Merge(json!({ "metadata": { "finalizers": null } }));
            self.fleet.servers().patch(name, &PatchParams::default(), &patch).await?;
        }
        kubectl.run(&["delete", "servers", "--all", "--wait=true"]).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_installed_machines_lose_status_database_and_objects_and_none_is_installed_again() {
    let fleet = Fleet::with(Layout::new(MACHINES as u32).emulator(FAST)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    for name in ["debian-12", "debian-13"] {
        fleet.image(name, &files, &[&format!("release={name}")]).await.unwrap();
    }
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let names = (1..=MACHINES).map(system).collect();
    let mut site = Site { fleet, names, processes: None };
    site.start("first").await.unwrap();
    site.declare_all("debian-12").await.unwrap();
    site.all("all are built", has_image).await.unwrap();

    site.stop().await.unwrap();
    site.forget_status().await.unwrap();
    site.start("without-status").await.unwrap();
    site.all("all are as declared without their status", has_image).await.unwrap();
    site.nothing_was_destroyed("without status").await.unwrap();

    site.stop().await.unwrap();
    site.forget_database().await.unwrap();
    site.start("without-database").await.unwrap();
    site.all("all are as declared without the database", has_image).await.unwrap();
    site.looked_at().await.unwrap();
    site.nothing_was_destroyed("without database").await.unwrap();

    // The same manifests, the same database, other objects.
    site.stop().await.unwrap();
    site.forget_objects().await.unwrap();
    site.declare_all("debian-12").await.unwrap();
    site.start("new-objects").await.unwrap();
    site.all("all are as declared under new objects", has_image).await.unwrap();
    site.nothing_was_destroyed("new objects").await.unwrap();

    // Older manifests: a restored cluster asks for what was there before.
    site.stop().await.unwrap();
    site.forget_objects().await.unwrap();
    site.declare_all("debian-13").await.unwrap();
    site.start("older-manifests").await.unwrap();
    let asks = |server: &Server| truth(server, ConditionType::Stalled) == Some("True");
    site.all("all ask for a person's word under older manifests", asks).await.unwrap();
    site.nothing_was_destroyed("older manifests").await.unwrap();

    // A new cluster, an empty database, the old manifests: nothing is known of any machine.
    site.stop().await.unwrap();
    site.forget_objects().await.unwrap();
    site.forget_database().await.unwrap();
    site.declare_all("debian-12").await.unwrap();
    site.start("nothing-known").await.unwrap();
    site.all("all ask for a person's word where nothing is known", asks).await.unwrap();
    let why = site.fleet.wait_reason(&system(1), ConditionType::Stalled, Reason::ConfirmBuild).await.unwrap();
    assert!(why.contains("Adopt"), "{why}");
    site.nothing_was_destroyed("nothing known").await.unwrap();
    for name in &site.names {
        site.fleet.change(name, json!({ "provisioning": "Adopt" })).await.unwrap();
    }
    site.all("all are adopted", has_image).await.unwrap();
    site.nothing_was_destroyed("adopted").await.unwrap();

    // Status and database at once, under the same objects: a wish that was adopted stays one.
    site.stop().await.unwrap();
    site.forget_status().await.unwrap();
    site.forget_database().await.unwrap();
    site.start("nothing-left").await.unwrap();
    site.all("all are as declared without status and database", has_image).await.unwrap();
    site.looked_at().await.unwrap();
    site.nothing_was_destroyed("nothing left").await.unwrap();
    // This test itself takes statuses back: what else has to hold at an end.
    assert_eq!(site.fleet.logged("panicked at").unwrap(), Vec::<String>::new());
    assert_eq!(site.fleet.leaks().await.unwrap(), Vec::<String>::new());
}
