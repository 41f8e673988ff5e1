//! The connections of a port that this process serves: so many at most, and each has to ask in time, and to take in what it is
//! answered. Where all places are taken, the one that has asked for nothing for longest makes room: whoever opens thousands and
//! says nothing keeps no good one away.
#![expect(clippy::disallowed_types, reason = "this is where connections are accepted")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// What a port bears.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Until a request has come whole, its body apart, from the start of the connection or the end of the answer before.
    pub head: Duration,
    /// Until the peer takes in more of an answer. A peer that is slow goes on, one that reads nothing is let go.
    pub stall: Duration,
}

/// Between two tries of a system that has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`; then what was asked for is answered to its end. Drop it to end that too.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let places = Arc::new(Places::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                let place = tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    place = places.take() => place,
                };
                let Some(place) = place else { break };
                connections.spawn(connection(stream, peer, router.clone(), limits, place, stop.clone()));
            }
            Err(error) => {
                if !is_the_peers(&error) {
                    tracing::warn!("no connection can be accepted: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    places.close();
    while connections.join_next().await.is_some() {}
}

fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    place: Place,
    stop: CancellationToken,
) {
    let place = Arc::new(place);
    let over = place.waits();
    let asked = Arc::clone(&place);
    let service = service_fn(move |request: Request<Incoming>| {
        let (router, busy) = (router.clone(), Busy::new(&asked));
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            let Ok(response) = router.oneshot(request).await;
            let answer: Response<Answer> = response.map(|body| Answer { body, _busy: busy });
            Ok::<_, Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .serve_connection(TokioIo::new(Taken::new(stream, limits.stall)), service);
    let mut served = std::pin::pin!(served);
    let mut stops = std::pin::pin!(stop.cancelled());
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            _ = &mut served => return,
            () = over.cancelled() => return tracing::trace!(%peer, "a connection that asked for nothing made room"),
            () = &mut stops, if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

/// A stream whose peer has to take in what is written.
#[derive(Debug)]
struct Taken<S> {
    stream: S,
    stall: Duration,
    /// Set while the peer takes in nothing.
    over: Option<Pin<Box<Sleep>>>,
}

impl<S> Taken<S> {
    fn new(stream: S, stall: Duration) -> Self {
        Self { stream, stall, over: None }
    }

    fn within<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.over = None;
            return written;
        }
        let stall = self.stall;
        let over = self.over.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        over.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Taken<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Taken<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.within(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.within(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// Who is connected, and who of them waits for nothing of ours.
#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    silent: Mutex<Silent>,
    one_more: Notify,
}

#[derive(Debug, Default)]
struct Silent {
    number: u64,
    /// The longest silent first.
    all: BTreeMap<u64, CancellationToken>,
}

impl Places {
    fn new(connections: usize) -> Self {
        let free = Arc::new(Semaphore::new(connections));
        Self { free, silent: Mutex::default(), one_more: Notify::new() }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Silent) -> T) -> T {
        look(&mut self.silent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn take(self: &Arc<Self>) -> Option<Place> {
        let mut made_room = false;
        loop {
            let longest = if made_room || self.free.available_permits() > 0 {
                None
            } else {
                self.with(|silent| silent.all.pop_first())
            };
            if let Some((_, over)) = longest {
                over.cancel();
                made_room = true;
            }
            tokio::select! {
                permit = Arc::clone(&self.free).acquire_owned() => {
                    let state = Mutex::new((0, CancellationToken::new()));
                    return permit.ok().map(|permit| Place { places: Arc::clone(self), state, _permit: permit });
                }
                () = self.one_more.notified(), if !made_room => {}
            }
        }
    }

    /// Nobody who is silent is waited for any more.
    fn close(&self) {
        let all = self.with(|silent| std::mem::take(&mut silent.all));
        for over in all.into_values() {
            over.cancel();
        }
    }
}

/// The place of one connection; free again when this is dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    /// Its number among the silent, and what ends it.
    state: Mutex<(u64, CancellationToken)>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// It waits for a request from now on; what ends it then.
    fn waits(&self) -> CancellationToken {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let over = state.1.clone();
        state.0 = self.places.with(|silent| {
            silent.number += 1;
            silent.all.insert(silent.number, over.clone());
            silent.number
        });
        self.places.one_more.notify_one();
        over
    }

    fn asks(&self) {
        let number = self.state.lock().unwrap_or_else(PoisonError::into_inner).0;
        self.places.with(|silent| silent.all.remove(&number));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.asks();
    }
}

/// Somebody is being answered.
#[derive(Debug)]
struct Busy(Arc<Place>);

impl Busy {
    fn new(place: &Arc<Place>) -> Self {
        place.asks();
        Self(Arc::clone(place))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.waits();
    }
}

/// The body of an answer: its connection is busy until it is sent.
#[derive(Debug)]
struct Answer {
    body: Body,
    _busy: Busy,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A port with a page, and one that comes when it is told to.
    async fn port(limits: Limits) -> (SocketAddr, Arc<Notify>, CancellationToken, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, release, stop) =
            (listener.local_addr().unwrap(), Arc::new(Notify::new()), CancellationToken::new());
        let released = Arc::clone(&release);
        let endless = || futures::stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from(vec![0; 65_536])));
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/endless", get(move || async move { Body::from_stream(endless()) }))
            .route(
                "/later",
                get(move || async move {
                    released.notified().await;
                    "at last"
                }),
            );
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, router, limits, stop.clone()));
        (address, release, stop, serving)
    }

    async fn send(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    async fn read(mut stream: TcpStream) -> String {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    const WHOLE: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    const HALF: &str = "GET / HTTP/1.1\r\nhost: a\r\n";
    const LONG: Duration = Duration::from_hours(1);

    fn limits(connections: usize) -> Limits {
        Limits { connections, head: LONG, stall: LONG }
    }

    #[tokio::test]
    async fn half_requests_keep_no_good_one_away_and_who_is_being_answered_stays() {
        let (address, release, _stop, _serving) = port(limits(8)).await;
        let asks = send(address, "GET /later HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        let mut half = Vec::new();
        for _ in 0..200 {
            half.push(send(address, HALF).await);
        }
        assert!(read(send(address, WHOLE).await).await.ends_with("here"));
        release.notify_one();
        assert!(read(asks).await.ends_with("at last"));
    }

    #[tokio::test]
    async fn who_has_not_asked_in_time_is_let_go() {
        let head = Duration::from_millis(20);
        let (address, _release, _stop, _serving) = port(Limits { head, ..limits(8) }).await;
        for text in ["", HALF, "GET / HTTP/1.1\r\nhost: a\r\n\r\n"] {
            let mut stream = send(address, text).await;
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            assert_eq!(answer.contains("here"), text.ends_with("\r\n\r\n"), "{answer}");
        }
    }

    #[tokio::test]
    async fn at_the_end_silent_ones_are_let_go_and_who_asked_gets_an_answer() {
        let (address, release, stop, mut serving) = port(limits(8)).await;
        let asks = send(address, "GET /later HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let half = send(address, HALF).await;
        assert!(read(send(address, WHOLE).await).await.ends_with("here"));
        stop.cancel();
        assert_eq!(read(half).await, "");
        release.notify_one();
        assert!(read(asks).await.ends_with("at last"));
        serving.join_next().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_reads_nothing_of_its_answer_is_let_go() {
        let stall = Duration::from_millis(20);
        let (address, _release, _stop, _serving) = port(Limits { stall, ..limits(1) }).await;
        let reads_nothing = send(address, "GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
        // The only place is taken for as long as that one is being answered.
        assert!(read(send(address, WHOLE).await).await.ends_with("here"));
        drop(reads_nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_is_written_to_for_as_long_as_it_reads() {
        let stall = Duration::from_mins(1);
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut ours = Taken::new(ours, stall);
        ours.write_all(&[0; 16]).await.unwrap();
        for _ in 0..10 {
            let slowly = async {
                tokio::time::sleep(stall * 9 / 10).await;
                theirs.read_exact(&mut [0; 1]).await.unwrap();
            };
            let (written, ()) = tokio::join!(ours.write_all(&[0; 1]), slowly);
            written.unwrap();
        }
        // What is not written meanwhile costs it nothing.
        theirs.read_exact(&mut [0; 16]).await.unwrap();
        tokio::time::sleep(stall * 2).await;
        ours.write_all(&[0; 16]).await.unwrap();
        assert_eq!(ours.write_all(&[0; 1]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
