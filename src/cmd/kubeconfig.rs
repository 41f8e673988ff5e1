//! A user's own way into a cluster: as kubectl finds it.
#![expect(clippy::disallowed_types, reason = "the client is made here and handed on")]

use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};

use super::connect::ClusterError;

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

/// A client, and the namespace that is meant.
pub(super) async fn connect(args: &ClusterArgs) -> Result<(kube::Client, String), ClusterError> {
    // Whoever comes first chooses; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let wrong = |error: &dyn std::fmt::Display| ClusterError::Config(error.to_string());
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let mut config = match (&args.kubeconfig, &args.context) {
        (Some(file), _) => {
            let found = Kubeconfig::read_from(file).map_err(|error| wrong(&error))?;
            kube::Config::from_custom_kubeconfig(found, &options).await.map_err(|error| wrong(&error))?
        }
        (None, Some(_)) => kube::Config::from_kubeconfig(&options).await.map_err(|error| wrong(&error))?,
        (None, None) => kube::Config::infer().await.map_err(|error| wrong(&error))?,
    };
    if let Some(namespace) = &args.namespace {
        config.default_namespace.clone_from(namespace);
    }
    let namespace = config.default_namespace.clone();
    let client = kube::Client::try_from(config).map_err(|error| ClusterError::Client(error.to_string()))?;
    Ok((client, namespace))
}
