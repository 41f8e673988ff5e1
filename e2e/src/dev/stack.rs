//! Everything together, as `make up` and `make demo` have it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::examples;
use super::pids::Pids;
use crate::autobuild::{Autobuild, Emulator, Running};
use crate::control_plane::ControlPlane;
use crate::database::{Database, Durability, Engine};
use crate::process::Lifetime;

/// The namespace of the processes, and the one that they watch.
const SYSTEM: &str = "autobuild-system";
const WATCHED: &str = "default";
const USERNAME: &str = "admin";

/// The running parts.
#[derive(Debug)]
pub(super) struct Stack {
    dir: PathBuf,
    plane: ControlPlane,
    /// Ends with this value.
    _database: Database,
    database_url: String,
    emulator: Emulator,
    services: Vec<Running>,
    examples: PathBuf,
}

impl Stack {
    /// Starts all of it in `dir`, and notes every process in `pids` as soon as it runs.
    pub(super) async fn start(dir: &Path, lifetime: Lifetime, pids: &Pids) -> Result<Self> {
        let plane = ControlPlane::start_in(&dir.join("controlplane"), lifetime).await?;
        for process in plane.processes() {
            pids.add(process)?;
        }
        let engine = Engine::from_env()?;
        let database =
            Database::start_in(&dir.join("database"), engine, Durability::Durable, lifetime).await?;
        if let Ok(server) = database.server() {
            pids.add(server.process())?;
        }
        let database_url = if database.is_own() {
            database.create_schema("autobuild").await?
        } else {
            std::env::var("DATABASE_URL")?
        };

        let autobuild = Autobuild::new(&dir.join("autobuild"), lifetime)?;
        let password = uuid::Uuid::new_v4().simple().to_string();
        let emulator = autobuild.emulator(10, USERNAME, &password, &[]).await?;
        pids.add(emulator.process())?;
        let examples = examples::render(&emulator, &password, &dir.join("examples"))?;

        autobuild.migrate(&database_url).await?;
        plane.apply_crds().await?;
        plane.apply_access(&[WATCHED]).await?;

        let login_key = dir.join("autobuild/login.key");
        std::fs::write(
            &login_key,
            uuid::Uuid::new_v4().simple().to_string() + &uuid::Uuid::new_v4().simple().to_string(),
        )?;
        let controller = plane.kubeconfig_for(SYSTEM, "autobuild-controller").await?;
        let worker = plane.kubeconfig_for(SYSTEM, "autobuild-worker").await?;
        let mut services = Vec::new();
        for (name, kubeconfig, args) in [
            (
                "controller",
                &controller,
                vec!["controller", "--watch-namespaces", WATCHED, "--lease-namespace", SYSTEM],
            ),
            (
                "worker",
                &worker,
                vec![
                    "worker",
                    "--site",
                    "default",
                    "--slots",
                    "8",
                    "--bmc-cidr",
                    "127.0.0.0/8",
                    "--login-key-file",
                    &login_key.display().to_string(),
                ],
            ),
        ] {
            let env =
                [("DATABASE_URL", database_url.as_str()), ("KUBECONFIG", &kubeconfig.display().to_string())];
            let running = autobuild.start(name, &args, &env).await?;
            pids.add(running.process())?;
            services.push(running);
        }
        for running in &services {
            running.wait_ready().await?;
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            plane,
            _database: database,
            database_url,
            emulator,
            services,
            examples,
        })
    }

    /// The control plane.
    pub(super) fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// The emulator.
    pub(super) fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// The folder with the rendered examples.
    pub(super) fn examples(&self) -> &Path {
        &self.examples
    }

    /// Writes `env`, which a shell can source. Only this user reads it: the database's password is in it.
    pub(super) fn write_env(&self) -> Result<()> {
        let metrics: Vec<String> = self.services.iter().map(|running| running.url("/metrics")).collect();
        let variables = [
            ("KUBECONFIG", self.plane.kubeconfig().display().to_string()),
            ("DATABASE_URL", self.database_url.clone()),
            ("EMULATOR_URL", format!("http://{}", self.emulator.http())),
            ("EMULATOR_CA", self.emulator.authority().display().to_string()),
            ("METRICS_URLS", metrics.join(" ")),
        ];
        let lines: Vec<String> = variables
            .iter()
            .map(|(name, value)| format!("export {name}='{}'", value.replace('\'', r"'\''")))
            .collect();
        let file = self.dir.join("env");
        std::fs::write(&file, lines.join("\n") + "\n")?;
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(())
    }
}
