//! A client of the API server whose connections do not stay silent.
//!
//! A balancer or a firewall may drop a connection without a word to either side. A watch on it would show nothing more for
//! minutes, and each call that is sent over it waits for its whole time. So a watch that shows neither an event nor a bookmark
//! for a while ends, and is opened again by whoever watches; and then, as after a call without an answer, all connections are
//! given up, those of other watches too: what comes next is sent over new ones.
#![expect(clippy::disallowed_types, reason = "the client is made here and handed on")]
#![expect(clippy::disallowed_methods, reason = "silence is time that passes")]

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use kube::Client;
use kube::client::Body;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::BoxError;

use super::again;
use super::kubeconfig::Cluster;
use crate::http::Readiness;
use crate::metrics;

/// How long a watch may show nothing. API servers send a bookmark about every minute.
pub(super) const WATCH_SILENCE: Duration = Duration::from_secs(90);
/// How long a call may stay without the head of its answer.
const LONGEST_CALL: Duration = Duration::from_secs(30);
/// How long the begin of a watch may: nothing has to be worked out for it.
const LONGEST_WATCH_BEGIN: Duration = Duration::from_secs(10);
/// A call that its caller gave up after so long without an answer says that its connection is silent.
const GIVEN_UP: Duration = Duration::from_secs(5);
/// Connections that are younger are not given up: an API server that is slow is not helped by new ones.
const YOUNG: Duration = Duration::from_secs(15);

type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

/// A client for this cluster. Does not connect yet. `watch_silence`: how long a watch may show nothing.
pub(super) fn client(
    cluster: Cluster,
    watch_silence: Duration,
    readiness: &Readiness,
) -> kube::Result<Client> {
    let namespace = cluster.namespace().to_owned();
    let make = move || cluster.plain_client();
    // Whatever is wrong with the configuration is said at once.
    let first = make()?;
    let connections = Connections {
        make: Arc::new(make),
        present: Arc::new(Mutex::new(Some(Present::new(first)))),
        watch_silence,
        readiness: readiness.clone(),
    };
    Ok(Client::new(connections, namespace))
}

/// The connections that are used at present.
#[derive(Clone)]
struct Present {
    client: Client,
    since: Instant,
    over: CancellationToken,
}

impl Present {
    fn new(client: Client) -> Self {
        Self { client, since: Instant::now(), over: CancellationToken::new() }
    }
}

/// All connections to one API server.
#[derive(Clone)]
struct Connections {
    make: Arc<dyn Fn() -> kube::Result<Client> + Send + Sync>,
    present: Arc<Mutex<Option<Present>>>,
    watch_silence: Duration,
    readiness: Readiness,
}

impl Connections {
    fn present(&self) -> kube::Result<Present> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        match &*present {
            Some(present) => Ok(present.clone()),
            None => Ok(present.insert(Present::new((self.make)()?)).clone()),
        }
    }

    /// Gives up the connections that were silent, if they are still the present ones.
    fn give_up(&self, used: &Present) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let is_present = present.as_ref().is_some_and(|present| present.since == used.since);
        if is_present && used.since.elapsed() >= YOUNG {
            *present = None;
            tracing::warn!("a connection to the API server is silent: all of them are opened again");
            used.over.cancel();
        }
    }

    async fn send(self, request: Request<Body>) -> Result<Response<AnyBody>, BoxError> {
        let watch = watched(request.uri());
        let present = self.present()?;
        let mut call = Call { connections: &self, used: &present, begun: Instant::now(), is_answered: false };
        let longest = if watch.is_some() { LONGEST_WATCH_BEGIN } else { LONGEST_CALL };
        let answer = tokio::time::timeout(longest, again::send(&present.client, request)).await;
        call.is_answered = answer.is_ok();
        drop(call);
        let answer =
            answer.map_err(|_| format!("the API server gave no answer within {} s", longest.as_secs()))??;
        Ok(match watch.filter(|_| answer.status().is_success()) {
            None => answer.map(|body| body.map_err(BoxError::from).boxed_unsync()),
            Some(watch) => {
                let heard = Heard { watch, connections: self, used: present };
                answer.map(|body| until_silent(body, heard))
            }
        })
    }
}

/// A call, until it is answered.
struct Call<'a> {
    connections: &'a Connections,
    used: &'a Present,
    begun: Instant,
    is_answered: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.is_answered && self.begun.elapsed() >= GIVEN_UP {
            self.connections.give_up(self.used);
        }
    }
}

impl tower::Service<Request<Body>> for Connections {
    type Response = Response<AnyBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.clone().send(request).boxed()
    }
}

/// What a request watches, such as `servers in lab`; `None`: it is no watch.
fn watched(uri: &http::Uri) -> Option<String> {
    let is_watch = uri.query()?.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"));
    let mut parts: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let resource = parts.pop().filter(|_| is_watch)?;
    let namespace = parts.iter().position(|part| *part == "namespaces").and_then(|at| parts.get(at + 1));
    Some(match namespace {
        Some(namespace) => format!("{resource} in {namespace}"),
        None => resource.to_owned(),
    })
}

