//! The wire: one connection at a time to the one address that was judged, and what went over it for sure.
#![expect(clippy::disallowed_types, reason = "this is the one place that connects to a BMC")]
#![expect(
    clippy::disallowed_methods,
    reason = "requests have deadlines, and the connection's task ends with it"
)]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::class::Login;
use super::encoding::{self, Unreadable};
use super::learnt::Learnt;
use super::login::{NeedSessions, Signed};
use super::origin::Origin;
use super::unopened::{self, Unopened};
use crate::bmc::error::{BmcError, BmcErrorKind, Delivery};
use crate::bmc::gate::Pass;
use crate::bmc::key::Key;
use crate::bmc::own;
use crate::bmc::peers::{Peers, share};
use crate::bmc::text::Voice;
use crate::bmc::tls::{Tls, Trust};
use crate::metrics;

/// No answer of a BMC is larger: a collection of some thousand systems fits.
pub(super) const BODY_MAX: usize = 1 << 20;
/// What the head of an answer may take.
const HEAD_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 128;
/// How long the body of an answered action is waited for.
const BODY_OF_ACTION: Duration = Duration::from_secs(3);

/// How to get to a BMC: fixed when it was opened.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) origin: Origin,
    pub(super) peers: Peers,
    /// Absent for plain HTTP.
    pub(super) tls: Option<Secured>,
    pub(super) authorization: HeaderValue,
    /// What opens a session.
    pub(super) opening: SecretString,
    pub(super) asker: Asker,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) voice: Voice,
}

/// Who asks, for BMCs that log it.
#[derive(Debug)]
pub(in crate::bmc) struct Asker {
    /// The worker.
    pub(in crate::bmc) worker: Option<HeaderValue>,
    /// The claim.
    pub(in crate::bmc) request_id: Option<HeaderValue>,
}

/// What TLS needs.
#[derive(Debug)]
pub(in crate::bmc) struct Secured {
    pub(in crate::bmc) tls: Tls,
    pub(in crate::bmc) name: ServerName<'static>,
    pub(in crate::bmc) trust: Trust,
}

/// An answer: its head was read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The BMC's turn, and the connection that is open while it lasts.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) route: &'a Route,
    /// Nothing is waited for after it.
    pub(super) until: Instant,
    /// What [`Line::until`] is the end of, for messages; `None`: of a request that says so itself.
    pub(super) limit: Option<Duration>,
    /// Who asks.
    pub(super) signed: Signed,
    pub(super) need_sessions: NeedSessions,
    /// What is known of BMCs.
    pub(super) learnt: Learnt,
    /// Whether this login was let in during this turn.
    pub(super) login: Login,
    open: Option<Open>,
    _pass: Pass,
}

#[derive(Debug)]
struct Open {
    peer: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
    driver: tokio::task::JoinHandle<()>,
    used: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl<'a> Line<'a> {
    pub(super) fn new(
        route: &'a Route,
        until: Instant,
        (need_sessions, learnt): (NeedSessions, Learnt),
        pass: Pass,
    ) -> Self {
        Self {
            route,
            until,
            signed: Signed::Basic,
            need_sessions,
            learnt,
            limit: None,
            login: Login::Untried,
            open: None,
            _pass: pass,
        }
    }

    /// Whether this BMC was found to need a session.
    pub(super) fn needs_session(&self) -> bool {
        self.need_sessions.has(self.route.peers.host())
    }

    /// Reads `path`. A connection that was used before and that the BMC has closed meanwhile is opened anew, once:
    /// many BMCs close it after every answer without saying so.
    pub(super) async fn get_signed(&mut self, path: &str) -> Result<Answer, BmcError> {
        let by = self.deadline();
        let reused = self.connect(by).await?;
        let response = match self.exchange(self.request(Method::GET, path)?, by).await {
            Err(error) if reused && error.kind == BmcErrorKind::Unreachable => {
                self.open = None;
                self.connect(by).await?;
                self.exchange(self.request(Method::GET, path)?, by).await
            }
            other => other,
        }?;
        self.whole(response, by).await
    }

    /// Sends the one request that changes something, over a connection of its own, and never again. Its answer counts
    /// from its head on: the body only makes a message better, and is waited for so that no BMC stumbles over a
    /// connection that ends early.
    pub(super) async fn change(
        &mut self,
        method: Method,
        path: &str,
        body: String,
        if_match: Option<&str>,
    ) -> Result<Answer, BmcError> {
        let by = self.deadline();
        self.open = None;
        self.connect(by).await.map_err(|error| BmcError { delivery: Delivery::NotSent, ..error })?;
        let mut request = self.request(method, path)?.map(|_| Full::from(body));
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(etag) = if_match.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            request.headers_mut().insert(header::IF_MATCH, etag);
        }
        let response = self.exchange(request, by).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let read = self.whole(response, by.min(Instant::now() + BODY_OF_ACTION)).await;
        self.open = None;
        Ok(read.unwrap_or(Answer { status, headers, body: Bytes::new() }))
    }

