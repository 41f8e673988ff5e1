//! Jobs of namespaces that no controller can list after another history: nobody can derive them, so nobody claims them, and
//! those of all other namespaces do not wait for them.
//!
//! Such a job is parked at an order key to which no clock comes. What the controller does to a job brings it back, as it does
//! any that is parked; it does that once it has derived it (`controller/reconcile.rs`), whenever the namespace can be listed.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::{MySqlConnection, Row};

use super::history::Underived;
use super::state::{Tell, touch};
use super::transaction::{Ending, Pass, Transaction};
use super::{PlaceInQueue, Queue, QueueError};
use crate::job::ServerUid;

/// Order keys from here on, among those of parked jobs, are no times: 146 million years after 1970.
pub(super) const HELD_BACK: i64 = 1 << 62;

/// Whether a job in this place is held back.
pub(super) fn is_held_back(place: Option<(PlaceInQueue, i64)>) -> bool {
    place.is_some_and(|(place, ord)| place == PlaceInQueue::Parked && ord >= HELD_BACK)
}

struct HoldBack {
    mark: Underived,
    uid: ServerUid,
    id: i64,
}

impl Transaction for HoldBack {
    type Output = bool;
    const NAME: &'static str = "hold_back";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<bool>, QueueError> {
        // Held to the end: while the mark is there nobody claims, so what has an owner is of an incarnation that is over.
        let mark: Option<String> =
            sqlx::query_scalar("SELECT value FROM meta WHERE name = 'histories' LOCK IN SHARE MODE")
                .fetch_optional(&mut *connection)
                .await?;
        if mark.as_ref() != Some(&self.mark.0) {
            return Ok(Ending::Rollback(false));
        }
        let place = |row: &sqlx::mysql::MySqlRow| -> Result<(Option<i64>, Option<i64>), QueueError> {
            Ok((row.try_get("q_state")?, row.try_get("q_ord")?))
        };
        let seen = sqlx::query("SELECT site, shard, q_state, q_ord FROM job WHERE server_uid = ? AND id = ?")
            .bind(self.uid.as_str())
            .bind(self.id)
            .fetch_optional(&mut *connection)
            .await?;
        let Some(seen) = seen else { return Ok(Ending::Rollback(false)) };
        let (site, shard): (String, i64) = (seen.try_get("site")?, seen.try_get("shard")?);
        let before = place(&seen)?;
        if let (Some(state), Some(ord)) = before {
            let gone = sqlx::query(
                "DELETE FROM queue WHERE site = ? AND shard = ? AND state = ? AND ord = ? AND id = ?",
            )
            .bind(&site)
            .bind(shard)
            .bind(state)
            .bind(ord)
            .bind(self.id)
            .execute(&mut *connection)
            .await?;
            if gone.rows_affected() == 0 {
                return Err(QueueError::Busy);
            }
        }
        // Read by its key alone: whatever else another release has written there stays as it is.
        let row = sqlx::query(
            "SELECT q_state, q_ord, order_ms, cancel FROM job WHERE server_uid = ? AND id = ? FOR UPDATE",
        )
        .bind(self.uid.as_str())
        .bind(self.id)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = row else { return Ok(Ending::Rollback(false)) };
        if place(&row)? != before {
            return Err(QueueError::Busy);
        }
        if row.try_get::<Option<String>, _>("cancel")?.is_some() {
            return Ok(Ending::Rollback(false));
        }
        let ord = HELD_BACK + row.try_get::<i64, _>("order_ms")?.max(0);
        sqlx::query(
            "UPDATE job SET owner = NULL, token = NULL, revision = revision + 1, q_state = ?, q_ord = ? WHERE server_uid = ?",
        )
        .bind(PlaceInQueue::Parked.code())
        .bind(ord)
        .bind(self.uid.as_str())
        .execute(&mut *connection)
        .await?;
        // It is in the feed until its Server can be looked at.
        touch(connection, &self.uid, Tell::Controller).await?;
        sqlx::query("INSERT INTO queue (site, shard, state, ord, id, server_uid) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(&site)
            .bind(shard)
            .bind(PlaceInQueue::Parked.code())
            .bind(ord)
            .bind(self.id)
            .bind(self.uid.as_str())
            .execute(connection)
            .await?;
        Ok(Ending::Commit(true))
    }
}

impl Queue {
    /// Holds back every live job of these namespaces whose server is not among `derived`, as long as the mark is there; those
    /// that were asked to stop are left: they do nothing but undo. Returns how many were held back. [`QueueError::Busy`]: try
    /// again.
    pub async fn hold_back(
        &self,
        mark: &Underived,
        namespaces: &[String],
        derived: Arc<HashSet<ServerUid>>,
    ) -> Result<u32, QueueError> {
        if namespaces.is_empty() {
            return Ok(0);
        }
        let mut count = 0;
        for row in sqlx::query(LEFT).bind(HELD_BACK).fetch_all(self.pool()).await? {
            let (uid, namespace) =
                (ServerUid(row.try_get("server_uid")?), row.try_get::<String, _>("namespace")?);
            if namespaces.contains(&namespace) && !derived.contains(&uid) {
                let hold = HoldBack { mark: mark.clone(), uid, id: row.try_get("id")? };
                count += u32::from(self.transact(hold).await?);
            }
        }
        Ok(count)
    }
}

/// The live jobs that have to be derived before anybody claims.
pub(super) const LEFT: &str = "SELECT server_uid, id, namespace, name FROM job WHERE cancel IS NULL AND \
                               NOT (q_state IS NOT NULL AND q_state = 3 AND q_ord >= ?)";
