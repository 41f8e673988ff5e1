//! One Redfish request from its arrival to its answer.

use std::time::Duration;

use axum::body::Body as HttpBody;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode, header};

use super::act::{self, Deed};
use super::answer::{Answer, Refusal};
use super::auth;
use super::deliver::{Connection, Ending, respond};
use super::effects::{Effect, Entry};
use super::fault::{Away, Behaviour, NoAnswer};
use super::fleet::Fleet;
use super::manager;
use super::media;
use super::power::ResetType;
use super::resources::{Shown, fleet_document};
use super::rules::Facts;
use super::services::{self, Service};
use super::system::{Credentials, System};
use super::target::Target;

/// No BMC takes more than this.
const BODY_LIMIT: usize = 64 * 1024;

/// What a listener shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The whole fleet, and the control interface.
    Fleet,
    /// One system, by its index.
    Own(usize),
}

/// A request after its head was read.
struct Asked<'a> {
    fleet: &'a Fleet,
    scope: Scope,
    system: Option<&'a System>,
    target: Target<'a>,
    path: &'a str,
    members: Vec<&'a str>,
    method: &'a Method,
    headers: &'a HeaderMap,
    body: &'a [u8],
    user: Option<&'a Credentials>,
}

/// Answers one request, or ends its connection.
pub(super) async fn handle(
    fleet: Fleet,
    scope: Scope,
    connection: Connection,
    request: Request<HttpBody>,
) -> Response {
    let (parts, body) = request.into_parts();
    let Parts { method, uri, headers, .. } = &parts;
    let path = uri.path();
    let mutating = !matches!(*method, Method::GET | Method::HEAD);
    let target = Target::parse(path);
    let system = serving(&fleet, scope, target);
    let user = services::presented(&fleet, scope, headers);
    let log = &fleet.0.log;
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(clipped);
    let seq = log.arrived(Entry {
        seq: 0,
        at_ms: fleet.now(),
        answered_ms: None,
        system: system.map(|system| system.name.clone()),
        method: clipped(method.as_str()),
        path: clipped(path),
        mutating,
        action: None,
        status: None,
        effect: Effect::None,
        effect_at_ms: None,
        user: user.as_ref().map(|user| clipped(&user.username)),
        user_agent: text("user-agent"),
        request_id: text("x-request-id"),
        worker: text("x-autobuild-worker"),
        faults: Vec::new(),
    });

    if let Some(pace) = fleet.0.pace {
        let name = system.map_or("", |system| system.name.as_str());
        tokio::time::sleep(pace.of(fleet.0.seed, name, seq)).await;
    }
    let read =
        if mutating { axum::body::to_bytes(body, BODY_LIMIT).await } else { Ok(axum::body::Bytes::new()) };
    let bytes = read.as_deref().unwrap_or_default();
    let reset = reset_asked(target, method, bytes);
    let worker = text("x-autobuild-worker");
    let facts = Facts {
        system: system.map(|s| s.name.as_str()),
        path,
        method: method.as_str(),
        worker: worker.as_deref(),
        mutating,
        reset,
    };
    let faults = fleet.0.rules.meet(facts, fleet.now());
    log.met(seq, faults.iter().map(Behaviour::as_str).collect());

    let answer = match instead(&faults, &connection).await {
        Some(answer) => answer,
        None if read.is_err() => Refusal::too_large().into(),
        None => {
            let asked = Asked {
                fleet: &fleet,
                scope,
                system,
                target,
                path,
                members: members(&fleet, scope, target, system, &faults),
                method,
                headers,
                body: bytes,
                user: user.as_ref(),
            };
            let (answer, deed) = asked.answer(&faults);
            if let Some(deed) = deed {
                log.did(seq, deed.action, deed.effect, deed.at);
            }
            answer
        }
    };
    afterwards(&faults, &connection).await;
    log.answered(seq, answer.status.as_u16(), fleet.now());
    respond(answer, method, &faults)
}