    /// Which limit it was that ended: of the one request, or of all of them together.
    fn timeout(&self, delivery: Delivery, what: &str, by: Instant) -> BmcError {
        match self.limit.filter(|_| by >= self.until) {
            Some(limit) => {
                let text = format!(
                    "{what} in time: all that is read at once has {} s, which goes with --request-timeout of {} s",
                    limit.as_secs(),
                    self.route.request_timeout.as_secs()
                );
                self.route.error(BmcErrorKind::Timeout, delivery, &text)
            }
            None => self.route.timeout(delivery, what),
        }
    }

    fn deadline(&self) -> Instant {
        self.until.min(Instant::now() + self.route.request_timeout)
    }

    fn request(&self, method: Method, path: &str) -> Result<Request<Full<Bytes>>, BmcError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.route.origin.host_header())
            .header(header::ACCEPT, "application/json")
            // Without it some BMCs compress what they send.
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::USER_AGENT, concat!("autobuild/", env!("CARGO_PKG_VERSION")))
            .header("odata-version", "4.0")
            .body(Full::default())
            .map_err(|_| {
                self.route.error(
                    BmcErrorKind::Protocol,
                    Delivery::NotSent,
                    &format!("has a link that cannot be requested ({})", self.route.voice.quote(path)),
                )
            })?;
        self.signed.sign(&self.route.authorization, request.headers_mut());
        let Asker { worker, request_id } = &self.route.asker;
        for (name, value) in [("x-autobuild-worker", worker), ("x-request-id", request_id)] {
            if let Some(value) = value {
                request.headers_mut().insert(name, value.clone());
            }
        }
        Ok(request)
    }

    /// Makes sure of an open connection; whether it has carried a request before.
    async fn connect(&mut self, by: Instant) -> Result<bool, BmcError> {
        if let Some(open) = &mut self.open
            && open.used
            && matches!(timeout_at(by, open.sender.ready()).await, Ok(Ok(())))
        {
            return Ok(true);
        }
        self.open = None;
        self.open = Some(self.route.open(by).await?);
        Ok(false)
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        by: Instant,
    ) -> Result<Response<Incoming>, BmcError> {
        let route = self.route;
        let Some(open) = &mut self.open else {
            return Err(route.error(BmcErrorKind::Unreachable, Delivery::NotSent, "has no open connection"));
        };
        open.used = true;
        let peer = open.peer;
        match timeout_at(by, open.sender.try_send_request(request)).await {
            Ok(Ok(response)) => {
                route.peers.answered(peer);
                Ok(response)
            }
            Ok(Err(mut failed)) => {
                self.open = None;
                route.peers.silent(peer);
                let unsent = failed.take_message().is_some();
                let delivery = if unsent { Delivery::NotSent } else { Delivery::Unknown };
                let error = failed.into_error();
                Err(if error.is_parse() {
                    route.error(BmcErrorKind::Protocol, delivery, "answered with something that is not HTTP")
                } else {
                    route.error(BmcErrorKind::Unreachable, delivery, "ended the connection without an answer")
                })
            }
            Err(_) => {
                self.open = None;
                route.peers.silent(peer);
                Err(self.timeout(Delivery::Unknown, "did not answer", by))
            }
        }
    }

    /// Reads the body, up to its limit and the deadline.
    async fn whole(&mut self, response: Response<Incoming>, by: Instant) -> Result<Answer, BmcError> {
        let (head, body) = response.into_parts();
        let read = timeout_at(by, Limited::new(body, BODY_MAX).collect()).await;
        let route = self.route;
        let failed = match read {
            Ok(Ok(body)) => match encoding::decoded(&head.headers, body.to_bytes()) {
                Ok(body) => return Ok(Answer { status: head.status, headers: head.headers, body }),
                Err(unreadable) => route.unreadable(&unreadable),
            },
            Ok(Err(error)) if error.is::<LengthLimitError>() => route.error(
                BmcErrorKind::Protocol,
                Delivery::Answered,
                &format!("answered with more than {BODY_MAX} bytes"),
            ),
            Ok(Err(_)) => route.error(
                BmcErrorKind::Protocol,
                Delivery::Answered,
                "ended the connection in the middle of an answer",
            ),
            Err(_) => self.timeout(Delivery::Answered, "did not finish its answer", by),
        };
        self.open = None;
        Err(failed)
    }
}

