//! Everything together, as `make up` and `make demo` have it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::examples;
use crate::autobuild::{Autobuild, Emulator, Running};
use crate::control_plane::ControlPlane;
use crate::database::{Database, Durability, Engine};
use crate::given::{self, OUR_DATABASE_URL, OUR_KUBECONFIG};
use crate::kubectl::Kubectl;
use crate::process::{Lifetime, Process, Spec};
use crate::wait::say;

/// The namespace of AutoBuild's processes.
const SYSTEM: &str = "autobuild-system";
/// User of every emulated BMC.
const USERNAME: &str = "admin";
/// The examples need ten; the others are for own trials.
const SYSTEMS: u32 = 20;
/// How long each process may take to end.
const GRACE: Duration = Duration::from_secs(30);

/// Where the servers live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Namespace {
    /// In `default`.
    Default,
    /// In `default` of an own cluster; in a namespace that goes at the end of one that the user named.
    Passing,
}

/// Which schema of a database that the user named; an own one gets `autobuild`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    /// The one in `DATABASE_URL`.
    Named,
    /// One that goes at the end.
    Passing,
}

/// The running parts.
#[derive(Debug)]
pub(super) struct Stack {
    dir: PathBuf,
    plane: ControlPlane,
    namespace: String,
    database: Database,
    database_url: String,
    passing_schema: Option<String>,
    emulator: Emulator,
    password: String,
    services: Vec<Running>,
    files: Process,
    examples: PathBuf,
    install_examples: PathBuf,
}

impl Stack {
    /// Starts all of it in `dir`.
    pub(super) async fn start(
        dir: &Path,
        lifetime: Lifetime,
        namespace: Namespace,
        schema: Schema,
    ) -> Result<Self> {
        let autobuild = Autobuild::new(&dir.join("autobuild"), lifetime)?;
        let plane = ControlPlane::start_in(&dir.join("controlplane"), lifetime).await?;
        let engine = Engine::from_env()?;
        let database =
            Database::start_in(&dir.join("database"), engine, Durability::Durable, lifetime).await?;
        let (database_url, passing_schema) = make_schema(&database, schema).await?;
        autobuild.migrate(&database_url).await?;

        let namespace = match namespace {
            Namespace::Passing if !plane.is_own() => plane.namespace("autobuild-demo").await?,
            Namespace::Passing | Namespace::Default => "default".to_owned(),
        };
        say("applying the definition of Server, the service accounts and their roles");
        plane.apply_crds().await?;
        plane.apply_access(&[&namespace]).await?;

        let password = uuid::Uuid::new_v4().simple().to_string();
        let (boot_address, files_address) = (free_address()?, free_address()?);
        let boot_url = format!("http://{boot_address}");
        let hosts = [
            "--initial-power",
            "mixed",
            "--boot-url",
            &boot_url,
            "--post-delay",
            "1500",
            "--install-duration",
            "8000",
            "--progress-interval",
            "1000",
        ];
        let emulator = autobuild.emulator(SYSTEMS, USERNAME, &password, &hosts).await?;
        let files = serve_files(dir, lifetime, &files_address)?;
        let login = examples::Login { username: USERNAME, password: &password };
        let render =
            |folder: &str| examples::render(folder, &emulator, login, &files_address, &dir.join(folder));
        let (examples, install_examples) = (render("examples")?, render("install-examples")?);

        let login_key = dir.join("autobuild/login.key");
        std::fs::write(&login_key, uuid::Uuid::new_v4().simple().to_string().repeat(2))?;
        let login_key = login_key.display().to_string();
        let controller = ["controller", "--watch-namespaces", &namespace, "--lease-namespace", SYSTEM];
        let worker = [
            "worker",
            "--site",
            "default",
            "--slots",
            "8",
            "--grace",
            "10s",
            // The emulator is on loopback, where no BMC of a data centre is.
            "--bmc-cidr",
            "127.0.0.0/8",
            "--allow-plain-http",
            "--login-key-file",
            &login_key,
            // So few that some wait, and so short that a machine which never boots is told within the show.
            "--installs",
            "2",
            "--boot-deadline",
            "20s",
        ];
        let cache = dir.join("boot-cache");
        std::fs::create_dir_all(&cache)?;
        let cache = cache.display().to_string();
        let boot = [
            "boot",
            "--boot-listen",
            &boot_address,
            "--public-url",
            &boot_url,
            "--cache-dir",
            &cache,
            "--http-source",
            &files_address,
        ];
        let mut services = Vec::new();
        for (name, args) in [("controller", controller.as_slice()), ("worker", &worker), ("boot", &boot)] {
            // Each has the rights that it has once installed, and no more.
            let kubeconfig = plane.kubeconfig_for(SYSTEM, &format!("autobuild-{name}")).await?;
            let env =
                [("DATABASE_URL", database_url.as_str()), ("KUBECONFIG", &kubeconfig.display().to_string())];
            services.push(autobuild.start(name, args, &env).await?);
        }
        for running in &services {
            say(format!("waiting for {} to be ready", running.process().name()));
            running.wait_ready().await?;
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            plane,
            namespace,
            database,
            database_url,
            passing_schema,
            emulator,
            password,
            services,
            files,
            examples,
            install_examples,
        })
    }

    /// `kubectl` as the administrator, in the namespace of the servers.
    pub(super) fn kubectl(&self) -> Kubectl {
        self.plane.kubectl().in_namespace(&self.namespace)
    }

    /// The namespace of the servers.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The `--namespace` that a person has to type, with a blank before it; nothing if none.
    pub(super) fn namespace_flag(&self) -> String {
        if self.namespace == "default" { String::new() } else { format!(" -n {}", self.namespace) }
    }

    /// The administrator's kubeconfig.
    pub(super) fn kubeconfig(&self) -> &Path {
        self.plane.kubeconfig()
    }

    /// The emulator.
    pub(super) fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// The folder with the rendered examples.
    pub(super) fn examples(&self) -> &Path {
        &self.examples
    }

    /// The folder with the rendered examples of installations.
    pub(super) fn install_examples(&self) -> &Path {
        &self.install_examples
    }

    /// The first process that has ended although nobody asked it to.
    pub(super) fn check_alive(&self) -> Result<()> {
        for process in self.processes() {
            if let Some(status) = process.ended()? {
                bail!(
                    "{} has ended ({status})\n--- {} ---\n{}",
                    process.name(),
                    process.log().display(),
                    process.log_tail()
                );
            }
        }
        Ok(())
    }

    /// In the order of their starts.
    fn processes(&self) -> impl DoubleEndedIterator<Item = &Process> {
        let plane = self.plane.processes().iter();
        let database = self.database.server().ok().map(crate::database::Server::process);
        let services = self.services.iter().map(Running::process);
        plane.chain(database).chain([self.emulator.process(), &self.files]).chain(services)
    }

    /// Takes back what was put into a cluster and a database that the user named, and ends everything else, the last
    /// started first.
    pub(super) async fn stop(self) -> Result<()> {
        if !self.plane.is_own() {
            say(format!("deleting the namespace {} with its servers", self.namespace));
            let kubectl = self.kubectl();
            // While the controller runs: it is what lets a Server go.
            kubectl.run(&["delete", "servers", "--all", "--timeout=120s"]).await?;
            self.plane.delete_namespace(&self.namespace).await?;
            say(format!("left in that cluster: the definition of Server, and the namespace {SYSTEM}"));
        }
        for service in self.services.iter().rev() {
            service.process().stop(GRACE).await?;
        }
        if let Some(schema) = &self.passing_schema {
            self.database.drop_schema(schema).await?;
        }
        for process in self.processes().rev() {
            process.stop(GRACE).await?;
        }
        Ok(())
    }

    /// Writes `env`, which a shell can source. Only this user reads it: passwords are in it.
    pub(super) fn write_env(&self) -> Result<()> {
        let metrics: Vec<String> = self.services.iter().map(|running| running.url("/metrics")).collect();
        let kubeconfig = self.plane.kubeconfig().display().to_string();
        let mut variables = vec![
            ("KUBECONFIG", kubeconfig.clone()),
            ("DATABASE_URL", self.database_url.clone()),
            ("EMULATOR_URL", format!("http://{}", self.emulator.http())),
            ("EMULATOR_HTTPS_URL", format!("https://{}", self.emulator.https())),
            ("EMULATOR_CA", self.emulator.authority().display().to_string()),
            ("EMULATOR_USER", USERNAME.to_owned()),
            ("EMULATOR_PASSWORD", self.password.clone()),
            ("METRICS_URLS", metrics.join(" ")),
        ];
        // What is not the user's own does not count when make runs in a shell that has sourced this.
        if self.plane.is_own() {
            variables.push((OUR_KUBECONFIG, kubeconfig));
        }
        if self.database.is_own() {
            variables.push((OUR_DATABASE_URL, self.database_url.clone()));
        }
        let lines: Vec<String> = variables
            .iter()
            .map(|(name, value)| format!("export {name}='{}'", value.replace('\'', r"'\''")))
            .collect();
        crate::control_plane::write_private(&self.dir.join("env"), &(lines.join("\n") + "\n"))
    }
}