/// Text of a client, cut to what a log entry holds.
fn clipped(text: &str) -> String {
    text.chars().take(256).collect()
}

/// The system that the path or the port belongs to.
fn serving<'a>(fleet: &'a Fleet, scope: Scope, target: Target<'_>) -> Option<&'a System> {
    match scope {
        Scope::Fleet => fleet.find(target.system()?),
        Scope::Own(index) => fleet.0.systems.get(index),
    }
}

/// The members of the collection that the target is; none for anything else.
fn members<'a>(
    fleet: &'a Fleet,
    scope: Scope,
    target: Target<'_>,
    own: Option<&'a System>,
    faults: &[Behaviour],
) -> Vec<&'a str> {
    match scope {
        _ if !matches!(target, Target::Systems | Target::Managers | Target::ChassisAll) => Vec::new(),
        Scope::Fleet => fleet.names().collect(),
        Scope::Own(_) if faults.contains(&Behaviour::SystemMissing {}) => Vec::new(),
        Scope::Own(_) => own.map(|system| system.name.as_str()).into_iter().collect(),
    }
}

fn reset_asked(target: Target<'_>, method: &Method, body: &[u8]) -> Option<ResetType> {
    (matches!(target, Target::Reset(_)) && method == Method::POST)
        .then(|| act::reset_type(body).ok())
        .flatten()
}

/// What comes in place of the work: nothing at all, or an answer of its own.
async fn instead(faults: &[Behaviour], connection: &Connection) -> Option<Answer> {
    for fault in faults {
        match fault {
            Behaviour::Offline { by: Away::ServiceUnavailable } => {
                return Some(Refusal::unavailable().into());
            }
            Behaviour::Offline { by: Away::Reset } => match connection.end(Ending::Reset).await {},
            Behaviour::Close {} => match connection.end(Ending::Close).await {},
            Behaviour::Hang {} => std::future::pending().await,
            Behaviour::Status { status, retry_after_s, body, message_id, message_args } => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let answer = match (body, message_id) {
                    (Some(body), _) => Answer::text("application/json", body.clone()).status(status),
                    (None, Some(id)) => Answer::message(id, message_args).status(status),
                    (None, None) if status.is_success() => Answer::empty(status),
                    (None, None) => Answer::from(Refusal::declared(status)),
                };
                return Some(match retry_after_s {
                    Some(seconds) => answer.with(header::RETRY_AFTER, &seconds.to_string()),
                    None => answer,
                });
            }
            Behaviour::Html { status } => {
                let page = "<!DOCTYPE html>\n<html><head><title>BMC</title></head><body><h1>Please log in</h1></body></html>\n";
                return Some(
                    Answer::text("text/html", page)
                        .status(StatusCode::from_u16(*status).unwrap_or(StatusCode::OK)),
                );
            }
            Behaviour::Redirect { location, status } => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::TEMPORARY_REDIRECT);
                return Some(Answer::empty(status).with(header::LOCATION, location));
            }
            _ => {}
        }
    }
    None
}

/// What comes between the work and its answer.
async fn afterwards(faults: &[Behaviour], connection: &Connection) {
    for fault in faults {
        match fault {
            Behaviour::Delay { ms } => tokio::time::sleep(Duration::from_millis(*ms)).await,
            Behaviour::AnswerLost {} | Behaviour::Late { then: NoAnswer::Close, .. } => {
                match connection.end(Ending::Close).await {}
            }
            Behaviour::Late { then: NoAnswer::Hang, .. } => std::future::pending().await,
            _ => {}
        }
    }
}

