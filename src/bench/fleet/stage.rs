//! Everything that a measurement stands on: namespaces, a schema, emulated machines, AutoBuild's processes.

use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::super::BenchError;
use super::bmcs::Bmcs;
use super::children::{Child, Nursery};
use super::cluster::Cluster;
use super::files::BootFiles;
use super::meters::Watched;
use super::raw::Raw;
use super::seen::Seen;
use super::{Fleet, cluster};
use crate::queue::measure::Scratch;

/// The image that every server runs.
pub(super) const IMAGE: &str = "bench";

/// How a worker is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WorkerShape {
    /// Jobs that run at once.
    pub slots: u32,
    /// Installations in flight at once at the site.
    pub installs: u32,
}

/// The running parts.
pub(super) struct Stage<'a> {
    /// What to measure.
    pub order: &'a Fleet,
    /// The API server.
    pub cluster: &'a Cluster,
    /// What the Servers show.
    pub seen: Seen,
    /// The emulated machines.
    pub bmcs: Bmcs,
    /// The raw limit of the API server.
    pub raw: Raw,
    /// The controller.
    pub controller: Child,
    /// The workers.
    pub workers: Vec<Child>,
    schema: &'a Scratch,
    boot: Child,
    emulator: Child,
    nursery: Nursery,
    started: u32,
    _files: BootFiles,
}

impl<'a> Stage<'a> {
    /// Starts everything; what was started before an error ends with it.
    pub(super) async fn open(
        order: &'a Fleet,
        cluster: &'a Cluster,
        schema: &'a Scratch,
        folder: &Path,
    ) -> Result<Self, BenchError> {
        let write = |file: &str, text: &str| {
            let file = folder.join(file);
            std::fs::write(&file, text).map_err(|source| BenchError::Write { file, source })
        };
        let (username, password, key) = ("bench", random_text(), random_text());
        write("login.key", &key)?;
        std::fs::create_dir_all(folder.join("cache"))
            .map_err(|source| BenchError::Write { file: folder.join("cache"), source })?;
        let nursery = Nursery {
            folder: folder.to_owned(),
            logs: order.logs.clone().unwrap_or_else(|| folder.to_owned()),
            env: vec![
                ("DATABASE_URL", schema.url().to_owned()),
                ("AUTOBUILD_EMULATOR_PASSWORD", password.clone()),
            ],
        };
        let addresses = folder.join("addresses.json");
        let emulator = nursery.start("emulator", &emulate(order, username, &addresses)).await?;
        let bmcs = Bmcs::new(&emulator, &addresses).await?;
        let files = BootFiles::serve().await?;
        cluster.secret(username, &password).await?;
        cluster.image(IMAGE, &image(&files)).await?;
        // Its address is a part of what it hands out, so it has to be known before.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let boot_at =
            free.map_err(|error| BenchError::Process { name: "boot".into(), why: error.to_string() })?;
        let boot_args = flags(&[
            ("boot", ""),
            ("--boot-listen", &boot_at.to_string()),
            ("--public-url", &format!("http://{boot_at}")),
            ("--cache-dir", &folder.join("cache").display().to_string()),
            ("--http-source", files.address()),
        ]);
        let mut boot = nursery.start("boot", &boot_args).await?;
        bmcs.boot_from(&format!("http://{boot_at}")).await?;
        let mut controller = nursery.start("controller", &control(order, cluster)).await?;
        let raw = Raw::prepare(cluster).await?;
        boot.ready().await?;
        controller.ready().await?;
        let seen = Seen::watch(cluster.servers());
        let mut stage = Self {
            order,
            cluster,
            seen,
            bmcs,
            raw,
            controller,
            workers: Vec::new(),
            schema,
            boot,
            emulator,
            nursery,
            started: 0,
            _files: files,
        };
        let shape = WorkerShape { slots: order.slots, installs: order.parallel };
        for _ in 0..order.workers {
            stage.add_worker(shape).await?;
        }
        Ok(stage)
    }

    /// Starts one more worker.
    pub(super) async fn add_worker(&mut self, shape: WorkerShape) -> Result<(), BenchError> {
        self.started += 1;
        let key = self.nursery.folder.join("login.key").display().to_string();
        let mut args = flags(&[
            ("worker", ""),
            ("--slots", &shape.slots.to_string()),
            ("--installs", &shape.installs.to_string()),
            ("--bmc-cidr", "127.0.0.0/8"),
            ("--login-key-file", &key),
        ]);
        args.push("--allow-plain-http".to_owned());
        let mut worker = self.nursery.start(&format!("worker {}", self.started), &args).await?;
        worker.ready().await?;
        self.workers.push(worker);
        Ok(())
    }

