//! The sockets: plain HTTP, HTTPS under three certificates, and ports of single systems.
#![expect(clippy::disallowed_types, reason = "the fleet serves on ports of its own")]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::control::router;
use super::deliver::Connection;
use super::fleet::Fleet;
use super::host;
use super::qemu;
use super::redfish::Scope;
use super::tls::{Identities, Identity, TlsError};

/// Where a fleet listens; port 0 takes a free one.
#[derive(Debug, Clone, Default)]
pub struct Listeners {
    /// Plain HTTP, the whole fleet.
    pub http: Option<SocketAddr>,
    /// HTTPS with a certificate of the fleet's CA for `127.0.0.1`, `::1`, `localhost` and this address.
    pub https: Option<SocketAddr>,
    /// HTTPS with a self-signed certificate.
    pub https_self_signed: Option<SocketAddr>,
    /// HTTPS with a certificate of the fleet's CA for another host.
    pub https_wrong_name: Option<SocketAddr>,
    /// So many systems, from the first, are served on a port of their own too (HTTP and HTTPS as above).
    pub own_ports: usize,
}

/// The own ports of one system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAddresses {
    /// The system.
    pub system: String,
    /// Plain HTTP.
    pub http: Option<SocketAddr>,
    /// HTTPS.
    pub https: Option<SocketAddr>,
}

/// A fleet that listens. Dropping it ends the listeners.
#[derive(Debug)]
pub struct Bound {
    /// Plain HTTP.
    pub http: Option<SocketAddr>,
    /// HTTPS.
    pub https: Option<SocketAddr>,
    /// HTTPS with the self-signed certificate.
    pub https_self_signed: Option<SocketAddr>,
    /// HTTPS with the certificate of another host.
    pub https_wrong_name: Option<SocketAddr>,
    /// The ports of single systems.
    pub own: Vec<OwnAddresses>,
    /// The CA certificate, PEM.
    pub ca_pem: String,
    /// SHA-256 of the HTTPS certificate, lower-case hexadecimal.
    pub fingerprint: String,
    /// SHA-256 of the self-signed certificate.
    pub self_signed_fingerprint: String,
    tasks: JoinSet<()>,
}