/// A port that is free right now: an address that has to be known before its process runs.
fn free_address() -> Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Starts what serves the files that the emulated machines boot.
fn serve_files(dir: &Path, lifetime: Lifetime, address: &str) -> Result<Process> {
    Process::start(Spec {
        name: "files".to_owned(),
        program: std::env::current_exe()?,
        args: vec!["serve-files".to_owned(), address.to_owned()],
        env: Vec::new(),
        log_dir: dir.join("autobuild/logs"),
        lifetime,
    })
}

/// The schema's URL, and its name if it is to go at the end.
async fn make_schema(database: &Database, schema: Schema) -> Result<(String, Option<String>)> {
    if database.is_own() {
        return Ok((database.create_schema("autobuild").await?, None));
    }
    match schema {
        Schema::Named => Ok((given::database_url().context("DATABASE_URL is not set any more")?, None)),
        Schema::Passing => {
            let name = format!("autobuild_demo_{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
            Ok((database.create_schema(&name).await?, Some(name)))
        }
    }
}

/// Command lines for a shell that has sourced `env`, once the examples are there.
pub(super) fn things_to_try() -> Vec<String> {
    [
        r#"kubectl patch server rack1-05 --type=merge -p '{"spec":{"power":"PoweredOff"}}'"#,
        r#"curl -u "$EMULATOR_USER:$EMULATOR_PASSWORD" "$EMULATOR_URL/redfish/v1/Systems/system-0005""#,
        r#"kubectl patch server rack1-01 --type=merge -p '{"spec":{"rebootToken":"again"}}'"#,
        "kubectl events --for server/rack1-01",
        "kubectl explain server.spec --recursive",
        "for url in $METRICS_URLS; do curl -s $url | grep ^autobuild_; done",
    ]
    .iter()
    .map(|line| format!("  {line}"))
    .collect()
}
