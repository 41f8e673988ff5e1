//! The way into a cluster: as kubectl finds it.
#![expect(clippy::disallowed_types, reason = "the client is made here and handed on")]

use std::path::PathBuf;

use http::Uri;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::connect::ClusterError;
use crate::proxy::{self, Proxy};

/// Which cluster, as whom, and in which namespace.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct ClusterArgs {
    /// The namespace; by default that of the kubeconfig's context
    #[arg(long, short = 'n', value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// The context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig; by default KUBECONFIG, or the one in the home folder
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// A cluster, and the way to it.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    config: kube::Config,
    proxy: Option<Proxy>,
}

impl Cluster {
    /// The namespace that is meant where none is named.
    pub(super) fn namespace(&self) -> &str {
        &self.config.default_namespace
    }

    /// A client. Does not connect yet.
    pub(super) fn client(&self) -> kube::Result<kube::Client> {
        proxy::client(self.config.clone(), self.proxy.as_ref())
    }

    /// A client that sends each request as often as it is told to, and not again by itself.
    pub(super) fn plain_client(&self) -> kube::Result<kube::Client> {
        let mut config = self.config.clone();
        config.default_retry = false;
        proxy::client(config, self.proxy.as_ref())
    }
}

/// A client, and the namespace that is meant.
pub(super) async fn connect(args: &ClusterArgs) -> Result<(kube::Client, String), ClusterError> {
    let mut cluster = find(args).await?;
    if let Some(namespace) = &args.namespace {
        cluster.config.default_namespace.clone_from(namespace);
    }
    let client = cluster.client().map_err(|error| ClusterError::Client(error.to_string()))?;
    Ok((client, cluster.namespace().to_owned()))
}

/// The cluster of a kubeconfig; where neither a file nor a context is named and there is none, that of the pod that this runs in.
pub(super) async fn find(args: &ClusterArgs) -> Result<Cluster, ClusterError> {
    // Whoever comes first chooses; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let file = match &args.kubeconfig {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    let found = match file {
        Ok(file) => of_file(file, &options).await,
        Err(error) => Err(wrong(&error)),
    };
    let is_named = args.kubeconfig.is_some() || args.context.is_some();
    let mut cluster = match found {
        Err(ClusterError::Config(why)) if !is_named => {
            // A pod has no kubeconfig, and reaches its API server by the cluster's own network.
            let config = kube::Config::incluster()
                .map_err(|error| ClusterError::Config(format!("{why}; and this is no pod ({error})")))?;
            Cluster { config, proxy: None }
        }
        found => found?,
    };
    cluster.config.apply_debug_overrides();
    Ok(cluster)
}

async fn of_file(mut file: Kubeconfig, options: &KubeConfigOptions) -> Result<Cluster, ClusterError> {
    let there = cluster_of(&mut file, options);
    let target = there.as_ref().and_then(|cluster| cluster.server.as_ref()?.parse::<Uri>().ok());
    let in_file = there.and_then(|cluster| cluster.proxy_url.clone());
    let proxy = match &target {
        Some(target) => proxy::decide(target, in_file.as_deref())?,
        // What is wrong with the file, the library says.
        None => None,
    };
    let config = match kube::Config::from_custom_kubeconfig(file.clone(), options).await {
        // The library reads the environment too, also where it is not used.
        Err(KubeconfigError::ParseProxyUrl(_)) => {
            if let Some(cluster) = cluster_of(&mut file, options) {
                cluster.proxy_url = Some("http://unused.invalid".to_owned());
            }
            kube::Config::from_custom_kubeconfig(file, options).await
        }
        config => config,
    };
    Ok(Cluster { config: config.map_err(|error| wrong(&error))?, proxy })
}

/// The cluster of the context that counts.
fn cluster_of<'a>(
    file: &'a mut Kubeconfig,
    options: &KubeConfigOptions,
) -> Option<&'a mut kube::config::Cluster> {
    let context = options.context.as_ref().or(file.current_context.as_ref())?;
    let context = file.contexts.iter().find(|one| one.name == *context)?.context.as_ref()?;
    let name = context.cluster.clone();
    file.clusters.iter_mut().find(|one| one.name == name)?.cluster.as_mut()
}

fn wrong(error: &dyn std::fmt::Display) -> ClusterError {
    ClusterError::Config(error.to_string())
}
