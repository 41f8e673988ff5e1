//! What the controller decides on: one plain read.

use sqlx::Row;

use super::row::JobRow;
use super::{Queue, QueueError, now_ms, state};
use crate::job::{Known, LiveJob, ServerUid, Visibility};

/// What the database says about one server, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// `None`: the server was never registered, or its row was lost.
    pub known: Option<Known>,
    /// The live job.
    pub job: Option<LiveJob>,
    /// Whether status shows that job.
    pub visibility: Visibility,
}

impl Queue {
    /// Reads what is known and the live job in one non-locking statement, which both engines answer from one
    /// snapshot.
    pub async fn observe(&self, uid: &ServerUid) -> Result<Seen, QueueError> {
        // Both tables have a server_uid; `read` takes the first one, and the join makes them equal.
        let row = sqlx::query(
            "SELECT job.*, server_state.*, job.id IS NOT NULL AS has_job, server_state.server_uid AS server_uid \
             FROM server_state LEFT JOIN job ON job.server_uid = server_state.server_uid \
             WHERE server_state.server_uid = ?",
        )
        .bind(uid.as_str())
        .fetch_optional(self.pool())
        .await?;
        let Some(row) = row else { return Ok(Seen::default()) };
        let known = Some(state::read(&row)?);
        if row.try_get::<i64, _>("has_job")? == 0 {
            return Ok(Seen { known, ..Seen::default() });
        }
        let job = JobRow::read(&row)?;
        let visibility = if job.quiet { Visibility::Quiet } else { Visibility::Shown };
        Ok(Seen { known, visibility, job: Some(job.live) })
    }

    /// The database's clock: milliseconds since the Unix epoch. Deadlines of steps are judged by it, so that they do
    /// not depend on which host runs the step.
    pub async fn now_ms(&self) -> Result<i64, QueueError> {
        Ok(sqlx::query_scalar(concat!("SELECT ", now_ms!())).fetch_one(self.pool()).await?)
    }
}
