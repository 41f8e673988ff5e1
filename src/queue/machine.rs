//! What is known of machines, by their hardware identity: it outlives the `Server` under which it was learned, so that a
//! machine which comes back under another one is neither installed again nor brought back to life by itself.

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::many::{groups, times};
use super::state_row::Locked;
use super::transaction::{Ending, Pass, Transaction};
use super::{Queue, QueueError, now_ms, state};
use crate::api::Reason;
use crate::job::{Contents, EndedMachine, ServerUid};

/// A machine as it identifies itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineKey {
    /// The identity by which it is recorded: `hw:uuid:…` or `hw:serial:…`.
    pub identity: String,
    /// What people call it by: its serial number, or its UUID.
    pub serial_number: String,
}

/// A record.
struct Record {
    uid: String,
    contents: Contents,
}

async fn lock(connection: &mut MySqlConnection, identity: &str) -> Result<Option<Record>, QueueError> {
    let row = sqlx::query("SELECT server_uid, contents FROM machine WHERE identity = ? FOR UPDATE")
        .bind(identity)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let text: String = row.try_get("contents")?;
    let contents = serde_json::from_str(&text)
        .map_err(|_| QueueError::unknown("machine", identity, "contents", &text))?;
    Ok(Some(Record { uid: row.try_get("server_uid")?, contents }))
}

/// What comes of a machine's first answer to a server.
pub(super) enum Met {
    /// Nothing was recorded, or it was put into the locked row.
    Known,
    /// Its life ended under another server.
    Ended(EndedMachine),
}

/// Compares what a server knows of its machine with the machine's own record.
pub(super) async fn meet(
    connection: &mut MySqlConnection,
    uid: &ServerUid,
    key: &MachineKey,
    locked: &mut Locked,
) -> Result<Met, QueueError> {
    if locked.machine.get().as_deref() == Some(&key.identity) {
        return Ok(Met::Known);
    }
    let record = lock(connection, &key.identity).await?;
    let own = locked.contents.get(uid)?;
    let ours = record.as_ref().is_some_and(|record| record.uid == uid.as_str());
    if let (Some(Record { contents: Contents::Decommissioned { .. }, .. }), false) = (&record, ours) {
        let (identity, serial_number) = (key.identity.clone(), key.serial_number.clone());
        return Ok(Met::Ended(EndedMachine { identity, serial_number }));
    }
    let recorded =
        record.map(|record| if ours { record.contents } else { Contents::taken_over(record.contents) });
    // An earlier release recorded nodes of one board by their serial number alone.
    let is_refined =
        |before: &str| key.identity.strip_prefix(before).is_some_and(|rest| rest.starts_with(":system:"));
    let other_machine = locked.machine.get().as_deref().is_some_and(|before| !is_refined(before));
    let contents = match (own, recorded) {
        // What was known is another machine's: of this one nobody can say that it is blank.
        (_, recorded) if other_machine => {
            Some(recorded.unwrap_or(Contents::Foreign { since_ms: locked.now_ms }))
        }
        (None | Some(Contents::Foreign { .. }), Some(recorded)) => Some(recorded),
        (Some(own), Some(recorded)) if recorded.since_ms() > own.since_ms() => Some(recorded),
        (own, _) => own,
    };
    locked.contents.set(contents.as_ref());
    locked.machine.set(Some(key.identity.clone()));
    Ok(Met::Known)
}

/// Writes the records of machines whose servers' rows are locked and were just written.
pub(super) async fn write_all(
    connection: &mut MySqlConnection,
    rows: &[(&ServerUid, &Locked)],
) -> Result<(), QueueError> {
    let mut news: Vec<(&str, &str, &str)> = rows
        .iter()
        .filter_map(|(uid, locked)| {
            let (machine, contents) = locked.machine_news()?;
            Some((machine, uid.as_str(), contents))
        })
        .collect();
    // In lock order.
    news.sort_unstable();
    for group in groups(&news) {
        let text = format!(
            "INSERT INTO machine (identity, server_uid, contents, changed_at_ms) VALUES {} ON DUPLICATE KEY UPDATE \
             server_uid = VALUES(server_uid), contents = VALUES(contents), changed_at_ms = VALUES(changed_at_ms)",
            times(concat!("(?, ?, ?, ", now_ms!(), ")"), group.len(), ", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for (machine, uid, contents) in group {
            query = query.bind(*machine).bind(*uid).bind(*contents);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

struct Recommission {
    uid: ServerUid,
}

impl Transaction for Recommission {
    type Output = bool;
    const NAME: &'static str = "recommission";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<bool>, QueueError> {
        let Some(mut locked) = state::lock(connection, &self.uid).await? else {
            return Ok(Ending::Rollback(false));
        };
        let refusal = locked.refusal.get(&self.uid)?;
        let Some(machine) = refusal.filter(|refusal| refusal.reason == Reason::MachineDecommissioned) else {
            return Ok(Ending::Rollback(false));
        };
        let Some(machine) = machine.machine else { return Ok(Ending::Rollback(false)) };
        // Its disks are still empty, unless somebody used it meanwhile: then it is seen running.
        let wiped = Contents::Wiped { since_ms: locked.now_ms };
        sqlx::query(concat!(
            "UPDATE machine SET contents = ?, server_uid = ?, changed_at_ms = ",
            now_ms!(),
            " WHERE identity = ?"
        ))
        .bind(serde_json::to_string(&wiped).unwrap_or_default())
        .bind(self.uid.as_str())
        .bind(&machine.identity)
        .execute(&mut *connection)
        .await?;
        locked.refusal.set(None);
        state::write(connection, &self.uid, locked, state::Tell::Controller).await?;
        Ok(Ending::Commit(true))
    }
}

impl Queue {
    /// Brings the machine back into service for whose ended life this server was refused. `false`: it was not refused for
    /// that; look again.
    pub async fn recommission(&self, uid: &ServerUid) -> Result<bool, QueueError> {
        self.transact(Recommission { uid: uid.clone() }).await
    }
}
