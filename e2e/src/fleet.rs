//! One test's own AutoBuild: a namespace, a schema, a fleet of emulated BMCs, and the processes that the test starts.
//!
//! Fleets stand side by side on one control plane and one database: each has a namespace with the rights of an
//! installation, a Lease of its own in it, and a schema of its own. [`Fleet::end`] looks at what has to hold for every
//! test: nothing panicked, no password was written anywhere, and status never contradicted itself.

mod bmcs;
mod boot;
mod cluster;
mod flags;
mod history;
mod metrics;
mod proxy;
mod records;
mod servers;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use autobuild::api::Server;
use kube::{Api, Client};
use sqlx::mysql::MySqlPoolOptions;

use crate::autobuild::{Autobuild, Running};
use crate::control_plane::ControlPlane;
use crate::database::{Database, Engine, Users};
use crate::kubectl::Kubectl;
use crate::paths;
use crate::process::Lifetime;

pub use bmcs::{Asked, Bmcs};
pub(crate) use boot::hex;
pub use boot::{BootFiles, QUICK_INSTALLS, source_at};
pub use cluster::Cluster;
pub use flags::Flags;
pub use history::Shown;
pub use metrics::metric;
pub use proxy::{Link, Proxy};
pub use records::{Live, Past, Records};
pub use servers::{AUTHORITY, LIMIT, SECRET, describe, is_current, is_ready, message, truth};

/// What a fleet is made of.
#[derive(Debug, Clone)]
pub struct Layout {
    systems: u32,
    emulator: Vec<String>,
    database_url: Option<String>,
    migrated_by: Option<PathBuf>,
}

impl Layout {
    /// So many systems, each also on a port of its own, with short power delays.
    pub fn new(systems: u32) -> Self {
        Self { systems, emulator: Vec::new(), database_url: None, migrated_by: None }
    }

    /// More arguments of the emulator.
    #[must_use]
    pub fn emulator(mut self, args: &[&str]) -> Self {
        self.emulator.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Another database than the shared one; it is migrated.
    #[must_use]
    pub fn database(mut self, url: &str) -> Self {
        self.database_url = Some(url.to_owned());
        self
    }

    /// The tables are made by this program, of another release.
    #[must_use]
    pub fn migrated_by(mut self, program: &Path) -> Self {
        self.migrated_by = Some(program.to_path_buf());
        self
    }
}

/// A namespace, a schema, BMCs, and how to start processes on them.
#[expect(missing_debug_implementations, reason = "a Kubernetes client has none")]
pub struct Fleet {
    cluster: &'static Cluster,
    namespace: String,
    dir: PathBuf,
    database_url: String,
    /// Where the schema is the fleet's own.
    users: Option<Users>,
    autobuild: Autobuild,
    bmcs: Bmcs,
    records: Records,
    client: Client,
    shown: Shown,
    username: String,
    password: String,
}

impl Fleet {
    /// With so many systems.
    pub async fn start(systems: u32) -> Result<Self> {
        Self::with(Layout::new(systems)).await
    }

