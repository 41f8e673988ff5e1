//! Letting a `Server` go: its record and its claims, and the wake-up of those who were refused because of them.

use sqlx::{MySqlConnection, Row};

use super::state;
use super::transaction::{Ending, Pass, Transaction};
use super::{Queue, QueueError, now_ms};
use crate::job::ServerUid;

/// What became of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// Nothing of the server is left but its history.
    Released,
    /// A job of it is still live: nothing was changed.
    StillLive,
}

struct Release {
    uid: ServerUid,
}

/// Those who were refused because of `uid`, by a plain read: they are locked together with the row of `uid`, before
/// its claims.
async fn refused_by(connection: &mut MySqlConnection, uid: &ServerUid) -> Result<Vec<String>, QueueError> {
    let rows = sqlx::query_scalar(
        "SELECT server_state.server_uid FROM bmc_claim JOIN server_state ON server_state.refused_host = bmc_claim.host \
         WHERE bmc_claim.server_uid = ? AND server_state.server_uid <> bmc_claim.server_uid",
    )
    .bind(uid.as_str())
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// Has a refused server decided on again.
pub(super) async fn forgive(connection: &mut MySqlConnection, uid: &str) -> Result<(), QueueError> {
    sqlx::query(concat!(
        "UPDATE server_state SET version = version + 1, changed_at_ms = COALESCE(changed_at_ms, ",
        now_ms!(),
        "), refusal = NULL, refused_host = NULL WHERE server_uid = ?"
    ))
    .bind(uid)
    .execute(connection)
    .await?;
    Ok(())
}

impl Transaction for Release {
    type Output = Released;
    const NAME: &'static str = "release";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<Released>, QueueError> {
        // The state row first keeps enqueues out: theirs fails on it when this is through. A job that is being
        // enqueued right now makes this wait, and is seen.
        let known = state::lock(connection, &self.uid).await?;
        let live: Option<i64> = sqlx::query_scalar("SELECT id FROM job WHERE server_uid = ?")
            .bind(self.uid.as_str())
            .fetch_optional(&mut *connection)
            .await?;
        if live.is_some() {
            return Ok(Ending::Rollback(Released::StillLive));
        }
        if known.is_some() {
            for statement in [
                "DELETE FROM server_state WHERE server_uid = ?",
                "DELETE FROM inventory WHERE server_uid = ?",
                "DELETE FROM handled_token WHERE server_uid = ?",
            ] {
                sqlx::query(statement).bind(self.uid.as_str()).execute(&mut *connection).await?;
            }
        }
        for refused in refused_by(connection, &self.uid).await? {
            forgive(connection, &refused).await?;
        }
        let rows = sqlx::query(
            "SELECT host, bmc_system FROM bmc_claim WHERE server_uid = ? ORDER BY host, bmc_system",
        )
        .bind(self.uid.as_str())
        .fetch_all(&mut *connection)
        .await?;
        for row in &rows {
            sqlx::query("DELETE FROM bmc_claim WHERE host = ? AND bmc_system = ? AND server_uid = ?")
                .bind(row.try_get::<String, _>("host")?)
                .bind(row.try_get::<String, _>("bmc_system")?)
                .bind(self.uid.as_str())
                .execute(&mut *connection)
                .await?;
        }
        Ok(Ending::Commit(Released::Released))
    }
}

impl Queue {
    /// Forgets a server that has no live job: its state and its claims go in one transaction, which also wakes those
    /// who were refused because of it. One that is being refused at this very moment is found by the next call of
    /// [`Queue::forgive_orphans`].
    pub async fn release(&self, uid: &ServerUid) -> Result<Released, QueueError> {
        self.transact(Release { uid: uid.clone() }).await
    }

    /// Wakes up to `at_most` servers whose refusal names a host that nobody claims any more; returns how many. Called
    /// now and then by the leading controller.
    pub async fn forgive_orphans(&self, at_most: u32) -> Result<u32, QueueError> {
        let orphans: Vec<String> = sqlx::query_scalar(
            "SELECT server_uid FROM server_state WHERE refused_host > '' \
             AND NOT EXISTS (SELECT 1 FROM bmc_claim WHERE bmc_claim.host = server_state.refused_host) LIMIT ?",
        )
        .bind(at_most)
        .fetch_all(self.pool())
        .await?;
        let mut connection = self.pool().acquire().await?;
        for uid in &orphans {
            forgive(&mut connection, uid).await?;
        }
        Ok(orphans.len() as u32)
    }
}
