//! What becomes of a request that a BMC accepted and does later: the task that it names in its answer.

use std::time::Duration;

use http::{StatusCode, header};
use serde_json::Value;
use tokio::time::Instant;

use super::line::{Answer, Line};
use super::message;
use crate::bmc::error::BmcError;

/// How long a task is waited for within the request itself; what takes longer is looked at with the next read.
const WAITED: Duration = Duration::from_secs(8);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(400);

/// What a task came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is still under way, or the BMC has forgotten it.
    Unknown,
    /// It did what it was to do.
    Done,
    /// It did not, in the BMC's words.
    Failed(String),
}

/// Where the task of an accepted request is.
pub(super) fn of(line: &Line<'_>, at: &str, answer: &Answer) -> Option<String> {
    if answer.status != StatusCode::ACCEPTED {
        return None;
    }
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let told = |name: &str| body.as_ref()?.get(name)?.as_str();
    let is_task =
        told("TaskState").is_some() || told("@odata.type").is_some_and(|kind| kind.contains("Task"));
    let monitor = answer.headers.get(header::LOCATION).and_then(|to| to.to_str().ok());
    let to = told("@odata.id").filter(|_| is_task).or(monitor)?;
    line.route.origin.follow(at, to).ok()
}

/// Waits for a task, for a while.
pub(super) async fn wait(line: &mut Line<'_>, path: &str) -> Ended {
    let until = line.until.min(Instant::now() + WAITED);
    loop {
        match look(line, path).await {
            Ok(Ended::Unknown) if Instant::now() + PAUSE < until => tokio::time::sleep(PAUSE).await,
            Ok(ended) => return ended,
            Err(_) => return Ended::Unknown,
        }
    }
}

/// One look at it. A task monitor answers 202 until the end, and then as the request itself would have been answered.
pub(super) async fn look(line: &mut Line<'_>, path: &str) -> Result<Ended, BmcError> {
    let answer = line.get(path).await?;
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    Ok(ended(answer.status, &body, |text| line.route.voice.quote(text)))
}

fn ended(status: StatusCode, body: &Value, quote: impl Fn(&str) -> String) -> Ended {
    let words = || {
        let said = message::words(&message::messages(body)).map(|words| quote(&words));
        said.filter(|words| !words.is_empty()).unwrap_or_else(|| "nothing more is said".to_owned())
    };
    let health = body.get("TaskStatus").and_then(Value::as_str);
    match body.get("TaskState").and_then(Value::as_str) {
        Some("Completed") if matches!(health, None | Some("OK" | "Warning")) => Ended::Done,
        Some("Completed" | "Exception" | "Killed" | "Cancelled" | "Interrupted") => Ended::Failed(words()),
        Some(_) => Ended::Unknown,
        None if status == StatusCode::ACCEPTED || status == StatusCode::NOT_FOUND => Ended::Unknown,
        None if status.is_success() => Ended::Done,
        None if status.is_client_error() && status != StatusCode::UNAUTHORIZED => Ended::Failed(words()),
        None => Ended::Unknown,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_task_ends_by_its_state_and_a_monitor_by_its_status() {
        let failed = |words: &str| Ended::Failed(words.to_owned());
        let message = json!([{"MessageId": "Base.1.8.GeneralError", "Message": "no such file"}]);
        for (status, body, expected) in [
            (200, json!({"TaskState": "Running"}), Ended::Unknown),
            (200, json!({"TaskState": "Completed", "TaskStatus": "OK"}), Ended::Done),
            (
                200,
                json!({"TaskState": "Completed", "TaskStatus": "Critical", "Messages": message}),
                failed("no such file"),
            ),
            (200, json!({"TaskState": "Exception", "Messages": message}), failed("no such file")),
            (200, json!({"TaskState": "Cancelled"}), failed("nothing more is said")),
            (202, json!({}), Ended::Unknown),
            (204, json!(null), Ended::Done),
            (400, json!({"error": {"@Message.ExtendedInfo": message}}), failed("no such file")),
            (404, json!({}), Ended::Unknown),
            (503, json!({}), Ended::Unknown),
        ] {
            let found = ended(StatusCode::from_u16(status).unwrap(), &body, str::to_owned);
            assert_eq!(found, expected, "{status} {body}");
        }
    }
}
