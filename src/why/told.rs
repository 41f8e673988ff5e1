//! Events, as much of them as is shown.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde::Deserialize;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Told {
    /// When it was told last.
    pub at: Timestamp,
    /// `Normal` or `Warning`.
    pub kind: String,
    /// Its reason.
    pub reason: String,
    /// What it says.
    pub note: String,
    /// How often it was told.
    pub times: i32,
}

impl Told {
    /// An event as the API server has it, whoever wrote it in whichever version.
    pub fn from_event(event: Event) -> Self {
        let series = event.series.as_ref();
        let at = series
            .and_then(|series| series.last_observed_time.as_ref().map(|time| time.0))
            .or_else(|| event.last_timestamp.as_ref().map(|time| time.0))
            .or_else(|| event.event_time.as_ref().map(|time| time.0))
            .or_else(|| event.metadata.creation_timestamp.as_ref().map(|time| time.0))
            .unwrap_or(Timestamp::UNIX_EPOCH);
        let times = series.and_then(|series| series.count).or(event.count).unwrap_or(1);
        Self {
            at,
            kind: event.type_.unwrap_or_default(),
            reason: event.reason.unwrap_or_default(),
            note: event.message.unwrap_or_default(),
            times: times.max(1),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_the_last_one_that_is_there() {
        let read = |json: serde_json::Value| Told::from_event(serde_json::from_value(json).unwrap());
        let object = serde_json::json!({"kind": "Server", "name": "a"});
        let new = read(serde_json::json!({
            "metadata": {"creationTimestamp": "2026-11-18T11:00:00Z"}, "involvedObject": object,
            "eventTime": "2026-11-18T11:00:01.000000Z", "reason": "Stalled", "message": "so", "type": "Warning",
            "series": {"count": 3, "lastObservedTime": "2026-11-18T11:05:00.000000Z"}
        }));
        assert_eq!((new.at.to_string().as_str(), new.times), ("2026-11-18T11:05:00Z", 3));
        let old = read(serde_json::json!({
            "metadata": {}, "involvedObject": object, "lastTimestamp": "2026-11-18T10:00:00Z", "count": 2
        }));
        assert_eq!((old.at.to_string().as_str(), old.times), ("2026-11-18T10:00:00Z", 2));
    }
}