    /// As laid out.
    pub async fn with(layout: Layout) -> Result<Self> {
        let cluster = Cluster::shared().await?;
        let (own, database_url) = if let Some(url) = layout.database_url {
            (None, url)
        } else {
            let database = Database::shared(Engine::from_env()?).await?;
            (Some(database), database.unique_schema("fleet").await?)
        };
        let namespace = cluster.namespace("fleet").await?;
        let dir = paths::private(&namespace)?;
        std::fs::write(dir.join("login.key"), uuid::Uuid::new_v4().simple().to_string().repeat(2))?;
        let autobuild = Autobuild::new(&dir, Lifetime::WithParent)?;
        let migrating = layout.migrated_by.as_deref().map(|program| autobuild.of(program));
        migrating.as_ref().unwrap_or(&autobuild).migrate(&database_url).await?;
        // One that the user named may give no rights.
        let users = match own.filter(|database| database.is_own()) {
            Some(database) => Some(database.users(&database_url).await?),
            None => None,
        };
        let username = format!("user-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        // Characters that look different in a URL: a password that is written anywhere is found in every form.
        let password = format!("canary?{}&/+", uuid::Uuid::new_v4().simple());
        let bmcs =
            emulate(&autobuild, &dir, &layout.emulator, layout.systems, (&username, &password)).await?;
        let client = cluster.plane().admin().await?;
        let pool = MySqlPoolOptions::new()
            .max_connections(3)
            // A server may be set up in any way: what a test reads is what stands there.
            .after_connect(|connection, _| {
                Box::pin(async move {
                    let own = "SET autocommit = 1, completion_type = 'NO_CHAIN', sql_safe_updates = 0, \
                               sql_select_limit = 18446744073709551615, sql_big_selects = 1 \
                               /*!80000 , max_execution_time = 0 */ /*M! , max_statement_time = 0 */";
                    sqlx::Executor::execute(connection, own).await.map(drop)
                })
            })
            .connect(&database_url)
            .await?;
        let shown = Shown::record(Api::namespaced(client.clone(), &namespace));
        let fleet = Self {
            cluster,
            namespace,
            dir,
            database_url,
            users,
            autobuild,
            bmcs,
            records: Records::new(pool),
            client,
            shown,
            username,
            password,
        };
        fleet.authority().await?;
        fleet.secret(SECRET, &[("username", &fleet.username), ("password", &fleet.password)]).await?;
        Ok(fleet)
    }

    /// The control plane.
    pub fn plane(&self) -> &'static ControlPlane {
        self.cluster.plane()
    }

    /// What the processes may use to log in to the control plane.
    pub fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The folder with the logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The URL of its schema, password included.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// How its processes are started.
    pub fn autobuild(&self) -> &Autobuild {
        &self.autobuild
    }

    /// Its BMCs.
    pub fn bmcs(&self) -> &Bmcs {
        &self.bmcs
    }

    /// Its tables.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Every version of its Servers so far.
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// The user name of its BMCs.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The password of its BMCs.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// A client as the administrator.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The Servers of its namespace.
    pub fn servers(&self) -> Api<Server> {
        Api::namespaced(self.client(), &self.namespace)
    }

    /// `kubectl` as the administrator.
    pub fn kubectl(&self) -> Kubectl {
        self.plane().kubectl()
    }

    /// The usual flags of a controller.
    pub fn controller_flags(&self) -> Flags {
        flags::controller(&self.namespace)
    }

    /// The usual flags of a worker.
    pub fn worker_flags(&self) -> Flags {
        flags::worker(&self.dir.join("login.key").display().to_string())
    }

    /// Starts a controller and waits until it is ready.
    pub async fn controller(&self, name: &str) -> Result<Running> {
        self.controller_with(name, &self.controller_flags(), &[]).await
    }

    /// Starts a controller with these flags and variables, and waits until it is ready.
    pub async fn controller_with(&self, name: &str, flags: &Flags, env: &[(&str, &str)]) -> Result<Running> {
        let running = self.launch(name, flags, self.cluster.controller(), env).await?;
        running.wait_ready().await?;
        Ok(running)
    }

    /// Starts a worker and waits until it is ready.
    pub async fn worker(&self, name: &str) -> Result<Running> {
        self.worker_with(name, &self.worker_flags(), &[]).await
    }

    /// Starts a worker with these flags and variables, and waits until it is ready.
    pub async fn worker_with(&self, name: &str, flags: &Flags, env: &[(&str, &str)]) -> Result<Running> {
        let running = self.launch(name, flags, self.cluster.worker(), env).await?;
        running.wait_ready().await?;
        Ok(running)
    }

