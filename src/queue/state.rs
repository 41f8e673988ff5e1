//! The `server_state` rows: locked, written back, told to the controller.

use std::collections::{BTreeSet, HashMap};

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::many::{filled, groups, marks, times};
use super::state_row::{Column, Json, Locked};
use super::{QueueError, handled_token, inventory, machine, now_ms};
use crate::job::{Known, Problem, ReadThrough, Reading, ServerUid};

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
    /// The same, with the address and login through which it was asked.
    Through(ReadThrough, Box<Report>),
}

impl Report {
    /// The report of a BMC that was asked through this.
    #[must_use]
    pub fn through(self, through: Option<ReadThrough>) -> Self {
        match (self, through) {
            (Self::Nothing, _) => Self::Nothing,
            (report, Some(through)) => Self::Through(through, Box::new(report)),
            (report, None) => report,
        }
    }
}

/// Whether the controller is told of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tell {
    /// Status may change: the row enters the feed.
    Controller,
    /// Only the version is raised, so that decisions made on the old one are refused.
    Nobody,
}

/// Reads what is known from a row selected with `server_state.*` and `inventory.content AS inventory`.
pub(super) fn read(row: &MySqlRow) -> Result<Known, QueueError> {
    let uid = ServerUid(row.try_get("server_uid")?);
    let (power, inventory): (Option<String>, Option<String>) =
        (row.try_get("reading")?, row.try_get("inventory")?);
    Ok(Known {
        version: row.try_get("version")?,
        reading: inventory::reading(uid.as_str(), power.as_deref(), inventory.as_deref())?,
        read_through: row.try_get::<Option<String>, _>("read_through")?.map(ReadThrough),
        last_good_read_ms: row.try_get("last_good_read_ms")?,
        last_try_ms: row.try_get("last_try_ms")?,
        unanswered: Json::read(row, Column::Unanswered)?.get(&uid)?,
        handled: Json::read(row, Column::Handled)?.get(&uid)?.unwrap_or_default(),
        contents: Json::read(row, Column::Contents)?.get(&uid)?,
        debt: Json::read(row, Column::Debt)?.get(&uid)?,
        failure: Json::read(row, Column::Failure)?.get(&uid)?,
        last_job: Json::read(row, Column::LastJob)?.get(&uid)?,
        claimed_address: row.try_get("claimed_address")?,
        refusal: Json::read(row, Column::Refusal)?.get(&uid)?,
        reconcile_request: Json::read(row, Column::ReconcileRequest)?.get(&uid)?,
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
             contents, boot_mac, debt, failure, last_job, claimed_address, refusal, machine, reconcile_request, read_through, \
             {} AS now_ms FROM server_state FORCE INDEX (PRIMARY) \
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

/// Writes locked rows back, each with its own values, and raises their versions. Columns that none of them changed are
/// left out: with all of them a row costs half as much again.
pub(super) async fn write_all(
    connection: &mut MySqlConnection,
    rows: &[Changed<'_>],
) -> Result<(), QueueError> {
    let columns: BTreeSet<Column> = rows.iter().flat_map(|row| row.locked.changed()).collect();
    if columns.is_empty() {
        for tell in [Tell::Controller, Tell::Nobody] {
            let alike: Vec<&str> =
                rows.iter().filter(|row| row.tell == tell).map(|row| row.uid.as_str()).collect();
            touch_all(connection, &alike, tell).await?;
        }
        return Ok(());
    }
    // The rows exist and are locked, so this only updates; `UPDATE` cannot give each row values of its own. A row that
    // is in the feed keeps its place there: moving it would only cost two writes of an index.
    let mut names = vec!["server_uid", "namespace", "name", "version", "changed_at_ms"];
    let mut values = vec!["?", "''", "''", "0", concat!("IF(?, ", now_ms!(), ", NULL)")];
    let mut sets = vec![
        "version = version + 1".to_owned(),
        "changed_at_ms = COALESCE(changed_at_ms, VALUES(changed_at_ms))".to_owned(),
    ];
    for name in columns.iter().map(|column| column.name()) {
        names.push(name);
        values.push("?");
        sets.push(format!("{name} = VALUES({name})"));
    }
    if !columns.contains(&Column::Handled) {
        // The one column without a default.
        names.push(Column::Handled.name());
        values.push("''");
    }
    let row = format!("({})", values.join(", "));
    for group in groups(rows) {
        let text = format!(
            "INSERT INTO server_state ({}) VALUES {} ON DUPLICATE KEY UPDATE {}",
            names.join(", "),
            times(&row, group.len(), ", "),
            sets.join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for Changed { uid, locked, tell } in group {
            query = query.bind(uid.as_str()).bind(*tell == Tell::Controller);
            for column in &columns {
                query = locked.bind(*column, query);
            }
        }
        query.execute(&mut *connection).await?;
    }
    let news: Vec<(&ServerUid, &str)> =
        rows.iter().filter_map(|row| Some((row.uid, row.locked.new_inventory()?))).collect();
    inventory::write_all(connection, &news).await?;
    let locked: Vec<(&ServerUid, &Locked)> = rows.iter().map(|row| (row.uid, &row.locked)).collect();
    handled_token::write_all(connection, &locked).await?;
    machine::write_all(connection, &locked).await
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
    /// The request for a look that the worker read before, where it read the object.
    pub asked: Option<&'a str>,
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
        let news = locked.absorb(change.uid, change.report)? | locked.heed(change.uid, change.asked)?;
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
