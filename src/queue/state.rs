//! The `server_state` row: read, changed in memory, written back under its lock.

use std::collections::HashMap;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::many::{filled, groups, marks, times};
use super::{QueueError, inventory, now_ms};
use crate::job::{
    ClaimRefusal, FinishedJob, HandledTokens, Known, Problem, Reading, ServerUid, StoredFailure, Unanswered,
};

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

/// A column that holds JSON, read only where it is needed.
pub(super) struct Json<T> {
    column: &'static str,
    text: Option<String>,
    of: PhantomData<T>,
}

impl<T: DeserializeOwned + Serialize> Json<T> {
    fn read(row: &MySqlRow, column: &'static str) -> Result<Self, QueueError> {
        Ok(Self { column, text: row.try_get(column)?, of: PhantomData })
    }

    pub(super) fn get(&self, uid: &ServerUid) -> Result<Option<T>, QueueError> {
        let Some(text) = &self.text else { return Ok(None) };
        match serde_json::from_str(text) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(QueueError::unknown("server_state", uid.as_str(), self.column, text)),
        }
    }

    /// Plain data always serialises; the empty text that stands for the impossible case does not parse and is noticed.
    pub(super) fn set(&mut self, value: Option<&T>) {
        self.text = value.map(|value| serde_json::to_string(value).unwrap_or_default());
    }

    pub(super) fn is_set(&self) -> bool {
        self.text.is_some()
    }
}

/// What is known of a server under its row lock, and the database's time.
pub(super) struct Locked {
    pub version: i64,
    power: Option<String>,
    inventory_hash: Option<i64>,
    new_inventory: Option<String>,
    last_good_read_ms: Option<i64>,
    last_try_ms: Option<i64>,
    unanswered: Json<Unanswered>,
    pub handled: Json<HandledTokens>,
    pub failure: Json<StoredFailure>,
    pub last_job: Json<FinishedJob>,
    pub claimed_address: Option<String>,
    pub refusal: Json<ClaimRefusal>,
    pub now_ms: i64,
}

impl Locked {
    fn read(row: &MySqlRow) -> Result<Self, QueueError> {
        Ok(Self {
            version: row.try_get("version")?,
            power: row.try_get("reading")?,
            inventory_hash: row.try_get("inventory_hash")?,
            new_inventory: None,
            last_good_read_ms: row.try_get("last_good_read_ms")?,
            last_try_ms: row.try_get("last_try_ms")?,
            unanswered: Json::read(row, "unanswered")?,
            handled: Json::read(row, "handled")?,
            failure: Json::read(row, "failure")?,
            last_job: Json::read(row, "last_job")?,
            claimed_address: row.try_get("claimed_address")?,
            refusal: Json::read(row, "refusal")?,
            now_ms: row.try_get("now_ms")?,
        })
    }

    /// Counts a reboot token as handled.
    pub(super) fn record_reboot(&mut self, uid: &ServerUid, token: &str) -> Result<(), QueueError> {
        let mut handled = self.handled.get(uid)?.unwrap_or_default();
        handled.record_reboot(token);
        self.handled.set(Some(&handled));
        Ok(())
    }

    /// Puts a worker's report into what is known. Returns whether anything but a timestamp changed.
    pub(super) fn absorb(&mut self, uid: &ServerUid, report: &Report) -> Result<bool, QueueError> {
        match report {
            Report::Nothing => Ok(false),
            Report::Good(reading) => {
                let parts = inventory::parts(reading);
                let other = self.inventory_hash != Some(parts.inventory_hash);
                let changed =
                    other || self.power.as_deref() != Some(&parts.power) || self.unanswered.is_set();
                if other {
                    self.inventory_hash = Some(parts.inventory_hash);
                    self.new_inventory = Some(parts.inventory);
                }
                self.power = Some(parts.power);
                self.unanswered.set(None);
                self.last_good_read_ms = Some(self.now_ms);
                self.last_try_ms = Some(self.now_ms);
                Ok(changed)
            }
            Report::Unanswered(problem) => {
                self.last_try_ms = Some(self.now_ms);
                let before = self.unanswered.get(uid)?;
                let changed = before.as_ref().map(|before| before.problem.reason) != Some(problem.reason);
                if changed {
                    let since_ms = before.map_or(self.now_ms, |before| before.since_ms);
                    self.unanswered.set(Some(&Unanswered { problem: problem.clone(), since_ms }));
                }
                Ok(changed)
            }
        }
    }
}

