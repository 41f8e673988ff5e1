//! The `server_state` row: read, changed in memory, written back under its lock.

use std::collections::HashMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::many::{filled, groups, marks, times};
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
fn text_of<T: Serialize>(value: Option<&T>) -> Option<String> {
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

/// Locks the rows of these servers, given in lock order. A server without a row is left out.
pub(super) async fn lock_all(
    connection: &mut MySqlConnection,
    uids: &[&str],
) -> Result<HashMap<String, Result<Locked, QueueError>>, QueueError> {
    let mut found = HashMap::with_capacity(uids.len());
    for group in filled(uids) {
        let text = format!(
            "SELECT server_state.*, {} AS now_ms FROM server_state FORCE INDEX (PRIMARY) WHERE server_uid IN ({}) \
             FOR UPDATE",
            now_ms!(),
            marks(group.len())
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for uid in group {
            query = query.bind(uid);
        }
        for row in query.fetch_all(&mut *connection).await? {
            let now_ms = row.try_get("now_ms")?;
            found.insert(row.try_get("server_uid")?, read(&row).map(|known| Locked { known, now_ms }));
        }
    }
    Ok(found)
}

/// Locks the row. `None`: there is no such row.
pub(super) async fn lock(
    connection: &mut MySqlConnection,
    uid: &ServerUid,
) -> Result<Option<Locked>, QueueError> {
    lock_all(connection, &[uid.as_str()]).await?.remove(uid.as_str()).transpose()
}

/// A locked row as it shall be.
pub(super) struct Changed<'a> {
    pub uid: &'a ServerUid,
    pub known: Known,
    pub tell: Tell,
}

/// Writes locked rows back, each with its own values, and raises their versions.
pub(super) async fn write_all(
    connection: &mut MySqlConnection,
    rows: &[Changed<'_>],
) -> Result<(), QueueError> {
    for group in groups(rows) {
        // The rows exist and are locked, so this only updates; `UPDATE` cannot give each row values of its own.
        let row = concat!("(?, '', '', 0, IF(?, ", now_ms!(), ", NULL), ?, ?, ?, ?, ?, ?, ?, ?, ?)");
        let text = format!(
            "INSERT INTO server_state (server_uid, namespace, name, version, changed_at_ms, reading, last_good_read_ms, \
             last_try_ms, unanswered, handled, failure, last_job, claimed_address, refusal) VALUES {} \
             ON DUPLICATE KEY UPDATE version = version + 1, \
             changed_at_ms = COALESCE(VALUES(changed_at_ms), changed_at_ms), reading = VALUES(reading), \
             last_good_read_ms = VALUES(last_good_read_ms), last_try_ms = VALUES(last_try_ms), \
             unanswered = VALUES(unanswered), handled = VALUES(handled), failure = VALUES(failure), \
             last_job = VALUES(last_job), claimed_address = VALUES(claimed_address), refusal = VALUES(refusal)",
            times(row, group.len(), ", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for Changed { uid, known, tell } in group {
            query = query
                .bind(uid.as_str())
                .bind(*tell == Tell::Controller)
                .bind(text_of(known.reading.as_ref()))
                .bind(known.last_good_read_ms)
                .bind(known.last_try_ms)
                .bind(text_of(known.unanswered.as_ref()))
                .bind(text_of(Some(&known.handled)))
                .bind(text_of(known.failure.as_ref()))
                .bind(text_of(known.last_job.as_ref()))
                .bind(&known.claimed_address)
                .bind(text_of(known.refusal.as_ref()));
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Writes a locked row back and raises its version.
pub(super) async fn write(
    connection: &mut MySqlConnection,
    uid: &ServerUid,
    known: &Known,
    tell: Tell,
) -> Result<(), QueueError> {
    write_all(connection, &[Changed { uid, known: known.clone(), tell }]).await
}

/// What a worker's write means for what is known of its server.
pub(super) struct Change<'a> {
    pub uid: &'a ServerUid,
    pub report: &'a Report,
    /// Whom to tell if the report is no news.
    pub at_least: Tell,
}

/// Takes in the reports of several writes, given in lock order. Rows without a report are not read.
pub(super) async fn change_all(
    connection: &mut MySqlConnection,
    changes: &[Change<'_>],
    now_ms: i64,
) -> Result<(), QueueError> {
    let reported: Vec<&Change<'_>> =
        changes.iter().filter(|change| *change.report != Report::Nothing).collect();
    let uids: Vec<&str> = reported.iter().map(|change| change.uid.as_str()).collect();
    let mut locked = lock_all(connection, &uids).await?;
    let mut rows = Vec::with_capacity(reported.len());
    for change in reported {
        let Some(locked) = locked.remove(change.uid.as_str()) else { continue };
        let mut known = locked?.known;
        let news = absorb(&mut known, change.report, now_ms);
        let tell = if news { Tell::Controller } else { change.at_least };
        rows.push(Changed { uid: change.uid, known, tell });
    }
    write_all(connection, &rows).await?;
    for tell in [Tell::Controller, Tell::Nobody] {
        let silent =
            changes.iter().filter(|change| *change.report == Report::Nothing && change.at_least == tell);
        let uids: Vec<&str> = silent.map(|change| change.uid.as_str()).collect();
        touch_all(connection, &uids, tell).await?;
    }
    Ok(())
}

/// The database's clock.
pub(super) async fn clock(connection: &mut MySqlConnection) -> Result<i64, QueueError> {
    Ok(sqlx::query_scalar(concat!("SELECT ", now_ms!())).fetch_one(connection).await?)
}

/// Raises versions without changing anything else, in lock order.
pub(super) async fn touch_all(
    connection: &mut MySqlConnection,
    uids: &[&str],
    tell: Tell,
) -> Result<(), QueueError> {
    for group in filled(uids) {
        let told = match tell {
            Tell::Controller => concat!(", changed_at_ms = ", now_ms!()),
            Tell::Nobody => "",
        };
        let text = format!(
            "UPDATE server_state FORCE INDEX (PRIMARY) SET version = version + 1{told} WHERE server_uid IN ({})",
            marks(group.len())
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for uid in group {
            query = query.bind(uid);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Raises the version without changing anything else.
pub(super) async fn touch(
    connection: &mut MySqlConnection,
    uid: &ServerUid,
    tell: Tell,
) -> Result<(), QueueError> {
    touch_all(connection, &[uid.as_str()], tell).await
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