impl Route {
    /// An error whose sentence starts with the BMC.
    pub(super) fn error(&self, kind: BmcErrorKind, delivery: Delivery, what: &str) -> BmcError {
        BmcError::new(kind, delivery, format!("the BMC {} {what}", self.voice.name))
    }

    fn unreadable(&self, why: &Unreadable) -> BmcError {
        let what = match why {
            Unreadable::TooLarge => format!("answered with more than {BODY_MAX} bytes, compressed"),
            Unreadable::Broken => "answered with something compressed that cannot be read".to_owned(),
            Unreadable::Unknown(name) => {
                format!("answered in an encoding that nobody asked for ({})", self.voice.quote(name))
            }
        };
        self.error(BmcErrorKind::Protocol, Delivery::Answered, &what)
    }

    fn timeout(&self, delivery: Delivery, what: &str) -> BmcError {
        let what = format!("{what} in time (--request-timeout is {} s)", self.request_timeout.as_secs());
        self.error(BmcErrorKind::Timeout, delivery, &what)
    }

    /// A connection to one of the addresses, tried one after the other: whoever refuses or is silent leads to the next one.
    /// Nothing of a request was sent yet.
    async fn open(&self, by: Instant) -> Result<Open, BmcError> {
        let by = by.min(Instant::now() + self.connect_timeout);
        let peers = self.peers.to_try();
        let mut failed = Vec::new();
        for (at, peer) in peers.iter().enumerate() {
            match self.open_at(*peer, share(Instant::now(), by, peers.len() - at)).await {
                Ok(open) => return Ok(open),
                Err(one) if one.kind == BmcErrorKind::Worker => return Err(own::trouble(one.what)),
                Err(one) => {
                    self.peers.silent(*peer);
                    failed.push((*peer, one));
                }
            }
        }
        let kind = unopened::kind(&failed);
        let what = unopened::sentence(&failed);
        let certificate = failed.into_iter().find_map(|(_, one)| one.certificate);
        Err(BmcError { certificate, ..self.error(kind, Delivery::NotSent, &what) })
    }

    async fn open_at(&self, peer: SocketAddr, by: Instant) -> Result<Open, Unopened> {
        let late = || Unopened::late(peer, self.connect_timeout);
        let stream = timeout_at(by, TcpStream::connect(peer)).await.map_err(|_| late())?;
        let stream = stream.map_err(|error| self.unreachable(peer, &error))?;
        // A request is one small packet; it shall not wait for the acknowledgement of another.
        let _ = stream.set_nodelay(true);
        let Some(secured) = &self.tls else {
            return speak(peer, stream).await;
        };
        secured.tls.forget();
        let handshake = async |stream, config: &Arc<ClientConfig>| {
            let connector = TlsConnector::from(Arc::clone(config));
            timeout_at(by, connector.connect(secured.name.clone(), stream)).await.map_err(|_| late())
        };
        let stream = match (handshake(stream, &secured.tls.config).await?, secured.tls.another()) {
            (Ok(stream), _) => stream,
            (Err(_), Some(config)) => {
                let stream = timeout_at(by, TcpStream::connect(peer)).await.map_err(|_| late())?;
                let stream = stream.map_err(|error| self.unreachable(peer, &error))?;
                let _ = stream.set_nodelay(true);
                handshake(stream, &config).await?.map_err(|error| self.refused(secured, &error))?
            }
            (Err(error), None) => return Err(self.refused(secured, &error)),
        };
        if secured.trust == Trust::Unverified {
            metrics::INSECURE_TLS.one(&[]);
        }
        speak(peer, stream).await
    }

    fn unreachable(&self, peer: SocketAddr, error: &io::Error) -> Unopened {
        // Without IPv6 here an address of that family is refused by the same error.
        if let Some(cause) = own::cause(error).filter(|_| peer.is_ipv4() || own::no_descriptor().is_some()) {
            let name = &self.voice.name;
            return Unopened::new(BmcErrorKind::Worker, format!("the BMC {name} was not asked: {cause}"), "");
        }
        let told = own::told(error);
        let what = format!(
            "cannot be connected to at {peer} ({told}): check spec.bmc.address, the BMC and the network"
        );
        Unopened::new(BmcErrorKind::Unreachable, what, told)
    }

