//! From an [`Answer`] to the bytes on the wire, through the misbehaviours that spoil a body.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body as HttpBody, Bytes};
use axum::response::Response;
use futures::{StreamExt as _, stream};
use http::{HeaderValue, Method, header};
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Body};
use super::fault::Behaviour;
use super::spell;

/// The connection of a request, so that an answer can be the end of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Connection {
    /// Cancelled to drop the connection.
    pub(super) end: CancellationToken,
    /// Whether the end is a reset (RST) and not an orderly close (FIN).
    pub(super) by_reset: Arc<AtomicBool>,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Close,
    Reset,
}

impl Connection {
    /// Ends the connection; never returns, because there is nothing to answer.
    pub(super) async fn end(&self, how: Ending) -> Infallible {
        self.by_reset.store(how == Ending::Reset, Ordering::Relaxed);
        self.end.cancel();
        std::future::pending().await
    }
}

const CHUNK: usize = 64 * 1024;

/// The response to `method`, spoilt as the misbehaviours say.
pub(super) fn respond(answer: Answer, method: &Method, faults: &[Behaviour]) -> Response {
    let (media_type, bytes) = match answer.body {
        Body::Empty => (None, Bytes::new()),
        Body::Json(value) => {
            (Some("application/json"), Bytes::from(spell::overdone(value, faults).to_string()))
        }
        Body::Text(media_type, text) => (Some(media_type), Bytes::from(text)),
    };
    let (bytes, encoding) = spell::written(bytes, faults);
    let mut length = None;
    let body = if method == Method::HEAD { HttpBody::empty() } else { spoilt(bytes, faults, &mut length) };
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert("odata-version", HeaderValue::from_static("4.0"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(media_type) = media_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    if let Some(encoding) = encoding.and_then(|name| HeaderValue::from_str(&name).ok()) {
        headers.insert(header::CONTENT_ENCODING, encoding);
    }
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    for (name, value) in answer.headers {
        headers.insert(name, value);
    }
    response
}

fn spoilt(bytes: Bytes, faults: &[Behaviour], length: &mut Option<u64>) -> HttpBody {
    let whole = bytes.len();
    for fault in faults {
        match fault {
            Behaviour::TruncatedJson {} => return HttpBody::from(bytes.slice(..whole / 2)),
            Behaviour::WrongContentLength { by } => {
                *length = Some((whole as u64).saturating_add_signed(*by));
                // As a stream, so that the HTTP library does not know better; its end comes in a second turn, so that
                // the bytes are on the wire before the library notices that something is missing.
                let end = stream::once(async {
                    tokio::task::yield_now().await;
                    Ok(Bytes::new())
                });
                return HttpBody::from_stream(stream::iter([Ok::<_, Infallible>(bytes)]).chain(end));
            }
            Behaviour::HangMidBody {} => {
                *length = Some(whole as u64);
                let half = stream::iter([Ok::<_, Infallible>(bytes.slice(..whole / 2))]);
                return HttpBody::from_stream(half.chain(stream::pending()));
            }
            Behaviour::SlowBody { interval_ms } => {
                *length = Some(whole as u64);
                let interval = Duration::from_millis(*interval_ms);
                return HttpBody::from_stream(stream::iter(0..whole).then(move |position| {
                    let byte = bytes.slice(position..=position);
                    async move {
                        tokio::time::sleep(interval).await;
                        Ok::<_, Infallible>(byte)
                    }
                }));
            }
            Behaviour::HugeBody { bytes: size } => return huge(*size),
            _ => {}
        }
    }
    HttpBody::from(bytes)
}

/// A valid JSON document of about `size` bytes, made while it is sent.
fn huge(size: u64) -> HttpBody {
    let chunks = usize::try_from(size).unwrap_or(usize::MAX).div_ceil(CHUNK);
    let chunk = Bytes::from(vec![b'x'; CHUNK]);
    let middle = stream::iter(0..chunks).map(move |_| chunk.clone());
    let document = stream::iter([Bytes::from_static(b"{\"Padding\":\"")])
        .chain(middle)
        .chain(stream::iter([Bytes::from_static(b"\"}")]));
    HttpBody::from_stream(document.map(Ok::<_, Infallible>))
}
