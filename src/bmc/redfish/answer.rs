//! What an answer means: a document, or the class of an error.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use super::line::{Answer, Route};
use crate::bmc::error::{BmcError, BmcErrorKind, Delivery};

/// What is said of a 401, whatever was asked for.
const LOGIN_REFUSED: &str =
    "refuses the user name or password: correct the Secret of spec.bmc.credentialsRef";

/// No BMC is waited for longer because it asked for it.
const PATIENCE_MAX: Duration = Duration::from_hours(1);

/// A JSON document, and where it was found in the end.
#[derive(Debug)]
pub(super) struct Document {
    /// The path, after redirects.
    pub(super) path: String,
    /// Its ETag, from the header or the document.
    pub(super) etag: Option<String>,
    /// What it says: an object.
    pub(super) value: Value,
}

/// The document in the answer to a read; `what` names it in messages.
pub(super) fn document(
    route: &Route,
    path: String,
    what: &str,
    answer: &Answer,
) -> Result<Document, BmcError> {
    match answer.status {
        StatusCode::OK => {
            let value = json(answer).ok_or_else(|| not_json(route, what, answer))?;
            let in_head = answer.headers.get(header::ETAG).and_then(|etag| etag.to_str().ok());
            let etag = in_head.or_else(|| value.get("@odata.etag")?.as_str()).map(str::to_owned);
            Ok(Document { path, etag, value })
        }
        status => Err(read_error(route, what, status, answer)),
    }
}

fn not_json(route: &Route, what: &str, answer: &Answer) -> BmcError {
    let kind = media_type(&answer.headers).unwrap_or("no media type");
    let shown = route.voice.quote(kind);
    let what = format!(
        "answered the request for {what} with something that is not a JSON object ({shown}): is it a Redfish BMC?"
    );
    route.error(BmcErrorKind::Protocol, Delivery::Answered, &what)
}

fn read_error(route: &Route, what: &str, status: StatusCode, answer: &Answer) -> BmcError {
    let said = said(route, answer);
    let (kind, text) = match status {
        StatusCode::UNAUTHORIZED => (BmcErrorKind::Credentials, LOGIN_REFUSED.to_owned()),
        StatusCode::FORBIDDEN => (
            BmcErrorKind::Credentials,
            format!(
                "forbids to read {what} (403){said}: the account of spec.bmc.credentialsRef is locked or lacks the \
                 privilege to log in"
            ),
        ),
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            (BmcErrorKind::NotFound, format!("has no {what} ({}): check spec.bmc.address", status.as_u16()))
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => busy(status, answer),
        _ => {
            (BmcErrorKind::Protocol, format!("answered {} to the request for {what}{said}", status.as_u16()))
        }
    };
    route.error(kind, Delivery::Answered, &text)
}

fn busy(status: StatusCode, answer: &Answer) -> (BmcErrorKind, String) {
    (
        BmcErrorKind::Busy(retry_after(&answer.headers)),
        format!("is busy ({}) and is asked again later", status.as_u16()),
    )
}

/// What the answer to a request that changes the machine means; `what` names the request in messages.
pub(super) fn action(route: &Route, what: &str, answer: &Answer) -> Result<(), BmcError> {
    let status = answer.status;
    let number = status.as_u16();
    let said = said(route, answer);
    let (kind, text) = match status {
        _ if status.is_success() => return Ok(()),
        StatusCode::UNAUTHORIZED => (BmcErrorKind::Credentials, LOGIN_REFUSED.to_owned()),
        StatusCode::FORBIDDEN => (
            BmcErrorKind::Credentials,
            format!(
                "forbids {what} (403){said}: the account of spec.bmc.credentialsRef probably lacks the privilege \
                 to do it"
            ),
        ),
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            (BmcErrorKind::NotFound, format!("does not have what {what} is sent to ({number}){said}"))
        }
        StatusCode::PRECONDITION_FAILED => (
            BmcErrorKind::Busy(None),
            format!("did not do {what}, because the system has changed since it was read (412)"),
        ),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => busy(status, answer),
        _ if status.is_redirection() => (
            BmcErrorKind::Protocol,
            format!(
                "redirects {what} ({number}), which is not followed: write its real address into spec.bmc.address"
            ),
        ),
        _ if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED || !said.is_empty() => {
            (BmcErrorKind::Refused, format!("refuses {what} ({number}){said}"))
        }
        _ => (BmcErrorKind::Protocol, format!("answered {number} to {what}")),
    };
    // A gateway in the BMC that lost patience says nothing about what stands behind it.
    let delivery = match status {
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Delivery::Unknown,
        _ => Delivery::Answered,
    };
    Err(route.error(kind, delivery, &text))
}

/// The JSON object in an answer.
fn json(answer: &Answer) -> Option<Value> {
    let is_json = media_type(&answer.headers).is_none_or(|kind| kind.contains("json"));
    let value = is_json.then(|| serde_json::from_slice(&answer.body).ok()).flatten()?;
    Value::is_object(&value).then_some(value)
}

fn media_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()?.split(';').next().map(str::trim)
}

/// The BMC's own words about an error, as the tail of a sentence; empty when it has none.
fn said(route: &Route, answer: &Answer) -> String {
    let words = json(answer).and_then(|body| words(&body)).map(|words| route.voice.quote(&words));
    words.filter(|words| !words.is_empty()).map(|words| format!(": {words:?}")).unwrap_or_default()
}

/// The first message with a text: many BMCs send the list as one object, or outside `error`.
fn words(body: &Value) -> Option<String> {
    const LIST: &str = "@Message.ExtendedInfo";
    let error = body.get("error").unwrap_or(body);
    let list = error.get(LIST).or_else(|| body.get(LIST));
    let messages = match list {
        Some(Value::Array(all)) => all.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let text = |value: &Value, name: &str| {
        value.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty()).map(str::to_owned)
    };
    let first = |name: &str| messages.iter().find_map(|message| text(message, name));
    first("Message").or_else(|| text(error, "message")).or_else(|| first("MessageId"))
}

/// `Retry-After` in seconds; a date is not read, because the BMC's clock is seldom right.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(PATIENCE_MAX))
}