/// A fleet that cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Nothing to listen on.
    #[error("no address to listen on: give at least one of http and https")]
    NoListener,
    /// More own ports than systems.
    #[error("own-ports is {asked}, and the fleet has {systems} systems: ask for at most as many")]
    TooManyOwnPorts {
        /// What was asked for.
        asked: usize,
        /// How many systems there are.
        systems: usize,
    },
    /// A socket could not be bound.
    #[error("{field} is {address}, which cannot be bound: {source}; use port 0 for a free one")]
    Bind {
        /// Which listener.
        field: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The certificates could not be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Bound {
    /// Waits until the listeners have ended, after the token was cancelled.
    pub async fn stopped(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Binds the sockets and serves the fleet on them until `shutdown`; returns as soon as they are bound.
pub async fn serve(
    fleet: Fleet,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<Bound, ServeError> {
    let Listeners { http, https, https_self_signed, https_wrong_name, own_ports } = listeners;
    if [http, https, https_self_signed, https_wrong_name].iter().all(Option::is_none) {
        return Err(ServeError::NoListener);
    }
    let systems = fleet.0.systems.len();
    if own_ports > systems {
        return Err(ServeError::TooManyOwnPorts { asked: own_ports, systems });
    }
    let identities =
        Identities::generate([https, https_self_signed].into_iter().flatten().map(|address| address.ip()))?;
    let stop = shutdown.clone();
    let mut sockets = Sockets { fleet: fleet.clone(), shutdown, tasks: JoinSet::new() };
    let good = Some(&identities.good);
    let whole = Scope::Fleet;
    let plain = sockets.open("http", http, whole, None).await?;
    let trusted = sockets.open("https", https, whole, good).await?;
    let self_signed =
        sockets.open("https-self-signed", https_self_signed, whole, Some(&identities.self_signed)).await?;
    let wrong_name =
        sockets.open("https-wrong-name", https_wrong_name, whole, Some(&identities.wrong_name)).await?;
    let mut own = Vec::with_capacity(own_ports);
    for (index, name) in fleet.names().enumerate().take(own_ports) {
        let free = |address: Option<SocketAddr>| address.map(|address| SocketAddr::new(address.ip(), 0));
        let scope = Scope::Own(index);
        own.push(OwnAddresses {
            system: name.to_owned(),
            http: sockets.open("own-ports", free(http), scope, None).await?,
            https: sockets.open("own-ports", free(https), scope, good).await?,
        });
    }
    sockets.tasks.spawn(host::keep(fleet.clone(), stop.clone()));
    sockets.tasks.spawn(qemu::keep(fleet, stop));
    Ok(Bound {
        http: plain,
        https: trusted,
        https_self_signed: self_signed,
        https_wrong_name: wrong_name,
        own,
        ca_pem: identities.ca_pem,
        fingerprint: identities.good.fingerprint,
        self_signed_fingerprint: identities.self_signed.fingerprint,
        tasks: sockets.tasks,
    })
}

struct Sockets {
    fleet: Fleet,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Sockets {
    async fn open(
        &mut self,
        field: &'static str,
        address: Option<SocketAddr>,
        scope: Scope,
        identity: Option<&Identity>,
    ) -> Result<Option<SocketAddr>, ServeError> {
        let Some(address) = address else { return Ok(None) };
        let failed = |source| ServeError::Bind { field, address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let door = Door {
            fleet: self.fleet.clone(),
            scope,
            router: router(&self.fleet, scope),
            tls: identity.map(|identity| TlsAcceptor::from(Arc::clone(&identity.config))),
        };
        self.tasks.spawn(accept(listener, Arc::new(door), self.shutdown.clone()));
        Ok(Some(bound))
    }
}

/// What a listener needs for each of its connections.
struct Door {
    fleet: Fleet,
    scope: Scope,
    router: Router,
    tls: Option<TlsAcceptor>,
}

async fn accept(listener: TcpListener, door: Arc<Door>, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, Arc::clone(&door)));
                }
                Err(error) => {
                    // Out of file descriptors, as a rule: a pause lets connections end.
                    tracing::warn!(%error, "the emulator could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn converse(stream: TcpStream, door: Arc<Door>) {
    let system = match door.scope {
        Scope::Fleet => None,
        Scope::Own(index) => door.fleet.0.systems.get(index).map(|system| system.name.as_str()),
    };
    if door.fleet.0.rules.hangs_on_accept(system, door.fleet.now()) {
        let _held = stream;
        return std::future::pending().await;
    }
    // Small answers shall not wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let connection = Connection::default();
    let stream = Droppable { stream, by_reset: Arc::clone(&connection.by_reset) };
    let talk = async {
        match &door.tls {
            None => speak(stream, &door.router, &connection).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => speak(stream, &door.router, &connection).await,
                Err(error) => tracing::debug!(%error, "a client ended the TLS handshake"),
            },
        }
    };
    tokio::select! {
        () = connection.end.cancelled() => {}
        () = talk => {}
    }
}

async fn speak<S>(stream: S, router: &Router, connection: &Connection)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(connection.clone());
        router.clone().oneshot(request)
    });
    let served = auto::Builder::new(TokioExecutor::new())
        .http1_only()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(error = &*error, "a connection of the emulator ended with an error");
    }
}

/// A socket that can end with a reset.
struct Droppable {
    stream: TcpStream,
    by_reset: Arc<AtomicBool>,
}

impl Drop for Droppable {
    fn drop(&mut self) {
        if self.by_reset.load(Ordering::Relaxed) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Droppable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Droppable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