/// Reads what is known from a row selected with `server_state.*` and `inventory.content AS inventory`.
pub(super) fn read(row: &MySqlRow) -> Result<Known, QueueError> {
    let uid = ServerUid(row.try_get("server_uid")?);
    let (power, inventory): (Option<String>, Option<String>) =
        (row.try_get("reading")?, row.try_get("inventory")?);
    Ok(Known {
        version: row.try_get("version")?,
        reading: inventory::reading(uid.as_str(), power.as_deref(), inventory.as_deref())?,
        last_good_read_ms: row.try_get("last_good_read_ms")?,
        last_try_ms: row.try_get("last_try_ms")?,
        unanswered: Json::read(row, "unanswered")?.get(&uid)?,
        handled: Json::read(row, "handled")?.get(&uid)?.unwrap_or_default(),
        failure: Json::read(row, "failure")?.get(&uid)?,
        last_job: Json::read(row, "last_job")?.get(&uid)?,
        claimed_address: row.try_get("claimed_address")?,
        refusal: Json::read(row, "refusal")?.get(&uid)?,
    })
}

/// Locks the rows of these servers, given in lock order. A server without a row is left out.
pub(super) async fn lock_all(
    connection: &mut MySqlConnection,
    uids: &[&str],
) -> Result<HashMap<String, Locked>, QueueError> {
    let mut found = HashMap::with_capacity(uids.len());
    for group in filled(uids) {
        let text = format!(
            "SELECT server_uid, version, reading, inventory_hash, last_good_read_ms, last_try_ms, unanswered, handled, \
             failure, last_job, claimed_address, refusal, {} AS now_ms FROM server_state FORCE INDEX (PRIMARY) \
             WHERE server_uid IN ({}) FOR UPDATE",
            now_ms!(),
            marks(group.len())
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for uid in group {
            query = query.bind(uid);
        }
        for row in query.fetch_all(&mut *connection).await? {
            found.insert(row.try_get("server_uid")?, Locked::read(&row)?);
        }
    }
    Ok(found)
}

/// Locks the row. `None`: there is no such row.
pub(super) async fn lock(
    connection: &mut MySqlConnection,
    uid: &ServerUid,
) -> Result<Option<Locked>, QueueError> {
    Ok(lock_all(connection, &[uid.as_str()]).await?.remove(uid.as_str()))
}

/// A locked row as it shall be.
pub(super) struct Changed<'a> {
    pub uid: &'a ServerUid,
    pub locked: Locked,
    pub tell: Tell,
}

