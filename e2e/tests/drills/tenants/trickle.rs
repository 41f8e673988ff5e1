//! A server of files that sends a byte and then nothing more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use futures::StreamExt as _;
use futures::stream;

/// Serves until it is dropped.
pub struct Trickle {
    address: String,
    asked: Arc<AtomicU64>,
    served: tokio::task::JoinHandle<()>,
}

impl Drop for Trickle {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl Trickle {
    /// On a free port of loopback.
    pub async fn serve() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let asked = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        let routes = Router::new().fallback(get(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            let first = stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"t")) });
            std::future::ready(Body::from_stream(first.chain(stream::pending())))
        }));
        let served = tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { address, asked, served })
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A file of it.
    pub fn url(&self) -> String {
        format!("http://{}/kernel", self.address)
    }

    /// How often it was asked.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}
