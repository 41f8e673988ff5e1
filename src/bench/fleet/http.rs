//! Plain HTTP to the processes that were started here, all of them on loopback.
#![expect(clippy::disallowed_types, reason = "only what was started here is called")]

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use super::super::BenchError;

/// Longest time of one call; a page of the emulator's log is some megabytes.
const LONGEST: Duration = Duration::from_mins(1);

static CLIENT: LazyLock<reqwest::Result<reqwest::Client>> =
    LazyLock::new(|| reqwest::Client::builder().no_proxy().timeout(LONGEST).build());

fn failed(url: &str, why: impl std::fmt::Display) -> BenchError {
    BenchError::Call { url: url.to_owned(), why: why.to_string() }
}

async fn answer(method: reqwest::Method, url: &str, body: Option<&Value>) -> Result<String, BenchError> {
    let client = CLIENT.as_ref().map_err(|error| failed(url, error))?;
    let request = client.request(method, url);
    let request = match body {
        Some(body) => request.json(body),
        None => request,
    };
    let answer = request.send().await.map_err(|error| failed(url, error))?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| failed(url, error))?;
    if status.is_success() { Ok(text) } else { Err(failed(url, format!("{status}: {text}"))) }
}

fn json(url: &str, text: &str) -> Result<Value, BenchError> {
    if text.is_empty() {
        Ok(Value::Null)
    } else {
        serde_json::from_str(text).map_err(|error| failed(url, error))
    }
}

/// The text of a page.
pub(super) async fn text(url: &str) -> Result<String, BenchError> {
    answer(reqwest::Method::GET, url, None).await
}

/// A JSON document.
pub(super) async fn get(url: &str) -> Result<Value, BenchError> {
    json(url, &text(url).await?)
}

/// Posts a JSON document.
pub(super) async fn post(url: &str, body: &Value) -> Result<Value, BenchError> {
    json(url, &answer(reqwest::Method::POST, url, Some(body)).await?)
}

/// Deletes what is at a URL.
pub(super) async fn delete(url: &str) -> Result<(), BenchError> {
    answer(reqwest::Method::DELETE, url, None).await.map(|_| ())
}