    /// A handshake that failed. The fingerprint is told only where it is what can be acted on.
    fn refused(&self, secured: &Secured, error: &io::Error) -> Unopened {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let Some(inner) = inner else {
            let what = format!("ended the connection during the TLS handshake ({})", own::told(error));
            return Unopened::new(BmcErrorKind::Unreachable, what.clone(), what);
        };
        let seen = secured.tls.seen();
        let key = secured.tls.key();
        let what = match (inner, &seen) {
            (_, Some(_)) if secured.tls.shows_the_pinned_one() => pinned(inner, key.as_ref()),
            (rustls::Error::InvalidCertificate(_), Some(seen)) => match (&secured.trust, key.as_ref()) {
                (Trust::Pin(_), _) => format!(
                    "shows a certificate with the SHA-256 fingerprint {seen}, which is not spec.bmc.tls.certificateSHA256: \
                     if its certificate was renewed, compare and write the new one there"
                ),
                (_, key) => match key.map_or_else(|| Some(UNREADABLE.to_owned()), Key::uncheckable) {
                    None => format!(
                        "shows a certificate that is refused ({}); its SHA-256 fingerprint is {seen}: if that is this BMC's, \
                         spec.bmc.tls.certificateSHA256 can pin it, or spec.bmc.tls.caRef can name the CA that signed it",
                        reason(inner, key)
                    ),
                    Some(is) => format!(
                        "shows a certificate that is refused ({}), and its key is {is}, with which nothing can be checked, by a \
                         pin neither: install a certificate with a key of RSA with 2048 bits or ECDSA on P-256 there",
                        reason(inner, key)
                    ),
                },
            },
            (rustls::Error::InvalidMessage(_), None) => {
                "does not speak TLS on this port: check the port in spec.bmc.address".to_owned()
            }
            (inner, _) => {
                format!("and this worker cannot agree on TLS ({})", self.voice.quote(&inner.to_string()))
            }
        };
        Unopened {
            certificate: seen,
            ..Unopened::new(BmcErrorKind::Tls, what, "the TLS handshake was refused")
        }
    }
}

async fn speak<S>(peer: SocketAddr, stream: S) -> Result<Open, Unopened>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| {
            Unopened::new(BmcErrorKind::Unreachable, "ended the connection", "ended the connection")
        })?;
    // How it ended is told by the request that was under way.
    let driver = tokio::spawn(async move { drop(connection.await) });
    Ok(Open { peer, sender, driver, used: false })
}

const UNREADABLE: &str = "not to be found in it";

/// Why a handshake failed in which the BMC showed the very certificate that is pinned.
fn pinned(error: &rustls::Error, key: Option<&Key>) -> String {
    let is = key.map_or_else(|| Some(UNREADABLE.to_owned()), Key::refused);
    match (error, is) {
        (_, Some(is)) => format!(
            "shows the certificate that spec.bmc.tls.certificateSHA256 names, but its key is {is}, and it did not sign the \
             handshake so that this worker can check it: install a certificate with a key of RSA with 2048 bits or ECDSA on \
             P-256 there"
        ),
        (rustls::Error::InvalidCertificate(_), None) => {
            "shows the certificate that spec.bmc.tls.certificateSHA256 names, and did not sign the handshake with its key: \
             something else answers with a copy of it, or the BMC is broken"
                .to_owned()
        }
        (error, None) => {
            format!("shows the certificate that spec.bmc.tls.certificateSHA256 names, but the TLS handshake failed ({error})")
        }
    }
}

/// Why a certificate is refused, without its content: names in a certificate are the BMC's words.
fn reason(error: &rustls::Error, key: Option<&Key>) -> &'static str {
    use rustls::CertificateError as Error;
    let rustls::Error::InvalidCertificate(error) = error else { return "it is not valid" };
    match error {
        Error::BadSignature if key.is_some_and(|key| key.refused().is_some()) => {
            "its key is too short or of a kind that is not trusted"
        }
        Error::UnknownIssuer => "nobody that is trusted has signed it",
        Error::NotValidForName | Error::NotValidForNameContext { .. } => "it is for another host",
        Error::Expired | Error::ExpiredContext { .. } => "it has expired",
        Error::NotValidYet | Error::NotValidYetContext { .. } => "it is not valid yet",
        Error::BadEncoding => "it cannot be read",
        Error::BadSignature => "its signature is wrong",
        Error::Revoked => "it was revoked",
        Error::InvalidPurpose | Error::InvalidPurposeContext { .. } => "it is not for servers",
        _ => "it is not one that can be verified",
    }
}
