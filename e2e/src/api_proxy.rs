//! A way to an API server on which watches lag at will: what they show is held back until it is let go, and calls pass.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::control_plane::install_crypto_provider;

/// It ends when dropped.
#[derive(Debug)]
pub struct ApiProxy {
    kubeconfig: PathBuf,
    held: Arc<watch::Sender<bool>>,
    serving: JoinHandle<()>,
}

#[derive(Clone)]
struct Way {
    client: reqwest::Client,
    server: String,
    held: Arc<watch::Sender<bool>>,
}

impl ApiProxy {
    /// In front of the API server of a kubeconfig that has a token; writes the one that leads through it into `dir`.
    pub async fn start(kubeconfig: &Path, dir: &Path) -> Result<Self> {
        let mut config: serde_yaml::Value = serde_yaml::from_str(&std::fs::read_to_string(kubeconfig)?)?;
        let cluster = &mut config["clusters"][0]["cluster"];
        let server = cluster["server"].as_str().context("the kubeconfig has no server")?.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        *cluster = serde_yaml::from_str(&format!("server: http://{address}"))?;
        let path = dir.join(format!("lagging-{}.yaml", address.port()));
        std::fs::write(&path, serde_yaml::to_string(&config)?)?;
        install_crypto_provider();
        // Loopback, and the certificate is the harness's own.
        let client = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build()?;
        let held = Arc::new(watch::channel(false).0);
        let way = Way { client, server, held: Arc::clone(&held) };
        let router = Router::new().fallback(pass).with_state(way);
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { kubeconfig: path, held, serving })
    }

    /// The kubeconfig that leads through it.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// From now on no watch shows anything.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// The watches show what was held back, and go on.
    pub fn let_go(&self) {
        self.held.send_replace(false);
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass(State(way): State<Way>, request: Request) -> Response {
    match forward(way, request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

async fn forward(way: Way, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().context("a request without a path")?.as_str();
    let is_watch = path.contains("watch=true");
    let mut headers: HeaderMap = parts.headers;
    headers.remove(header::HOST);
    headers.remove(header::ACCEPT_ENCODING);
    let body = to_bytes(body, usize::MAX).await?;
    let url = format!("{}{path}", way.server);
    let answer = way.client.request(parts.method, url).headers(headers).body(body).send().await?;
    let mut response = Response::builder().status(answer.status());
    if let Some(kind) = answer.headers().get(header::CONTENT_TYPE) {
        response = response.header(header::CONTENT_TYPE, kind);
    }
    let held = way.held.subscribe();
    let pieces = answer.bytes_stream().then(move |piece| {
        let mut held = held.clone();
        async move {
            if is_watch {
                held.wait_for(|held| !*held).await.ok();
            }
            piece
        }
    });
    Ok(response.body(Body::from_stream(pieces))?)
}
