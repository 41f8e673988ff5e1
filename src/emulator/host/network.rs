//! The requests of all hosts: one client, so many at a time.

use std::time::Duration;

use axum::body::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;
use url::Url;

use super::record::Why;
use super::settings::HostSettings;

/// No script and no install data needs more; what follows is not read.
const TEXT_LIMIT: usize = 1024 * 1024;

/// How long a boot service may take for an answer's head, and for each part of its body.
const PATIENCE: Duration = Duration::from_secs(30);

/// One request.
#[derive(Debug)]
pub(super) enum Ask {
    /// GET, and what it says.
    Text,
    /// GET, and what it says thrown away.
    Payload,
    /// HEAD.
    Head,
    /// POST of these form fields.
    Post(Vec<(&'static str, String)>),
}

/// The one client.
#[derive(Debug)]
pub(super) struct Network {
    client: Client<HttpConnector, Full<Bytes>>,
    permits: Semaphore,
    retries: u32,
    pause: Duration,
}

impl Network {
    pub(super) fn new(settings: &HostSettings) -> Self {
        let connections = settings.connections.clamp(1, Semaphore::MAX_PERMITS);
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(PATIENCE));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(10))
            .pool_max_idle_per_host(connections)
            .build(connector);
        Self {
            client,
            permits: Semaphore::new(connections),
            retries: settings.retries,
            pause: settings.retry_pause,
        }
    }

    /// Asks until there is an answer that is none of "later"; what it said, as far as it was to be read.
    pub(super) async fn ask(&self, url: &Url, ask: &Ask) -> Result<Vec<u8>, Why> {
        for _ in 0..self.retries {
            match self.once(url, ask).await {
                Err(Why::Unreachable) => tokio::time::sleep(self.pause).await,
                answered => return answered,
            }
        }
        self.once(url, ask).await
    }

    async fn once(&self, url: &Url, ask: &Ask) -> Result<Vec<u8>, Why> {
        let Ok(_permit) = self.permits.acquire().await else { return Err(Why::Unreachable) };
        let builder = Request::builder().uri(url.as_str()).header(header::USER_AGENT, "autobuild-emulate");
        let request = match ask {
            Ask::Text | Ask::Payload => builder.method(Method::GET).body(Full::default()),
            Ask::Head => builder.method(Method::HEAD).body(Full::default()),
            Ask::Post(fields) if fields.is_empty() => builder.method(Method::POST).body(Full::default()),
            Ask::Post(fields) => {
                let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
                builder
                    .method(Method::POST)
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(Full::from(form))
            }
        };
        let Ok(request) = request else {
            return Err(Why::NotUnderstood { error: "an address that no request can carry".to_owned() });
        };
        let answer = tokio::time::timeout(PATIENCE, self.client.request(request)).await;
        let Ok(Ok(answer)) = answer else { return Err(Why::Unreachable) };
        let status = answer.status();
        if status.is_server_error() || matches!(status.as_u16(), 408 | 429) {
            return Err(Why::Unreachable);
        }
        if !status.is_success() {
            return Err(Why::Refused { status: status.as_u16() });
        }
        let mut body = answer.into_body();
        let mut text = Vec::new();
        loop {
            match tokio::time::timeout(PATIENCE, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let (Ask::Text, Some(data)) = (ask, frame.data_ref()) {
                        text.extend_from_slice(data);
                        if text.len() >= TEXT_LIMIT {
                            return Ok(text);
                        }
                    }
                }
                Ok(None) => return Ok(text),
                Ok(Some(Err(_))) | Err(_) => return Err(Why::Unreachable),
            }
        }
    }
}
