//! What the platform around the processes does to them, one trouble after another on one fleet: what goes on, what stops, what is
//! said meanwhile, and that all of it converges by itself afterwards. It prints that as a table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use autobuild::api::condition::ConditionType;
use autobuild::api::{Reason, Server};
use axum::Router;
use axum::routing::get;
use e2e::autobuild::{Running, binary};
use e2e::fleet::{Flags, Fleet, LIMIT, Layout, Proxy, QUICK_INSTALLS, is_ready, message};
use e2e::kubectl::Kubectl;
use e2e::wait::{Look, say, wait_for};
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Executor as _};

use crate::steps::{is_rebooted, systems};

/// For so long a policy denies every status.
const DENIED: Duration = Duration::from_mins(2);
/// How long is looked at most for what a trouble does: it may do nothing.
const LOOKED_AT: Duration = Duration::from_secs(30);

/// A line of the table.
struct Row {
    trouble: &'static str,
    went_on: String,
    stopped: String,
    readyz: String,
    why: String,
}

impl Row {
    const HEAD: &'static str = "| trouble | went on | stopped | /readyz | why |\n|---|---|---|---|---|";

    fn text(&self) -> String {
        let Self { trouble, went_on, stopped, readyz, why } = self;
        format!("| {trouble} | {went_on} | {stopped} | {readyz} | {why} |")
    }
}

/// One line that fits into a table.
fn cell(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/");
    if line.chars().count() <= 400 { line } else { line.chars().take(400).chain(['…']).collect() }
}

/// Kernels of these sizes, over plain HTTP.
struct Kernels {
    address: String,
    served: tokio::task::JoinHandle<()>,
}

impl Drop for Kernels {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl Kernels {
    /// Two of which a cache of 2 MB has room for one at a time, and one that it has none for.
    const SIZES: [(&'static str, usize); 4] =
        [("initrd", 1_000), ("one", 1_200_000), ("two", 1_200_001), ("huge", 3_000_000)];

    async fn serve() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Self::SIZES.into_iter().fold(Router::new(), |router, (name, size)| {
            router.route(&format!("/{name}"), get(move || std::future::ready(vec![7_u8; size])))
        });
        let served = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { address, served }
    }

    fn file(&self, name: &str) -> Value {
        let size = Self::SIZES.iter().find(|(one, _)| *one == name).unwrap().1;
        let digest = format!("{:x}", Sha256::digest(vec![7_u8; size]));
        json!({ "url": format!("http://{}/{name}", self.address), "sha256": digest })
    }

    fn source(&self, kernel: &str) -> Value {
        json!({ "kernel": self.file(kernel), "initrd": self.file("initrd") })
    }
}

struct Platform {
    fleet: Fleet,
    /// What the controller reaches the API server through.
    api: Proxy,
    database: Login,
    controller: Running,
    worker: Running,
    boot: Running,
    names: Vec<String>,
    /// The machine whose BMC has a name with two addresses, of which one leads nowhere.
    by_name: String,
    /// How often each machine was to be rebooted.
    asked: BTreeMap<String, usize>,
    rows: Vec<Row>,
}

/// A user of the database whose password is rotated, and the file that has it.
struct Login {
    user: String,
    file: PathBuf,
}

impl Login {
    /// With every right that the processes have together.
    async fn create(fleet: &Fleet) -> Self {
        let pool = fleet.records().pool();
        let user = format!("r{}", &fleet.namespace()[6..]);
        let schema: String = sqlx::query_scalar("SELECT DATABASE()").fetch_one(pool).await.unwrap();
        for statement in [
            format!("CREATE USER {user}@'127.0.0.1' IDENTIFIED BY 'geheim-1'"),
            format!("GRANT SELECT, INSERT, UPDATE, DELETE ON `{schema}`.* TO {user}@'127.0.0.1'"),
        ] {
            pool.execute(AssertSqlSafe(statement)).await.unwrap();
        }
        let login = Self { user, file: fleet.dir().join("database-url") };
        login.write(fleet, "geheim-1");
        login
    }

    fn write(&self, fleet: &Fleet, password: &str) {
        let mut url = url::Url::parse(fleet.database_url()).unwrap();
        url.set_username(&self.user).unwrap();
        url.set_password(Some(password)).unwrap();
        std::fs::write(&self.file, format!("{url}\n")).unwrap();
    }

    fn flags(&self, flags: Flags) -> Flags {
        flags.set("--database-url-file", self.file.display().to_string())
    }

