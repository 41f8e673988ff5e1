//! The `server_state` row: read, changed in memory, written back under its lock.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};

use super::{QueueError, now_ms};
use crate::job::{Known, Problem, Reading, ServerUid, Unanswered};

/// What a worker learned about a machine since its last write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Report {
    /// The BMC was not asked.
    #[default]
    Nothing,
    /// A good reading.
    Good(Box<Reading>),
    /// The BMC gave no good reading.
    Unanswered(Problem),
}

/// Whether the controller is told of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tell {
    /// Status may change: the row enters the feed.
    Controller,
    /// Only the version is raised, so that decisions made on the old one are refused.
    Nobody,
}

fn parse<T: DeserializeOwned>(
    uid: &str,
    column: &'static str,
    text: Option<String>,
) -> Result<Option<T>, QueueError> {
    text.map(|text| {
        serde_json::from_str(&text).map_err(|_| QueueError::unknown("server_state", uid, column, &text))
    })
    .transpose()
}

/// Plain data always serialises; the empty text that stands for the impossible case does not parse and is noticed.
fn text<T: Serialize>(value: Option<&T>) -> Option<String> {
    value.map(|value| serde_json::to_string(value).unwrap_or_default())
}

/// Reads what is known from a row selected with `server_state.*`.
pub(super) fn read(row: &MySqlRow) -> Result<Known, QueueError> {
    let uid: String = row.try_get("server_uid")?;
    Ok(Known {
        version: row.try_get("version")?,
        reading: parse(&uid, "reading", row.try_get("reading")?)?,
        last_good_read_ms: row.try_get("last_good_read_ms")?,
        last_try_ms: row.try_get("last_try_ms")?,
        unanswered: parse(&uid, "unanswered", row.try_get("unanswered")?)?,
        handled: parse(&uid, "handled", row.try_get("handled")?)?.unwrap_or_default(),
        failure: parse(&uid, "failure", row.try_get("failure")?)?,
        last_job: parse(&uid, "last_job", row.try_get("last_job")?)?,
        claimed_address: row.try_get("claimed_address")?,
        refusal: parse(&uid, "refusal", row.try_get("refusal")?)?,
    })
}

/// What is known of a server under its row lock, and the database's time.
pub(super) struct Locked {
    pub known: Known,
    pub now_ms: i64,
}

/// Locks the row. `None`: there is no such row.
pub(super) async fn lock(
    connection: &mut MySqlConnection,
    uid: &ServerUid,
) -> Result<Option<Locked>, QueueError> {
    let row = sqlx::query(concat!(
        "SELECT server_state.*, ",
        now_ms!(),
        " AS now_ms FROM server_state WHERE server_uid = ? FOR UPDATE"
    ))
    .bind(uid.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok(Locked { known: read(&row)?, now_ms: row.try_get("now_ms")? })).transpose()
}

/// Writes a changed row back and raises its version.
pub(super) async fn write(
    connection: &mut MySqlConnection,
    uid: &ServerUid,
    known: &Known,
    tell: Tell,
) -> Result<(), QueueError> {
    sqlx::query(concat!(
        "UPDATE server_state SET version = version + 1, changed_at_ms = IF(?, ",
        now_ms!(),
        ", changed_at_ms), reading = ?, last_good_read_ms = ?, last_try_ms = ?, unanswered = ?, handled = ?, \
         failure = ?, last_job = ?, claimed_address = ?, refusal = ? WHERE server_uid = ?"
    ))
    .bind(tell == Tell::Controller)
    .bind(text(known.reading.as_ref()))
    .bind(known.last_good_read_ms)
    .bind(known.last_try_ms)
    .bind(text(known.unanswered.as_ref()))
    .bind(text(Some(&known.handled)))
    .bind(text(known.failure.as_ref()))
    .bind(text(known.last_job.as_ref()))
    .bind(&known.claimed_address)
    .bind(text(known.refusal.as_ref()))
    .bind(uid.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

/// Raises the version without changing anything else.
pub(super) async fn touch(
    connection: &mut MySqlConnection,
    uid: &ServerUid,
    tell: Tell,
) -> Result<(), QueueError> {
    sqlx::query(concat!(
        "UPDATE server_state SET version = version + 1, changed_at_ms = IF(?, ",
        now_ms!(),
        ", changed_at_ms) WHERE server_uid = ?"
    ))
    .bind(tell == Tell::Controller)
    .bind(uid.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

/// Puts a worker's report into what is known. Returns whether anything but a timestamp changed.
pub(super) fn absorb(known: &mut Known, report: &Report, now_ms: i64) -> bool {
    match report {
        Report::Nothing => false,
        Report::Good(reading) => {
            let changed = known.reading.as_ref() != Some(reading.as_ref()) || known.unanswered.is_some();
            known.reading = Some(reading.as_ref().clone());
            known.unanswered = None;
            known.last_good_read_ms = Some(now_ms);
            known.last_try_ms = Some(now_ms);
            changed
        }
        Report::Unanswered(problem) => {
            known.last_try_ms = Some(now_ms);
            let since_ms = known.unanswered.as_ref().map_or(now_ms, |before| before.since_ms);
            let changed =
                known.unanswered.as_ref().map(|before| before.problem.reason) != Some(problem.reason);
            if changed {
                known.unanswered = Some(Unanswered { problem: problem.clone(), since_ms });
            }
            changed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Reason;
    use crate::api::hardware::{Hardware, HardwareIdentity, PowerState};

    fn reading(power: PowerState) -> Report {
        Report::Good(Box::new(Reading {
            power,
            identity: HardwareIdentity::default(),
            hardware: Hardware::default(),
            last_reset_time: None,
        }))
    }

    #[test]
    fn the_same_reading_again_only_touches_the_timestamps() {
        let mut known = Known::default();
        assert!(absorb(&mut known, &reading(PowerState::PoweredOn), 1));
        assert!(!absorb(&mut known, &reading(PowerState::PoweredOn), 2));
        assert_eq!(known.last_good_read_ms, Some(2));
        assert!(absorb(&mut known, &reading(PowerState::PoweredOff), 3));
    }

    #[test]
    fn silence_keeps_the_time_since_when_it_lasts() {
        let mut known = Known::default();
        let problem = Problem::new(Reason::Unreachable, "no route");
        assert!(absorb(&mut known, &Report::Unanswered(problem.clone()), 5));
        assert!(!absorb(&mut known, &Report::Unanswered(problem), 9));
        assert_eq!(known.unanswered.map(|silence| silence.since_ms), Some(5));
        assert_eq!(known.last_try_ms, Some(9));
    }
}
