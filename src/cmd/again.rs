//! Requests to an API server that is not able to answer at the moment are sent again; one that has too much to do is left alone
//! for as long as it says, by whoever asked where that is long.
#![expect(clippy::disallowed_types, reason = "requests are sent")]
#![expect(clippy::disallowed_methods, reason = "pauses are jittered")]

use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// How often one request is sent at most.
const TRIES: u32 = 6;
/// The pause after the first try, which doubles.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause that is waited for here.
const LONGEST: Duration = Duration::from_secs(2);

/// Sends a request, several times where the answer says that another time may do.
pub(super) async fn send(client: &Client, mut request: Request<Body>) -> kube::Result<Response<Body>> {
    let mut tried = 1;
    loop {
        let again = copy(&request);
        let answer = client.send(request).await?;
        let pause = match answer.status() {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                let pause = PAUSE * 2_u32.pow(tried);
                Some(pause.mul_f64(rand::random_range(0.5..1.0)))
            }
            StatusCode::TOO_MANY_REQUESTS => Some(wanted(&answer).unwrap_or(PAUSE * 2_u32.pow(tried))),
            _ => None,
        };
        match (again, pause) {
            (Some(again), Some(pause)) if tried < TRIES && pause <= LONGEST => {
                tokio::time::sleep(pause).await;
                request = again;
            }
            (_, Some(_)) if answer.status() == StatusCode::TOO_MANY_REQUESTS => return Ok(told(answer).await),
            _ => return Ok(answer),
        }
        tried += 1;
    }
}

/// The same request; `None`: its body can be read once.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    *copy.version_mut() = request.version();
    Some(copy)
}

/// How long the API server wants to be left alone.
fn wanted(answer: &Response<Body>) -> Option<Duration> {
    let seconds = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// Writes what the header says into the answer, where the errors of calls have room for it.
async fn told(answer: Response<Body>) -> Response<Body> {
    let seconds = wanted(&answer).map(|time| time.as_secs());
    let (mut parts, body) = answer.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut status = serde_json::from_slice::<Value>(&bytes).ok().filter(Value::is_object).unwrap_or_else(|| {
        let message = String::from_utf8_lossy(&bytes).trim().to_owned();
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "TooManyRequests", "code": 429, "message": message})
    });
    if let Some(seconds) = seconds {
        if !status["details"].is_object() {
            status["details"] = json!({});
        }
        status["details"]["retryAfterSeconds"] = json!(seconds);
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(status.to_string().into_bytes()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// An API server that gives these answers, the last one again and again: status, `Retry-After` and body.
    fn server(
        asked: &Arc<AtomicU32>,
        answers: &'static [(u16, Option<&'static str>, &'static str)],
    ) -> Client {
        let asked = Arc::clone(asked);
        let service = tower::service_fn(move |_: Request<Body>| {
            let number = asked.fetch_add(1, Ordering::Relaxed) as usize;
            let (status, after, body) = answers[number.min(answers.len() - 1)];
            let mut answer = Response::builder().status(status);
            if let Some(after) = after {
                answer = answer.header(header::RETRY_AFTER, after);
            }
            std::future::ready(Ok::<_, tower::BoxError>(
                answer.body(Body::from(body.as_bytes().to_vec())).unwrap(),
            ))
        });
        Client::new(service, "lab")
    }

    async fn asked(answers: &'static [(u16, Option<&'static str>, &'static str)]) -> (u32, u16, String) {
        let count = Arc::default();
        let request = Request::get("/api/v1/namespaces/lab/secrets/a").body(Body::empty()).unwrap();
        let answer = send(&server(&count, answers), request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (count.load(Ordering::Relaxed), status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_is_away_for_a_moment_is_asked_again() {
        let (count, status, _) =
            asked(&[(503, None, ""), (429, Some("1"), "slow down"), (200, None, "{}")]).await;
        assert_eq!((count, status), (3, 200));
        assert_eq!(asked(&[(503, None, "")]).await.0, TRIES);
        assert_eq!(asked(&[(500, None, "")]).await.0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_wants_to_be_left_alone_for_long_is_and_says_for_how_long() {
        let (count, status, body) = asked(&[(429, Some("30"), "slow down")]).await;
        assert_eq!((count, status), (1, 429));
        assert!(body.contains("\"retryAfterSeconds\":30") && body.contains("slow down"), "{body}");
        let (_, _, body) =
            asked(&[(429, Some("30"), r#"{"kind": "Status", "message": "busy", "details": {"kind": "x"}}"#)])
                .await;
        assert!(body.contains("\"retryAfterSeconds\":30") && body.contains("busy"), "{body}");
    }
}