    /// Who is connected is thrown out, and gets in by the new password alone.
    async fn rotate(&self, fleet: &Fleet) {
        let pool = fleet.records().pool();
        let user = &self.user;
        let alter = format!("ALTER USER {user}@'127.0.0.1' IDENTIFIED BY 'geheim-2'");
        pool.execute(AssertSqlSafe(alter)).await.unwrap();
        let theirs =
            format!("SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE user = '{user}'");
        let ids: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(theirs)).fetch_all(pool).await.unwrap();
        for id in ids {
            // It may have gone by itself.
            let _ = pool.execute(AssertSqlSafe(format!("KILL {id}"))).await;
        }
    }
}

/// A program that runs `before` in a mount namespace of its own, and then AutoBuild.
fn after(dir: &Path, name: &str, before: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let program = dir.join(name);
    let autobuild = binary().unwrap().display().to_string();
    let script = format!(
        "#!/bin/sh\nexec unshare --user --map-root-user --mount sh -c '{before} && exec \"$0\" \"$@\"' {autobuild} \"$@\"\n"
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    program
}

impl Platform {
    async fn start() -> Self {
        let mut emulator = vec!["--initial-power", "on"];
        emulator.extend(QUICK_INSTALLS);
        let fleet = Fleet::with(Layout::new(6).emulator(&emulator)).await.unwrap();
        let cluster = fleet.cluster();
        let database = Login::create(&fleet).await;
        // Nobody answers there, and nobody is to be asked through it.
        let proxy = [("HTTPS_PROXY", "http://127.0.0.1:1"), ("HTTP_PROXY", "http://127.0.0.1:1")];

        let (api, through) = Proxy::before_api_server(cluster.controller(), fleet.dir()).await.unwrap();
        let flags = database.flags(fleet.controller_flags().set("--watch-silence", "3s"));
        let flags = flags.set("--lease-duration", "30s").set("--renew-period", "5s");
        let controller = fleet.launch("controller", &flags, &through, &proxy).await.unwrap();

        let hosts = fleet.dir().join("hosts");
        std::fs::write(&hosts, "::1 localhost\n127.0.0.1 localhost\n").unwrap();
        let bind = format!("mount --bind {} /etc/hosts", hosts.display());
        let program = fleet.autobuild().of(&after(fleet.dir(), "two-addresses", &bind));
        let flags = database.flags(fleet.worker_flags().set("--bmc-cidr", "127.0.0.0/8,::1/128"));
        let worker = fleet.launch_of(&program, "worker", &flags, cluster.worker(), &proxy).await.unwrap();

        let kernels = Kernels::serve().await;
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let flags = database.flags(fleet.boot_flags("boot", &address, &kernels.address).unwrap());
        let cache = fleet.dir().join("boot-cache").display().to_string();
        let mount = format!("mount -t tmpfs -o size=2m none {cache}");
        let program = fleet.autobuild().of(&after(fleet.dir(), "small-disk", &mount));
        let boot = fleet.launch_of(&program, "boot", &flags, cluster.boot(), &proxy).await.unwrap();
        for process in [&controller, &worker, &boot] {
            process.wait_ready().await.unwrap();
        }
        fleet.bmcs().boot_from(&format!("http://{address}")).await.unwrap();
        for image in ["one", "two", "huge"] {
            fleet.image_of(image, &kernels.source(image)).await.unwrap();
        }
        // It lives as long as the test.
        std::mem::forget(kernels);

        let names = systems(3);
        let by_name = names[2].clone();
        for name in &names {
            fleet.declare(name, json!({})).await.unwrap();
        }
        let host = fleet.bmcs().https_of(&by_name).replace("127.0.0.1", "localhost");
        let address = format!("redfish+https://{host}/redfish/v1/Systems/{by_name}");
        fleet.change(&by_name, json!({ "bmc": { "address": address } })).await.unwrap();
        let (asked, rows) = (BTreeMap::new(), Vec::new());
        let platform = Self { fleet, api, database, controller, worker, boot, names, by_name, asked, rows };
        platform.converge().await;
        platform
    }

    /// Everything is as declared, and nobody waits for anything.
    async fn converge(&self) {
        for process in [&self.controller, &self.worker, &self.boot] {
            process.wait_ready().await.unwrap();
        }
        for name in &self.names {
            self.fleet.wait_ready(name).await.unwrap();
        }
        wait_for("no job to be left", LIMIT, async || {
            let jobs = self.fleet.records().number("SELECT COUNT(*) FROM job WHERE quiet = 0").await?;
            Ok(if jobs == 0 { Look::Holds(()) } else { Look::NotYet(format!("{jobs} jobs")) })
        })
        .await
        .unwrap();
    }

    /// Asks for a reboot of each; the token.
    async fn ask(&mut self, names: &[String], token: &'static str) -> &'static str {
        for name in names {
            *self.asked.entry(name.clone()).or_default() += 1;
            self.fleet.change(name, json!({ "rebootToken": token })).await.unwrap();
        }
        token
    }

    /// Waits until each was rebooted for the token and says so.
    async fn rebooted(&self, names: &[String], token: &str) {
        for name in names {
            let what = format!("rebooted for {token}");
            self.fleet.wait(name, &what, |server| is_rebooted(server, token)).await.unwrap();
        }
    }

    /// Looks for something to come true, for a while: it may not.
    async fn seen(&self, mut holds: impl AsyncFnMut() -> Result<bool>) -> bool {
        let since = Instant::now();
        while since.elapsed() < LOOKED_AT {
            if holds().await.unwrap_or(false) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        false
    }

    /// What the processes say at `/readyz`.
    async fn readyz(&self) -> String {
        let mut said = Vec::new();
        for process in [&self.controller, &self.worker, &self.boot] {
            let name = process.process().name();
            let text = match process.get("/readyz").await {
                Ok((200, text)) if text.trim() == "ok" || text.trim().is_empty() => "200".to_owned(),
                Ok((status, text)) => {
                    let mut lines = text.lines().filter(|line| !line.starts_with("the watch of"));
                    format!("{status}: {}", lines.next().unwrap_or_default())
                }
                Err(error) => format!("no answer ({error})"),
            };
            said.push(format!("{name} {text}"));
        }
        cell(&said.join("; "))
    }

    /// What `kubectl autobuild why` says of a server, without its story.
    async fn why(&self, name: &str) -> String {
        let kubectl = Kubectl::new(self.fleet.plane().kubeconfig());
        let kubectl = kubectl.with_plugins(binary().unwrap().parent().unwrap());
        let page = kubectl.run(&["autobuild", "why", name, "-n", self.fleet.namespace()]).await.unwrap();
        cell(&page.lines().take(4).collect::<Vec<_>>().join(" "))
    }

    fn told(&mut self, row: Row) {
        say(row.text());
        self.rows.push(row);
    }
}

/// A worker with 64 descriptors at its start, and one that has no more than it holds.
async fn descriptors(platform: &mut Platform) {
    let names = platform.names.clone();
    let few = after(platform.fleet.dir(), "few-descriptors", "ulimit -n 64");
    let program = platform.fleet.autobuild().of(&few);
    let flags = platform.fleet.worker_flags();
    let refused = platform.fleet.launch_of(&program, "few", &flags, platform.fleet.cluster().worker(), &[]);
    assert!(refused.await.is_err());
    let refused = platform.fleet.logged("file descriptors").unwrap();
    let refused = refused.iter().find(|line| line.starts_with("few: ")).expect("it says why it ends").clone();
    assert!(refused.contains("no more than 64: raise the limit of open files"), "{refused}");
    platform.told(Row {
        trouble: "descriptors 64, at the start",
        went_on: "everything, by the worker that is there".to_owned(),
        stopped: cell(&refused),
        readyz: platform.readyz().await,
        why: platform.why(&names[0]).await,
    });

    let pid = Pid::from_raw(platform.worker.process().pid() as i32).unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", platform.worker.process().pid())).unwrap().count();
    // Its hard limit is this process's own.
    let few = Rlimit { current: Some(open as u64), ..getrlimit(Resource::Nofile) };
    let before = prlimit(Some(pid), Resource::Nofile, few).unwrap();
    let token = platform.ask(&names, "descriptors").await;
    let fleet = &platform.fleet;
    let is_told = |server: &Server| {
        let conditions = [ConditionType::Reachable, ConditionType::Stalled, ConditionType::Ready];
        conditions.into_iter().any(|kind| message(server, kind, Reason::WorkerTrouble).is_some())
    };
    let seen = platform
        .seen(async || {
            let server = fleet.get(&names[0]).await?;
            let job = server.status.as_ref().and_then(|status| status.job.as_ref());
            Ok(is_told(&server) || job.is_some_and(|job| job.waiting_for.is_some()))
        })
        .await;
    let row = Row {
        trouble: "descriptors: none left",
        went_on: "decisions, status".to_owned(),
        stopped: if seen { "jobs wait for the worker" } else { "nothing" }.to_owned(),
        readyz: platform.readyz().await,
        why: platform.why(&names[0]).await,
    };
    platform.told(row);
    prlimit(Some(pid), Resource::Nofile, before).unwrap();
    platform.rebooted(&names, token).await;
    platform.converge().await;
}

/// A cache of 2 MB: what fits is installed, one image after the other; what cannot fit is told.
async fn small_cache(platform: &mut Platform) {
    let [one, two, huge] = [4, 5, 6].map(|number| systems(number).pop().unwrap());
    for (name, image) in [(&one, "one"), (&two, "two"), (&huge, "huge")] {
        platform.fleet.declare(name, json!({ "image": { "name": image } })).await.unwrap();
    }
    confirm(&platform.fleet, &[&one, &two, &huge]).await;
    for name in [&one, &two] {
        platform.fleet.wait(name, "installed", is_installed).await.unwrap();
    }
    platform.fleet.wait_reason(&huge, ConditionType::Stalled, Reason::ImageUnusable).await.unwrap();
    let row = Row {
        trouble: "cache disk of 2 MB",
        went_on: "two images of 1.2 MB each, one evicted for the other".to_owned(),
        stopped: "an image of 3 MB".to_owned(),
        readyz: platform.readyz().await,
        why: platform.why(&huge).await,
    };
    platform.told(row);
    // What can never fit is a person's.
    platform.fleet.change(&huge, json!({ "image": { "name": "one" } })).await.unwrap();
    platform.fleet.wait(&huge, "installed", is_installed).await.unwrap();
    for name in [one, two, huge] {
        assert_eq!(platform.fleet.installs(&name).await.unwrap(), 1, "{name}");
        platform.names.push(name);
    }
    platform.converge().await;
}

fn is_installed(server: &Server) -> bool {
    is_ready(server) && server.status.as_ref().is_some_and(|status| status.image.is_some())
}

/// A machine that is on runs something: a person says that it may be erased.
async fn confirm(fleet: &Fleet, names: &[&String]) {
    for name in names {
        let uid = fleet.get(name).await.unwrap().metadata.uid.unwrap();
        let annotations = json!({ "metadata": { "annotations": { autobuild::api::names::CONFIRM: uid } } });
        fleet.servers().patch(name, &PatchParams::default(), &Patch::Merge(annotations)).await.unwrap();
    }
}

async fn password(platform: &mut Platform) {
    let names = platform.names.clone();
    platform.database.rotate(&platform.fleet).await;
    let token = platform.ask(&names[..3], "password").await;
    for process in [&platform.controller, &platform.worker, &platform.boot] {
        wait_for("the refused password to be told", LIMIT, async || {
            let (status, said) = process.get("/readyz").await?;
            let told = status == 503 && said.contains("Access denied");
            Ok(if told { Look::Holds(()) } else { Look::NotYet(format!("{status}: {said}")) })
        })
        .await
        .unwrap();
    }
    let row = Row {
        trouble: "password rotated",
        went_on: "machines that are installed already".to_owned(),
        stopped: "decisions, jobs, boot scripts".to_owned(),
        readyz: platform.readyz().await,
        why: platform.why(&names[0]).await,
    };
    platform.told(row);
    platform.database.write(&platform.fleet, "geheim-2");
    platform.rebooted(&names[..3], token).await;
    platform.converge().await;
}

/// Both have been there from the start.
async fn names_and_proxies(platform: &mut Platform) {
    let by_name = [platform.by_name.clone()];
    let token = platform.ask(&by_name, "dead-AAAA").await;
    platform.rebooted(&by_name, token).await;
    let row = Row {
        trouble: "dead AAAA beside a live A",
        went_on: "everything".to_owned(),
        stopped: "nothing".to_owned(),
        readyz: platform.readyz().await,
        why: platform.why(&by_name[0]).await,
    };
    platform.told(row);
    let other = [platform.names[0].clone()];
    let token = platform.ask(&other, "proxy").await;
    platform.rebooted(&other, token).await;
    let row = Row {
        trouble: "HTTPS_PROXY set to what is dead",
        went_on: "everything: BMCs, MySQL, downloads, and an API server on loopback ask no proxy".to_owned(),
        stopped: "nothing".to_owned(),
        readyz: platform.readyz().await,
        why: platform.why(&other[0]).await,
    };
    platform.told(row);
    platform.converge().await;
}

/// Kinds of policies, with their bindings first.
fn policies(fleet: &Fleet) -> [Api<DynamicObject>; 2] {
    POLICIES.map(|kind| Api::all_with(fleet.client(), &resource(kind)))
}

const POLICIES: [&str; 2] = ["ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"];

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind))
}

/// Has the API server refuse every status in the namespace.
async fn deny(fleet: &Fleet) -> String {
    let name = format!("deny-{}", fleet.namespace());
    let rule = json!({
        "apiGroups": ["autobuild.dev"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["servers/status"],
    });
    let policy = json!({
        "failurePolicy": "Fail",
        "matchConstraints": {
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": fleet.namespace() } },
            "resourceRules": [rule],
        },
        "validations": [{ "expression": "false", "message": "status is frozen" }],
    });
    let binding = json!({ "policyName": name, "validationActions": ["Deny"] });
    for (api, (kind, spec)) in policies(fleet).iter().zip(POLICIES.into_iter().zip([binding, policy])) {
        let object = DynamicObject::new(&name, &resource(kind)).data(json!({ "spec": spec }));
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    let one = systems(1).remove(0);
    wait_for("the policy to be in force", LIMIT, async || {
        let how = PatchParams { dry_run: true, ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "status": { "observedGeneration": 1 } }));
        let passed = fleet.servers().patch_status(&one, &how, &patch).await.is_ok();
        Ok(if passed { Look::NotYet("it passes".to_owned()) } else { Look::Holds(()) })
    })
    .await
    .unwrap();
    name
}

async fn denied_status(platform: &mut Platform) {
    let names = platform.names.clone();
    let policy = deny(&platform.fleet).await;
    let since = Instant::now();
    let token = platform.ask(&names[..3], "denied").await;
    let fleet = &platform.fleet;
    // A reboot needs no witness: status is behind, and the machine is not.
    wait_for("the machines to be rebooted", LIMIT, async || {
        let mut waiting = Vec::new();
        for name in &names[..3] {
            let resets = fleet.bmcs().resets(name).await?.len();
            if resets < 2 * platform.asked[name] {
                waiting.push(format!("{name}: {resets}"));
            }
        }
        Ok(if waiting.is_empty() { Look::Holds(()) } else { Look::NotYet(waiting.join(", ")) })
    })
    .await
    .unwrap();
    let note = fleet.wait_event(&names[0], Reason::StatusRefused).await.unwrap();
    assert!(note.contains("status is frozen") && note.contains("no Role is missing"), "{note}");
    tokio::time::sleep(DENIED.saturating_sub(since.elapsed())).await;
    let row = Row {
        trouble: "status denied by a policy for two minutes",
        went_on: "three reboots".to_owned(),
        stopped: cell(&format!("status; the Event says: {note}")),
        readyz: platform.readyz().await,
        why: platform.why(&names[0]).await,
    };
    for api in policies(&platform.fleet) {
        api.delete(&policy, &DeleteParams::default()).await.unwrap();
    }
    platform.told(row);
    platform.rebooted(&names[..3], token).await;
    platform.converge().await;
}

async fn frozen_leader(platform: &mut Platform) {
    let names = platform.names.clone();
    platform.api.freeze_open();
    let token = platform.ask(&names[..3], "frozen").await;
    let controller = &platform.controller;
    let told = platform
        .seen(async || Ok(controller.get("/metrics").await?.1.contains("autobuild_watches_silent_total")))
        .await;
    let row = Row {
        trouble: "the leader's connections frozen",
        went_on: "jobs that were enqueued".to_owned(),
        stopped: if told { "the leader's watches, until they were opened again" } else { "nothing" }
            .to_owned(),
        readyz: platform.readyz().await,
        why: platform.why(&names[0]).await,
    };
    platform.told(row);
    platform.rebooted(&names[..3], token).await;
    platform.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long drill: make soak"]
async fn whatever_the_platform_does_is_told_and_everything_converges_by_itself_afterwards() {
    let mut platform = Platform::start().await;
    descriptors(&mut platform).await;
    small_cache(&mut platform).await;
    password(&mut platform).await;
    names_and_proxies(&mut platform).await;
    denied_status(&mut platform).await;
    frozen_leader(&mut platform).await;

    let table: Vec<String> = platform.rows.iter().map(Row::text).collect();
    say(format!("the platform's troubles\n{}\n{}", Row::HEAD, table.join("\n")));
    for (name, times) in &platform.asked {
        let resets = platform.fleet.bmcs().resets(name).await.context("the emulator").unwrap();
        let offs = resets.iter().filter(|reset| *reset == "off").count();
        assert_eq!(offs, *times, "{name}: each token once: {resets:?}");
        assert_eq!(platform.fleet.bmcs().power(name).await.unwrap(), "On", "{name}");
    }
    assert!(platform.fleet.logged("geheim").unwrap().is_empty());
    platform.fleet.end().await.unwrap();
}
