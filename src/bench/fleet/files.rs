//! A kernel and an initial RAM disk for emulated hosts, served over plain HTTP; their bytes mean nothing.
#![expect(clippy::disallowed_types, reason = "a web server stands in for a mirror")]

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::super::BenchError;

/// Names and contents.
pub(super) const FILES: [(&str, &str); 2] =
    [("kernel", "this is no kernel"), ("initrd", "this is no initial RAM disk")];

/// Serves until it is dropped.
#[derive(Debug)]
pub(super) struct BootFiles {
    address: String,
    _served: JoinSet<std::io::Result<()>>,
}

impl BootFiles {
    /// On a free port of loopback.
    pub(super) async fn serve() -> Result<Self, BenchError> {
        let failed =
            |error: std::io::Error| BenchError::Process { name: "boot files".into(), why: error.to_string() };
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?.to_string();
        let routes = FILES.into_iter().fold(Router::new(), |routes, (name, content)| {
            routes.route(&format!("/{name}"), get(async move || content))
        });
        let mut served = JoinSet::new();
        served.spawn(async move { axum::serve(listener, routes).await });
        Ok(Self { address, _served: served })
    }

    /// `host:port`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }
}
