//! The processes of two releases on one site.

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::autobuild::{Autobuild, Running};
use e2e::database::{Database, Engine};
use e2e::fleet::{BootFiles, Fleet, Layout, Proxy};
use e2e::release_before;

/// Which release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    Before,
    This,
}

impl Release {
    const fn word(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::This => "this",
        }
    }
}

/// The processes of one release.
pub struct Processes {
    controller: Running,
    worker: Running,
    boot: Running,
}

impl Processes {
    /// As a rolling update ends the pods of a release: each is asked, and has its grace period.
    pub async fn stop(&mut self) {
        for process in [&mut self.controller, &mut self.worker, &mut self.boot] {
            process.process().stop(Duration::from_secs(30)).await.unwrap();
        }
    }
}

impl Processes {
    /// As a machine that loses its power ends them.
    pub async fn kill(&mut self) {
        for process in [&mut self.controller, &mut self.worker, &mut self.boot] {
            process.process().kill().await.unwrap();
        }
    }
}

/// A fleet whose schema and processes are those of one release, and then of the other.
pub struct Site {
    pub fleet: Fleet,
    pub files: BootFiles,
    before: PathBuf,
    /// The address of the boot service, whoever serves there: machines in flight know it alone.
    address: Proxy,
    rounds: usize,
}

impl Site {
    /// On the schema of the release before.
    pub async fn start(engine: Engine, systems: u32, emulator: &[&str]) -> Self {
        let before = release_before::program().await.unwrap();
        let database = Database::shared(engine).await.unwrap();
        let url = database.unique_schema("upgrade").await.unwrap();
        let layout = Layout::new(systems).emulator(emulator).database(&url).migrated_by(&before);
        let fleet = Fleet::with(layout).await.unwrap();
        let files = BootFiles::serve().await.unwrap();
        fleet.image("debian-12", &files, &[]).await.unwrap();
        let address = Proxy::start("127.0.0.1:9".parse().unwrap()).await.unwrap();
        fleet.bmcs().boot_from(&format!("http://{}", address.address())).await.unwrap();
        Self { fleet, files, before, address, rounds: 0 }
    }

    fn programs(&self, release: Release) -> Autobuild {
        match release {
            Release::Before => self.fleet.autobuild().of(&self.before),
            Release::This => self.fleet.autobuild().clone(),
        }
    }

    /// What the Job of the manifests does. That of the release before runs again when somebody goes back.
    pub async fn migrate(&self, release: Release) {
        self.programs(release).migrate(self.fleet.database_url()).await.unwrap();
    }

    /// Starts controller, worker and boot service, beside what runs. The address of the boot service leads there from now on.
    pub async fn run(&mut self, release: Release) -> Processes {
        self.rounds += 1;
        let (fleet, programs) = (&self.fleet, self.programs(release));
        let name = |what: &str| format!("{what}-{}-{}", release.word(), self.rounds);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap();
        drop(listener);
        let flags = fleet
            .boot_flags(&name("boot"), &own.to_string(), self.files.address())
            .unwrap()
            .set("--public-url", format!("http://{}", self.address.address()));
        let start = async |what: &str, flags, kubeconfig: &Path| {
            let running = fleet.launch_of(&programs, &name(what), &flags, kubeconfig, &[]).await.unwrap();
            running.wait_ready().await.unwrap();
            running
        };
        let boot = start("boot", flags, fleet.cluster().boot()).await;
        self.address.lead_to(own);
        // The release before tells BMCs who asks without being asked to.
        let flags = match release {
            Release::Before => fleet.worker_flags().without("--tell-bmcs-who-asks"),
            Release::This => fleet.worker_flags(),
        };
        let worker = start("worker", flags, fleet.cluster().worker()).await;
        // It is ready when it leads, or when it waits for the one that does.
        let flags = fleet.controller_flags().set("--destruction-budget", "1000");
        let controller = start("controller", flags, fleet.cluster().controller()).await;
        Processes { controller, worker, boot }
    }
}
