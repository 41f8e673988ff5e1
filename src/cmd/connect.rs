//! How a long-running process gets at its database and its cluster: it waits for both, and says so.
#![expect(clippy::disallowed_types, reason = "the client is made here and handed on")]

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::api_server;
use super::kubeconfig::{self, ClusterArgs};
use crate::http::Readiness;
use crate::proxy::ProxyError;
use crate::queue::{DatabaseAddress, Queue, QueueError};

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(2);

/// Where the database is.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "address", required = true, multiple = false)]
pub(super) struct AddressArgs {
    /// The database: mysql://USER:PASSWORD@HOST:PORT/DATABASE?ssl-mode=VERIFY_IDENTITY, with &ssl-ca=FILE for a CA of your own
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// A file that has that URL: read again for new connections, so that its password can be changed
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    database_url_file: Option<PathBuf>,
}

impl AddressArgs {
    /// The one that is given.
    pub(super) fn address(&self) -> DatabaseAddress {
        let url = || DatabaseAddress::from(self.database_url.as_deref().unwrap_or_default());
        self.database_url_file.clone().map_or_else(url, DatabaseAddress::in_file)
    }
}

/// The database of a long-running process. Its user needs DML rights only.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct DatabaseArgs {
    #[command(flatten)]
    pub address: AddressArgs,
    /// Connections to the database that this process holds at most, those for heartbeats not counted
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_connections: u32,
}

/// Connects; waits for a database that is away or whose schema is not there yet. `None`: asked to stop meanwhile.
/// Only a URL that can never work is an error.
pub(super) async fn database(
    args: &DatabaseArgs,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> Result<Option<Queue>, QueueError> {
    let mut said = String::new();
    loop {
        readiness.waits("database", if said.is_empty() { "connecting" } else { &said });
        match Queue::connect(args.address.address(), args.database_connections).await {
            Ok(queue) => {
                let server = queue.server();
                tracing::info!(
                    engine = server.engine.as_str(),
                    version = server.version,
                    "connected to the database"
                );
                readiness.ready("database");
                let (lead, commits) = (queue.lead(), queue.clone());
                readiness.add_check("database", move || {
                    commits.hangs().map(str::to_owned).or_else(|| lead.borrow().trouble.clone())
                });
                return Ok(Some(queue));
            }
            Err(error @ QueueError::Url(_)) => return Err(error),
            Err(error) => {
                let message = error.to_string();
                if message != said {
                    tracing::warn!(reason = error.class(), "waiting for the database: {message}");
                    said = message;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}

/// A client for the cluster of KUBECONFIG, or of the pod that this runs in. Does not connect yet. `watch_silence`: how long a
/// watch may show nothing before it is opened again.
pub(super) async fn cluster(
    watch_silence: Duration,
    readiness: &Readiness,
) -> Result<kube::Client, ClusterError> {
    let cluster = kubeconfig::find(&ClusterArgs::default()).await?;
    let client = api_server::client(cluster, watch_silence, readiness);
    client.map_err(|error| ClusterError::Client(error.to_string()))
}

/// The cluster's address or credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Neither a kubeconfig nor a service account.
    #[error(
        "no cluster: {0}; set KUBECONFIG to a readable kubeconfig, or run in a pod with a service account"
    )]
    Config(String),
    /// The way to it cannot be used.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// What was found does not make a client.
    #[error("the cluster's credentials cannot be used: {0}; check the kubeconfig")]
    Client(String),
}
