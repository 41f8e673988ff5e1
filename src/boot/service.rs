//! One request of a machine, from admission to its answer. Every refusal is the same one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::response::{IntoResponse as _, Response};
use http::header::RETRY_AFTER;
use http::{Request, StatusCode};
use ipnet::IpNet;

use super::artifacts::Artifacts;
use super::asked::{Asked, Report, asked};
use super::denied::Denied;
use super::give::{Judged, Stock};
use super::live::LiveReader;
use super::patience::{Patience, Waits};
use super::peers::{Admission, Counted, Peers};
use super::public_url::PublicUrl;
use super::report_form;
use super::sessions::{Heard, Sessions};
use super::smbios::Smbios;
use super::token::BootToken;
use crate::metrics;

/// How soon a machine comes again when something is away, in seconds.
const COME_AGAIN: u64 = 5;
/// Longest time in which a form arrives.
const FORM: Duration = Duration::from_secs(10);

/// The boot service. Cheap to clone.
#[derive(Clone)]
pub struct BootService(Arc<Inner>);

struct Inner {
    base: PublicUrl,
    sessions: Arc<dyn Sessions>,
    live: LiveReader,
    artifacts: Artifacts,
    judged: Judged,
    peers: Peers,
    waits: Waits,
}

impl BootService {
    /// Answers machines in these subnets (none: everywhere) by what the store and the API say.
    pub fn new(
        base: PublicUrl,
        allowed: Vec<IpNet>,
        sessions: Arc<dyn Sessions>,
        live: LiveReader,
        artifacts: Artifacts,
        patience: Patience,
    ) -> Self {
        let (judged, peers, waits) = (Judged::default(), Peers::new(allowed), Waits::new(patience));
        Self(Arc::new(Inner { base, sessions, live, artifacts, judged, peers, waits }))
    }

    /// From now on nobody is waited for: who asks is told at once what is away.
    pub(super) fn stops_waiting(&self) {
        self.0.waits.end();
    }

    /// The answer to one request.
    pub async fn answer(&self, peer: IpAddr, request: Request<Body>) -> Response {
        match self.0.peers.admit(peer) {
            Admission::Admitted => {}
            Admission::Outside => {
                // Nobody outside fills the log.
                if self.0.peers.failed(peer) == Counted::Within {
                    tracing::warn!(%peer, "refused: the address is outside --boot-cidr");
                }
                metrics::BOOT_REQUESTS.one(&["any", "refused"]);
                return refused();
            }
            Admission::TooOften(wait) => {
                tracing::debug!(%peer, "asked too often for what is not its own");
                metrics::BOOT_REQUESTS.one(&["any", "held"]);
                return later(wait.as_secs().max(1));
            }
        }
        let asked = asked(request.method(), request.uri().path());
        let name = asked.as_ref().map_or("unknown", Asked::as_str);
        let answer = match asked {
            Some(asked) => self.give(&asked, request).await,
            None => Err(Denied::refused("there is nothing at this path")),
        };
        let (outcome, response) = match answer {
            Ok(response) => ("served", response),
            Err(Denied::Refused(why)) => {
                tracing::warn!(%peer, request = name, "refused: {why}");
                let _ = self.0.peers.failed(peer);
                ("refused", refused())
            }
            Err(Denied::Absent(why) | Denied::Broken(why)) => {
                tracing::warn!(%peer, request = name, "refused: {why}");
                ("refused", refused())
            }
            Err(Denied::Later(why)) => {
                tracing::warn!(%peer, request = name, "asked to come again: {why}");
                ("later", later(COME_AGAIN))
            }
        };
        metrics::BOOT_REQUESTS.one(&[name, outcome]);
        response
    }

    pub(super) fn stock(&self) -> Stock<'_> {
        let Inner { base, sessions, live, artifacts, judged, .. } = &*self.0;
        Stock { base, sessions: &**sessions, live, artifacts, judged }
    }

    async fn give(&self, asked: &Asked, request: Request<Body>) -> Result<Response, Denied> {
        let (head, body) = request.into_parts();
        let stock = self.stock();
        match asked {
            Asked::Chain => Ok(stock.chain()),
            Asked::Script(mac) => stock.script(mac, &said(&head)).await,
            Asked::Session(mac) => stock.session(mac, &said(&head)).await,
            Asked::Media(token) => stock.medium(token, head.method, &head.headers).await,
            Asked::Need(token, need) if need.is_asked_for_once() => {
                let give = || stock.need(token, *need, head.method.clone(), &head.headers);
                self.0.waits.until_there(give).await
            }
            Asked::Need(token, need) => stock.need(token, *need, head.method, &head.headers).await,
            Asked::Report(token, report) => self.hear(token, *report, body).await,
        }
    }

    async fn hear(&self, token: &BootToken, report: Report, body: Body) -> Result<Response, Denied> {
        let hash = token.hash();
        let armed = self.0.sessions.by_token(&hash).await?;
        let armed = armed.ok_or_else(|| Denied::refused("no boot session has this token"))?;
        let form = tokio::time::timeout(FORM, to_bytes(body, report_form::LONGEST)).await;
        let form =
            form.ok().and_then(Result::ok).ok_or_else(|| Denied::refused("the form is too long or too slow"));
        let form = form.map_err(|denied| denied.about(&armed))?;
        let smbios = Smbios::of(&form);
        if !smbios.is_silent() {
            let stock = self.stock();
            let server = stock.live.server(&armed.namespace, &armed.name).await?;
            if let Some(server) =
                server.filter(|server| server.metadata.uid.as_deref() == Some(armed.uid.as_str()))
            {
                stock
                    .is_its_machine(&armed, &server, &smbios)
                    .await
                    .map_err(|denied| denied.about(&armed))?;
            }
        }
        let call = report_form::read(report, &form);
        let call = call.ok_or_else(|| Denied::refused("the form lacks a field").about(&armed))?;
        let what = call.as_str();
        match self.0.sessions.call_home(&armed, &hash, call).await? {
            Heard::Recorded => {
                tracing::info!(
                    namespace = armed.namespace,
                    server = armed.name,
                    "the machine reports {what}"
                );
                Ok(StatusCode::OK.into_response())
            }
            Heard::Refused | Heard::GivenBefore => {
                Err(Denied::refused("the boot session is over").about(&armed))
            }
        }
    }
}

/// What the machine says of itself.
fn said(head: &http::request::Parts) -> Smbios {
    Smbios::of(head.uri.query().unwrap_or_default().as_bytes())
}

fn refused() -> Response {
    StatusCode::NOT_FOUND.into_response()
}

fn later(seconds: u64) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, seconds.to_string())]).into_response()
}