/// Writes locked rows back, each with its own values, and raises their versions.
pub(super) async fn write_all(
    connection: &mut MySqlConnection,
    rows: &[Changed<'_>],
) -> Result<(), QueueError> {
    for group in groups(rows) {
        // The rows exist and are locked, so this only updates; `UPDATE` cannot give each row values of its own. A row
        // that is in the feed keeps its place there: moving it would only cost two writes of an index.
        let row = concat!("(?, '', '', 0, IF(?, ", now_ms!(), ", NULL), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
        let text = format!(
            "INSERT INTO server_state (server_uid, namespace, name, version, changed_at_ms, reading, inventory_hash, \
             last_good_read_ms, last_try_ms, unanswered, handled, failure, last_job, claimed_address, refusal) VALUES {} \
             ON DUPLICATE KEY UPDATE version = version + 1, \
             changed_at_ms = COALESCE(changed_at_ms, VALUES(changed_at_ms)), reading = VALUES(reading), \
             inventory_hash = VALUES(inventory_hash), last_good_read_ms = VALUES(last_good_read_ms), \
             last_try_ms = VALUES(last_try_ms), unanswered = VALUES(unanswered), handled = VALUES(handled), \
             failure = VALUES(failure), last_job = VALUES(last_job), claimed_address = VALUES(claimed_address), \
             refusal = VALUES(refusal)",
            times(row, group.len(), ", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for Changed { uid, locked, tell } in group {
            query = query
                .bind(uid.as_str())
                .bind(*tell == Tell::Controller)
                .bind(&locked.power)
                .bind(locked.inventory_hash)
                .bind(locked.last_good_read_ms)
                .bind(locked.last_try_ms)
                .bind(&locked.unanswered.text)
                .bind(locked.handled.text.as_deref().unwrap_or_default())
                .bind(&locked.failure.text)
                .bind(&locked.last_job.text)
                .bind(&locked.claimed_address)
                .bind(&locked.refusal.text);
        }
        query.execute(&mut *connection).await?;
    }
    let news: Vec<(&ServerUid, &str)> =
        rows.iter().filter_map(|row| Some((row.uid, row.locked.new_inventory.as_deref()?))).collect();
    inventory::write_all(connection, &news).await
}

/// Writes a locked row back and raises its version.
pub(super) async fn write(
    connection: &mut MySqlConnection,
    uid: &ServerUid,
    locked: Locked,
    tell: Tell,
) -> Result<(), QueueError> {
    write_all(connection, &[Changed { uid, locked, tell }]).await
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
) -> Result<(), QueueError> {
    let reported: Vec<&Change<'_>> =
        changes.iter().filter(|change| *change.report != Report::Nothing).collect();
    let uids: Vec<&str> = reported.iter().map(|change| change.uid.as_str()).collect();
    let mut locked = lock_all(connection, &uids).await?;
    let mut rows = Vec::with_capacity(reported.len());
    for change in reported {
        let Some(mut locked) = locked.remove(change.uid.as_str()) else { continue };
        let news = locked.absorb(change.uid, change.report)?;
        let tell = if news { Tell::Controller } else { change.at_least };
        rows.push(Changed { uid: change.uid, locked, tell });
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
            Tell::Controller => concat!(", changed_at_ms = COALESCE(changed_at_ms, ", now_ms!(), ")"),
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

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::api::Reason;
    use crate::api::hardware::{Hardware, HardwareIdentity, PowerState};

    fn locked() -> Locked {
        fn empty<T>() -> Json<T> {
            Json { column: "", text: None, of: PhantomData }
        }
        Locked {
            version: 1,
            power: None,
            inventory_hash: None,
            new_inventory: None,
            last_good_read_ms: None,
            last_try_ms: None,
            unanswered: empty(),
            handled: empty(),
            failure: empty(),
            last_job: empty(),
            claimed_address: None,
            refusal: empty(),
            now_ms: 0,
        }
    }

    fn at(locked: &mut Locked, now_ms: i64, report: &Report) -> bool {
        locked.now_ms = now_ms;
        locked.absorb(&ServerUid("a".to_owned()), report).unwrap()
    }

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
        let mut known = locked();
        assert!(at(&mut known, 1, &reading(PowerState::PoweredOn)));
        assert!(known.new_inventory.take().is_some());
        assert!(!at(&mut known, 2, &reading(PowerState::PoweredOn)));
        assert_eq!(known.last_good_read_ms, Some(2));
        assert!(at(&mut known, 3, &reading(PowerState::PoweredOff)));
        assert_eq!(known.new_inventory, None, "the inventory is the same");
    }

    #[test]
    fn silence_keeps_the_time_since_when_it_lasts() {
        let mut known = locked();
        let problem = Problem::new(Reason::Unreachable, "no route");
        assert!(at(&mut known, 5, &Report::Unanswered(problem.clone())));
        assert!(!at(&mut known, 9, &Report::Unanswered(problem)));
        let silence = known.unanswered.get(&ServerUid("a".to_owned())).unwrap();
        assert_eq!(silence.map(|silence| silence.since_ms), Some(5));
        assert_eq!(known.last_try_ms, Some(9));
    }

    #[test]
    fn a_reading_comes_back_from_its_two_parts() {
        let Report::Good(reading) = reading(PowerState::PoweredOff) else { return };
        let parts = inventory::parts(&reading);
        let back = inventory::reading("a", Some(&parts.power), Some(&parts.inventory)).unwrap();
        assert_eq!(back, Some(*reading));
    }
}