    /// Starts a process with a kubeconfig, and waits for its port only.
    pub async fn launch(
        &self,
        name: &str,
        flags: &Flags,
        kubeconfig: &Path,
        env: &[(&str, &str)],
    ) -> Result<Running> {
        self.launch_of(&self.autobuild, name, flags, kubeconfig, env).await
    }

    /// The same with the program of another release.
    pub async fn launch_of(
        &self,
        autobuild: &Autobuild,
        name: &str,
        flags: &Flags,
        kubeconfig: &Path,
        env: &[(&str, &str)],
    ) -> Result<Running> {
        let kubeconfig = kubeconfig.to_str().context("the path of the kubeconfig is not UTF-8")?;
        let own = self.users.as_ref().and_then(|users| users.of(flags.subcommand()));
        let database_url = own.unwrap_or(&self.database_url);
        let mut all = vec![("KUBECONFIG", kubeconfig)];
        if !flags.has("--database-url-file") {
            all.push(("DATABASE_URL", database_url));
        }
        all.extend(env);
        let args = flags.args();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        autobuild.start(name, &args, &all).await
    }

    /// Looks at what has to hold at the end of every test.
    pub async fn end(&self) -> Result<()> {
        let mut wrong = self.shown.contradictions();
        wrong.extend(self.logged("panicked at")?.into_iter().map(|line| format!("a panic: {line}")));
        wrong.extend(self.leaks().await?);
        if wrong.is_empty() {
            return Ok(());
        }
        bail!("{}\nlogs in {}", wrong.join("\n"), self.dir.display())
    }

    /// The lines of all logs that contain a text.
    pub fn logged(&self, text: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.dir.join("logs"))? {
            let path = entry?.path();
            let log = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let lines = log.lines().filter(|line| line.contains(text));
            found.extend(lines.map(|line| format!("{name}: {line}")));
        }
        Ok(found)
    }

    /// Where the BMCs' password is written, in any form: logs, tables, Servers, events.
    pub async fn leaks(&self) -> Result<Vec<String>> {
        use base64::Engine as _;
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let encoded: String = url::form_urlencoded::byte_serialize(self.password.as_bytes()).collect();
        let secret: &str = self.password.split(['?', '&']).nth(1).unwrap_or_default();
        let forms = [self.password.clone(), base64(&self.password), encoded, secret.to_owned()];
        let mut places: Vec<(String, String)> = Vec::new();
        for entry in std::fs::read_dir(self.dir.join("logs"))? {
            let path = entry?.path();
            places.push((
                path.display().to_string(),
                String::from_utf8_lossy(&std::fs::read(&path)?).into_owned(),
            ));
        }
        places.push(("the database".to_owned(), self.records.dump().await?));
        for kind in ["servers.autobuild.dev", "events.events.k8s.io", "leases"] {
            let text = self.kubectl().run(&["get", kind, "-n", &self.namespace, "-o", "yaml"]).await?;
            places.push((kind.to_owned(), text));
        }
        let leaks = places.iter().filter(|(_, text)| forms.iter().any(|form| text.contains(form)));
        Ok(leaks.map(|(place, _)| format!("the password is in {place}")).collect())
    }
}

async fn emulate(
    autobuild: &Autobuild,
    dir: &Path,
    more: &[String],
    systems: u32,
    (username, password): (&str, &str),
) -> Result<Bmcs> {
    let addresses = dir.join("addresses.json").display().to_string();
    let own_ports = systems.to_string();
    let mut args = vec!["--addresses-file", &addresses, "--listen-https-self-signed", "127.0.0.1:0"];
    args.extend(more.iter().map(String::as_str));
    for (flag, value) in
        [("--own-ports", own_ports.as_str()), ("--power-on-delay", "300"), ("--power-off-delay", "200")]
    {
        if !args.contains(&flag) {
            args.extend([flag, value]);
        }
    }
    let emulator = autobuild.emulator(systems, username, password, &args).await?;
    Bmcs::new(emulator, Path::new(&addresses))
}