    /// Ends all workers and starts others.
    pub(super) async fn replace_workers(&mut self, shapes: &[WorkerShape]) -> Result<(), BenchError> {
        for worker in self.workers.drain(..) {
            worker.stop().await;
        }
        for shape in shapes {
            self.add_worker(*shape).await?;
        }
        Ok(())
    }

    /// Fails where a process has ended that nobody asked to.
    pub(super) fn check(&mut self) -> Result<(), BenchError> {
        for child in [&mut self.emulator, &mut self.boot, &mut self.controller] {
            child.check()?;
        }
        self.workers.iter_mut().try_for_each(Child::check)
    }

    /// All processes that are watched, with those that the order names and this one.
    pub(super) fn watched(&self) -> Vec<Watched> {
        let own = [&self.controller].into_iter().chain(&self.workers).chain([&self.boot, &self.emulator]);
        let own = own.map(|child| Watched { name: child.name().to_owned(), pid: child.pid() });
        let this = i32::try_from(std::process::id()).unwrap_or_default();
        let more = self.order.watched.iter().map(|(name, pid)| Watched { name: name.clone(), pid: *pid });
        own.chain([Watched { name: "this program".into(), pid: this }]).chain(more).collect()
    }

    /// A number of the workers, all together.
    pub(super) async fn worker_metric(&self, name: &str, labels: &str) -> Result<f64, BenchError> {
        let mut sum = 0.0;
        for worker in &self.workers {
            sum += worker.metric(name, labels).await?;
        }
        Ok(sum)
    }

    /// The servers whose jobs are in the hands of a worker, by the end of the name under which it is registered.
    pub(super) async fn held(&self, worker: &str) -> Result<Vec<String>, BenchError> {
        Ok(self.schema.held_by(worker).await?)
    }

    /// Ends all processes, those that ask first.
    pub(super) async fn close(self) {
        let Self { controller, workers, boot, emulator, .. } = self;
        futures::future::join_all(workers.into_iter().map(Child::stop)).await;
        futures::future::join(controller.stop(), boot.stop()).await;
        emulator.stop().await;
    }
}

fn random_text() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn flags(pairs: &[(&str, &str)]) -> Vec<String> {
    let texts = pairs.iter().flat_map(|(flag, value)| [*flag, *value]);
    texts.filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

fn emulate(order: &Fleet, username: &str, addresses: &Path) -> Vec<String> {
    let systems = order.servers.to_string();
    flags(&[
        ("emulate", ""),
        ("--systems", &systems),
        // Each its own BMC: a chassis answers few requests at once.
        ("--own-ports", &systems),
        ("--username", username),
        ("--addresses-file", &addresses.display().to_string()),
        ("--initial-power", "on"),
        ("--power-on-delay", "0"),
        ("--power-off-delay", "0"),
        ("--post-delay", "0"),
        ("--install-duration", "0"),
    ])
}

fn control(order: &Fleet, cluster: &Cluster) -> Vec<String> {
    flags(&[
        ("controller", ""),
        ("--watch-namespaces", cluster.namespace()),
        ("--lease-namespace", cluster.namespace()),
        ("--concurrency", &order.concurrency.to_string()),
        // A look that comes by itself would be taken for what was asked for.
        ("--inspect-period", "6h"),
        ("--fresh-bound", "12h"),
        // How fast, not how careful.
        ("--destruction-budget", "unlimited"),
    ])
}

fn image(files: &BootFiles) -> Value {
    let file = |name: &str, content: &str| {
        let sha256 =
            Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        json!({ "url": format!("http://{}/{name}", files.address()), "sha256": sha256 })
    };
    let [kernel, initrd] = super::files::FILES;
    json!({
        "source": { "kernel": file(kernel.0, kernel.1), "initrd": file(initrd.0, initrd.1) },
        "install": { "format": "none" },
    })
}

/// Names what a killed benchmark leaves behind.
pub(super) fn left_behind() -> String {
    format!("namespaces {}*", cluster::NAMESPACE_PREFIX)
}
