//! A real Kubernetes control plane.
//!
//! `KUBECONFIG`, if set by the user ([`given`]), names the cluster to use; otherwise `KUBEBUILDER_ASSETS`, if set, names a folder with
//! `etcd` and `kube-apiserver`; otherwise both are built once from Go modules (`e2e/controlplane`).

mod assets;
mod build;
mod kubeconfig;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};

use crate::kubectl::Kubectl;
use crate::process::{Lifetime, Process, Spec};
use crate::wait::{Look, say};
use crate::{given, paths};

pub(crate) use kubeconfig::write_private;

/// How long a cold control plane may take on a busy machine.
const READY: Duration = Duration::from_mins(3);

/// A running control plane, or one that the user named.
#[derive(Debug)]
pub struct ControlPlane {
    processes: Vec<Process>,
    kubeconfig: PathBuf,
    dir: PathBuf,
}

/// About a fifth of its processor time went into collecting garbage (a profile of 600 servers powered off at once); half as often
/// it costs memory instead. Without a limit: near one it does little else.
const FEWER_COLLECTIONS: [(&str, &str); 1] = [("GOGC", "200")];

impl ControlPlane {
    /// Starts one that ends with this process.
    pub async fn start() -> Result<Self> {
        Self::start_in(&paths::private("controlplane")?, Lifetime::WithParent).await
    }

    /// The one that all tests of this process share; they keep apart by namespace.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: tokio::sync::OnceCell<ControlPlane> = tokio::sync::OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Starts one that keeps everything in `dir`.
    pub async fn start_in(dir: &Path, lifetime: Lifetime) -> Result<Self> {
        let dir = dir.to_path_buf();
        std::fs::create_dir_all(&dir)?;
        if let Some(kubeconfig) = given::kubeconfig()? {
            say(format!("using the cluster of KUBECONFIG={}", kubeconfig.display()));
            return Ok(Self { processes: Vec::new(), kubeconfig, dir });
        }
        let kubeconfig = dir.join("kubeconfig");
        if let Some(assets) = set("KUBEBUILDER_ASSETS") {
            let processes = assets::start(&assets, &dir, &kubeconfig, lifetime).await?;
            return Ok(Self { processes, kubeconfig, dir });
        }
        let program = tokio::task::spawn_blocking(build::binary).await??;
        // A kubeconfig of an earlier run would look like readiness.
        let _ = std::fs::remove_file(&kubeconfig);
        say("starting etcd and kube-apiserver, and waiting for the kubeconfig");
        let process = Process::start(Spec {
            name: "controlplane".to_owned(),
            program,
            args: ["--dir", &text(&dir)?, "--kubeconfig", &text(&kubeconfig)?].map(str::to_owned).to_vec(),
            env: FEWER_COLLECTIONS.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            log_dir: dir.join("logs"),
            lifetime,
        })?;
        process
            .wait_ready("the control plane to be ready", READY, async || {
                Ok(if kubeconfig.is_file() {
                    Look::Holds(())
                } else {
                    Look::NotYet(process.log_tail().lines().last().unwrap_or("nothing logged").to_owned())
                })
            })
            .await?;
        Ok(Self { processes: vec![process], kubeconfig, dir })
    }

    /// Whether the harness started it.
    pub fn is_own(&self) -> bool {
        !self.processes.is_empty()
    }

    /// Its processes; none when the user named the cluster.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// `kubectl` as the administrator.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.kubeconfig)
    }

    /// A client as the administrator. It belongs to the calling runtime: make one per test.
    pub async fn admin(&self) -> Result<Client> {
        client(&self.kubeconfig).await
    }

    /// Writes a kubeconfig for a service account, with a token that the API server issues for it; what it may do is
    /// what RBAC gives that account.
    pub async fn kubeconfig_for(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let path = self.dir.join(format!("{namespace}-{account}.kubeconfig"));
        kubeconfig::write_for_service_account(
            &self.admin().await?,
            &self.kubeconfig,
            namespace,
            account,
            &path,
        )
        .await
        .with_context(|| format!("a kubeconfig for the service account {namespace}/{account}"))?;
        Ok(path)
    }

    /// Makes a namespace that no other test has; the name starts with `prefix`.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        let name = format!("{prefix}-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let namespace = Namespace {
            metadata: kube::api::ObjectMeta { name: Some(name.clone()), ..Default::default() },
            ..Default::default()
        };
        Api::all(self.admin().await?).create(&PostParams::default(), &namespace).await?;
        Ok(name)
    }

    /// Deletes a namespace and does not wait for its end.
    pub async fn delete_namespace(&self, name: &str) -> Result<()> {
        Api::<Namespace>::all(self.admin().await?).delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Applies the committed CRDs and waits until they are served.
    pub async fn apply_crds(&self) -> Result<()> {
        let kubectl = self.kubectl();
        let dir = text(&paths::root().join("crds"))?;
        let applied =
            kubectl.run(&["apply", "--server-side", "--force-conflicts", "-o", "name", "-k", &dir]).await?;
        let mut wait = vec!["wait", "--for=condition=Established", "--timeout=60s"];
        wait.extend(applied.lines());
        kubectl.run(&wait).await?;
        Ok(())
    }

    /// Applies the namespace of the processes, their service accounts, and their roles in the given namespaces: the
    /// committed manifests, so that what runs under them here has the rights that it has once installed.
    pub async fn apply_access(&self, namespaces: &[&str]) -> Result<()> {
        let kubectl = self.kubectl();
        let dir = |name: &str| text(&paths::root().join("manifests").join(name));
        kubectl.run(&["apply", "--server-side", "--force-conflicts", "-k", &dir("access")?]).await?;
        let roles = dir("namespace-access")?;
        for namespace in namespaces {
            kubectl
                .run(&["apply", "--server-side", "--force-conflicts", "-n", namespace, "-k", &roles])
                .await?;
        }
        Ok(())
    }

    /// Ends it.
    pub async fn stop(self) -> Result<()> {
        for process in self.processes.iter().rev() {
            process.stop(Duration::from_secs(20)).await?;
        }
        Ok(())
    }
}

/// A client for a kubeconfig file. It belongs to the calling runtime.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    install_crypto_provider();
    let file = Kubeconfig::read_from(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    // Of the person's environment: what runs here is on loopback.
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

/// Chooses the TLS implementation of this process; the second call does nothing.
pub fn install_crypto_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn set(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned())
}
