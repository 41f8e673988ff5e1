//! The boot service's own listener, apart from that of metrics.
#![expect(clippy::disallowed_types, reason = "machines are answered on a port of their own")]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use http::Request;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::service::BootService;
use crate::connections::{self, Limits};

/// A machine has a handful of connections, a BMC that reads an ISO some dozens.
const LIMITS: Limits =
    Limits { connections: 2048, head: Duration::from_secs(20), stall: Duration::from_mins(1) };

/// The boot service could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is taken or not ours.
    #[error("--boot-listen {address} cannot be bound: {source}; give a free address of this host")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// A bound port that answers nobody yet.
#[derive(Debug)]
pub struct BootListener {
    listener: TcpListener,
    /// The bound address.
    pub address: SocketAddr,
}

impl BootListener {
    /// Binds the port; 0 takes a free one.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Answers machines until `stop`; then what was begun has `grace` to end.
    pub async fn serve(self, service: BootService, stop: CancellationToken, grace: Duration) {
        let router = Router::new().fallback(answer).with_state(service.clone());
        let asked = stop.clone();
        let serving = connections::serve(self.listener, router, LIMITS, stop);
        let over = async {
            asked.cancelled().await;
            service.stops_waiting();
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            () = serving => {}
            () = over => tracing::warn!("some machines were still being answered at the end of --grace"),
        }
    }
}

async fn answer(
    State(service): State<BootService>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request<Body>,
) -> axum::response::Response {
    service.answer(peer.ip(), request).await
}
