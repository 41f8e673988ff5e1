//! What an answer means: a document, or the class of an error.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use super::class::{Asked, Login, class};
use super::line::{Answer, Route};
use super::message::{self, Meaning};
use super::plain;
use super::preconditions::Tags;
use crate::bmc::error::{BmcError, BmcErrorKind, Delivery};

/// What is said of a refused login, whatever was asked for.
const LOGIN_REFUSED: &str =
    "refuses the user name or password: correct the Secret of spec.bmc.credentialsRef";

/// No BMC is waited for longer because it asked for it.
const PATIENCE_MAX: Duration = Duration::from_hours(1);

/// A JSON document, and where it was found in the end.
#[derive(Debug)]
pub(super) struct Document {
    /// The path, after redirects.
    pub(super) path: String,
    /// Its ETags.
    pub(super) tags: Tags,
    /// What it says: an object.
    pub(super) value: Value,
}

/// The document in the answer to a read; `what` names it in messages.
pub(super) fn document(
    route: &Route,
    path: String,
    what: &str,
    answer: &Answer,
    login: Login,
) -> Result<Document, BmcError> {
    match answer.status {
        StatusCode::OK => {
            let value = json(answer).ok_or_else(|| not_json(route, what, answer))?;
            let header =
                answer.headers.get(header::ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
            let body = value.get("@odata.etag").and_then(Value::as_str).map(str::to_owned);
            Ok(Document { path, tags: Tags { header, body }, value })
        }
        status => Err(read_error(route, what, status, answer, login)),
    }
}

fn not_json(route: &Route, what: &str, answer: &Answer) -> BmcError {
    let kind = media_type(&answer.headers).unwrap_or("no media type");
    let shown = route.voice.quote(kind);
    let utf_16 = matches!(answer.body.get(..2), Some([0xfe, 0xff] | [0xff, 0xfe]));
    let encoding = if utf_16 { ", in UTF-16" } else { "" };
    let what = format!(
        "answered the request for {what} with something that is not a JSON object ({shown}{encoding}): is it a Redfish BMC?"
    );
    route.error(BmcErrorKind::Protocol, Delivery::Answered, &what)
}

fn read_error(route: &Route, what: &str, status: StatusCode, answer: &Answer, login: Login) -> BmcError {
    let asked = Asked::Read(login);
    let told = Told::of(route, answer, asked);
    let (number, said) = (status.as_u16(), &told.said);
    let kind = class(asked, status, told.meaning, retry_after(&answer.headers));
    let text = match &kind {
        BmcErrorKind::Busy(_) => format!("is busy ({number}){said} and is asked again later"),
        BmcErrorKind::Credentials => told.login_refused(status),
        BmcErrorKind::Forbidden => format!(
            "forbids to read {what} ({number}){said}: give the account of spec.bmc.credentialsRef the right to do it"
        ),
        BmcErrorKind::NotFound => format!("has no {what} ({number}){said}: check spec.bmc.address"),
        _ => format!("answered {number} to the request for {what}{said}"),
    };
    route.error(kind, Delivery::Answered, &text)
}

/// What the answer to a request that changes the machine, or opens a session, means; `what` names the request in messages.
pub(super) fn action(route: &Route, asked: Asked, what: &str, answer: &Answer) -> Result<(), BmcError> {
    let status = answer.status;
    if status.is_success() {
        return Ok(());
    }
    let told = Told::of(route, answer, asked);
    let (number, said) = (status.as_u16(), &told.said);
    let kind = class(asked, status, told.meaning, retry_after(&answer.headers));
    let text = match &kind {
        BmcErrorKind::Busy(_) if status == StatusCode::PRECONDITION_FAILED => format!(
            "does not do {what}, because it takes none of the preconditions that it was given (412){said}; it is asked again later"
        ),
        BmcErrorKind::Busy(_) => format!("does not do {what} yet ({number}){said}; it is asked again later"),
        BmcErrorKind::Credentials => told.login_refused(status),
        BmcErrorKind::Forbidden => format!(
            "forbids {what} ({number}){said}: give the account of spec.bmc.credentialsRef the right to do it"
        ),
        BmcErrorKind::NotFound => format!("does not have what {what} is sent to ({number}){said}"),
        BmcErrorKind::Unsupported => format!("does not offer {what} ({number}){said}"),
        _ if status.is_redirection() => format!(
            "redirects {what} ({number}), which is not followed: write its real address into spec.bmc.address"
        ),
        _ => format!("refuses {what} ({number}){said}"),
    };
    // A gateway in the BMC that lost patience says nothing about what stands behind it.
    let delivery = match status {
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Delivery::Unknown,
        _ => Delivery::Answered,
    };
    Err(route.error(kind, delivery, &text))
}

/// What a BMC says beside a status.
struct Told {
    /// What its MessageIds mean.
    meaning: Option<Meaning>,
    /// Its own words, as the tail of a sentence; empty when it has none.
    said: String,
    /// Whether they tell more of a refused login than everybody tells.
    why: bool,
}

impl Told {
    fn of(route: &Route, answer: &Answer, asked: Asked) -> Self {
        // Whatever the media type says: an error page of JSON is often called text.
        let parsed = serde_json::from_slice::<Value>(without_mark(&answer.body)).ok();
        let messages = parsed.as_ref().map(message::messages).unwrap_or_default();
        let words = match &parsed {
            Some(_) => message::words(&messages),
            None => plain::line(&answer.body),
        };
        let words = words.map(|words| route.voice.quote(&words)).filter(|words| !words.is_empty());
        Self {
            meaning: message::meaning(&messages, asked),
            said: words.map(|words| format!(": {words:?}")).unwrap_or_default(),
            why: message::tells_why_of_a_login(&messages),
        }
    }

    /// What a BMC says of an account comes first: that it is locked, or that its password must be changed, is not cured by
    /// another Secret.
    fn login_refused(&self, status: StatusCode) -> String {
        if !self.why {
            return LOGIN_REFUSED.to_owned();
        }
        format!(
            "does not let the account of spec.bmc.credentialsRef log in ({}){}; look at the account there, or correct the Secret",
            status.as_u16(),
            self.said
        )
    }
}

/// The JSON object in an answer.
fn json(answer: &Answer) -> Option<Value> {
    let is_json = media_type(&answer.headers).is_none_or(|kind| kind.contains("json"));
    let value = is_json.then(|| serde_json::from_slice(without_mark(&answer.body)).ok()).flatten()?;
    Value::is_object(&value).then_some(value)
}

/// A body without the byte order mark that some begin their UTF-8 with.
fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

fn media_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()?.split(';').next().map(str::trim)
}

/// `Retry-After` in seconds; a date is not read, because the BMC's clock is seldom right.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(PATIENCE_MAX))
}