impl Asked<'_> {
    fn answer(&self, faults: &[Behaviour]) -> (Answer, Option<Deed>) {
        let now = self.fleet.now();
        let reading = matches!(*self.method, Method::GET | Method::HEAD);
        let refused = |refusal: Refusal| (refusal.into(), (!reading).then_some(Deed::REFUSED));
        let service = Service { fleet: self.fleet, scope: self.scope, system: self.system, now };
        if self.target == Target::Sessions && self.method == Method::POST {
            // To log in is open to everybody.
            return service.open_session(self.body, faults).map_or_else(refused, |answer| (answer, None));
        }
        let public = reading && self.target.is_public();
        let by_session = self.headers.contains_key("x-auth-token");
        if !public && !by_session && faults.contains(&Behaviour::BasicRefused {}) {
            return refused(Refusal::only_sessions());
        }
        if !public && let Err(refusal) = auth::admit(self.fleet, self.system, self.user, faults, now) {
            return refused(refusal);
        }
        if let Some(answer) = fleet_document(self.target, &self.members) {
            return if reading { (answer, None) } else { self.not_allowed() };
        }
        if let Some(document) = service.document(self.target) {
            return match (self.target, self.method) {
                (_, &(Method::GET | Method::HEAD)) => (Answer::json(document), None),
                (Target::Session(id), &Method::DELETE) => service
                    .close_session(id)
                    .map_or_else(|| refused(self.not_found()), |answer| (answer, None)),
                (Target::Account(_), &Method::PATCH) => {
                    service.change_password(self.body).map_or_else(refused, |answer| (answer, None))
                }
                _ => self.not_allowed(),
            };
        }
        // On a port of its own, a system does not know the paths of the others.
        let named = self.system.filter(|system| self.target.system() == Some(system.name.as_str()));
        let Some(system) = named else { return refused(self.not_found()) };
        if faults.contains(&Behaviour::SystemMissing {}) {
            return refused(self.not_found());
        }
        match (self.target, self.method) {
            (Target::Reset(_), &Method::POST) => match act::reset_type(self.body) {
                Ok(reset) => {
                    let (answer, deed) = act::reset(self.fleet, system, reset, self.headers, faults, now);
                    (answer, Some(deed))
                }
                Err(refusal) => refused(refusal),
            },
            (Target::InsertMedia(_), &Method::POST) => {
                let (answer, deed) = media::insert(system, self.body, faults, now);
                (answer, Some(deed))
            }
            (Target::EjectMedia(_), &Method::POST) => {
                let (answer, deed) = media::eject(system, faults, now);
                (answer, Some(deed))
            }
            (Target::ManagerReset(_), &Method::POST) => match manager::reset_type(self.body) {
                Ok(reset) => {
                    let (answer, deed) = manager::reset(self.fleet, system, reset, faults, now);
                    (answer, Some(deed))
                }
                Err(refusal) => refused(refusal),
            },
            (
                Target::Reset(_) | Target::InsertMedia(_) | Target::EjectMedia(_) | Target::ManagerReset(_),
                _,
            ) => self.not_allowed(),
            (Target::System(_), &Method::PATCH) => {
                let (answer, deed) = act::patch(system, self.body, self.headers, faults, now);
                (answer, Some(deed))
            }
            (_, &(Method::GET | Method::HEAD)) => {
                let shown = Shown::new(self.fleet, system, now, faults);
                match shown.document(self.target) {
                    Some(document) => (self.fresh(Answer::json(document), &shown.etag), None),
                    None => refused(self.not_found()),
                }
            }
            _ => self.not_allowed(),
        }
    }

    /// Adds the ETag to a system's document; 304 when the reader has it already.
    fn fresh(&self, answer: Answer, etag: &str) -> Answer {
        if !matches!(self.target, Target::System(_)) {
            return answer;
        }
        let known = self.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let answer = if known == Some(etag) { Answer::empty(StatusCode::NOT_MODIFIED) } else { answer };
        answer.with(header::ETAG, etag)
    }

    fn not_found(&self) -> Refusal {
        Refusal::not_found(self.path)
    }

    fn not_allowed(&self) -> (Answer, Option<Deed>) {
        let answer = Answer::from(Refusal::method(self.method.as_str()));
        let deed = !matches!(*self.method, Method::GET | Method::HEAD);
        (answer.with(header::ALLOW, self.target.allowed()), deed.then_some(Deed::REFUSED))
    }
}