/// Tells when a watch was heard of.
struct Heard {
    watch: String,
    connections: Connections,
    used: Present,
}

impl Heard {
    fn now(&self) {
        self.connections.readiness.heard(&self.watch);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        metrics::WATCH_HEARD.set(&[&self.watch], now.as_secs_f64());
    }
}

/// The body of a watch, which ends when nothing came for too long, or its connections were given up. Whoever watches opens it
/// again where it ended.
fn until_silent(body: Body, heard: Heard) -> AnyBody {
    heard.now();
    let frames = stream::unfold((BodyStream::new(body), heard), |(mut body, heard)| async move {
        let silence = heard.connections.watch_silence;
        let next = tokio::select! {
            next = tokio::time::timeout(silence, body.next()) => next,
            () = heard.used.over.cancelled() => return None,
        };
        let Ok(next) = next else {
            let silence_s = silence.as_secs_f64();
            tracing::warn!(
                silence_s,
                "the watch of {} shows nothing any more: it is opened again",
                heard.watch
            );
            metrics::WATCHES_SILENT.one(&[&heard.watch]);
            heard.connections.give_up(&heard.used);
            return None;
        };
        let frame = next?;
        heard.now();
        Some((frame.map_err(BoxError::from), (body, heard)))
    });
    StreamBody::new(frames).boxed_unsync()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_named_by_what_it_watches_and_where() {
        let of = |text: &str| watched(&text.parse().unwrap());
        let servers = "/apis/autobuild.dev/v1alpha1/namespaces/lab/servers";
        assert_eq!(of(&format!("{servers}?watch=true&resourceVersion=7")).unwrap(), "servers in lab");
        assert_eq!(of("/api/v1/secrets?watch=true").unwrap(), "secrets");
        assert_eq!(of(&format!("{servers}?limit=500")), None);
        assert_eq!(of(&format!("{servers}/a")), None);
    }

    /// A stand-in for an API server: the first `silent` requests get no answer, or one whose body never comes.
    fn server(made: Arc<Mutex<u32>>, answers: fn(u32) -> bool) -> impl Fn() -> kube::Result<Client> {
        move || {
            let mut made = made.lock().unwrap();
            *made += 1;
            let number = *made;
            let service = tower::service_fn(move |_: Request<Body>| async move {
                if !answers(number) {
                    std::future::pending::<()>().await;
                }
                let nothing = stream::pending::<Result<hyper::body::Frame<Bytes>, BoxError>>();
                Ok::<_, BoxError>(Response::new(StreamBody::new(nothing)))
            });
            Ok(Client::new(service, "lab"))
        }
    }

    fn connections(made: &Arc<Mutex<u32>>, answers: fn(u32) -> bool) -> Connections {
        Connections {
            make: Arc::new(server(Arc::clone(made), answers)),
            present: Arc::default(),
            watch_silence: Duration::from_secs(90),
            readiness: Readiness::default(),
        }
    }

    fn request(path: &str) -> Request<Body> {
        Request::get(path).body(Body::empty()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_shows_nothing_ends() {
        let made = Arc::default();
        let connections = connections(&made, |_| true);
        let over = connections.present().unwrap().over;
        let watch = request("/api/v1/namespaces/lab/secrets?watch=true");
        let answer = connections.clone().send(watch).await.unwrap();
        let mut body = BodyStream::new(answer.into_body());
        assert!(body.next().await.is_none());
        assert!(over.is_cancelled(), "what is sent next is not sent over a connection that is as silent");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_ends_every_watch_and_the_next_one_takes_a_new_connection() {
        let made = Arc::default();
        let connections = connections(&made, |number| number > 1);
        let over = connections.present().unwrap().over;
        let unanswered = connections.clone().send(request("/api/v1/namespaces/lab/secrets/a")).await;
        assert!(unanswered.unwrap_err().to_string().contains("no answer within 30 s"));
        assert!(over.is_cancelled());
        assert!(connections.clone().send(request("/api/v1/namespaces/lab/secrets/a")).await.is_ok());
        assert_eq!(*made.lock().unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_its_caller_gave_up_says_that_its_connection_is_silent() {
        let made = Arc::default();
        let connections = connections(&made, |_| false);
        for (patience, again) in [(GIVEN_UP / 2, 1), (YOUNG, 2), (GIVEN_UP, 2), (YOUNG, 3)] {
            let call = connections.clone().send(request("/api/v1/namespaces/lab/secrets/a"));
            assert!(tokio::time::timeout(patience, call).await.is_err());
            connections.present().unwrap();
            assert_eq!(*made.lock().unwrap(), again, "given up after {patience:?}");
        }
    }
}
